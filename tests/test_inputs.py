"""What the decoder reads: the rules that every strategy shares, and the traps others fell into."""

import pytest
import torch
from conftest import ARCHITECTURES, LENGTHS, STRATEGIES, TRANSFORMER, batch, loss_and_gradient, sentences
from hypothesis import given
from hypothesis import strategies as st

from gift_fairseq import prefixes, rollout
from gift_fairseq.substitution import decoder_reads

PAD, EOS = 1, 2


def test_shifted_by_one_and_masked_by_hand():
    gold = torch.tensor([[2, 11, 12, 13], [2, 14, 1, 1]])
    predictions = torch.tensor([[21, 22, 23, 24], [25, 26, 27, 28]])
    mask = prefixes.replaceable(gold, PAD)
    assert mask.tolist() == [[False, True, True, True], [False, True, False, False]]
    assert prefixes.replace(gold, predictions, mask).tolist() == [[2, 21, 22, 23], [2, 25, 1, 1]]
    assert prefixes.replaceable(gold, PAD, 2).tolist() == [[False, False, False, True], [False] * 4]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 3))
def test_perfect_predictions_change_nothing(lengths, ignored):
    """The unshifted mix would hand the decoder its own label; here the right prediction is the gold input."""
    width = max(lengths)
    target = torch.full((len(lengths), width), PAD)
    for row, length in enumerate(lengths):
        target[row, :length] = torch.randint(4, 20, (length,))
        target[row, length - 1] = EOS
    gold = torch.full_like(target, PAD)
    gold[:, 0] = EOS
    for row, length in enumerate(lengths):
        gold[row, 1:length] = target[row, : length - 1]
    mask = prefixes.replaceable(gold, PAD, ignored)
    assert torch.equal(prefixes.replace(gold, target, mask), gold)
    assert not mask[gold.eq(PAD)].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_forbidden_tokens_are_never_chosen(dtype):
    """Masked before the argmax, by a value that half precision holds too."""
    scores = torch.full((2, 3, 6), -6e4, dtype=dtype)
    scores[..., :3] = 6e4
    scores[..., 4] = -5e4
    assert rollout.Choice((0, 1, 2))(scores).eq(4).all()


def inputs_read(built, sample, update_num=0):
    """What the decoder reads in one training forward."""
    seen = []
    hook = built.model.decoder.register_forward_hook(
        lambda _module, args, kwargs, _out: seen.append(args[0]), with_kwargs=True
    )
    built.criterion.set_num_updates(update_num)
    loss, _, log = built.criterion(built.model, sample)
    hook.remove()
    return seen[-1], log


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("strategy", ["recurrent", "generative"])
def test_start_symbol_and_padding_stay_and_no_special_symbol_is_chosen(build, strategy, architecture):
    built = build(f"{ARCHITECTURES[architecture]} {STRATEGIES[strategy]}", dropout=0.1, dtype=torch.float32)
    with torch.no_grad():  # a model that would say </s>, <pad> and <s> everywhere
        for name, parameter in built.model.named_parameters():
            if name.endswith(("fc_out.bias", "fc3.bias", "fc2.bias")):
                parameter[:3] += 100
            if name in ("decoder.embed_tokens.weight", "decoder.output_projection.weight", "decoder.embed_out"):
                parameter[:3] *= 30
    sample = batch(built.task, sentences(LENGTHS))
    gold = sample["net_input"]["prev_output_tokens"].clone()
    read, log = inputs_read(built, sample)
    assert torch.equal(sample["net_input"]["prev_output_tokens"], gold)
    assert torch.equal(read[:, 0], gold[:, 0])
    assert torch.equal(read.eq(PAD), gold.eq(PAD))
    assert not read[:, 1:][gold[:, 1:].ne(PAD)].le(2).any()
    assert not torch.equal(read, gold)
    assert int(log["n_replaced"]) == int(gold.ne(PAD).sum()) - len(gold)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("strategy", ["recurrent", "generative"])
def test_choosing_leaves_everything_as_it_was(build, strategy, architecture):
    """Training flags, random stream, what attention returns; and no dropout in the choice."""
    built = build(f"{ARCHITECTURES[architecture]} {STRATEGIES[strategy]}", dropout=0.5)
    built.model.encoder.eval()  # the encoder's dropout is not in question

    def flags():
        return {name: (m.training, getattr(m, "need_attn", None)) for name, m in built.model.named_modules()}

    before = flags()
    sample = batch(built.task, sentences(LENGTHS))
    torch.manual_seed(5)
    read, _ = inputs_read(built, sample)
    stream = torch.random.get_rng_state()
    torch.manual_seed(6)
    again, _ = inputs_read(built, sample)
    assert torch.equal(read, again)
    assert flags() == before
    # the same forward with those inputs given consumes the same random numbers
    torch.manual_seed(5)
    built.model(**{**sample["net_input"], "prev_output_tokens": read})
    assert torch.equal(torch.random.get_rng_state(), stream)


def test_layer_drop_takes_nothing_from_the_random_stream(build):
    """fairseq's layer-drop draws in evaluation mode too."""
    built = build(f"{TRANSFORMER} {STRATEGIES['generative']} --decoder-layerdrop 0.3")
    sample = batch(built.task, sentences(LENGTHS))
    inputs = sample["net_input"]["prev_output_tokens"]
    encoder_out = built.model.encoder(sample["net_input"]["src_tokens"], sample["net_input"]["src_lengths"])
    before = torch.random.get_rng_state()
    greedy = rollout.Choice(built.criterion.forbidden)
    rollout.free_running(built.model.decoder, inputs, encoder_out, greedy, PAD)
    rollout.teacher_forced(built.model.decoder, inputs, encoder_out, greedy)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("strategy", ["recurrent", "generative"])
def test_autocast_keeps_the_gradient_of_every_weight(build, strategy):
    """Half-precision copies of weights made without gradient must not be used again by the training pass."""
    built = build(f"{TRANSFORMER} {STRATEGIES[strategy]}", dtype=torch.float32)
    sample = batch(built.task, sentences(LENGTHS))
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


def test_hook_is_gone_after_an_error(build):
    built = build(f"{TRANSFORMER} {STRATEGIES['standard']}")

    def broken(*_args):
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError), decoder_reads(built.model.decoder, broken):
        built.model(**batch(built.task, sentences(LENGTHS))["net_input"])
    assert not built.model.decoder._forward_pre_hooks


def test_full_context_alignment_reads_the_same_inputs_twice(build):
    built = build(f"{ARCHITECTURES['transformer_align']} {STRATEGIES['recurrent']} --full-context-alignment")
    seen = []
    built.model.decoder.register_forward_hook(lambda _m, args, kw, _o: seen.append(args[0]), with_kwargs=True)
    loss_and_gradient(built, batch(built.task, sentences(LENGTHS)))
    assert len(seen) == 2 and torch.equal(seen[0], seen[1])


def test_rollout_after_a_step_uses_the_new_weights(build):
    """fairseq's fconv keeps a rearranged copy of its weights for incremental decoding; it must not go stale."""
    built = build(f"{ARCHITECTURES['fconv']} {STRATEGIES['generative']}")
    sample = batch(built.task, sentences(LENGTHS))
    optimizer = torch.optim.SGD(built.model.parameters(), lr=2.0)
    loss_and_gradient(built, sample)
    optimizer.step()
    read, _ = inputs_read(built, sample)
    fresh = build(f"{ARCHITECTURES['fconv']} {STRATEGIES['generative']}")
    fresh.model.load_state_dict(built.model.state_dict())
    assert torch.equal(read, inputs_read(fresh, sample)[0])
