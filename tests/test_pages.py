"""The pages' commands and flags are true."""

import re
import shlex
from dataclasses import fields

import pytest
from conftest import ROOT
from fairseq import options
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.optim.lr_scheduler import LR_SCHEDULER_DATACLASS_REGISTRY

import gift_fairseq.criterions
import gift_fairseq.tasks.gift_translation  # noqa: F401  registers the strategies and the task
from gift_fairseq.cli import COMMANDS, parser_of
from gift_fairseq.cli.options import split_flags
from gift_fairseq.metrics import OTHERS, RATIOS

STRATEGIES = ROOT / "gift_fairseq" / "criterions" / "README.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("*/**/README.md"))]
PAGES = [page for page in PAGES if ".venv" not in page.parts]
FAIRSEQ = {"fairseq-train": options.get_training_parser, "fairseq-generate": options.get_generation_parser}


def commands():
    """Every indented command line in the pages, its continuations joined and its comment cut off."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        text = text.replace('"$(python -m gift_fairseq user-dir)"', "gift_fairseq")
        text = re.sub(r"^ {4}[A-Z_]+=\d+ ", "    ", text, flags=re.MULTILINE)  # a variable for one command
        for line in re.findall(r"^ {4}((?:bash|fairseq-\w+|[\w./]*python|gift|pip) .*)$", text, flags=re.MULTILINE):
            words = [word for word in shlex.split(line, comments=True) if word[0] not in "<>"]  # no redirections
            yield page.relative_to(ROOT).as_posix(), words


def check_flags_of_training(flags):
    parser = options.get_training_parser()
    ARCH_MODEL_REGISTRY["transformer_wmt_en_de"].add_args(parser)
    known = set(parser._option_string_actions)
    if "--lr-scheduler" in flags:
        scheduler = LR_SCHEDULER_DATACLASS_REGISTRY[flags[flags.index("--lr-scheduler") + 1]]
        known |= {"--" + field.name.replace("_", "-") for field in fields(scheduler)}
    assert not {word for word in flags if word.startswith("--")} - known


def check_command(words):
    """A command of the project: its parser takes the options."""
    own, flags = split_flags(words[1:])
    parser_of(words[0]).parse_intermixed_args(own)
    if words[0] in ("train", "finetune", "compare"):
        check_flags_of_training(flags)


@pytest.mark.parametrize("page, command", list(commands()), ids=str)
def test_commands(page, command, binarized):
    program, rest = command[0], command[1:]
    if program == "bash" and (ROOT / rest[0]).stem in COMMANDS:
        check_command([(ROOT / rest[0]).stem, *rest[1:]])
    elif (ROOT / rest[0]).is_file():
        known = (ROOT / rest[0]).read_text() + parser_of("compare").format_help() + "-m"  # -m is pytest's
        own, flags = split_flags(rest[1:])
        assert all(word.split("=")[0] in known for word in own if re.match(r"--?[a-z]", word)), command
        check_flags_of_training(flags)
    elif program.endswith("python"):
        assert rest[:2] == ["-m", "gift_fairseq"]
        check_command(rest[2:])
    elif program == "pip":
        assert rest == ["install", "."] and (ROOT / "setup.py").is_file()
    elif program in FAIRSEQ:
        words = [str(binarized) if word == "DATA" else word for word in rest]
        options.parse_args_and_arch(FAIRSEQ[program](), input_args=words)  # exits on a flag that does not exist
    else:
        raise AssertionError(f"{page} has a command that no test knows: {command}")


def flag_table():
    """The table of all flags, as the dataclasses have them."""
    plain = {field.name for field in fields(LabelSmoothedCrossEntropyCriterionConfig)}
    found = {}
    for name in sorted(name for name in CRITERION_DATACLASS_REGISTRY if name.startswith("gift_")):
        for field in fields(CRITERION_DATACLASS_REGISTRY[name]):
            if field.name not in plain and not str(field.default).startswith("${"):  # fairseq's own, which is read
                first, of = found.setdefault(field.name, (field, []))
                assert (first.default, first.metadata["help"]) == (field.default, field.metadata["help"])
                of.append(name.replace("gift_", ""))
    rows = ["| flag | of | default | meaning |", "|---|---|---|---|"]
    for name, (field, of) in sorted(found.items(), key=lambda item: (-len(item[1][1]), item[1][1], item[0])):
        default = field.default
        default = "off" if default is False else f"{default:g}" if isinstance(default, float) else default
        meaning, given = field.metadata["help"].replace("%%", "%").rsplit("; default: ", 1)
        assert given.split(",")[0] == str(default), name
        rows.append(f"| `--{name.replace('_', '-')}` | {', '.join(of)} | {default} | {meaning} |")
    return "\n".join(rows)


def logged_table():
    found = {**{ratio.name: ratio.meaning for ratio in RATIOS.values()}, **OTHERS}
    return "\n".join(["| name | meaning |", "|---|---|", *(f"| `{name}` | {found[name]} |" for name in sorted(found))])


@pytest.mark.parametrize("table", [flag_table, logged_table])
def test_the_tables_of_the_strategies_are_those_of_the_code(table):
    assert table() in STRATEGIES.read_text(encoding="utf-8"), table()


def test_every_command_and_recipe_is_in_the_page():
    text = (ROOT / "scripts" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in COMMANDS)
    assert all(f"`{path.name}`" in text for path in ROOT.glob("scripts/*.sh") if path.name != "common.sh")


def test_the_tree_is_true():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = text[text.index("## The tree") : text.index("## Where a line belongs")]
    for name in re.findall(r"\w+\.(?:py|sh)", tree):
        assert list(ROOT.rglob(name)), name
    entries = {entry.rstrip("/") for entry in re.findall(r"^ {6}([\w.]+/?)", tree, flags=re.MULTILINE)}
    there = {path.name for path in (ROOT / "gift_fairseq").iterdir() if path.name != "__pycache__"}
    assert entries == there


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page, target)


def test_no_path_of_a_machine_is_in_the_project():
    pattern = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/\w")
    for page in [*PAGES, *ROOT.glob("scripts/*.sh"), *ROOT.glob("examples/*/*.*"), *ROOT.glob("gift_fairseq/**/*.py")]:
        if page.suffix != ".png":
            assert not pattern.search(page.read_text(encoding="utf-8")), page
