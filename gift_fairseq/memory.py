"""Memory of this process in MiB: of torch's CUDA allocator once CUDA is in use, of the resident set on CPU."""

import re
from pathlib import Path

import psutil
import torch
from fairseq.logging import metrics

MIB = 2**20
_PROC = Path("/proc/self")


def in_use() -> float:
    """Memory held now, MiB."""
    if torch.cuda.is_initialized():
        return torch.cuda.memory_allocated() / MIB
    return psutil.Process().memory_info().rss / MIB


def take_peak() -> float:
    """The most memory held since the last call (or since the start), MiB; the peak counts from now on again.

    Where the system keeps no peak that can be reset (all but Linux, for CPU), this is the memory held now.
    """
    if torch.cuda.is_initialized():
        peak = torch.cuda.max_memory_allocated() / MIB
        torch.cuda.reset_peak_memory_stats()
        return peak
    try:
        peak_kib = re.search(r"VmHWM:\s+(\d+) kB", (_PROC / "status").read_text())
        (_PROC / "clear_refs").write_text("5")  # proc(5): resets the peak resident set size
    except OSError:
        peak_kib = None
    return int(peak_kib.group(1)) * 1024 / MIB if peak_kib else in_use()


def peak_taken_by_trainer() -> float:
    """The most memory held in the running update by what fairseq's trainer logged, MiB; 0 on CPU.

    On CUDA the trainer takes the peak itself, after the optimizer's step: it logs what was free (``gb_free``, of the
    device's memory) and resets the peak before metrics are reduced. :func:`take_peak` then sees what came after.
    """
    gb_free = metrics.get_meter("train", "gb_free")
    if not torch.cuda.is_initialized() or gb_free is None or gb_free.val is None:
        return 0.0
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return total / MIB - gb_free.val * 1024
