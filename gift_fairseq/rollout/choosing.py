"""The state in which tokens are chosen, and what they are chosen by."""

import contextlib
from typing import Any, Iterator, Optional

import torch
from torch import Tensor, nn

from gift_fairseq.options import check_choice

DTYPES = {"model": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_named(name: str) -> Optional[torch.dtype]:
    """What ``--rollout-dtype`` means, None for the model's own type; :class:`UserError` if it means nothing."""
    return DTYPES[check_choice("--rollout-dtype", name, DTYPES)]


@contextlib.contextmanager
def choosing(decoder: nn.Module, device: torch.device, dtype: Optional[torch.dtype] = None) -> Iterator[None]:
    """No gradient and no dropout in the decoder; afterwards training flags, random stream and autocast are as before.

    ``dtype`` opens autocast to that type; None leaves it as it is. Autocast keeps the half-precision copies of weights
    that it made. Older torch uses those made here, without gradient, again in the training pass, which then passes none
    to the weights: the cache is off inside.
    The random stream is kept because fairseq's layer-drop draws from it in evaluation mode too.
    """
    training = [module for module in decoder.modules() if module.training]
    autocast = torch.autocast(
        device.type,
        dtype=dtype or torch.get_autocast_dtype(device.type),
        enabled=dtype is not None or torch.is_autocast_enabled(device.type),
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
