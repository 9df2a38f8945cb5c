"""The options that several commands have, each in one place, and how they are parsed."""

import argparse
import math
import re
import shlex
from pathlib import Path
from typing import Callable, Dict, Iterable, List, NoReturn, Tuple

from gift_fairseq.data import testsets
from gift_fairseq.errors import UserError
from gift_fairseq.runs import RunFolder, run_of

STRATEGIES = ("standard", "auxiliary", "recurrent", "generative", "risk", "weighted", "consistency", "distillation")


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the lines of a docstring, and shows every default but None and False."""

    def _get_help_string(self, action):
        if action.default is None or action.nargs == 0:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are a :class:`UserError` of one sentence."""

    def __init__(self, **how):
        super().__init__(formatter_class=_Help, allow_abbrev=False, **how)

    def error(self, message: str) -> NoReturn:
        # "argument --lr: is 'x', but ..." as the types below word it, and argparse's own sentences
        message = re.sub(r"^argument ([^:]*): (is |needs )", r"\1 \2", message)
        raise UserError(f"{message}; see {self.prog} --help")


def split_flags(arguments: List[str]) -> Tuple[List[str], List[str]]:
    """What stands before ``--`` and what stands after it."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:end], arguments[end + 1 :]


def split_words(option: str, text: str) -> List[str]:
    """The words of ``text`` as a shell takes them apart; :class:`UserError` where a quote is not closed."""
    try:
        return shlex.split(text)
    except ValueError:
        raise UserError(f"{option} is {text!r}, but every quote and backslash in it must be closed") from None


def whole(least: int) -> Callable[[str], int]:
    """The type of a whole number that is ``least`` or more."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?\d+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"is {text!r}, but must be a whole number, {least} or more")
        return int(text)

    return parse


