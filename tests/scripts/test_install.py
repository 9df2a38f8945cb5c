"""The built wheel, installed into an environment that has fairseq, by pip and without a network."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from conftest import PLUGIN, ROOT, TRANSFORMER

pytestmark = pytest.mark.cli
NEVER_REPLACED = {"torch", "fairseq", "fairseq-fixed", "hydra-core", "omegaconf"}
OTHERS = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def called(*words, **how):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, env=OTHERS, **how)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools leaves a folder behind in what it builds."""
    folder = tmp_path_factory.mktemp("build")
    shutil.copytree(PLUGIN, folder / "project" / PLUGIN.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "project")
    called(*(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder),
           folder / "project")  # fmt: skip
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_what_the_commands_need(wheel):
    with zipfile.ZipFile(wheel) as inside:
        names = {name for name in inside.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in inside.namelist() if name.endswith("/METADATA"))
        wanted = Parser().parsestr(inside.read(metadata).decode()).get_all("Requires-Dist")
    there = {
        path.relative_to(ROOT).as_posix()
        for path in PLUGIN.rglob("*")
        if path.suffix in (".py", ".html", ".css", ".js")
    }
    assert names == there
    assert not {line.split(";")[0].rstrip("=<>.0123456789 ").lower() for line in wanted} & NEVER_REPLACED


def test_it_trains_from_any_folder_and_replaces_nothing(wheel, binarized, tmp_path):
    """The environment sees all packages of this one but the project itself."""
    called(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    python, has = tmp_path / "env/bin/python", tmp_path / "has"
    has.mkdir()
    for package in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "gift_fairseq" not in package.name:
            (has / package.name).symlink_to(package)
    (own,) = (tmp_path / "env/lib").glob("python*/site-packages")
    (own / "has.pth").write_text(f"{has}\n")
    said = called(python, "-m", "pip", "install", "--no-index", wheel)  # and nothing beside it
    assert "Successfully installed gift_fairseq-0.1.0\n" in said.replace("-fairseq", "_fairseq")
    assert {path.name.split("-")[0] for path in own.iterdir()} == {"has.pth", "gift_fairseq"}
    plugin = called(tmp_path / "env/bin/gift", "user-dir", cwd=tmp_path).strip()
    assert Path(plugin) == (own / "gift_fairseq").resolve()
    flags = f"--task gift_translation {TRANSFORMER} --criterion gift_recurrent --optimizer adam --cpu --max-update 2"
    words = [*flags.split(), *"--max-tokens 200 --num-workers 0 --save-dir saved".split()]
    called(python, "-m", "fairseq_cli.train", binarized, "--user-dir", plugin, *words, cwd=tmp_path)
    assert (tmp_path / "saved/checkpoint_last.pt").is_file()
