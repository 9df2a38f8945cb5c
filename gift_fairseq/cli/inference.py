"""Translate raw text: stdin to stdout, a line for a line; at a terminal every line is answered at once.

Text is cut as prepare cut the training text of the data folder, and the translation put together again.
"""

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import List

from gift_fairseq.cli import options as shared
from gift_fairseq.data.segmentation import decode_line
from gift_fairseq.errors import UserError
from gift_fairseq.io import quiet

FLAGS_OF = "fairseq-generate"


def add_options(parser: argparse.ArgumentParser) -> None:
    shared.add_data(parser)
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="FILE", help="a model trained on that data")
    shared.add_beam(parser, ("beam", "greedy"))
    parser.add_argument(
        "--nbest",
        type=shared.whole(1),
        default=1,
        metavar="N",
        help="hypotheses a line, at most the beam size; above 1, each as: line number, score, text, with tabs between",
    )
    parser.add_argument(
        "--buffer",
        type=shared.whole(1),
        metavar="N",
        help="lines that are translated together; default: 1 at a terminal, otherwise 256",
    )


def run(options: argparse.Namespace, flags: List[str]) -> None:
    beam = options.beam if options.search == "beam" else 1
    if options.nbest > beam:
        raise UserError(f"--nbest is {options.nbest}, but must not be above the beam size, {beam}")
    from gift_fairseq.evaluation.translate import Translator

    size, number = options.buffer or (1 if sys.stdin.isatty() else 256), 0
    with quiet():
        translator = Translator(options.data, options.checkpoint, flags, "--checkpoint")
        while lines := list(islice(sys.stdin.buffer, size)):
            texts = [decode_line(line, f"line {i}") for i, line in enumerate(lines, number + 1)]
            for hypotheses in translator.translate(texts, beam, options.nbest, number + 1):
                number += 1
                for score, text in hypotheses:
                    print(f"{number}\t{score:.4f}\t{text}" if options.nbest > 1 else text)
            sys.stdout.flush()
