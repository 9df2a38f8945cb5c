"""Over seeds: Student's t and Holm. Over sentences: sacreBLEU's test, mended for nearly equal outputs."""

import math
import random

import pytest
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from gift_fairseq.errors import UserError
from gift_fairseq.evaluation import significance
from gift_fairseq.report.table import NOTES


def corpus(sentences=60, seed=3):
    """References, and a function that makes hypotheses with a share of their words wrong."""
    draw = random.Random(seed)
    references = [" ".join(f"w{draw.randrange(40)}" for _ in range(12)) for _ in range(sentences)]

    def spoilt(share):
        return [" ".join(w if draw.random() > share else "x" for w in line.split()) for line in references]

    return references, spoilt


def test_p_values_are_sacrebleus_own():
    references, spoilt = corpus()
    baseline, near, far = spoilt(0.3), spoilt(0.29), spoilt(0.1)
    (signature, *_), tests = zip(*(significance.compare(baseline, one, [references]) for one in (near, far)))
    found = dict(zip(("near", "far"), tests))
    _, own = PairedTest([("a", baseline), ("b", near), ("c", far)], {"BLEU": BLEU()}, [references], test_type="ar")()
    assert [round(found[name].p, 6) for name in ("near", "far")] == [round(r.p_value, 6) for r in own["BLEU"][1:]]
    assert found["far"].p < significance.LEVEL < found["near"].p
    assert found["far"].difference == pytest.approx(own["BLEU"][2].score - own["BLEU"][0].score)
    assert "ar:10000|seed:12345" in signature


def test_equal_or_nearly_equal_outputs_are_not_significant():
    """sacreBLEU alone gives 0.0001 to the first two: it counts swaps with a larger difference only."""
    references, spoilt = corpus()
    baseline = spoilt(0.2)
    one = [references[0], *baseline[1:]]
    two = [*references[:2], *baseline[2:]]
    _, own = PairedTest([("a", baseline), ("b", baseline), ("c", one)], {"BLEU": BLEU()}, [references], "ar")()
    assert all(result.p_value < 0.001 for result in own["BLEU"][1:])
    texts = {"equal": baseline, "one": one, "two": two}
    found = {name: significance.compare(baseline, lines, [references])[1] for name, lines in texts.items()}
    assert found["equal"] == significance.Comparison(0.0, 1.0)
    assert found["one"].p == 1.0 and found["one"].difference > 0
    # both swapped or none: 2 of 4 ways are as far apart as observed, both sentences being better
    assert found["two"].p == pytest.approx(0.5, abs=0.001)
    (said,) = (line for line in NOTES.values() if "randomization" in line)
    assert "plus 2^(1-k)" in said  # the tables do not call it sacreBLEU's alone


def test_several_references_and_unequal_lengths():
    references, spoilt = corpus()
    baseline, other = spoilt(0.3), spoilt(0.1)
    signature, found = significance.compare(baseline, other, [references, other])
    assert "nrefs:2" in signature
    assert found.difference > significance.compare(baseline, other, [references])[1].difference
    with pytest.raises(UserError, match="59 hypotheses, but 60 references"):
        significance.compare(baseline[1:], other, [references])


# ---- over seeds


def test_over_seeds_by_hand():
    """Against the t table; equal seeds are certain, one seed says nothing."""
    found = significance.over_seeds([1.0, 2.0, 3.0, 4.0, 5.0])  # mean 3, standard error sqrt(2.5 / 5)
    assert (found.seeds, found.difference) == (5, 3.0)
    assert found.half_width == pytest.approx(2.776445 * math.sqrt(0.5)) and found.p == pytest.approx(0.0132, abs=5e-5)
    assert significance.over_seeds([-1.0, -2.0, -3.0, -4.0, -5.0]).p == found.p
    assert significance.over_seeds([0.5, 1.5]).p == pytest.approx(1 - 2 * math.atan(2) / math.pi)  # a Cauchy
    assert significance.over_seeds([0.0, 0.0]).p == 1 and significance.over_seeds([0.5, 0.5]).p == 0
    assert significance.over_seeds([7.0]) == significance.OverSeeds(1, 7.0, None, None)


@pytest.mark.parametrize(
    "ps, corrected",
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Holm's step down: 4, 3, 2, 1, never less than before
        ([0.04], [0.04]),
        ([0.9, 0.8], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm_by_hand(ps, corrected):
    assert significance.holm(ps) == pytest.approx(corrected)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_strategy_against_itself_is_significant_in_five_percent(seeds):
    """Scores whose standard deviation over seeds is 0.5: within some standard errors; with Holm over four strategies
    that share a control, at most so often in any."""
    draw, false, any_false, trials = random.Random(1), 0, 0, 1000
    for _ in range(trials):
        control = [draw.gauss(30, 0.5) for _ in range(seeds)]
        ps = [significance.over_seeds([draw.gauss(30, 0.5) - one for one in control]).p for _ in range(4)]
        false += sum(p < significance.LEVEL for p in ps)
        any_false += min(significance.holm(ps)) < significance.LEVEL
    assert false / (4 * trials) == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / (4 * trials)) * 1.5)
    assert any_false / trials < 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


def test_over_sentences_two_seeds_of_one_strategy_differ():
    """The share of wrong words varies with the seed, 0.30 with a standard deviation of 0.03: of ten pairs of seeds the
    test calls far more than 5 % different, and rightly, for they are two systems."""
    references, spoilt = corpus(300)
    draw, different = random.Random(2), 0
    for _ in range(10):
        one, other = (spoilt(draw.gauss(0.3, 0.03)) for _ in range(2))
        different += significance.compare(one, other, [references])[1].p < significance.LEVEL
    assert different >= 4  # by chance: once in a thousand times
