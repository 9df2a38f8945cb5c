"""Whether a difference is more than chance: of a strategy, over seeds; of two given systems, over sentences.

A test over sentences says that two *systems* differ, which two seeds of one strategy do too. A claim about a *strategy*
has the seed as a random effect.
"""

from dataclasses import dataclass
from itertools import accumulate
from math import sqrt
from statistics import fmean, stdev
from typing import List, Optional, Sequence, Tuple

from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest
from scipy.special import stdtr, stdtrit

from gift_fairseq.evaluation.scores import check_counts

LEVEL = 0.05  # a p-value below it is called significant


@dataclass
class OverSeeds:
    """A mean difference, as a t interval and test over seeds say it; None where there is one seed."""

    seeds: int
    difference: float
    half_width: Optional[float] = None  # of the 95% confidence interval
    p: Optional[float] = None  # two-sided


def over_seeds(differences: Sequence[float]) -> OverSeeds:
    """Student's one-sample t test of ``differences``, one for each seed, that are 0 in the mean under the null.

    They are paired where another system with the same seed is subtracted from each.
    """
    seeds, mean = len(differences), fmean(differences)
    if seeds == 1:
        return OverSeeds(1, mean)
    error = stdev(differences) / sqrt(seeds)
    t = abs(mean) / error if error else float("inf") if mean else 0.0
    return OverSeeds(
        seeds, mean, error * float(stdtrit(seeds - 1, 1 - LEVEL / 2)), float(min(1.0, 2 * stdtr(seeds - 1, -t)))
    )


def holm(ps: Sequence[float]) -> List[float]:
    """``ps`` corrected for their number (Holm 1979): below LEVEL in any with probability LEVEL at most."""
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    steps = accumulate((min(1.0, (len(ps) - rank) * ps[index]) for rank, index in enumerate(order)), max)
    corrected = dict(zip(order, steps))
    return [corrected[index] for index in range(len(ps))]


@dataclass
class Comparison:
    """sacreBLEU's paired test of a system against another one."""

    difference: float  # in BLEU; above 0, the system is better
    p: float  # two-sided


def compare(other: List[str], hypotheses: List[str], references: List[List[str]]) -> Tuple[str, Comparison]:
    """sacreBLEU's signature of its paired approximate randomization, and ``hypotheses`` against ``other``.

    10,000 times the test swaps the outputs of the two for a random half of the sentences and asks how often BLEU then
    differs by more (Riezler and Maxwell 2005, On Some Pitfalls in Automatic Evaluation and Significance Testing for
    MT). Its null hypothesis is that the two outputs are alike on such sentences; how much another seed of training
    would change is not in it. The random seed is sacreBLEU's, which is fixed.

    One thing is added to sacreBLEU's p-value. It counts swaps with a larger difference, not those with an equal one,
    and so gives 0.0001 to two equal outputs, or to two that differ in one sentence. Where k sentences differ, swapping
    none or all of them leaves the difference as large as it was: 2^(1-k) of the swaps, which is nothing for a large k.
    """
    for lines in (other, hypotheses):
        check_counts(lines, references)
    signatures, results = PairedTest([("", other), ("", hypotheses)], {"BLEU": BLEU()}, references, test_type="ar")()
    before, after = results["BLEU"]
    differing = sum(one != two for one, two in zip(hypotheses, other))
    p = min(1.0, after.p_value + 2.0 ** (1 - differing))
    return str(signatures["BLEU"]), Comparison(after.score - before.score, p)
