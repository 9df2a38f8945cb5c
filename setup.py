"""Installs gift_fairseq; ``bash scripts/setup_env.sh`` does that with everything before it."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="gift_fairseq",
    version="0.1.0",
    description="Generation Improving Fine-Tuning: a fairseq plugin",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.9",
    packages=find_packages(include=["gift_fairseq", "gift_fairseq.*"]),
    package_data={"gift_fairseq.report": ["page.html", "page.css", "page.js"]},
    entry_points={"console_scripts": ["gift = gift_fairseq.cli:main"]},
    # and torch 2.6 or newer and fairseq, which an environment has or scripts/setup_env.sh puts there: naming them here
    # would replace a build of them that a user chose
    install_requires=[
        "matplotlib>=3.7",
        "psutil>=5.9",
        "sacrebleu>=2.3",
        "sacremoses>=0.1",
        "scipy>=1.10",
        "sentencepiece>=0.1.99",
        "subword-nmt>=0.3.8",
        "tqdm>=4.60",
    ],
    extras_require={"dev": ["ctranslate2>=4.6", "hypothesis>=6.80", "pytest>=7.4", "pytest-xdist>=3.8", "ruff>=0.4"]},
)
