"""One teacher-forced pass: a token for every position at once."""

import contextlib
from typing import Any, Callable, Iterator, Optional

import torch
from fairseq.models.transformer import TransformerDecoderBase
from torch import Tensor, nn

from gift_fairseq.rollout.sampling import Sampler, generating, scores_of


def teacher_forced(
    decoder: nn.Module,
    inputs: Tensor,
    encoder_out: Any,
    sampler: Sampler,
    look: Optional[Callable[[Tensor], None]] = None,
    dtype: Optional[torch.dtype] = None,
    **extra: Any,
) -> Tensor:
    """The next token (B, T) of each position when the decoder reads ``inputs`` (B, T) in one parallel pass.

    ``look`` sees the scores (B, T, V) before ``sampler`` masks the forbidden ids in them. ``dtype`` is that of the
    arithmetic, None the model's own; ``extra`` are the further keyword arguments of the model's own decoder call.
    """
    with generating(decoder, inputs.device, dtype), _no_attention_weights(decoder):
        if isinstance(decoder, TransformerDecoderBase):
            extra["alignment_layer"] = -1  # of no layer; by default the last one returns its weights
        scores = scores_of(decoder, decoder.forward(inputs, encoder_out=encoder_out, **extra))
        if look is not None:
            look(scores)
        return sampler(scores)


@contextlib.contextmanager
def _no_attention_weights(decoder: nn.Module) -> Iterator[None]:
    """fairseq's layers return attention weights in evaluation mode unless they are told that nobody needs them."""
    layers = [layer for layer in decoder.modules() if getattr(layer, "need_attn", False)]
    try:
        for layer in layers:
            layer.need_attn = False
        yield
    finally:
        for layer in layers:
            layer.need_attn = True
