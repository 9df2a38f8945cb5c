"""Report on runs, from their folders alone: tables, figures, samples, and a page that holds them all.

Writes OUT/index.html (opens from disk, needs no network), results.md, results.json, results.csv, and every figure as
plots/NAME.png and plots/NAME.svg. Runs that differ in nothing but the seed are one row, with mean and spread.
"""

import argparse
from pathlib import Path
from typing import List

from gift_fairseq.cli import options as shared
from gift_fairseq.io import quiet, say


def add_options(parser: argparse.ArgumentParser) -> None:
    shared.add_out(parser, "folder of the report")
    parser.add_argument(
        "--testset", metavar="NAME,...", help="test sets, or valid; default: all test sets of the fine-tunings"
    )
    parser.add_argument(
        "--control",
        type=Path,
        metavar="RUN",
        help="one of RUN: all other runs are compared with it and its other seeds; default: the fine-tunings by "
        "standard",
    )
    parser.add_argument("--title", default="Fine-tuning strategies compared", metavar="TEXT", help="title of the page")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a run; one that is not finished appears as such"
    )


def run(options: argparse.Namespace, flags: List[str]) -> None:
    from gift_fairseq.report.folder import write_report

    with quiet():
        testsets = [name.strip() for name in options.testset.split(",")] if options.testset else []
        warnings = write_report(options.out, options.title, options.runs, testsets, options.control)
    for line in warnings:
        say(line)
    say(f"the report is {options.out / 'index.html'}")
