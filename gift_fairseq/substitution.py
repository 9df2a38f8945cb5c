"""The decoder reads other inputs inside the one call of the wrapped model.

Calling encoder and decoder by hand would bypass the ``forward`` of DistributedDataParallel and silently stop the
averaging of gradients. A forward pre-hook on the decoder swaps its inputs where they are read instead.
"""

import contextlib
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

from fairseq.models import FairseqIncrementalDecoder
from fairseq.models.nat import FairseqNATDecoder
from torch import Tensor, nn

from gift_fairseq.errors import UserError

# (gold inputs (B, T), encoder output, further keyword arguments of the call) -> inputs (R, T'), encoder output for them
Substitution = Callable[[Tensor, Any, Dict[str, Any]], Tuple[Tensor, Any]]


def check_autoregressive(model: nn.Module) -> None:
    """:class:`UserError` unless ``model`` (wrapped or not) has an encoder and an autoregressive decoder."""
    reason = None
    if getattr(model, "decoder", None) is None or getattr(model, "encoder", None) is None:
        reason = "has not one encoder and one decoder"
    elif isinstance(model.decoder, FairseqNATDecoder):
        reason = "does not generate from left to right"
    elif not isinstance(model.decoder, FairseqIncrementalDecoder):
        reason = "has a decoder that cannot go step by step"
    if reason is not None:
        name = type(unwrapped(model)).__name__
        raise UserError(f"--arch gave a {name}, which {reason}: use an autoregressive encoder-decoder")


def check_one_softmax(decoder: nn.Module) -> None:
    """:class:`UserError` if ``decoder`` has an adaptive softmax: its log-probabilities have no gradient in fairseq."""
    if getattr(decoder, "adaptive_softmax", None) is not None:
        raise UserError("--adaptive-softmax-cutoff is given, but label smoothing needs one softmax: leave it out")


def unwrapped(model: nn.Module) -> nn.Module:
    """``model`` without what fairseq wraps around it for several workers, two modules deep."""
    while isinstance(getattr(model, "module", None), nn.Module):
        model = model.module
    return model


@contextlib.contextmanager
def decoder_reads(decoder: nn.Module, substitute: Substitution) -> Iterator[None]:
    """While this is open, ``decoder`` reads ``substitute(...)`` in place of the gold inputs and encoder output.

    The inputs are computed once: a model that calls its decoder again in the same forward (``transformer_align`` with
    full context) reads the same ones.
    """
    substituted: Optional[Tuple[Tensor, Any]] = None

    def swap(_decoder: nn.Module, args: tuple, kwargs: Dict[str, Any]):
        nonlocal substituted
        named = dict(zip(("prev_output_tokens", "encoder_out"), args), **kwargs)
        gold_inputs, encoder_out = named.pop("prev_output_tokens"), named.pop("encoder_out")
        if substituted is None:
            substituted = substitute(gold_inputs, encoder_out, dict(named))
        inputs, encoder_out = substituted
        return (inputs,), {"encoder_out": encoder_out, **named}

    hook = decoder.register_forward_pre_hook(swap, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def encoder_rows(model: nn.Module, encoder_out: Any, rows: Tensor) -> Any:
    """``encoder_out`` with the sentences ``rows`` (R,) of its batch, each as often as it is named there."""
    return model.encoder.reorder_encoder_out(without_layer_states(encoder_out), rows)


def without_layer_states(encoder_out: Any) -> Any:
    """``encoder_out`` to be reordered: a dictionary is copied, for fconv's encoder overwrites what is in it.

    Without the states between the layers: no decoder reads them, and reordering overwrites them too.
    """
    if not isinstance(encoder_out, dict):
        return encoder_out
    return {**encoder_out, "encoder_states": []} if "encoder_states" in encoder_out else dict(encoder_out)
