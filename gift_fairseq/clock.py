"""Time, with the work that was queued counted in."""

import time

import torch


def now(device: torch.device) -> float:
    """Seconds, when the work queued on ``device`` is done; differences of two calls are meaningful."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
