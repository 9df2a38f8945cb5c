"""The rollout engine: fairseq's Transformer decoder, one position at a time, at the cost of its arithmetic.

How it works and where its time goes: README.md beside this file.
"""

from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Tuple

import torch
from fairseq.models.transformer import TransformerDecoder, TransformerDecoderBase
from fairseq.modules import MultiheadAttention
from fairseq.modules.transformer_layer import TransformerDecoderLayer, TransformerDecoderLayerBase
from torch import Tensor, nn
from torch.nn import functional as F

from gift_fairseq.rollout.sampling import Sampler


def not_supported(decoder: nn.Module) -> Optional[str]:
    """Why the engine cannot run ``decoder``; None if it can.

    The engine reads the decoder's weights and does its own arithmetic, so whatever is not exactly fairseq's class (a
    subclass may compute something else, an adapter may sit in place of a linear layer) is not for it.
    """
    return next(_reasons_against(decoder), None)


def _reasons_against(decoder: nn.Module) -> Iterator[str]:
    if type(decoder) not in (TransformerDecoder, TransformerDecoderBase):
        yield f"is a {type(decoder).__name__}"
        return
    if decoder.adaptive_softmax is not None:
        yield "has an adaptive softmax"
    if decoder.cross_self_attention:
        yield "attends to source and target at once"
    if decoder.quant_noise is not None:
        yield "has quantization noise"
    if type(decoder.embed_tokens) is not nn.Embedding:
        yield f"has embeddings of class {type(decoder.embed_tokens).__name__}"
    if len(decoder.layers) == 0:
        yield "has no layers"
    linears = [decoder.project_in_dim, decoder.project_out_dim, decoder.output_projection]
    for layer in decoder.layers:
        if type(layer) not in (TransformerDecoderLayer, TransformerDecoderLayerBase):
            yield f"has a layer of class {type(layer).__name__}"
            return
        if any(part is not None for part in (layer.c_attn, layer.attn_ln, layer.ffn_layernorm, layer.w_resid)):
            yield "scales parts of its layers"
        linears += [layer.fc1, layer.fc2]
        for attention in (layer.self_attn, layer.encoder_attn):
            if attention is None:
                yield "does not attend to the source"
                return
            if type(attention) is not MultiheadAttention:
                yield f"has an attention of class {type(attention).__name__}"
                return
            if attention.use_xformers or attention.bias_k is not None or attention.add_zero_attn:
                yield "has an attention with parts of its own"
            linears += [attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj]
    for linear in linears:
        if linear is not None and type(linear) is not nn.Linear:
            yield f"has a {type(linear).__name__} in place of a linear layer"


class Linear(NamedTuple):
    """A linear layer: weight (N, K) and bias (N,)."""

    weight: Tensor
    bias: Optional[Tensor]


class Norm(NamedTuple):
    """What ``F.layer_norm`` takes after its input."""

    shape: Tuple[int, ...]
    weight: Optional[Tensor]
    bias: Optional[Tensor]
    eps: float


class Layer(NamedTuple):
    """One decoder layer."""

    self_norm: Norm
    self_qkv: Linear
    self_out: Linear
    cross_norm: Norm
    cross_q: Linear
    cross_kv: Linear
    cross_out: Linear
    final_norm: Norm
    fc1: Linear
    fc2: Linear
    heads: int
    activation: Callable[[Tensor], Tensor]
    pre_norm: bool


class Weights(NamedTuple):
    """A decoder as the engine reads it; None where it has no such part."""

    embedding: Tensor  # (V, C), in the model's own type
    embedding_scale: float
    project_in: Optional[Linear]
    positions: Optional[Tensor]  # (T, C)
    embedding_norm: Optional[Norm]
    layers: Tuple[Layer, ...]
    norm: Optional[Norm]
    project_out: Optional[Linear]
    project_to_words: Linear


