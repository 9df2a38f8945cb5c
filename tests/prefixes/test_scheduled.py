"""gift_recurrent: which inputs stay gold, over updates, over decoding steps, by sentences and by confidence."""

import pytest
import torch
from conftest import ARCHITECTURES, batch, inputs_read, sentences
from naive import PAD, naive_gold_probabilities

from gift_fairseq.prefixes.source import Symbols

LOWEST_OWN = 21  # gold words are below, the model's own from here on: what is read shows where it is from


class OwnWords(Symbols):
    forbidden = tuple(range(LOWEST_OWN))


def mixing(build, flags, architecture="transformer_wmt_en_de"):
    built = build(f"{ARCHITECTURES[architecture]} --criterion gift_recurrent {flags}")
    built.criterion.source.symbols = OwnWords(*built.criterion.source.symbols)
    return built


def sample_of(built, lengths, seed=1):
    pairs = [(s.where(s < LOWEST_OWN, s - 6), t.where(t < LOWEST_OWN, t - 6)) for s, t in sentences(lengths, seed)]
    return batch(built.task, pairs)


def replaced_and_gold(built, sample, update_num=0):
    """Which inputs (B, T) are the model's own, and which are gold but might have been replaced."""
    gold = sample["net_input"]["prev_output_tokens"]
    read, log = inputs_read(built, sample, update_num)
    own = read.ge(LOWEST_OWN)
    assert torch.equal(read[~own], gold[~own])
    assert int(log["n_replaced"]) == int(own.sum())
    after_start = gold.ne(PAD)
    after_start[:, : 1 + built.criterion.source.symbols.ignored] = False
    assert int(log.get("n_chosen", after_start.sum())) == int(after_start.sum())  # none in an update on gold inputs
    return own, after_start & ~own


def assert_share(part, other, expected):
    """``part`` of both is ``expected``, to five standard deviations."""
    count = int(part.sum() + other.sum())
    assert count > 0
    slack = 5 * (expected * (1 - expected) / count) ** 0.5
    assert int(part.sum()) / count == pytest.approx(expected, abs=slack)


# from linear:1:0.2:10; exponential:0.9:0:4 has 0.01 ** (u / 4) left, of which 4.9 is 0.285 at u = 1
SHARES = [("0.3", {0: 0.3, 1000: 0.3}), ("linear:1:0.2:10", {0: 1, 1: 0.92, 5: 0.6, 9: 0.28, 10: 0.2, 99: 0.2})]
SHARES += [("exponential:0.9:0:4", {0: 0.9, 1: 0.284605, 2: 0.09, 4: 0.009}), ("linear:0:1:4", {0: 0, 1: 0.25, 4: 1})]


@pytest.mark.parametrize("schedule, shares", SHARES)
@pytest.mark.parametrize("mixed_by", ["token", "sentence"])
def test_gold_ratio_over_updates(build, schedule, shares, mixed_by):
    """Update 0 is the first; a share of the inputs, or all inputs of a share of the sentences."""
    built = mixing(build, f"--gold-ratio {schedule} --gold-mixed-by {mixed_by}")
    sample = sample_of(built, [(2, 5)] * 600)
    torch.manual_seed(3)
    for update, expected in shares.items():
        own, gold = replaced_and_gold(built, sample, update)
        assert int(own.sum() + gold.sum()) == 600 * 4
        if mixed_by == "sentence":
            assert torch.equal(own[:, 1:].any(1), own[:, 1:].all(1))
            own, gold = own[:, 1], gold[:, 1]
        assert_share(gold, own, expected)


def test_the_ratios_of_updates_and_steps_are_multiplied(build):
    built = mixing(build, "--gold-ratio linear:1:0:10 --gold-ratio-steps exponential:1:0:2")
    sample = sample_of(built, [(2, 6)] * 800)
    torch.manual_seed(3)
    for update, ratio in ((0, 1), (4, 0.6), (10, 0)):
        own, gold = replaced_and_gold(built, sample, update)
        for position, factor in enumerate([1, 0.1, 0.01, 0.001, 0.0001], start=1):
            assert_share(gold[:, position], own[:, position], ratio * factor)


@torch.no_grad()
def naive_passes(built, sample, mask, passes):
    """What is read when every pass reads what the one before chose, where ``mask`` (B, T) says so."""
    net_input = sample["net_input"]
    gold = inputs = net_input["prev_output_tokens"]
    built.model.eval()
    encoder_out = built.model.encoder(net_input["src_tokens"], net_input["src_lengths"])
    for _ in range(passes):
        scores = built.model.decoder(inputs, encoder_out=encoder_out)[0]
        chosen = scores[:, :-1, LOWEST_OWN:].argmax(-1) + LOWEST_OWN
        inputs = torch.cat([gold[:, :1], torch.where(mask[:, 1:], chosen, gold[:, 1:])], dim=1)
    built.model.train()
    return inputs


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("passes", [1, 2])
def test_confidence_replaces_where_gold_was_more_probable(build, architecture, passes):
    """The input at t + 1 is replaced exactly where p(gold at t) > c, by the first pass; the last one is not read."""
    lengths = [(5, n) for n in (9, 6, 4, 2, 7)]
    built = mixing(build, f"--passes {passes} --confidence 0.4", architecture)
    sample = sample_of(built, lengths)
    with torch.no_grad():
        for parameter in built.model.decoder.parameters():
            parameter.mul_(1.5)  # probabilities of many sizes
    probabilities = naive_gold_probabilities(built.model, sample)
    every = sorted(p for row in probabilities for p in row[:-1])
    for threshold in (0.0, (every[5] + every[6]) / 2, (every[-8] + every[-7]) / 2, (every[-2] + every[-1]) / 2, 0.999):
        built.criterion.source.confidence = threshold
        own, _ = replaced_and_gold(built, sample)
        expected = torch.zeros_like(own)
        for b, row in enumerate(probabilities):
            expected[b, 1 : len(row)] = torch.tensor([probability > threshold for probability in row[:-1]])
        assert torch.equal(own, expected)
        assert torch.equal(inputs_read(built, sample)[0], naive_passes(built, sample, expected, passes))
        above = sum(p > threshold for p in every)
        assert int(own.sum()) == above and (above == len(every)) == (threshold == 0)


def test_confidence_keeps_gold_what_chance_would_replace_and_the_other_way_around(build):
    """Both keep an input gold. Above the median, of those that are sure enough half are replaced."""
    built = mixing(build, "--gold-ratio 0.5 --confidence 0.03 --ignore-prefix-size 1")
    sample = sample_of(built, [(2, 6)] * 60)
    probabilities = torch.tensor(naive_gold_probabilities(built.model, sample))
    built.criterion.source.confidence = probabilities.median().item()
    torch.manual_seed(3)
    own, gold = replaced_and_gold(built, sample)
    sure = torch.zeros_like(own)
    sure[:, 1:] = probabilities[:, :-1] > built.criterion.source.confidence
    sure[:, :2] = False
    assert not own[~sure].any()
    assert_share(own[sure], gold[sure], 0.5)
