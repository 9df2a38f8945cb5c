"""Decoder inputs as pure tensor functions.

``B`` sentences, ``T`` target positions, padded on the right. ``gold_inputs`` (B, T) is fairseq's
``prev_output_tokens``: the start symbol ``</s>`` in column 0 and the target shifted by one behind it.
"""

from typing import Sequence, Tuple

import torch
from fairseq.data import Dictionary
from torch import Tensor


def replaceable(gold_inputs: Tensor, padding_idx: int, ignore_prefix_size: int = 0) -> Tensor:
    """Mask (B, T), True where an input may be replaced by the model's own token.

    The start symbol, the ``ignore_prefix_size`` inputs behind it (language tags: fairseq's
    ``--ignore-prefix-size`` takes no loss on them) and padding stay what they are.
    """
    mask = gold_inputs.ne(padding_idx)
    mask[:, : 1 + ignore_prefix_size] = False
    return mask


def shift(predictions: Tensor) -> Tensor:
    """Predictions (B, T) as inputs (B, T): the prediction *of* position t is read *at* position t + 1.

    Column 0 has no prediction to read; it holds the last one, and :func:`replaceable` never selects it.
    """
    return predictions.roll(1, dims=1)


def replace(gold_inputs: Tensor, predictions: Tensor, mask: Tensor) -> Tensor:
    """``gold_inputs`` with the shifted ``predictions`` wherever ``mask`` is True; all (B, T)."""
    return torch.where(mask, shift(predictions), gold_inputs)


def forbidden_ids(words: Dictionary) -> Tuple[int, int, int]:
    """What a decoder never reads as a token of its own: ``<pad>``, ``</s>``, ``<s>``."""
    return words.pad(), words.eos(), words.bos()


def choose(scores: Tensor, forbidden: Sequence[int]) -> Tensor:
    """The best token by ``scores`` (..., V) that is not one of ``forbidden``; overwrites ``scores`` there.

    The mask is minus infinity, which every floating type has, and comes before the argmax.
    """
    for token in forbidden:  # a fill each: indexing with a list would copy it to the device every time
        scores[..., token] = float("-inf")
    return scores.argmax(dim=-1)
