"""Write the mean of checkpoints: the last one given, with its model replaced by the mean of all."""

import argparse
from pathlib import Path
from typing import List

from gift_fairseq.cli import options as shared
from gift_fairseq.errors import UserError
from gift_fairseq.io import say


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the checkpoint to write")
    parser.add_argument(
        "--last", type=shared.whole(1), metavar="N", help="average the newest N epochs of the one folder given"
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT", help="a file; with --last, a folder")


def run(options: argparse.Namespace, flags: List[str]) -> None:
    from gift_fairseq.checkpoints.average import last_epochs, write_average

    paths = options.checkpoints
    if options.last is not None:
        if len(paths) > 1 or not paths[0].is_dir():
            raise UserError(f"CHECKPOINT is {' '.join(map(str, paths))}, but with --last it must be one folder")
        paths = last_epochs(paths[0], options.last)
    write_average(paths, options.out)
    say(f"{options.out} is the mean of {', '.join(path.name for path in paths)}")
