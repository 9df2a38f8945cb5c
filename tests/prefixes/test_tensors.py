"""Decoder inputs as tensors: shifted, replaced, read after each other, stacked."""

import torch
from conftest import ARCHITECTURES, batch_of
from hypothesis import given
from hypothesis import strategies as st
from naive import EOS, PAD
from torch.nn.utils.rnn import pad_sequence

from gift_fairseq.prefixes import tensors


def test_shifted_by_one_and_masked_by_hand():
    gold = torch.tensor([[2, 11, 12, 13], [2, 14, 1, 1]])
    predictions = torch.tensor([[21, 22, 23, 24], [25, 26, 27, 28]])
    mask = tensors.replaceable(gold, PAD)
    assert mask.tolist() == [[False, True, True, True], [False, True, False, False]]
    assert tensors.replace(gold, predictions, mask).tolist() == [[2, 21, 22, 23], [2, 25, 1, 1]]
    assert tensors.replaceable(gold, PAD, 2).tolist() == [[False, False, False, True], [False] * 4]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 3))
def test_perfect_predictions_change_nothing(lengths, ignored):
    """The unshifted mix would hand the decoder its own label; here the right prediction is the gold input."""
    targets = [torch.cat([torch.randint(4, 20, (length - 1,)), torch.tensor([EOS])]) for length in lengths]
    inputs = [target.roll(1) for target in targets]  # </s> first
    target, gold = (pad_sequence(rows, batch_first=True, padding_value=PAD) for rows in (targets, inputs))
    mask = tensors.replaceable(gold, PAD, ignored)
    assert torch.equal(tensors.replace(gold, target, mask), gold)
    assert not mask[gold.eq(PAD)].any()


def test_after_by_hand():
    """Every token is read after the one before it; the last of a row, here </s> or what was cut, is not."""
    start = torch.tensor([2, 3, 2, 2])
    tokens = torch.tensor([[11, 12, 13, 2], [14, 2, 1, 1], [2, 1, 1, 1], [15, 16, 17, 1]])
    expected = [[2, 11, 12, 13], [3, 14, 1, 1], [2, 1, 1, 1], [2, 15, 16, 1]]
    assert tensors.after(start, tokens, PAD).tolist() == expected
    assert tensors.after(start[:1], tokens[:1, :1], PAD).tolist() == [[2]]


def test_after_gold_tokens_are_the_gold_inputs(build):
    built = build(f"{ARCHITECTURES['lstm']} --criterion gift_standard")
    sample = batch_of(built, [(3, 5), (2, 1), (4, 9)])
    gold_inputs = sample["net_input"]["prev_output_tokens"]
    assert torch.equal(tensors.after(gold_inputs[:, 0], sample["target"], PAD), gold_inputs)


def test_stack_by_hand():
    one, other = torch.tensor([[5, 6, 7], [8, 2, 1]]), torch.tensor([[9, 2]])
    assert tensors.stack(one, other, PAD).tolist() == [[5, 6, 7], [8, 2, 1], [9, 2, 1]]
    assert tensors.stack(other, one, PAD).tolist() == [[9, 2, 1], [5, 6, 7], [8, 2, 1]]
    assert tensors.stack(other, other, PAD).tolist() == [[9, 2], [9, 2]]
