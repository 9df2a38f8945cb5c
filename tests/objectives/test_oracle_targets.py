"""Oracle targets after model-generated prefixes: against loops over prefixes, with brute-force sets."""

import pytest
import torch
from conftest import (
    LENGTHS,
    TRANSFORMER,
    assert_same_gradient,
    batch,
    loss_and_gradient,
    often_ending,
    sentences,
    watched,
)
from naive import BOS, EOS, EPSILON, encode, gold_length, naive_optimal, next_logits, own_length

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
