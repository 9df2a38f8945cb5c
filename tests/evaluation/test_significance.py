"""Paired tests are sacreBLEU's; what it gets wrong for nearly equal outputs is fixed."""

import json
import os
import random
import subprocess
import sys

import pytest
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from gift_fairseq.errors import UserError
from gift_fairseq.evaluation import significance
from gift_fairseq.report.table import legend


def corpus(sentences=60, seed=3):
    """References, and a function that makes hypotheses with a share of their words wrong."""
    draw = random.Random(seed)
    references = [" ".join(f"w{draw.randrange(40)}" for _ in range(12)) for _ in range(sentences)]

    def spoilt(share):
        return [" ".join(w if draw.random() > share else "x" for w in line.split()) for line in references]

    return references, spoilt


def test_p_values_are_sacrebleus_own(tmp_path):
    """Equal to its API, and to its command line in a process of its own."""
    references, spoilt = corpus()
    baseline, near, far = spoilt(0.3), spoilt(0.29), spoilt(0.1)
    signature, found = significance.compare(baseline, {"near": near, "far": far}, [references])
    _, own = PairedTest([("a", baseline), ("b", near), ("c", far)], {"BLEU": BLEU()}, [references], test_type="ar")()
    assert [round(found[name].p, 6) for name in ("near", "far")] == [round(r.p_value, 6) for r in own["BLEU"][1:]]
    assert found["far"].p < significance.LEVEL < found["near"].p
    assert found["far"].difference == pytest.approx(own["BLEU"][2].score - own["BLEU"][0].score)
    assert "ar:10000|seed:12345" in signature
    for name, lines in (("references", references), ("baseline", baseline), ("near", near), ("far", far)):
        (tmp_path / name).write_text("".join(line + "\n" for line in lines))
    command = [sys.executable, "-m", "sacrebleu", "references", "-i", "baseline", "near", "far", "-m", "bleu"]
    environment = {name: value for name, value in os.environ.items() if name != "SACREBLEU_SEED"}
    done = subprocess.run(
        [*command, "--paired-ar", "-f", "json"], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    printed = {system["system"].split("/")[-1]: system["BLEU"] for system in json.loads(done.stdout)}
    for name in ("near", "far"):
        assert printed[name]["p_value"] == pytest.approx(found[name].p, abs=1e-4)


def test_equal_or_nearly_equal_outputs_are_not_significant():
    """sacreBLEU alone gives 0.0001 to the first two: it counts swaps with a larger difference only."""
    references, spoilt = corpus()
    baseline = spoilt(0.2)
    one = [references[0], *baseline[1:]]
    two = [*references[:2], *baseline[2:]]
    _, own = PairedTest([("a", baseline), ("b", baseline), ("c", one)], {"BLEU": BLEU()}, [references], "ar")()
    assert all(result.p_value < 0.001 for result in own["BLEU"][1:])
    _, found = significance.compare(baseline, {"equal": baseline, "one": one, "two": two}, [references])
    assert found["equal"] == significance.Comparison(0.0, 1.0)
    assert found["one"].p == 1.0 and found["one"].difference > 0
    # both swapped or none: 2 of 4 ways are as far apart as observed, both sentences being better
    assert found["two"].p == pytest.approx(0.5, abs=0.001)
    (said,) = (line for line in legend([], []) if "randomization" in line)
    assert "plus 2^(1-k)" in said  # the tables do not call it sacreBLEU's alone


def test_several_references_and_unequal_lengths():
    references, spoilt = corpus()
    baseline, other = spoilt(0.3), spoilt(0.1)
    signature, found = significance.compare(baseline, {"other": other}, [references, other])
    assert "nrefs:2" in signature
    one = significance.compare(baseline, {"other": other}, [references])[1]["other"]
    assert found["other"].difference > one.difference
    with pytest.raises(UserError, match="59 hypotheses, but 60 references"):
        significance.compare(baseline[1:], {"other": other}, [references])
