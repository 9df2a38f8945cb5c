"""What the decoder reads in training: the rules that every source of generated prefixes keeps."""

import math
from fractions import Fraction

import pytest
import torch
from conftest import (
    ARCHITECTURES,
    SAMPLED,
    STRATEGIES,
    TRANSFORMER,
    batch,
    batch_of,
    inputs_read,
    loss_and_gradient,
    sentences,
)
from fairseq.distributed import utils as distributed_utils
from naive import PAD

from gift_fairseq.prefixes.free_running import most_tokens


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("strategy", ["recurrent", "generative"])
def test_start_symbol_and_padding_stay_and_no_special_symbol_is_generated(build, strategy, architecture):
    built = build(f"{ARCHITECTURES[architecture]} {STRATEGIES[strategy]}", dropout=0.1, dtype=torch.float32)
    with torch.no_grad():  # a model that would say </s>, <pad> and <s> everywhere
        for name, parameter in built.model.named_parameters():
            if name.endswith(("fc_out.bias", "fc3.bias", "fc2.bias")):
                parameter[:3] += 100
            if name in ("decoder.embed_tokens.weight", "decoder.output_projection.weight", "decoder.embed_out"):
                parameter[:3] *= 30
    sample = batch_of(built)
    gold = sample["net_input"]["prev_output_tokens"].clone()
    read, log = inputs_read(built, sample)
    assert torch.equal(sample["net_input"]["prev_output_tokens"], gold)
    assert torch.equal(read[:, 0], gold[:, 0])
    assert torch.equal(read.eq(PAD), gold.eq(PAD))
    assert not read[:, 1:][gold[:, 1:].ne(PAD)].le(2).any()
    assert not torch.equal(read, gold)
    assert int(log["n_replaced"]) == int(gold.ne(PAD).sum()) - len(gold)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("strategy", ["recurrent", "generative", "oracle", "risk"])
def test_generating_leaves_everything_as_it_was(build, strategy, architecture):
    """Training flags, random stream, what attention returns; and no dropout where tokens are generated.

    fairseq's layer-drop draws from the stream in evaluation mode too.
    """
    layer_drop = "--decoder-layerdrop 0.3" if architecture.startswith("transformer") else ""
    built = build(f"{ARCHITECTURES[architecture]} {STRATEGIES[strategy]} {layer_drop}", dropout=0.5)
    built.model.encoder.eval()  # the encoder's dropout is not in question

    def flags():
        return {name: (m.training, getattr(m, "need_attn", None)) for name, m in built.model.named_modules()}

    def keeping_the_stream(decoding):
        stream = torch.random.get_rng_state()
        found = generate(decoding)
        assert torch.equal(torch.random.get_rng_state(), stream) and torch.is_grad_enabled()
        return found

    generate, built.criterion.source.read = built.criterion.source.read, keeping_the_stream
    before, sample = flags(), batch_of(built)
    one, other = (inputs_read(built, sample)[0] for _ in range(2))
    assert torch.equal(one, other) and flags() == before


@pytest.mark.parametrize("strategy", ["recurrent", "generative"])
def test_autocast_keeps_the_gradient_of_every_weight(build, strategy):
    """Half-precision copies of weights made without gradient must not be used again by the training pass."""
    built = build(f"{TRANSFORMER} {STRATEGIES[strategy]}", dtype=torch.float32)
    sample = batch_of(built)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, _ = built.criterion(built.model, sample)
        assert torch.is_autocast_enabled("cpu")
    loss.backward()
    missing = [n for n, p in built.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in missing if not name.endswith("k_proj.bias")] == []  # a key bias never has a gradient


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a != "lightconv"])
def test_source_padding_changes_nothing_in_cached_steps(build, architecture):
    """A source padding mask forgotten in cached steps would show here. (fairseq's lightconv has no such mask.)"""
    built = build(f"{ARCHITECTURES[architecture]} {STRATEGIES['generative']}")
    pairs = sentences([(4, 7), (4, 5)])
    read, _ = inputs_read(built, batch(built.task, pairs))
    longer = sentences([(12, 7)], seed=3)
    padded, _ = inputs_read(built, batch(built.task, [*pairs, *longer]))
    assert padded.size() == (3, 7)
    by_row = {tuple(row) for row in padded.tolist()}
    assert {tuple(row) for row in read.tolist()} <= by_row


def test_rollout_after_a_step_uses_the_new_weights(build):
    """fairseq's fconv keeps a rearranged copy of its weights for incremental decoding; it must not go stale."""
    built = build(f"{ARCHITECTURES['fconv']} {STRATEGIES['generative']}")
    sample = batch_of(built)
    optimizer = torch.optim.SGD(built.model.parameters(), lr=2.0)
    loss_and_gradient(built, sample)
    optimizer.step()
    read, _ = inputs_read(built, sample)
    fresh = build(f"{ARCHITECTURES['fconv']} {STRATEGIES['generative']}")
    fresh.model.load_state_dict(built.model.state_dict())
    assert torch.equal(read, inputs_read(fresh, sample)[0])


@pytest.mark.parametrize(
    "flags",
    [
        *SAMPLED.values(),
        "--criterion gift_recurrent --gold-ratio 0.5",
        "--criterion gift_recurrent --gold-ratio 0.5 --gold-mixed-by sentence",
        "--criterion gift_recurrent --gold-ratio 0.5 --choose sample",
    ],
)
def test_workers_draw_differently_and_again_the_same_after_a_resume(build, flags, monkeypatch):
    """fairseq seeds the random streams of all workers alike, by the number of the update."""
    built = build(f"{TRANSFORMER} {flags}")
    sample = batch_of(built, [(5, 9), (4, 8), (6, 9), (3, 7)] * 3)

    def read(rank, workers=2, update=5):
        monkeypatch.setattr(distributed_utils, "get_data_parallel_rank", lambda: rank)
        monkeypatch.setattr(distributed_utils, "get_data_parallel_world_size", lambda: workers)
        torch.manual_seed(100 + update)
        inputs, _ = inputs_read(built, sample)
        return inputs.tolist(), torch.random.get_rng_state().tolist()

    one, other = read(0), read(1)
    assert one[0] != other[0]
    assert one[1] == other[1]  # so that dropout and what comes after are those of the seed, as without drawing
    assert (read(0), read(1)) == (one, other)
    assert read(0, workers=1) == one
    assert read(0, update=6)[0] not in (one[0], other[0])


def test_the_longest_output_is_exactly_that_many_gold_lengths(build):
    """25 * 1.2 is 30: rounding must not make it 31; no position is used that the decoder has not."""
    built = build(f"{TRANSFORMER} --criterion gift_generative --targets oracle --max-target-positions 150")
    lengths = torch.arange(1, 151)
    target = torch.full((150, 150), 7).masked_fill(torch.arange(150) >= lengths.unsqueeze(1), PAD)
    for cap in ("1", "1.1", "1.2", "1.5", "1.7", "2", "3.7"):
        expected = [min(150, math.ceil(Fraction(cap) * n)) for n in range(1, 151)]
        assert most_tokens(target, float(cap), built.model.decoder, PAD).tolist() == expected, cap
