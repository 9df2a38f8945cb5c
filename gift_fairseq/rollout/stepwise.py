"""Free running: the decoder reads the tokens that it generates, one position after the other."""

import logging
from typing import Any, Callable, Optional, Tuple
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


def until_eos(
    decoder: nn.Module,
    start: Tensor,
    encoder_out: Any,
    sampler: Callable[[Tensor, Tensor], Tensor],
    eos: int,
    padding_idx: int,
    longest: Tensor,
    dtype: Optional[torch.dtype] = None,
    copies: int = 1,
    reorder: Optional[Callable[[Any, Tensor], Any]] = None,
) -> Tensor:
    """What the decoder generates (B N, L) when it reads that itself, N = ``copies`` times for each sentence.

    Row r is of sentence ``r // N`` and goes on until its own ``</s>``. ``start`` (B, 1 + P) is read first: the start
    symbol, and a prefix that is forced and so begins the result. ``sampler(scores, rows)`` takes the next tokens (n,)
    of ``rows`` (n,) by ``scores`` (n, V); it must allow ``eos``. A row ends with ``eos``, or without it at ``longest``
    (B,) tokens, 1 or more; after that comes padding (a forced prefix may hold some too, where the sentence is
    shorter). L is the length of the longest row. ``dtype`` is that of the arithmetic, None the model's own.

    The engine computes rows of a sentence that have read the same tokens once. Other decoders read every row, of
    ``reorder(encoder_out, sentences)``; that is not needed for one copy.
    """
    with generating(decoder, start.device, dtype):
        length, steps_class, count = int(longest.max()), steps_for(decoder), len(start) * copies
        sentences = torch.arange(len(start), device=start.device)
        rows = torch.arange(count, device=start.device)  # those that go on
        start, longest = start.repeat_interleave(copies, dim=0), longest.repeat_interleave(copies)
        tokens = start.new_full((count, length), padding_idx)
        if steps_class.retires_rows:
            states, prefix = rows // copies, start[::copies, :1]  # what was read, and which of that each row has read
        else:
            states, prefix = rows, start[:, :1]
            if copies > 1:
                sentences = sentences.repeat_interleave(copies)
                encoder_out = reorder(encoder_out, sentences)
        steps = steps_class(decoder, encoder_out, sentences, length, sampler, count)
        for t in range(length):
            scores = steps.logits(prefix)
            # rows are in the order of their states
            chosen = sampler(scores if len(rows) == len(scores) else scores[states], rows)
            if t + 1 < start.size(1):
                chosen = start[rows, t + 1]
            tokens[rows, t] = chosen
            going_on = chosen.ne(eos) & chosen.ne(padding_idx) & longest[rows].gt(t + 1)
            going_on = going_on.nonzero().squeeze(1)  # one wait for the device, not one for each of the three
            rows, states, chosen = rows[going_on], states[going_on], chosen[going_on]
            if len(rows) == 0:
                break
            if steps_class.retires_rows:
                source, last, states = _next_states(states, chosen, scores.size(1))
                steps.follow(source, prefix.size(1))
                prefix = torch.cat([prefix[source], last.unsqueeze(1)], dim=1)
                states, order = states.sort()
                rows = rows[order]
            else:
                last = prefix.new_full((count,), eos).index_copy_(0, rows, chosen)
                prefix = torch.cat([prefix, last.unsqueeze(1)], dim=1)
        return tokens[:, : t + 1]


def _next_states(states: Tensor, chosen: Tensor, words: int) -> Tuple[Tensor, Tensor, Tensor]:
    """For rows in ``states`` (m,) that took the tokens ``chosen`` (m,), below ``words``, the states that come next.

    Returns the parent state (k,) and the last token (k,) of the k distinct new states, and the new state (m,) of each
    row. A new state keeps its parent's index where possible, so that few cache rows are copied.
    """
    pairs, which = torch.unique(states * words + chosen, return_inverse=True)
    parents = pairs // words
    first = parents.ne(torch.nn.functional.pad(parents, (1, 0), value=-1)[:-1])
    stays = first & parents.lt(len(parents))
    free = torch.ones_like(stays).index_fill_(0, parents[stays], False)
    numbers = parents.clone()
    numbers[~stays] = free.nonzero().squeeze(1)
    place = numbers.argsort()
    return parents[place], pairs[place] % words, numbers[which]
