"""A margin for own hypotheses: the loss by hand and by a naive loop, in the rows that are own alone."""

import shutil

import pytest
import torch
from conftest import (
    LENGTHS,
    TRANSFORMER,
    assert_same_gradient,
    batch,
    in_batch_order,
    loss_and_gradient,
    make,
    sentences,
)
from naive import EOS, PAD, encode, gradient_of, naive_gradient, next_logits

from gift_fairseq.objectives.margin import lacking
from gift_fairseq.own_translations.origin import Origin

MARGIN = "--criterion gift_distillation --margin 0.7 --margin-weight 3"


@pytest.fixture
def distilled(dictionaries, tmp_path):
    """``distilled("--flags ...")``: a criterion over data of two gold pairs, then own ones."""
    data = shutil.copytree(dictionaries, tmp_path / "data")
    Origin("gold", "x.pt", 0.0, gold_pairs=2, settings={}).write(data)
    return lambda flags: make(data, f"{TRANSFORMER} {flags}")


def test_by_hand():
    """Above by 2 nats, by 0.5, below by 1, and a tie; a constant more for all tokens changes nothing."""
    scores = torch.tensor([[[3.0, 1.0, 0.0], [3.0, 2.5, 0.0], [2.0, 3.0, 1.0], [1.0, 1.0, 0.0]]])
    tokens = torch.zeros(1, 4, dtype=torch.long)
    rows = torch.tensor([True])
    assert lacking(scores, tokens, rows, 1.0).tolist() == [[0, 0.5, 2, 1]]
    assert lacking(scores.log_softmax(-1), tokens, rows, 1.0)[0].tolist() == pytest.approx([0, 0.5, 2, 1], abs=1e-6)
    assert lacking(scores, tokens, rows, 3.0).tolist() == [[1, 2.5, 4, 3]]


def naive_own(model, source, target, ignored=0, margin=0.7, weight=3):
    encoder_out, gold, total = encode(model, source), target.tolist(), torch.tensor(0.0)
    for t in range(ignored, len(gold)):
        logits = next_logits(model, encoder_out, [EOS, *gold[:t]])
        rival = max(logits[word] for word in range(len(logits)) if word != gold[t])
        total = total + weight * max(torch.tensor(0.0), margin + rival - logits[gold[t]])
    return total


@pytest.mark.parametrize("flags", ["", "--sentence-avg", "--ignore-prefix-size 2"])
def test_equals_the_naive_loop_in_own_rows_and_standard_in_gold_ones(distilled, flags):
    """Which is which the dataset's places say, not the order of the batch."""
    built, ignored = distilled(f"{MARGIN} {flags}"), 2 * ("--ignore" in flags)
    pairs = in_batch_order(sentences(LENGTHS))
    with torch.no_grad():
        built.model.decoder.output_projection.weight *= 5  # some tokens then have their margin
    sample = batch(built.task, pairs)
    sample["id"] = torch.tensor([2, 1, 0, 7])
    loss, gradient = loss_and_gradient(built, sample)
    gold_loss, gold = naive_gradient("standard", built.model, pairs[1:3], ignored=ignored)
    own_loss = sum(naive_own(built.model, *pair, ignored=ignored) for pair in (pairs[0], pairs[3]))
    assert loss == pytest.approx(gold_loss + own_loss.item(), rel=1e-10)
    own = gradient_of(built.model, own_loss)
    assert_same_gradient(gradient, {name: gold[name] + own[name] for name in gold}, rtol=1e-6, atol=1e-8)


def test_tokens_with_their_margin_have_no_gradient(distilled):
    """Of a batch of own rows alone: the more margin is asked for, the more of them have one."""
    found = []
    for margin in (1e-6, 100):
        built = distilled(f"--criterion gift_distillation --margin {margin} --margin-weight 1")
        sample = batch(built.task, sentences([(4, 3)]))
        sample["id"] = torch.tensor([5])
        with torch.no_grad():
            built.model.decoder.output_projection.weight[PAD] = 0  # others are above it
        output, _ = built.model(**sample["net_input"])
        sample["target"] = output.argmax(-1)  # what greedy search takes after these prefixes
        found.append(loss_and_gradient(built, sample))
    (loss, gradient), (more, other) = found
    assert loss == 0 and all(part.eq(0).all() for part in gradient.values())
    assert 200 < more < 300 and any(part.ne(0).any() for part in other.values())


def test_off_and_in_validation_own_rows_are_as_gold_ones(distilled, build):
    plain = build(f"{TRANSFORMER} --criterion gift_standard")
    for built in (distilled("--criterion gift_distillation --margin 0"), distilled(MARGIN)):
        sample = batch(built.task, sentences(LENGTHS))
        if built.criterion.objective.margin > 0:
            built.model.eval(), plain.model.eval()
        loss, gradient = loss_and_gradient(built, sample)
        expected, standard = loss_and_gradient(plain, sample)
        assert loss == expected
        assert_same_gradient(gradient, standard, rtol=0, atol=0)


@pytest.mark.parametrize("folders, sentence", [("{}", "has no own translations"), ("{}:{}", "is in several folders")])
def test_data_without_own_translations_is_refused_in_training_alone(distilled, dictionaries, folders, sentence, capsys):
    """fairseq-validate makes the criterion of a checkpoint again, over other data."""
    built = distilled(MARGIN)
    built.criterion.data = folders.format(dictionaries, dictionaries)
    sample = batch(built.task, sentences(LENGTHS))
    built.model.eval()
    loss_and_gradient(built, sample)
    built.model.train()
    with pytest.raises(SystemExit, match=f"^gift_fairseq: error: --margin is 0.7, but the data .*{sentence}"):
        loss_and_gradient(built, sample)
