"""Decoder inputs as pure tensor functions.

``B`` sentences, ``T`` target positions, padded on the right. ``gold_inputs`` (B, T) is fairseq's
``prev_output_tokens``: the start symbol ``</s>`` in column 0 and the target shifted by one after it.
"""

from typing import Any, Dict

import torch
from torch import Tensor
from torch.nn import functional


def replaceable(gold_inputs: Tensor, padding_idx: int, ignore_prefix_size: int = 0) -> Tensor:
    """Mask (B, T), True where an input may be replaced by the model's own token.

    The start symbol, the ``ignore_prefix_size`` inputs after it (language tags: fairseq's
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


def replacement_log(gold_inputs: Tensor, predictions: Tensor, mask: Tensor, symbols: Any) -> Dict[str, Tensor]:
    """How many inputs were replaced, and how many of all that could have been were predicted right.

    ``symbols`` has the ``pad`` and ``ignored`` of :class:`~gift_fairseq.prefixes.source.Symbols`; the others as in
    :func:`replace`.
    """
    candidates = replaceable(gold_inputs, symbols.pad, symbols.ignored)
    right = shift(predictions).eq(gold_inputs) & candidates
    return {"n_replaced": mask.sum(), "n_chosen": candidates.sum(), "n_chosen_right": right.sum()}


def times(lengths: Tensor, factor: float) -> Tensor:
    """``lengths`` (B,) times ``factor``, without the error of the last digit: 25 * 1.2 is 30, not a little more."""
    return (lengths.double() * factor).round(decimals=6)


def after(start: Tensor, tokens: Tensor, padding_idx: int) -> Tensor:
    """Inputs (R, L) of a decoder that reads ``tokens`` (R, L): ``start`` (R,), then each token one position later.

    The last token of a row is not read. A row without tokens keeps its start: attention over nothing but padding is not
    a number.
    """
    read = tokens[:, :-1].masked_fill(tokens[:, 1:].eq(padding_idx), padding_idx)
    return torch.cat([start.unsqueeze(1), read], dim=1)


def stack(one: Tensor, other: Tensor, padding_idx: int) -> Tensor:
    """The rows of ``one`` (R, L) and, below them, of ``other`` (S, M), padded on the right to the longer of both."""
    length = max(one.size(1), other.size(1))
    rows = (functional.pad(part, (0, length - part.size(1)), value=padding_idx) for part in (one, other))
    return torch.cat(list(rows))
