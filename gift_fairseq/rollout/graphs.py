"""The engine's steps as CUDA graphs: a step costs its memory traffic, not its launches. ``--rollout-cuda-graphs``.

A graph repeats kernels with the shapes and addresses they were captured with. So the step here has neither in it: the
position is a tensor, keys and values are read to the next multiple of 32 positions with a mask over those that are not
written yet, rows are rounded up to a multiple of 16, and weights, caches and the encoder's keys and values lie where
they lay in the last rollout. There is one graph for each combination of rounded sizes, captured when first needed.

Costs: a copy of the decoder's weights in the type of the rollout, held between rollouts, beside the caches; one copy
of the weights a rollout. Off by default: written without a GPU at hand, its arithmetic is tested on a CPU
(:class:`StaticSteps`), its capture is not.
"""

import logging
from typing import Any, Dict, List, Optional, Tuple
from weakref import WeakKeyDictionary

import torch
from fairseq.models.transformer import TransformerDecoderBase
from torch import Tensor, nn

from gift_fairseq.rollout.sampling import Sampler
from gift_fairseq.rollout.transformer import TransformerSteps, Weights

logger = logging.getLogger(__name__)

ROWS, POSITIONS = 16, 32  # what sizes are rounded up to


def _round_up(size: int, unit: int) -> int:
    return (size + unit - 1) // unit * unit


def _tensors(part: Any) -> List[Tensor]:
    """All tensors in nested tuples, in order."""
    if isinstance(part, Tensor):
        return [part]
    return [tensor for item in part for tensor in _tensors(item)] if isinstance(part, tuple) else []


def _copied(part: Any) -> Any:
    """Nested tuples with a copy of every tensor."""
    if isinstance(part, Tensor):
        return part.clone()
    if isinstance(part, tuple):
        items = [_copied(item) for item in part]
        return type(part)(*items) if hasattr(part, "_fields") else tuple(items)
    return part


class _Room:
    """What stays at its address from one rollout to the next, for up to ``rows`` rows and so many positions."""

    def __init__(self, weights: Weights, cross: List[Tensor], rows: int, length: int, source: int):
        like = cross[0]  # (2, B, H, S, d)
        heads, width = like.size(2), like.size(4)
        self.rows, self.length, self.source = rows, length, source
        self.weights = _copied(weights)
        self.cross = [like.new_zeros(2, rows, heads, source, width) for _ in cross]
        self.caches = [like.new_zeros(2, rows, heads, length, width) for _ in cross]  # a NaN would get past the mask
        self.source_mask = like.new_zeros(rows, 1, 1, source)
        self.tokens = torch.zeros(rows, dtype=torch.long, device=like.device)
        self.chosen = torch.zeros_like(self.tokens)
        self.position = torch.zeros(1, dtype=torch.long, device=like.device)
        self.graphs: Dict[Tuple[Any, ...], Any] = {}
        self.can_capture = True

    def fits(self, weights: Weights, rows: int, length: int, source: int) -> bool:
        same_type = self.weights.project_to_words.weight.dtype == weights.project_to_words.weight.dtype
        return same_type and rows <= self.rows and length <= self.length and source <= self.source


_rooms: "WeakKeyDictionary[nn.Module, _Room]" = WeakKeyDictionary()


def captured(decoder: nn.Module) -> Dict[Tuple[Any, ...], Any]:
    """The graphs that rollouts of ``decoder`` replay now, by what they were captured for."""
    return _rooms[decoder].graphs if decoder in _rooms else {}


