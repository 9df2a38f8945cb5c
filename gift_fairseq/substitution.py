"""The decoder reads other inputs inside the one call of the wrapped model.

Calling encoder and decoder by hand would bypass the ``forward`` of DistributedDataParallel and silently stop the
averaging of gradients. A forward pre-hook on the decoder swaps its inputs where they are read instead.
"""

import contextlib
from typing import Any, Callable, Dict, Iterator, Optional

from fairseq.models import FairseqIncrementalDecoder
from fairseq.models.nat import FairseqNATDecoder
from torch import Tensor, nn

from gift_fairseq.options import UserError

# (gold inputs (B, T), encoder output, further keyword arguments of the call) -> inputs (B, T)
InputChooser = Callable[[Tensor, Any, Dict[str, Any]], Tensor]


def check_model(model: nn.Module) -> None:
    """:class:`UserError` unless ``model`` (wrapped or not) has an encoder and an autoregressive decoder."""
    reason = None
    if getattr(model, "decoder", None) is None or getattr(model, "encoder", None) is None:
        reason = "has not one encoder and one decoder"
    elif isinstance(model.decoder, FairseqNATDecoder):
        reason = "does not generate from left to right"
    elif not isinstance(model.decoder, FairseqIncrementalDecoder):
        reason = "has a decoder that cannot go step by step"
    if reason is not None:
        name = type(getattr(model, "module", model)).__name__
        raise UserError(f"--arch gave a {name}, which {reason}: use an autoregressive encoder-decoder")


@contextlib.contextmanager
def decoder_reads(decoder: nn.Module, choose_inputs: InputChooser) -> Iterator[None]:
    """While this is open, ``decoder`` reads ``choose_inputs(...)`` in place of the gold inputs.

    The inputs are chosen once: a model that calls its decoder again in the same forward (``transformer_align`` with
    full context) reads the same ones.
    """
    chosen: Optional[Tensor] = None

    def swap(_decoder: nn.Module, args: tuple, kwargs: Dict[str, Any]):
        nonlocal chosen
        named = dict(zip(("prev_output_tokens", "encoder_out"), args), **kwargs)
        gold_inputs, encoder_out = named.pop("prev_output_tokens"), named.pop("encoder_out")
        if chosen is None:
            chosen = choose_inputs(gold_inputs, encoder_out, dict(named))
        return (chosen,), {"encoder_out": encoder_out, **named}

    hook = decoder.register_forward_pre_hook(swap, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
