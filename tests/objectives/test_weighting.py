"""Likelihood-weighted gold: the weights, and what the gradient of a whole update is divided by."""

import pytest
import torch
from conftest import (
    LENGTHS,
    STRATEGIES,
    TRANSFORMER,
    assert_same_gradient,
    batch,
    fairseq_train,
    loss_and_gradient,
    sentences,
)
from naive import naive_gold_probabilities, naive_gradient, naive_weights

from gift_fairseq.objectives.weighting import gold_weights, tailr_weights

WEIGHTINGS = {"tailr": STRATEGIES["weighted"], "gold": "--criterion gift_weighted --weighting gold --weight-floor 0.02"}


def test_weights_by_hand():
    """A half of p is 10 / 11 at g = 0.1; p itself at g = 1. As GOLD a token counts with the six from it on."""
    p = torch.tensor([[0.5, 0.01, 1.0]], dtype=torch.float64)
    assert tailr_weights(p, 0.1, 0.3)[0].tolist() == pytest.approx([10 / 11, 0.3, 1])
    assert tailr_weights(p, 1, 0.001)[0].tolist() == pytest.approx([0.5, 0.01, 1])
    rows = torch.tensor([[0.5, 0.1, 1, 1, 1, 1, 0.5], [0.5, 0.1, 1, 1, 1, 1, 1]], dtype=torch.float64)
    scored = torch.tensor([[True] * 7, [True, True] + [False] * 5])
    weights = gold_weights(rows, scored, 0.2)
    assert weights[0].tolist() == pytest.approx(
        [0.5 * 4.7 / 6, 0.2 * 4.7 / 6, 4.5 / 5, 3.5 / 4, 2.5 / 3, 1.5 / 2, 0.5**2]
    )
    assert weights[1, :2].tolist() == pytest.approx([0.5 * 0.35, 0.2 * 0.2])
    assert gold_weights(rows[:, :0], scored[:, :0], 0.2).shape == (2, 0)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("flags", ["", "--sentence-avg", "--ignore-prefix-size 1"])
def test_loss_gradient_and_size_equal_the_naive_loop(build, weighting, flags):
    """The size, by which fairseq divides, is what an update's weights add up to, however it is cut into batches."""
    built = build(f"{TRANSFORMER} {WEIGHTINGS[weighting]} {flags}")
    with torch.no_grad():
        built.model.decoder.output_projection.weight *= 3  # some probabilities are below the floor then
    pairs, ignored = sentences([*LENGTHS, (4, 11)]), int("--ignore" in flags)
    loss, gradient = loss_and_gradient(built, batch(built.task, pairs))
    naive_loss, naive = naive_gradient("weighted", built.model, pairs, ignored=ignored, weighting=weighting)
    assert loss == pytest.approx(naive_loss, rel=1e-10)
    assert_same_gradient(gradient, naive, rtol=1e-6, atol=1e-8)

    rows = naive_gold_probabilities(built.model, batch(built.task, pairs))
    weights = [naive_weights(row[ignored:], weighting) for row in rows]
    assert 2 * min(map(min, weights)) < max(map(max, weights)) and min(map(min, rows)) < 0.02 < max(map(max, rows))
    if "--sentence-avg" in flags:
        size = sum(sum(row) / len(row) for row in weights)
    else:
        size = sum(sum(row) + ignored for row in weights)
    for parts in ([pairs], [pairs[:2], pairs[2:]]):
        found = [built.criterion(built.model, batch(built.task, part)) for part in parts]
        assert float(sum(each[1] for each in found)) == pytest.approx(size, rel=1e-10)
        assert float(sum(each[2]["sample_size"] for each in found)) == pytest.approx(size, rel=1e-10)
        sums = [sum(float(each[2][key]) for each in found) for key in ("token_weights", "n_weighted")]
        assert sums == pytest.approx([sum(map(sum, weights)), sum(map(len, weights))])


@pytest.mark.parametrize(
    "flags", ["--tailr-gamma 1e-9", "--weight-floor 0.999999999", "--weighting gold --weight-floor 0.999999999"]
)
def test_the_plain_loss_is_the_limit(build, flags):
    """Loss, gradient and size next to off are next to those of standard."""
    near, standard = (
        build(f"{TRANSFORMER} {each}") for each in (f"--criterion gift_weighted {flags}", "--criterion gift_standard")
    )
    sample = batch(near.task, sentences(LENGTHS))
    (loss, gradient), (plain, plain_gradient) = (loss_and_gradient(built, sample) for built in (near, standard))
    assert loss == pytest.approx(plain, rel=1e-6)
    assert_same_gradient(gradient, plain_gradient, rtol=1e-6, atol=1e-6)
    sizes = [float(built.criterion(built.model, sample)[1]) for built in (near, standard)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-6)


@pytest.mark.cli
def test_update_freq_does_not_change_an_update(binarized, tmp_path):
    """Of the same sixty sentences, by fairseq's own trainer: one batch, and three that are accumulated."""
    flags = f"{TRANSFORMER} --task translation {STRATEGIES['weighted']} --dropout 0 --max-update 2 --no-save"
    flags += " --disable-validation --max-tokens 4000 --required-batch-size-multiple 1"
    found = {}
    for size, frequency in ((60, 1), (20, 3)):
        more = f"--batch-size {size} --update-freq {frequency}"
        lines = fairseq_train(binarized, tmp_path / str(size), f"{flags} {more}")
        updates = {line["num_updates"]: line for line in lines if "update" in line}
        found[size] = [updates[number][key] for number in (1, 2) for key in ("loss", "gnorm", "token_weight", "wpb")]
    assert found[20] == pytest.approx(found[60], abs=2e-3)
