"""Whether two runs differ on a test set by more than chance: sacreBLEU's paired approximate randomization."""

from dataclasses import dataclass
from typing import Dict, List, Mapping, Tuple

from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from gift_fairseq.evaluation.scores import check_counts

LEVEL = 0.05  # a p-value below it is called significant


@dataclass
class Comparison:
    """A paired test of a system against another one."""

    difference: float  # in BLEU; above 0, the system is better
    p: float  # two-sided


def compare(
    baseline: List[str], systems: Mapping[str, List[str]], references: List[List[str]]
) -> Tuple[str, Dict[str, Comparison]]:
    """sacreBLEU's signature of the test, and each of ``systems`` against ``baseline``.

    10,000 times the test swaps the outputs of the two for a random half of the sentences and asks how often BLEU then
    differs by more (Riezler and Maxwell 2005, On Some Pitfalls in Automatic Evaluation and Significance Testing for
    MT). Its null hypothesis is that the two outputs are alike on such sentences; how much another seed of training
    would change is not in it. The random seed is sacreBLEU's, which is fixed.

    One thing is added to sacreBLEU's p-value. It counts swaps with a larger difference, not those with an equal one,
    and so gives 0.0001 to two equal outputs, or to two that differ in one sentence. Where k sentences differ, swapping
    none or all of them leaves the difference as large as it was: 2^(1-k) of the swaps, which is nothing for a large k.
    """
    for hypotheses in (baseline, *systems.values()):
        check_counts(hypotheses, references)
    test = PairedTest([("", baseline), *systems.items()], {"BLEU": BLEU()}, references, test_type="ar")
    signatures, results = test()
    reference, *others = results["BLEU"]
    found = {}
    for (name, hypotheses), other in zip(systems.items(), others):
        differing = sum(one != two for one, two in zip(hypotheses, baseline))
        p = min(1.0, other.p_value + 2.0 ** (1 - differing))
        found[name] = Comparison(other.score - reference.score, p)
    return str(signatures["BLEU"]), found
