"""Translate the training text by a checkpoint, and make a data folder of gold pairs and the best of the translations.

Several hypotheses of every sentence are scored against its gold translation; the nearest one, where it is near enough,
becomes a further pair. OUT/data is a folder for every command and criterion: all of --data, and in its training set
the chosen pairs after the gold ones. OUT/hypotheses keeps all hypotheses. Run again, it resumes; with another
--min-score, --pick or --share it chooses again, without translating.
"""

import argparse
from typing import Any, List

from gift_fairseq import runs
from gift_fairseq.cli import options as shared
from gift_fairseq.errors import UserError, check_above
from gift_fairseq.io import say
from gift_fairseq.own_translations.origin import Origin
from gift_fairseq.training.launch import processes_of

CHOOSING = ("min_score", "pick", "share")  # what does not change a translation


def add_options(parser: argparse.ArgumentParser) -> None:
    shared.add_from(parser)
    shared.add_data(parser, "a data folder of fairseq-preprocess; prepare makes one")
    shared.add_out(parser, "where everything goes")
    parser.add_argument(
        "--sentences", type=shared.whole(1), metavar="N", help="translate so many, taken at random; default: all"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--beam", type=shared.whole(1), default=4, metavar="N", help="hypotheses: the N best of a beam")
    how.add_argument("--sample", type=shared.whole(2), metavar="N", help="the greedy one and N - 1 that are sampled")
    parser.add_argument(
        "--temperature",
        type=shared.number_above(0),
        default=1.0,
        metavar="X",
        help="of --sample: divisor of the logits before the softmax, above 0",
    )
    parser.add_argument(
        "--score",
        choices=("bleu", "chrf", "mean"),
        default="mean",
        help="sentence-level score by sacreBLEU: bleu, chrf, or their mean",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        default=40,
        metavar="X",
        help="lowest score of a translation that is chosen, 0 to 100",
    )
    parser.add_argument(
        "--length-tolerance",
        type=float,
        default=0.25,
        metavar="X",
        help="largest allowed difference from the gold length, as a fraction of it (tokens), from 0 to 1",
    )
    parser.add_argument(
        "--pick",
        choices=("best", "random", "first"),
        default="best",
        help="which of the translations that reach --min-score and have an allowed length is chosen: the one with the "
        "highest score; one at random; or the most probable (of --sample: the greedy) one",
    )
    parser.add_argument(
        "--share",
        type=float,
        default=0.5,
        metavar="X",
        help="fraction of the training pairs in OUT/data that are chosen translations, above 0, below 1; they are "
        "repeated as needed",
    )
    shared.add_max_tokens(parser)
    shared.add_precision(parser)
    shared.add_seed(parser)
    shared.add_gpus(parser)


def proposing_of(options: argparse.Namespace) -> Any:
    """The ``propose.Proposing`` of ``options``; :class:`UserError` where one of them has no meaning."""
    from gift_fairseq.own_translations import propose
    from gift_fairseq.prefixes.best import Choice

    origin = Origin.of(options.data)
    if origin:
        raise UserError(f"--data is {options.data}, which has own translations already: it was made from {origin.data}")
    more = sorted(path.name for path in options.data.glob("train1.*.idx"))
    if more:  # fairseq joins them in training
        raise UserError(
            f"--data is {options.data}, whose training text goes on in {more[0]}, but it must be in one file: binarize "
            "it with one --trainpref"
        )
    check_above("--share", options.share, 0)
    if options.share >= 1:
        raise UserError(f"--share is {options.share:g}, but must be below 1: the gold pairs stay")
    if options.sample is None and options.temperature != 1:
        raise UserError(f"--temperature is {options.temperature:g}, but nothing is sampled: add --sample")
    what = propose.Proposing(
        options.data.resolve(),
        options.start.resolve(),
        propose.ProposingConfig(
            candidates=options.sample or options.beam,
            candidates_from="sample" if options.sample else "beam",
            choose="sample" if options.sample else "argmax",
            temperature=options.temperature,
            risk_cost=options.score,
            min_score=options.min_score,
            length_tolerance=options.length_tolerance,
            pick=options.pick,
            rollout_dtype="model" if options.precision == "fp32" else options.precision,
        ),
        options.seed,
    )
    Choice(what.cfg)
    return what


def run(options: argparse.Namespace, flags: List[str]) -> None:
    processes, _ = processes_of(options)
    from gift_fairseq.checkpoints.files import digest_of
    from gift_fairseq.own_translations import choose, propose

    what = proposing_of(options)
    settings = runs.settings_of(options, ["out", "gpus", *CHOOSING])
    settings[runs.CONTENT] = digest_of(options.start.resolve())
    hypotheses, data = options.out / "hypotheses", options.out / "data"
    runs.check_replaceable(options.out, ["data"], "candidates", "translate")
    with runs.begin(options.out, {"command": "candidates", "settings": settings, **runs.provenance()}) as begun:
        begun.stage(
            "translate", lambda: propose.propose(what, hypotheses, options.max_tokens, options.sentences, processes)
        )
        if not choose.is_chosen(what, data, options.share, options.sentences):
            chosen = choose.choose(what, hypotheses, data, options.share, options.sentences)
            say(
                f"of {chosen.sentences} sentences {chosen.near} have one that is near enough, with a mean score of "
                f"{chosen.score:.1f} (all hypotheses: {chosen.score_of_all:.1f}) and {chosen.length:.3f} of the gold "
                "length"
            )
    say(f"the data is {data}")