class StaticSteps(TransformerSteps):
    """:class:`TransformerSteps` whose shapes and addresses do not depend on the position."""

    def __init__(self, decoder: TransformerDecoderBase, encoder_out: Any, order: Tensor, length: int, sampler: Sampler):
        room = _rooms.get(decoder)
        source = encoder_out["encoder_out"][0].size(0)
        sizes = [_round_up(len(order), ROWS), _round_up(length, POSITIONS), _round_up(source, POSITIONS)]
        if room is not None:
            sizes = [max(size, kept) for size, kept in zip(sizes, (room.rows, room.length, room.source))]
        sizes[1] = min(sizes[1], decoder.max_positions())  # learned positions end there
        super().__init__(decoder, encoder_out, order, sizes[1], sampler)
        if room is None or not room.fits(self.weights, *sizes):
            room = _rooms[decoder] = _Room(self.weights, self.cross, *sizes)
        self.room = room
        for kept, new in zip(_tensors(room.weights), _tensors(self.weights)):
            kept.copy_(new)
        room.source_mask.fill_(float("-inf"))
        room.source_mask[: len(order), :, :, :source] = 0 if self.source_mask is None else self.source_mask
        room.source_mask[len(order) :] = 0  # rows of nothing
        for kept, new in zip(room.cross, self.cross):
            kept[:, : len(order), :, :source] = new
        self.source_bound = _round_up(source, POSITIONS)
        self.weights, self.caches = room.weights, room.caches
        self.source_mask = room.source_mask[..., : self.source_bound]
        self.cross = [kept[:, :, :, : self.source_bound] for kept in room.cross]

    def _new_caches(self, rows: int, length: int) -> List[Tensor]:
        return []  # the room has them

    def next_tokens(self, prefix: Tensor) -> Tensor:
        n, room = len(prefix), self.room
        room.tokens[:n] = prefix[:, -1]
        room.position.fill_(prefix.size(1) - 1)
        self._sample(_round_up(n, ROWS), self._bound(prefix))
        return room.chosen[:n]

    def logits(self, prefix: Tensor) -> Tensor:
        self.room.position.fill_(prefix.size(1) - 1)
        with torch.autocast(prefix.device.type, enabled=False):
            return self._forward(prefix[:, -1], self._bound(prefix))

    def _bound(self, prefix: Tensor) -> int:
        """Up to which position keys and values are read."""
        return min(_round_up(prefix.size(1), POSITIONS), self.room.length)

    def _sample(self, rows: int, bound: int) -> None:
        """The best tokens of the first ``rows`` rows into the room."""
        with torch.autocast(self.room.tokens.device.type, enabled=False):
            self.room.chosen[:rows] = self.sampler(self._forward(self.room.tokens[:rows], bound))

    def _forward(self, tokens: Tensor, bound: int) -> Tensor:
        room = self.room
        self.not_written = room.source_mask.new_zeros(1, 1, 1, bound).masked_fill_(
            torch.arange(bound, device=tokens.device) > room.position, float("-inf")
        )
        return super()._forward(tokens, bound)

    def _position(self, bound: int) -> Tensor:
        return self.weights.positions.index_select(0, self.room.position)

    def _remember(self, cache: Tensor, keys_values: Tensor, bound: int) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
        n = keys_values.size(1)
        cache[:, :n].index_copy_(3, self.room.position, keys_values.unsqueeze(3))
        return cache[0, :n, :, :bound], cache[1, :n, :, :bound], self.not_written


class GraphedSteps(StaticSteps):
    """:class:`StaticSteps`, captured and replayed; uncaptured where capture fails, which is logged once."""

    def _sample(self, rows: int, bound: int) -> None:
        room, key = self.room, (rows, bound, self.source_bound, self.sampler)
        if key not in room.graphs and room.can_capture:
            try:
                room.graphs[key] = self._captured(rows, bound)
            except RuntimeError as error:
                room.can_capture = False
                logger.warning("rollouts go on without CUDA graphs, which could not be captured: %s", error)
        if key in room.graphs:
            room.graphs[key].replay()
        else:
            super()._sample(rows, bound)

    def _captured(self, rows: int, bound: int) -> "torch.cuda.CUDAGraph":
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries allocate at their first call, which no graph may hold
            super()._sample(rows, bound)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other in self.room.graphs.values()), None)
        with torch.cuda.graph(graph, pool=pool):
            super()._sample(rows, bound)
        return graph
