"""Free running: the decoder reads the tokens that it generates, one position after the other."""

import logging
from typing import Any, Optional
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gift_fairseq.rollout import graphs, transformer
from gift_fairseq.rollout.incremental import IncrementalSteps
from gift_fairseq.rollout.sampling import Sampler, generating

logger = logging.getLogger(__name__)

_steps_class: "WeakKeyDictionary[nn.Module, type]" = WeakKeyDictionary()


def steps_for(decoder: nn.Module, cuda_graphs: bool = False) -> type:
    """What goes through the positions of ``decoder``; looked up and logged once for every decoder."""
    if decoder not in _steps_class:
        reason = transformer.not_supported(decoder)
        if reason is None:
            _steps_class[decoder], means = transformer.TransformerSteps, "the engine for Transformers"
        else:
            _steps_class[decoder], means = IncrementalSteps, f"fairseq's incremental_state: the decoder {reason}"
        logger.info("free-running generation goes over %s", means)
    if cuda_graphs and _steps_class[decoder] is transformer.TransformerSteps:
        return graphs.GraphedSteps
    return _steps_class[decoder]


def free_running(
    decoder: nn.Module,
    gold_inputs: Tensor,
    encoder_out: Any,
    sampler: Sampler,
    padding_idx: int,
    ignore_prefix_size: int = 0,
    dtype: Optional[torch.dtype] = None,
    cuda_graphs: bool = False,
    engine: Optional[type] = None,
) -> Tensor:
    """The next token (B, T) of each position when the decoder reads what it generates, from the start symbol on.

    The first ``1 + ignore_prefix_size`` inputs are read from ``gold_inputs`` (B, T), everything after them is
    generated, to the length of the gold inputs, which end at their padding (on the right). No sentence ends earlier
    (``sampler`` must forbid ``</s>``), and rows never influence each other. The predictions that no input reads, the
    last of every row and those after its end, are 0 or arbitrary. ``dtype`` is that of the arithmetic, None the
    model's own; ``cuda_graphs`` replays the engine's steps as graphs, on CUDA; they cannot sample.
    ``engine`` is a class of steps to take in place of what :func:`steps_for` finds.
    """
    with generating(decoder, gold_inputs.device, dtype):
        length, steps_class = gold_inputs.size(1), engine or steps_for(decoder, cuda_graphs and gold_inputs.is_cuda)
        lengths = gold_inputs.ne(padding_idx).sum(dim=1)
        if steps_class.retires_rows:
            order = lengths.argsort(descending=True)
            # how many rows still need the prediction of position t: those with an input at t + 1
            inputs_left = lengths.unsqueeze(0) - torch.arange(1, length, device=lengths.device).unsqueeze(1)
            going_on = inputs_left.gt(0).sum(dim=1).tolist()
        else:
            order, going_on = torch.arange(len(lengths), device=lengths.device), [len(lengths)] * (length - 1)
        inputs = gold_inputs[order]
        predictions = torch.zeros_like(inputs)
        steps = steps_class(decoder, encoder_out, order, length, sampler)
        for t, n in enumerate(going_on):
            if n == 0:  # what is left is padding in every row
                break
            predictions[:n, t] = steps.next_tokens(inputs[:n, : t + 1])
            if t >= ignore_prefix_size:
                inputs[:n, t + 1] = predictions[:n, t]
        return torch.empty_like(predictions).index_copy_(0, order, predictions)


FEW_GO_ON = 0.7  # a step's share of rows below which leaving the others out pays for copying the caches


def until_eos(
    decoder: nn.Module,
    start: Tensor,
    encoder_out: Any,
    sampler: Sampler,
    eos: int,
    padding_idx: int,
    longest: Tensor,
    dtype: Optional[torch.dtype] = None,
) -> Tensor:
    """What the decoder generates (B, L) when it reads that itself, each row until its own ``</s>``.

    ``start`` (B, 1 + P) is read first: the start symbol, and a prefix that is forced and so begins the result.
    ``sampler`` must allow ``eos``. A row ends with ``eos``, or without it at ``longest`` (B,) tokens, 1 or more; after
    that comes padding (a forced prefix may hold some too, where the sentence is shorter). L is the length of the
    longest row. ``dtype`` is that of the arithmetic, None the model's own.
    """
    with generating(decoder, start.device, dtype):
        length, steps_class = int(longest.max()), steps_for(decoder)
        rows = torch.arange(len(start), device=start.device)  # which row of the result each computed one is
        tokens = start.new_full((len(start), length), padding_idx)
        ended = torch.zeros_like(rows, dtype=torch.bool)
        prefix = start[:, :1]
        steps = steps_class(decoder, encoder_out, rows, length, sampler)
        for t in range(length):
            chosen = steps.next_tokens(prefix)
            if t + 1 < start.size(1):
                chosen = start[rows, t + 1]
            tokens[rows, t] = chosen.masked_fill(ended, padding_idx)
            ended = ended | chosen.eq(eos) | chosen.eq(padding_idx) | longest[rows].le(t + 1)
            going_on = int(len(ended) - ended.sum())
            if going_on == 0:
                break
            prefix = torch.cat([prefix, chosen.unsqueeze(1)], dim=1)
            if steps_class.retires_rows and going_on < FEW_GO_ON * len(rows):
                kept = ended.logical_not().nonzero().squeeze(1)
                steps.keep(kept)
                rows, prefix, ended = rows[kept], prefix[kept], ended[kept]
        return tokens[:, : t + 1]
