"""Oracle targets after model-generated prefixes: against loops over prefixes, with brute-force sets."""

import math

import pytest
import torch
from conftest import (
    LENGTHS,
    TRANSFORMER,
    assert_rows,
    assert_same_gradient,
    batch,
    in_batch_order,
    inputs_read,
    loss_and_gradient,
    often_ending,
    sentences,
    watched,
)
from naive import BOS, EOS, EPSILON, PAD, encode, gold_length, naive_optimal, next_logits, own_length

from gift_fairseq.objectives.oracle import oracle_loss

GENERATIVE = "--criterion gift_generative --generate-ratio 1 --targets oracle"
RECURRENT = "--criterion gift_recurrent --targets oracle"


def naive_terms(built, pairs, tokens_of, weights="uniform", ignored=0, cap=1.5):
    """Summed loss, and counts: positions, optimal tokens at them, right argmaxes; of the first positions likewise."""
    loss, counts = torch.tensor(0.0), dict.fromkeys(("n_oracle", "n_right_tokens", "n_correct", "n_first_right"), 0)
    for source, target in pairs:
        encoder_out, gold = encode(built.model, source), target.tolist()
        tokens = tokens_of(built.model, encoder_out, gold, ignored, cap)
        for t in range(ignored, len(tokens)):
            logits = next_logits(built.model, encoder_out, [EOS, *tokens[:t]])
            right = sorted(naive_optimal(tokens[:t], gold[:-1]))
            lprobs = torch.log_softmax(logits, -1)
            target_loss = -lprobs[right].mean() if weights == "uniform" else -lprobs[right].exp().sum().log()
            share = EPSILON / (len(lprobs) - 1)  # fairseq's: every wrong token gets it
            loss = loss + (1 - EPSILON - share) * target_loss - share * lprobs.sum()
            counts["n_oracle"] += 1
            counts["n_right_tokens"] += len(right)
            counts["n_correct"] += logits.argmax().item() in right
            counts["n_first_right"] += t == ignored and logits.argmax().item() in right
    return loss, counts


@pytest.mark.parametrize("weights", ["uniform", "model"])
@pytest.mark.parametrize(
    "flags, tokens_of, options",
    [
        (GENERATIVE, own_length, {}),
        (f"{GENERATIVE} --ignore-prefix-size 1", own_length, {"ignored": 1}),
        (f"{GENERATIVE} --length-cap 1", own_length, {"cap": 1}),
        (f"{GENERATIVE} --length-cap 3", own_length, {"cap": 3}),
        (RECURRENT, gold_length, {}),
        (f"{RECURRENT} --ignore-prefix-size 1", gold_length, {"ignored": 1}),
    ],
)
def test_loss_gradient_and_counts_equal_the_naive_loop(build, flags, tokens_of, options, weights):
    """``--oracle-weights model``: the gradient is that of the negative log of what the optimal tokens have together."""
    built = often_ending(build(f"{TRANSFORMER} {flags} --oracle-weights {weights} --report-accuracy"))
    pairs = sentences(LENGTHS)
    loss, gradient = loss_and_gradient(built, batch(built.task, pairs))
    naive, counts = naive_terms(built, pairs, tokens_of, weights, **options)
    assert counts["n_right_tokens"] > counts["n_oracle"]  # else uniform and model are the same
    built.model.zero_grad()
    naive.backward()
    assert loss == pytest.approx(naive.item(), rel=1e-9)
    assert_same_gradient(gradient, {n: p.grad for n, p in built.model.named_parameters()}, rtol=1e-6, atol=1e-8)
    _, _, log = built.criterion(built.model, batch(built.task, pairs))
    assert {key: int(log[key]) for key in counts} == counts
    assert int(log["total"]) == counts["n_oracle"] and int(log["n_first"]) == len(pairs)


@pytest.mark.parametrize("cap", [1, 1.5, 3])
def test_each_row_is_trained_to_its_own_end(build, cap):
    """Up to and with the step that chose ``</s>``; where it is not chosen, to the last token under the cap."""
    built = often_ending(build(f"{TRANSFORMER} {GENERATIVE} --length-cap {cap}"))
    pairs = in_batch_order(sentences([(5, 6), (3, 3), (6, 2), (2, 7), (4, 5)], seed=2))
    read, _ = inputs_read(built, batch(built.task, pairs))
    tokens = [own_length(built.model, encode(built.model, s), target.tolist(), 0, cap) for s, target in pairs]
    assert_rows(read, [[EOS, *row[:-1]] for row in tokens])
    ended = [row[-1] == EOS for row in tokens]
    assert any(ended) and not all(ended)  # both kinds are there
    for row, (_, target), own_end in zip(tokens, pairs, ended):
        assert EOS not in row[:-1]
        assert own_end or len(row) == math.ceil(cap * len(target))