def number_above(bound: float) -> Callable[[str], float]:
    """The type of a finite number above ``bound``."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not bound < value < math.inf:
            raise argparse.ArgumentTypeError(f"is {text!r}, but must be a number above {bound:g}")
        return value

    return parse


def whole_numbers(text: str) -> List[int]:
    """The type of several seeds in one word, ``"1 2 3"``."""
    if not re.fullmatch(r"\s*\d+(\s+\d+)*\s*", text):
        raise argparse.ArgumentTypeError(f"is {text!r}, but must be whole numbers with blanks between")
    numbers = [int(word) for word in text.split()]
    if len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"is {text!r}, but no number may be given twice")
    return numbers


def address(text: str) -> str:
    if not re.fullmatch(r"[^:]+:\d+", text):
        raise argparse.ArgumentTypeError(f"is {text!r}, but must be HOST:PORT")
    return text


def add_data(parser: argparse.ArgumentParser, what: str = "the data folder that prepare made") -> None:
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help=what)


def add_out(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help=what)


def add_from(
    parser: argparse.ArgumentParser,
    what: str = "the checkpoint to start from: fairseq's, trained with or without this plugin",
) -> None:
    parser.add_argument("--from", required=True, type=Path, dest="start", metavar="FILE", help=what)


def add_rate_and_updates(parser: argparse.ArgumentParser) -> None:
    """Of a fine-tuning."""
    parser.add_argument(
        "--lr",
        type=number_above(0),
        metavar="X",
        help="peak learning rate; default: 0.3 of the peak that the checkpoint was trained with",
    )
    parser.add_argument("--updates", type=whole(1), default=1200, metavar="N", help="updates of a fine-tuning")


def add_same_time(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--same-time",
        action="store_true",
        help="train a second control for the same time as the strategy instead of the same updates, by the logged "
        "seconds of updates (they mislead if the machine does other work)",
    )


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print the commands of fairseq instead of running them")


def add_average(parser: argparse.ArgumentParser, finetuning: bool = True) -> None:
    averaged = "N models spread evenly over the second half of the updates" if finetuning else "the last N epochs"
    parser.add_argument(
        "--average",
        type=whole(0),
        default=0,
        metavar="N",
        help=f"also write checkpoints/checkpoint_average.pt, the mean of {averaged}; 0: do not",
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16"),
        default="fp32",
        help="floating-point type of the arithmetic; fp16 needs a GPU; bf16 on a CPU is torch's autocast",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=whole(0), default=1, metavar="N", help="seed of all random choices, 0 or more")


def add_max_tokens(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-tokens", type=whole(1), default=4000, metavar="N", help="padded tokens of a batch")


def add_gpus(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gpus",
        type=whole(1),
        metavar="N",
        help="processes on this machine, each with a GPU of its own where there are any; default: as many as there are "
        "GPUs, or 1",
    )


def add_training(
    parser: argparse.ArgumentParser, several_machines: bool = True, seed: bool = True, finetuning: bool = True
) -> None:
    """What train, finetune and compare have in common."""
    parser.add_argument(
        "--patience", type=whole(0), default=0, metavar="N", help="stop after N validations without gain; 0: never"
    )
    add_average(parser, finetuning)
    add_precision(parser)
    if seed:
        add_seed(parser)
    add_gpus(parser)
    if several_machines:
        parser.add_argument("--nodes", type=whole(1), default=1, metavar="N", help="machines; start it on each")
        parser.add_argument("--node-rank", type=whole(0), default=0, metavar="R", help="which of them this one is")
        parser.add_argument("--master", type=address, metavar="HOST:PORT", help="where machine 0 is found")
    parser.add_argument(
        "--tensorboard", action="store_true", help="write RUN/tensorboard (needs tensorboard or tensorboardX)"
    )
    parser.add_argument("--wandb", metavar="PROJECT", help="log to Weights & Biases (needs wandb)")


def add_beam(parser: argparse.ArgumentParser, searches: Tuple[str, ...]) -> None:
    parser.add_argument("--search", choices=searches, default="beam", help="how hypotheses are found")
    parser.add_argument("--beam", type=whole(2), default=5, metavar="N", help="beam size of --search beam")


def add_evaluated(parser: argparse.ArgumentParser) -> None:
    """What evaluate and exposure have in common."""
    parser.add_argument("--testset", metavar="NAME,...", help="test sets, or valid; default: all test sets")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="RUN",
        help="where it goes; default: RUN, where the checkpoint is RUN/checkpoints/FILE.pt",
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT", help="RUN/checkpoints/FILE.pt")


def sets_of(options: argparse.Namespace) -> Dict[str, str]:
    """The names of the test sets that ``options`` ask for, with fairseq's; :class:`UserError` if there is no such."""
    names = options.testset.split(",") if options.testset else testsets.names(options.data)
    return {name: testsets.subset_of(options.data, name) for name in names}


def runs_of(options: argparse.Namespace, variants: bool = False) -> Dict[Path, RunFolder]:
    """For every checkpoint the run in whose folder its results go.

    :class:`UserError` if nothing says which it is, or two checkpoints have the same, ``variants`` of a run apart.
    """
    found: Dict[Path, RunFolder] = {}
    if options.out and len(options.checkpoints) > 1:
        raise UserError(f"--out is {options.out}, but there are {len(options.checkpoints)} checkpoints: it takes one")
    for checkpoint in options.checkpoints:
        run = RunFolder(options.out) if options.out else run_of(checkpoint)
        if run is None:
            raise UserError(
                f"CHECKPOINT is {checkpoint}, but must be RUN/checkpoints/FILE.pt, or --out name the folder"
            )
        same = [one for one, other in found.items() if other.folder == run.folder]
        if any(not variants or run.variant(one) == run.variant(checkpoint) for one in same):
            raise UserError(
                f"CHECKPOINT is {checkpoint}, but must be the only one of {run.folder}, whose results would mix"
            )
        found[checkpoint] = run
    return found


def check_checkpoints(checkpoints: Iterable[Path]) -> None:
    """:class:`UserError` unless all can be read: said before the first of them takes its time."""
    from gift_fairseq.checkpoints.files import read_checkpoint

    for checkpoint in checkpoints:
        read_checkpoint("CHECKPOINT", str(checkpoint))
