"""Write a checkpoint that programs without this plugin load: plain fairseq, and CTranslate2's converter for fairseq."""

import argparse
from pathlib import Path
from typing import List

from gift_fairseq.io import quiet, say
from gift_fairseq.runs import RunFolder


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="fairseq's, with or without this plugin; or the folder of a run: its averaged checkpoint, else the last",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the file to write")


def run(options: argparse.Namespace, flags: List[str]) -> None:
    from gift_fairseq.checkpoints.export import write_export

    checkpoint = RunFolder(options.checkpoint).model() if options.checkpoint.is_dir() else options.checkpoint
    with quiet():
        write_export(checkpoint, options.out)
    say(f"{options.out} is {checkpoint} for other programs")
