"""Tokens from the decoder without gradient: in one teacher-forced pass, or step by step on its own outputs.

``decoder`` is fairseq's (unwrapped) decoder; it is called by its ``forward``, past any hook. ``encoder_out`` is what
its encoder returned, ``extra`` the further keyword arguments of the model's own decoder call.
"""

import contextlib
from typing import Any, Callable, Dict, Iterator, Optional, Sequence

import torch
from torch import Tensor, nn

from gift_fairseq.prefixes import choose


@contextlib.contextmanager
def choosing(decoder: nn.Module, device: torch.device) -> Iterator[None]:
    """No gradient and no dropout in the decoder; afterwards training flags, random stream and autocast are as before.

    Autocast keeps the half-precision copies of weights that it made. Older torch uses those made here, without
    gradient, again in the training pass, which then passes none to the weights: the cache is off inside.
    The random stream is kept because fairseq's layer-drop draws from it in evaluation mode too.
    """
    training = [module for module in decoder.modules() if module.training]
    autocast = torch.autocast(
        device.type,
        dtype=torch.get_autocast_dtype(device.type),
        enabled=torch.is_autocast_enabled(device.type),
        cache_enabled=False,
    )
    cuda_devices = [device] if device.type == "cuda" else []
    decoder.eval()
    try:
        with torch.no_grad(), autocast, torch.random.fork_rng(devices=cuda_devices):
            yield
    finally:
        for module in training:
            module.training = True


def scores_of(decoder: nn.Module, output: Any) -> Tensor:
    """What to take the argmax of, (B, T, V): logits, or log-probabilities where the softmax is adaptive."""
    if getattr(decoder, "adaptive_softmax", None) is not None:
        return decoder.get_normalized_probs(output, log_probs=True, sample=None)
    return output[0]


def teacher_forced(
    decoder: nn.Module,
    inputs: Tensor,
    encoder_out: Any,
    forbidden: Sequence[int],
    look: Optional[Callable[[Tensor], None]] = None,
    **extra: Any,
) -> Tensor:
    """The decoder's choice (B, T) of each next token when it reads ``inputs`` (B, T) in one parallel pass.

    ``look`` sees the scores (B, T, V) before the ``forbidden`` ids are masked in them.
    """
    with choosing(decoder, inputs.device):
        scores = scores_of(decoder, decoder.forward(inputs, encoder_out=encoder_out, **extra))
        if look is not None:
            look(scores)
        return choose(scores, forbidden)


def free_running(
    decoder: nn.Module,
    gold_inputs: Tensor,
    encoder_out: Any,
    forbidden: Sequence[int],
    ignore_prefix_size: int = 0,
) -> Tensor:
    """The decoder's greedy choice (B, T) of each next token when it reads its own, from the start symbol to length T.

    The first ``1 + ignore_prefix_size`` inputs are read from ``gold_inputs`` (B, T), everything behind them is
    generated, over fairseq's ``incremental_state``. No sentence ends early (``</s>`` is forbidden), so the result has a
    token for every gold position, and rows never influence each other. The last column, which no input reads, is 0.
    """
    length = gold_inputs.size(1)
    inputs = gold_inputs.clone()
    predictions = torch.zeros_like(gold_inputs)
    incremental_state: Dict[str, Any] = {}
    with choosing(decoder, gold_inputs.device):
        for t in range(length - 1):
            output = decoder.forward(inputs[:, : t + 1], encoder_out=encoder_out, incremental_state=incremental_state)
            predictions[:, t] = choose(scores_of(decoder, output)[:, -1], forbidden)
            if t >= ignore_prefix_size:
                inputs[:, t + 1] = predictions[:, t]
    return predictions