@pytest.mark.parametrize("weights", ["uniform", "model"])
def test_after_gold_prefixes_it_is_the_plain_loss(build, weights):
    """The limit: where the model writes the gold translation itself, one token is right at a time, the gold one."""
    built = often_ending(build(f"{TRANSFORMER} {GENERATIVE} --oracle-weights {weights}"))
    plain = often_ending(build(f"{TRANSFORMER} --criterion gift_standard"))
    pairs = []
    for source, target in sentences([(n, 6) for n in range(2, 14)], seed=3):
        encoder_out = encode(built.model, source)
        tokens = own_length(built.model, encoder_out, target.tolist(), 0, 2)
        if tokens[-1] == EOS:
            pairs.append((source, torch.tensor(tokens)))
    assert len({len(target) for _, target in pairs}) > 1
    loss, gradient = loss_and_gradient(built, batch(built.task, pairs))
    plain_loss, plain_gradient = loss_and_gradient(plain, batch(plain.task, pairs))
    assert loss == pytest.approx(plain_loss, rel=1e-10)
    assert_same_gradient(gradient, plain_gradient)
    _, _, log = built.criterion(built.model, batch(built.task, pairs))
    assert int(log["n_right_tokens"]) == int(log["n_oracle"]) == sum(len(target) for _, target in pairs)


def test_model_weights_are_the_mass_of_the_set_by_hand():
    """Two optimal tokens of probability 0.5 and 0.1: -log 0.6, and pulled at in the proportion 5 to 1."""
    found, scored = {}, torch.tensor([[True]])
    references, optimal = torch.tensor([[4, 5, EOS]]), torch.tensor([[[True, True, False]]])
    for weights, eps in (("uniform", 0.0), ("model", 0.0), ("uniform", 0.2), ("model", 0.2)):
        lprobs = torch.tensor([[[0.1, 0.1, 0.1, 0.1, 0.5, 0.1]]], dtype=torch.float64).log().requires_grad_()
        loss, nll = oracle_loss(lprobs, optimal, references, scored, eps, by_model=weights == "model")
        found[weights, eps] = loss.item(), torch.autograd.grad(loss, lprobs)[0][0, 0].tolist()
        assert nll.item() == pytest.approx(-math.log(0.6))
    half_each, mass = -(math.log(0.5) + math.log(0.1)) / 2, -math.log(0.6)
    assert found["uniform", 0.0] == (pytest.approx(half_each), pytest.approx([0, 0, 0, 0, -1 / 2, -1 / 2]))
    assert found["model", 0.0] == (pytest.approx(mass), pytest.approx([0, 0, 0, 0, -5 / 6, -1 / 6]))
    # smoothed, 0.04 for each of the five others and 0.8 - 0.04 more for the right ones
    everything = -(5 * math.log(0.1) + math.log(0.5))
    for weights, right in (("uniform", (1 / 2, 1 / 2)), ("model", (5 / 6, 1 / 6))):
        loss, gradient = found[weights, 0.2]
        assert loss == pytest.approx(0.76 * found[weights, 0.0][0] + 0.04 * everything)
        assert gradient == pytest.approx([-0.04] * 4 + [-0.04 - 0.76 * share for share in right])


@pytest.mark.parametrize("by_model", [False, True])
def test_what_is_not_scored_has_no_loss(by_model):
    lprobs = torch.randn(2, 3, 7, dtype=torch.float64).log_softmax(-1).requires_grad_()
    optimal, references = torch.ones(2, 3, 2, dtype=torch.bool), torch.tensor([[4, EOS], [5, EOS]])
    scored = torch.tensor([[True, True, False], [True, False, False]])
    loss, nll = oracle_loss(lprobs, optimal, references, scored, 0.1, by_model)
    assert torch.autograd.grad(loss, lprobs, retain_graph=True)[0].ne(0).any(-1).equal(scored)
    assert torch.autograd.grad(nll, lprobs)[0].ne(0).any(-1).equal(scored)


def test_sampled_prefixes_have_the_loss_of_what_was_read(build):
    """Other samples, other losses; each that of a loop over its own prefixes, of whose rows none goes on after </s>."""
    built = often_ending(build(f"{TRANSFORMER} {GENERATIVE} --choose sample --temperature 2 --top-k 20"))
    pairs = in_batch_order(sentences(LENGTHS))
    sample = batch(built.task, pairs)
    torch.manual_seed(4)
    with watched(built.model.decoder) as read:
        losses = [loss_and_gradient(built, sample)[0] for _ in range(2)]
        torch.manual_seed(4)
        losses += [loss_and_gradient(built, sample)[0]]
    read = [inputs.tolist() for inputs in read]
    assert read[0] == read[2] != read[1] and losses[0] == losses[2] != losses[1]
    for inputs, loss in zip(read[:2], losses):
        texts = iter([[token for token in row[1:] if token != PAD] for row in inputs])
        naive, _ = naive_terms(built, pairs, lambda *_args, rows=texts: [*next(rows), EOS])
        assert loss == pytest.approx(naive.item(), rel=1e-9)


def test_padding_and_start_symbol_are_never_chosen(build):
    """A model that would say them everywhere; ``</s>`` it may say."""
    built = often_ending(build(f"{TRANSFORMER} {GENERATIVE}"))
    with torch.no_grad():
        built.model.decoder.output_projection.weight[:2] *= 30
    pairs = sentences(LENGTHS)
    with watched(built.model.decoder) as read:
        loss, _ = loss_and_gradient(built, batch(built.task, pairs))
    assert not read[0].eq(BOS).any()
    assert loss == pytest.approx(naive_terms(built, pairs, own_length)[0].item(), rel=1e-9)
