"""Decoder inputs as pure tensor functions.

``B`` sentences, ``T`` target positions, padded on the right. ``gold_inputs`` (B, T) is fairseq's
``prev_output_tokens``: the start symbol ``</s>`` in column 0 and the target shifted by one behind it.
"""

from typing import Tuple

import torch
from fairseq.data import Dictionary
from torch import Tensor
from torch.nn import functional


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


def behind(start: Tensor, tokens: Tensor, padding_idx: int) -> Tensor:
    """Inputs (R, L) of a decoder that goes on with ``tokens`` (R, L): ``start`` (R,), then each token behind its own.

    Padding where there is no token to go on with: the last token of a row is not read. A row without tokens keeps its
    start: attention over nothing but padding is no number.
    """
    behind_start = tokens[:, :-1].masked_fill(tokens[:, 1:].eq(padding_idx), padding_idx)
    return torch.cat([start.unsqueeze(1), behind_start], dim=1)


def stack(one: Tensor, other: Tensor, padding_idx: int) -> Tensor:
    """The rows of ``one`` (R, L) and, below them, of ``other`` (S, M), padded on the right to the longer of both."""
    length = max(one.size(1), other.size(1))
    rows = (functional.pad(part, (0, length - part.size(1)), value=padding_idx) for part in (one, other))
    return torch.cat(list(rows))
