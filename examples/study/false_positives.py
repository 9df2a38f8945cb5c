"""How often each test calls a strategy different from itself: over runs that differ in nothing but the seed.

RUN... are fine-tunings by one strategy, scored, each with another seed. Two tests are asked:

- over sentences: sacreBLEU's paired test of every two of the runs, which says whether two *systems* differ;
- over seeds: ten of the runs are taken at random, five as the strategy and five as its control, paired at random; the t
  test of the five differences, as reports make it, says whether two *strategies* differ. Repeated 10,000 times.

The share of p-values below 0.05 is printed for both. It should be 5 % for a claim about strategies.
"""

import itertools
import random
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import List

from gift_fairseq.cli import options as shared
from gift_fairseq.errors import UserError, one_sentence
from gift_fairseq.evaluation import significance
from gift_fairseq.io import progress
from gift_fairseq.report.runs import Run, read_run
from gift_fairseq.report.systems import group

SEEDS = 5
TRIALS = 10_000


def over_seeds(scores: List[float], trials: int = TRIALS) -> float:
    """The share of ``trials`` in which SEEDS of ``scores`` differ significantly from SEEDS others."""
    draw, found = random.Random(1), 0
    for _ in range(trials):
        taken = draw.sample(scores, 2 * SEEDS)
        differences = [one - other for one, other in zip(taken[:SEEDS], taken[SEEDS:])]
        found += significance.over_seeds(differences).p < significance.LEVEL
    return found / trials


def over_sentences(runs: List[Run], column: str) -> float:
    """The share of all pairs of ``runs`` whose outputs differ significantly."""
    pairs = list(itertools.combinations(runs, 2))
    found, references = 0, runs[0].references(column)
    with progress(len(pairs), "testing", "pairs") as bar:
        for one, other in pairs:
            _, compared = significance.compare(one.hypotheses(column), other.hypotheses(column), references)
            found += compared.p < significance.LEVEL
            bar.update(1)
    return found / len(pairs)


def main(arguments: List[str]) -> None:
    parser = shared.Parser(prog="python examples/study/false_positives.py", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, ten or more")
    parser.add_argument(
        "--column", default="test_2016_flickr.greedy", metavar="TESTSET.SEARCH", help="what is compared"
    )
    options = parser.parse_args(arguments)
    runs = [read_run(folder) for folder in options.runs]
    check(runs, options.column)
    scores = [run.scores[options.column].bleu for run in runs]
    print(f"{options.column}, {len(runs)} seeds: {fmean(scores):.2f} BLEU (sd {stdev(scores):.2f})")
    print(f"over seeds, {SEEDS} and {SEEDS}, {TRIALS} times: {over_seeds(scores):.1%} below 0.05")
    print(f"over sentences, all pairs: {over_sentences(runs, options.column):.1%} below 0.05")


def check(runs: List[Run], column: str) -> None:
    """:class:`UserError` unless ``runs`` are scored, differ in the seed alone, and are enough."""
    for run in runs:
        if column not in run.scores:
            raise UserError(f"{run.folder} has no scores of {column}" + (f": {run.reason}" if run.reason else ""))
    systems = group(runs)
    if len(systems) > 1:
        one, other = (system.runs[0].folder for system in systems[:2])
        raise UserError(f"{other} differs from {one} in more than the seed")
    if len({run.seed for run in runs}) < max(len(runs), 2 * SEEDS):
        raise UserError(f"there must be {2 * SEEDS} runs or more, each with a seed of its own")


if __name__ == "__main__":
    with one_sentence("false_positives.py"):
        main(sys.argv[1:])
