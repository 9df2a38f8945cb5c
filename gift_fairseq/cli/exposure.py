"""Measure exposure bias: how far free-running translation is from teacher-forced, position by position.

Writes RUN/exposure/TESTSET.json and prints a line for each.
"""

import argparse
import json
from typing import List

from gift_fairseq.cli import options as shared
from gift_fairseq.io import quiet, say, write_whole


def add_options(parser: argparse.ArgumentParser) -> None:
    shared.add_data(parser)
    parser.add_argument("--positions", type=shared.whole(1), default=50, metavar="N", help="length of the curves")
    shared.add_max_tokens(parser)
    parser.add_argument("--cpu", action="store_true", help="no GPU even where there is one")
    shared.add_evaluated(parser)


def run(options: argparse.Namespace, flags: List[str]) -> None:
    sets, runs = shared.sets_of(options), shared.runs_of(options)
    from gift_fairseq.evaluation import exposure
    from gift_fairseq.evaluation.translate import Translator

    shared.check_checkpoints(runs)
    for checkpoint, run in runs.items():
        within = checkpoint.relative_to(run.folder) if run.folder in checkpoint.parents else checkpoint.name
        with quiet():
            translator = Translator(options.data, checkpoint, ["--cpu"] if options.cpu else [])
            for name, subset in sets.items():
                say(f"measuring exposure bias on {name} of {run.folder.name}")
                found = exposure.measure(translator, name, subset, options.positions, options.max_tokens)
                found = {"checkpoint": str(within), "updates": translator.updates, **found}
                text = json.dumps(found, indent=1, allow_nan=False) + "\n"
                run.exposures.mkdir(parents=True, exist_ok=True)
                write_whole(str(run.exposure(name)), text)
                print(f"{run.folder.name}\t{name}\t{exposure.summary(found)}", flush=True)
