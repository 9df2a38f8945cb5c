"""README's commands and flags are true."""

import re
import shlex
from pathlib import Path

import pytest
from fairseq import options
from fairseq.models import ARCH_MODEL_REGISTRY

from gift_fairseq.criterions import auxiliary, generative, recurrent, risk, standard

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("examples/*/README.md"))]
FAIRSEQ = {
    "fairseq-train": options.get_training_parser,
    "fairseq-generate": options.get_generation_parser,
}


def commands():
    """Every indented command line in the pages, its continuations joined and its comment cut off."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^ {4}((?:bash|fairseq-\w+|python) .*)$", text, flags=re.MULTILINE):
            yield page.name, shlex.split(line, comments=True)


def flags_known(parser, given):
    return {flag for flag in given if flag not in parser._option_string_actions}


@pytest.mark.parametrize("page, command", list(commands()), ids=lambda value: " ".join(value)[:60])
def test_commands(page, command, binarized):
    program, rest = command[0], command[1:]
    if program == "bash":
        recipe = ROOT / rest[0]
        assert recipe.is_file()
        own = rest[1:].index("--") + 1 if "--" in rest[1:] else len(rest)
        text = recipe.read_text()
        known = text if "PYTEST" not in text else text + "-m"
        assert all(word in known for word in rest[1:own] if re.match(r"--?[a-z]", word)), command
        flags = [word for word in rest[own + 1 :] if word.startswith("--")]
        parser = options.get_training_parser()
        ARCH_MODEL_REGISTRY["transformer_wmt_en_de"].add_args(parser)
        assert not flags_known(parser, flags)
    elif program == "python":
        source = (ROOT / (rest[1].replace(".", "/") + ".py")).read_text()
        assert rest[0] == "-m" and all(f'"{word}"' in source for word in rest[2:] if word.startswith("--"))
    elif program in FAIRSEQ:
        words = [str(binarized) if word == "DATA" else word for word in rest]
        parser = FAIRSEQ[program]()
        options.parse_args_and_arch(parser, input_args=words)  # exits on a flag that does not exist
    else:
        raise AssertionError(f"{page} has a command that no test knows: {command}")


def test_every_option_of_the_strategies_is_in_the_table():
    text = PAGES[0].read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(--[\w-]+)` \| [^|]* \| ([^|]+) \|", text, flags=re.MULTILINE))
    plain = standard.LabelSmoothedCrossEntropyCriterionConfig.__dataclass_fields__
    own = {}
    for config in (
        auxiliary.AuxiliaryConfig,
        recurrent.RecurrentConfig,
        generative.GenerativeConfig,
        risk.RiskConfig,
    ):
        for name, field in config.__dataclass_fields__.items():
            if name not in plain and name != "finetune_from_model":  # fairseq's own option, which is read
                flag = "--" + name.replace("_", "-")
                assert own.setdefault(flag, field.default) == field.default, flag  # one row for all that have it
    assert rows.pop("--eval-free-running").strip() == "off"

    def shown(default):
        return "off" if default is False else default if isinstance(default, str) else f"{default:g}"

    assert {flag: default.strip() for flag, default in rows.items()} == {
        flag: shown(default) for flag, default in own.items()
    }


def test_the_tree_is_true():
    text = PAGES[0].read_text(encoding="utf-8")
    tree = text[text.index("## The tree") : text.index("To add a strategy")]
    for name in re.findall(r"[\w/]+\.(?:py|sh)", tree):
        assert list(ROOT.rglob(name)), name
    for folder in re.findall(r"^ +([\w/]+/) ", tree, flags=re.MULTILINE):
        assert (ROOT / folder).is_dir() or (ROOT / "gift_fairseq" / folder).is_dir(), folder
    modules = {path.name for path in (ROOT / "gift_fairseq").glob("*.py")}
    assert all(module in tree for module in modules)


def test_no_path_of_a_machine_is_in_the_project():
    pattern = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/\w")
    for page in [*PAGES, *ROOT.glob("scripts/*.sh"), *ROOT.glob("examples/*/*.sh"), *ROOT.glob("gift_fairseq/**/*.py")]:
        assert not pattern.search(page.read_text(encoding="utf-8")), page