class _Reader:
    """Reads weights in one ``dtype``, without gradient; parts that a decoder does not have stay None."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype

    def __call__(self, weight: Optional[Tensor]) -> Optional[Tensor]:
        return None if weight is None else weight.detach().to(self.dtype)

    def linear(self, module: Optional[nn.Linear]) -> Optional[Linear]:
        return None if module is None else Linear(self(module.weight), self(module.bias))

    def stacked(self, *modules: nn.Linear) -> Linear:
        """One linear layer whose output is that of ``modules`` side by side."""
        weights, biases = zip(*(self.linear(module) for module in modules))
        return Linear(torch.cat(weights), None if biases[0] is None else torch.cat(biases))

    def norm(self, module: Optional[nn.Module]) -> Optional[Norm]:
        if module is None:
            return None
        return Norm(tuple(module.normalized_shape), self(module.weight), self(module.bias), module.eps)

    def layer(self, layer: TransformerDecoderLayerBase) -> Layer:
        own, cross = layer.self_attn, layer.encoder_attn
        return Layer(
            self_norm=self.norm(layer.self_attn_layer_norm),
            self_qkv=self.stacked(own.q_proj, own.k_proj, own.v_proj),
            self_out=self.linear(own.out_proj),
            cross_norm=self.norm(layer.encoder_attn_layer_norm),
            cross_q=self.linear(cross.q_proj),
            cross_kv=self.stacked(cross.k_proj, cross.v_proj),
            cross_out=self.linear(cross.out_proj),
            final_norm=self.norm(layer.final_layer_norm),
            fc1=self.linear(layer.fc1),
            fc2=self.linear(layer.fc2),
            heads=own.num_heads,
            activation=layer.activation_fn,
            pre_norm=layer.normalize_before,
        )

    def decoder(self, decoder: TransformerDecoderBase, length: int) -> Weights:
        positions = None
        if decoder.embed_positions is not None:
            device = decoder.embed_tokens.weight.device
            no_padding = torch.full((1, length), decoder.padding_idx + 1, device=device)
            positions = self(decoder.embed_positions(no_padding))[0]
        return Weights(
            embedding=decoder.embed_tokens.weight.detach(),
            embedding_scale=decoder.embed_scale,
            project_in=self.linear(decoder.project_in_dim),
            positions=positions,
            embedding_norm=self.norm(decoder.layernorm_embedding),
            layers=tuple(self.layer(layer) for layer in decoder.layers),
            norm=self.norm(decoder.layer_norm),
            project_out=self.linear(decoder.project_out_dim),
            project_to_words=self.linear(decoder.output_projection),
        )


FEW_SENTENCES = 0.7  # a share of them below which leaving the others' sources out pays for copying the rest
FEW_ROWS = 64  # from here on MKL multiplies as fast with the weight on the right as on the left, and then faster


def _linear(x: Tensor, linear: Linear) -> Tensor:
    """``F.linear`` (n, N) of ``x`` (n, K). For few rows on a CPU the weight is the left factor of the product.

    MKL lays out its right factor anew before it multiplies, and the weight is by far the larger one. With 32 rows, K =
    512, N = 2,048, weights read from memory: 83 GFLOP/s on the right, 124 on the left; with 64 rows 139 and 135.
    """
    weight, bias = linear
    if x.is_cuda or len(x) >= FEW_ROWS:
        return F.linear(x, weight, bias)
    x = x.contiguous().t()
    return (torch.mm(weight, x) if bias is None else torch.addmm(bias.unsqueeze(1), weight, x)).t()


def _norm(x: Tensor, norm: Optional[Norm]) -> Tensor:
    return x if norm is None else F.layer_norm(x, *norm)


class TransformerSteps:
    """One rollout of ``decoder`` for B sentences, at most T positions, over ``encoder_out`` (fairseq's dict).

    ``order`` (B,) is the sentence of ``encoder_out`` that each row starts with. :meth:`follow` may later make up to
    ``rows`` rows; rows of one sentence share the keys and values of its source. The arithmetic is in the model's type,
    or in autocast's where that is on; weights are read in it once, here. Memory: 2 (R T + B S) C numbers a layer (R
    rows, S source positions, C channels), and copies of the weights that are stacked or change their type.
    """

    retires_rows = True

    def __init__(
        self,
        decoder: TransformerDecoderBase,
        encoder_out: Any,
        order: Tensor,
        length: int,
        sampler: Sampler,
        rows: Optional[int] = None,
    ):
        device, dtype = order.device.type, decoder.output_projection.weight.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        self.sampler = sampler
        with torch.autocast(device, enabled=False):
            self.weights = _Reader(dtype).decoder(decoder, length)
            source = encoder_out["encoder_out"][0].to(dtype).index_select(1, order).transpose(0, 1).contiguous()
            self.cross = [self._keys_values(source, layer) for layer in self.weights.layers]
        self.source_mask = None
        if encoder_out["encoder_padding_mask"]:
            padding = encoder_out["encoder_padding_mask"][0].index_select(0, order)
            if padding.any():
                self.source_mask = torch.zeros_like(padding, dtype=dtype).masked_fill_(padding, float("-inf"))
                self.source_mask = self.source_mask[:, None, None, :]
        self.caches = self._new_caches(rows or len(order), length)
        self.sentences = torch.arange(len(order), device=order.device)  # of which source each row is
        self.slots: Optional[Tensor] = None  # where each row stands among those of its sentence; None: row b is b's

    @staticmethod
    def _keys_values(source: Tensor, layer: Layer) -> Tensor:
        """Keys and values (2, B, H, S, d) of the cross-attention of ``layer`` over ``source`` (B, S, C)."""
        keys_values = F.linear(source, *layer.cross_kv).unflatten(-1, (2, layer.heads, -1))
        return keys_values.permute(2, 0, 3, 1, 4).contiguous()

    def _new_caches(self, rows: int, length: int) -> List[Tensor]:
        """Room for the keys and values (2, rows, H, length, d) of every self-attention."""
        return [cross.new_empty(2, rows, cross.size(2), length, cross.size(4)) for cross in self.cross]

    def next_tokens(self, prefix: Tensor) -> Tensor:
        """The next tokens (n,) after ``prefix`` (n, t + 1), whose last column is read now.

        The n rows, the first of B, must have read the columns before in the same order.
        """
        return self.sampler(self.logits(prefix))

    def follow(self, source: Tensor, read: int) -> None:
        """From now on there are k rows: row i goes on where row ``source[i]`` (k,) is, after ``read`` positions.

        Only the rows that take another's place are copied.
        """
        moved = source.ne(torch.arange(len(source), device=source.device)).nonzero().squeeze(1)
        if len(moved) == 0 and len(source) == len(self.sentences):
            return
        for cache in self.caches:
            cache[:, moved, :, :read] = cache[:, source[moved], :, :read]
        self.sentences = self.sentences[source]
        present, numbers = self.sentences.unique(return_inverse=True)
        if len(present) < FEW_SENTENCES * self.cross[0].size(1):
            self.sentences = numbers
            self.cross = [cross.index_select(1, present) for cross in self.cross]
            if self.source_mask is not None:
                self.source_mask = self.source_mask.index_select(0, present)
        self._stand()

    def _stand(self) -> None:
        """Rows of a sentence stand side by side where they attend to its source: a (B, N) grid, with gaps."""
        in_order, order = self.sentences.sort(stable=True)
        counts = self.sentences.bincount(minlength=self.cross[0].size(1))
        place = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[in_order]
        self.slots = (in_order * counts.max() + place)[order.argsort()]
        self.most = int(counts.max())

    def logits(self, prefix: Tensor) -> Tensor:
        """The scores (n, V) by which :meth:`next_tokens` takes them."""
        with torch.autocast(prefix.device.type, enabled=False):
            return self._forward(prefix[:, -1], prefix.size(1) - 1)

    def _forward(self, tokens: Tensor, t: int) -> Tensor:
        weights = self.weights
        x = weights.embedding_scale * F.embedding(tokens, weights.embedding)
        x = x.to(weights.project_to_words.weight.dtype)
        if weights.project_in is not None:
            x = _linear(x, weights.project_in)
        if weights.positions is not None:
            x = x + self._position(t)
        x = _norm(x, weights.embedding_norm)
        for layer, cache, cross in zip(weights.layers, self.caches, self.cross):
            x = self._layer(x, t, layer, cache, cross)
        x = _norm(x, weights.norm)
        if weights.project_out is not None:
            x = _linear(x, weights.project_out)
        return _linear(x, weights.project_to_words)

    def _position(self, t: int) -> Tensor:
        """The embedding (C,) of position ``t``."""
        return self.weights.positions[t]

    def _remember(self, cache: Tensor, keys_values: Tensor, t: int) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
        """Puts ``keys_values`` (2, n, H, d) of position t into ``cache``; keys, values and mask for :func:`attend`."""
        n = keys_values.size(1)
        cache[:, :n, :, t] = keys_values
        return cache[0, :n, :, : t + 1], cache[1, :n, :, : t + 1], None

    def _layer(self, x: Tensor, t: int, layer: Layer, cache: Tensor, cross: Tensor) -> Tensor:
        n = len(x)

        def before(x: Tensor, norm: Norm) -> Tensor:
            return _norm(x, norm) if layer.pre_norm else x

        def after(x: Tensor, norm: Norm) -> Tensor:
            return x if layer.pre_norm else _norm(x, norm)

        qkv = _linear(before(x, layer.self_norm), layer.self_qkv).contiguous().view(n, 3, layer.heads, -1)
        attended = attend(qkv[:, 0], *self._remember(cache, qkv[:, 1:].transpose(0, 1), t))
        x = after(x + _linear(attended, layer.self_out), layer.self_norm)

        q = _linear(before(x, layer.cross_norm), layer.cross_q).contiguous().view(n, layer.heads, -1)
        x = after(x + _linear(self._attend_source(q, cross), layer.cross_out), layer.cross_norm)

        inner = layer.activation(_linear(before(x, layer.final_norm), layer.fc1))
        return after(x + _linear(inner, layer.fc2), layer.final_norm)

    def _attend_source(self, q: Tensor, cross: Tensor) -> Tensor:
        """Attention (n, H d) of ``q`` (n, H, d) over ``cross``, the keys and values of the rows' sources."""
        n, mask = len(q), self.source_mask
        if self.slots is None:
            return attend(q, cross[0, :n], cross[1, :n], None if mask is None else mask[:n])
        grid = q.new_zeros(cross.size(1) * self.most, *q.shape[1:]).index_copy_(0, self.slots, q)
        grid = grid.unflatten(0, (-1, self.most)).transpose(1, 2)  # (B, H, N, d)
        attended = F.scaled_dot_product_attention(grid, cross[0], cross[1], attn_mask=mask)
        return attended.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, self.slots)


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Optional[Tensor] = None) -> Tensor:
    """Attention (n, H d) of one ``query`` (n, H, d) a row over ``keys`` and ``values`` (n, H, L, d).

    ``mask`` (n, 1, 1, L) is added to what the softmax sees: 0 where a row may look, minus infinity elsewhere.
    """
    return F.scaled_dot_product_attention(query.unsqueeze(2), keys, values, attn_mask=mask).flatten(1)
