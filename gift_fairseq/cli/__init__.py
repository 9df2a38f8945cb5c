"""The command line, ``python -m gift_fairseq COMMAND`` or ``gift COMMAND``: one command a file.

A command is a module with ``add_options(parser)`` and ``run(options, flags)``; ``FLAGS_OF`` names the program of
fairseq whose flags it takes after ``--``. Its docstring is its help. It raises :class:`~gift_fairseq.errors.UserError`.
"""

import importlib
import logging
import os
import signal
import sys
from types import ModuleType
from typing import List, Optional

from gift_fairseq.cli.options import Parser, split_flags
from gift_fairseq.errors import UserError, one_sentence

COMMANDS = {
    "prepare": "raw parallel text to binarized data",
    "train": "train a model with fairseq-train",
    "finetune": "fine-tune a checkpoint by a strategy, and by the control beside it",
    "candidates": "own translations of the training text, the best of them added to it",
    "evaluate": "translate test sets and score them",
    "inference": "translate raw text, a line for a line",
    "exposure": "measure exposure bias",
    "compare": "fine-tune by five strategies, and report",
    "report": "tables, figures and a page of runs",
    "export": "a checkpoint for programs without this plugin",
    "average": "the mean of checkpoints",
    "benchmark": "what an update of each strategy costs",
    "gpu-check": "see on a GPU what only a GPU can show",
    "user-dir": "print the folder for fairseq's --user-dir",
}


def main(arguments: Optional[List[str]] = None) -> None:
    """Runs one command; a user's mistake ends in one sentence and status 1."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with one_sentence("gift"):
        try:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # blocks end, children stop
            os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of the processes that a command starts
            if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
                os.environ["GOMP_SPINCOUNT"] = "1000"  # before torch is imported; see scripts/README.md, Threads
            logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)  # it advertises a package
            run_command(arguments)
        except OSError as error:  # a full disk, a folder without permission; a bug would be another exception
            if error.strerror is None:
                raise
            where = f"{error.filename}: " if error.filename else ""
            raise UserError(f"{where}{error.strerror}") from None


def run_command(arguments: List[str]) -> None:
    """The command and its options in ``arguments``, as a user would type them after ``gift``."""
    listing = "\n".join(f"  {name:<11}{summary}" for name, summary in COMMANDS.items())
    top = Parser(prog="gift", description=f"Generation Improving Fine-Tuning for fairseq.\n\ncommands:\n{listing}")
    top.add_argument("command", metavar="COMMAND", help="one of the above; gift COMMAND --help says more")
    name = top.parse_args(arguments[:1]).command
    if name not in COMMANDS:
        raise UserError(f"COMMAND is {name}, but must be one of {', '.join(COMMANDS)}")
    parser, own, flags = parser_of(name), *split_flags(arguments[1:])
    module = module_of(name)
    if flags and not hasattr(module, "FLAGS_OF"):
        raise UserError(f"{flags[0]} stands after --, but {name} takes nothing there")
    module.run(parser.parse_intermixed_args(own), flags)


def module_of(name: str) -> ModuleType:
    return importlib.import_module(f"gift_fairseq.cli.{name.replace('-', '_')}")


def parser_of(name: str) -> Parser:
    """The parser of the options of a command, its help the module's docstring."""
    module = module_of(name)
    flags_of = getattr(module, "FLAGS_OF", None)
    epilog = f"Arguments after -- are passed to {flags_of}." if flags_of else None
    parser = Parser(prog=f"gift {name}", description=module.__doc__, epilog=epilog)
    module.add_options(parser)
    return parser
