"""Translate test sets with checkpoints, and score what comes out.

Writes RUN/generate/TESTSET.SEARCH.txt, the translations, and RUN/scores.json: BLEU, chrF2 and TER by sacreBLEU, on
detokenized text, beside the checkpoint's file name, its number of updates, and the flags after --. The mean of a
fine-tuning's models (checkpoint_average.pt) is scored beside its last checkpoint, as TESTSET.SEARCH-average.
"""

import argparse
import shlex
from itertools import product
from typing import List

from gift_fairseq.cli import options as shared
from gift_fairseq.io import quiet, say, write_whole
from gift_fairseq.training.launch import PLUGIN

FLAGS_OF = "fairseq-generate"


def add_options(parser: argparse.ArgumentParser) -> None:
    shared.add_data(parser)
    shared.add_beam(parser, ("beam", "greedy", "both"))
    parser.add_argument(
        "--compound-split",
        action="store_true",
        help="also tokenized BLEU with compounds split, as the literature on WMT14 En-De reports it",
    )
    shared.add_evaluated(parser)
    shared.add_dry_run(parser)


def run(options: argparse.Namespace, flags: List[str]) -> None:
    sets, runs = shared.sets_of(options), shared.runs_of(options, variants=True)
    from gift_fairseq.evaluation import scores, translate

    beams = {"beam": [options.beam], "greedy": [1], "both": [options.beam, 1]}[options.search]
    if options.dry_run:
        words = ["fairseq-generate", *translate.generator_words(options.data), "--user-dir", str(PLUGIN), *flags]
        for checkpoint, beam, subset in product(runs, beams, sets.values()):
            print(shlex.join([*words, "--path", str(checkpoint), "--gen-subset", subset, "--beam", str(beam)]))
        return
    shared.check_checkpoints(runs)
    with quiet():
        for checkpoint, run in runs.items():
            translator = translate.Translator(options.data, checkpoint, flags)
            for (name, subset), beam in product(sets.items(), beams):
                column = f"{name}.{translate.search_name(beam)}{run.variant(checkpoint)}"
                say(f"translating {name} by {run.folder.name}, {scores.search_of(column)}")
                lines = translator.translate_set(name, subset, beam)
                run.generated.mkdir(parents=True, exist_ok=True)
                write_whole(str(run.translations(column)), "".join(line + "\n" for line in lines))
                by = checkpoint.name, shlex.join(flags), translator.updates
                score = scores.write_score(run, column, options.data, options.compound_split, *by)
                split = f", compounds split {score.compound_split_bleu:.2f}" if options.compound_split else ""
                print(f"{run.folder.name}\t{column}\t{score.bleu:.2f}{split}\t{score.signature}", flush=True)
