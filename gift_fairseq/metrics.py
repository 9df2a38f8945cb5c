"""What the criterions log, and how it is reduced: ratios of sums, memory, and time.

Each part of the package declares by :func:`ratio` what it logs; :func:`reduce` computes it. Memory is in MiB: of
torch's CUDA allocator once CUDA is in use, else of the resident set. Where the allocator keeps what tensors left free
(the command line has it so on a CPU), that is in the resident set too: the mean then lies near the peak.
"""

import math
import re
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import psutil
import torch
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import metrics
from fairseq.logging.meters import MetersDict

LN2 = math.log(2)
MIB = 2**20
_PROC = Path("/proc/self")
_OWN_PEAK = "_peak_mem_mib"  # fairseq shows no meter of such a name


class Ratio(NamedTuple):
    """``name`` is logged as ``scale`` times the sum of ``part`` over the sum of ``whole``, where that is not 0."""

    name: str
    part: str
    whole: str
    meaning: str
    scale: float


RATIOS: Dict[str, Ratio] = {}  # by name, in the order in which they are logged
OTHERS = {  # what is logged beside the ratios
    "rollout_seconds": "time spent generating tokens, seconds an update",
    "update_seconds": "time of an update, seconds",
    "peak_mem_mib": "peak memory of the epoch's updates, the highest of all workers, MiB",
}


def ratio(name: str, part: str, whole: str, meaning: str, scale: float = 1.0) -> None:
    """Declares a :class:`Ratio` of two keys of the criterions' logging outputs."""
    RATIOS[name] = Ratio(name, part, whole, meaning, scale)


ratio("mem_mib", "mem_in_use", "n_readings", "memory in use at the loss, averaged over updates, MiB")


def total(logging_outputs: List[Dict[str, Any]], key: str) -> float:
    return float(sum(log.get(key, 0) for log in logging_outputs))


def reduce_ratios(logging_outputs: List[Dict[str, Any]]) -> None:
    """Logs every ratio that the logging outputs of all micro-batches and workers have something of."""
    for name, part, whole, _, scale in RATIOS.values():
        if (size := total(logging_outputs, whole)) > 0:
            metrics.log_scalar(name, scale * total(logging_outputs, part) / size, size, round=3)


def reduce(logging_outputs: List[Dict[str, Any]]) -> None:
    """Logs everything, from the logging outputs of all micro-batches and workers; called once an update."""
    reduce_ratios(logging_outputs)
    peak = take_peak()  # after validation too: its peak is none of the training's
    if total(logging_outputs, "n_readings") == 0:
        return
    workers = distributed_utils.get_data_parallel_world_size()
    metrics.log_scalar("rollout_seconds", total(logging_outputs, "rollout_seconds") / workers, round=4)
    _log_peak_of_epoch(max(peak, _peak_taken_by_trainer()))
    _log_seconds()


# ---- memory


def memory_in_use() -> float:
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
    return int(peak_kib.group(1)) * 1024 / MIB if peak_kib else memory_in_use()


def _peak_taken_by_trainer() -> float:
    """The most memory held in the running update by what fairseq's trainer logged, MiB; 0 on CPU.

    On CUDA the trainer takes the peak itself, after the optimizer's step: it logs what was free (``gb_free``, of the
    device's memory) and resets the peak before metrics are reduced. :func:`take_peak` then sees what came after.
    """
    gb_free = metrics.get_meter("train", "gb_free")
    if not torch.cuda.is_initialized() or gb_free is None or gb_free.val is None:
        return 0.0
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return total / MIB - gb_free.val * 1024


def _log_peak_of_epoch(peak: float) -> None:
    """Logs this worker's peak memory in the epoch so far, MiB. The epoch's own value is the maximum over all workers.

    fairseq resets the meters of "train" at each epoch's end: an empty one begins a new peak. Weight 0 makes a meter
    show its last value instead of an average.
    """
    meter = metrics.get_meter("train", _OWN_PEAK)
    if meter is not None and meter.val is not None:
        peak = max(peak, meter.val)
    metrics.log_scalar(_OWN_PEAK, peak, weight=0, round=3)
    metrics.log_derived("peak_mem_mib", _peak_of_epoch, priority=10)


def _peak_of_epoch(meters: MetersDict) -> Optional[float]:
    """The peak in ``meters``; where they are those of "train", the highest of all workers.

    fairseq-train reads "train" once an epoch, on all workers alike, and the others every interval or update: only there
    may workers wait for each other. A worker without a peak takes part too.
    """
    peak = meters[_OWN_PEAK].smoothed_value
    if meters is not metrics.get_meters("train") or distributed_utils.get_data_parallel_world_size() == 1:
        return peak
    on = "cuda" if torch.cuda.is_initialized() else "cpu"
    peaks = torch.tensor([peak or 0.0], dtype=torch.float64, device=on)
    return distributed_utils.all_reduce(peaks, distributed_utils.get_data_parallel_group(), op="max").item() or None


# ---- time


def now(device: torch.device) -> float:
    """Seconds, when the work queued on ``device`` is done; differences of two calls are meaningful."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _log_seconds() -> None:
    """Logs how long the update took, from the start of fairseq's own stopwatch, which shows whole seconds only.

    The trainer starts ``train_wall`` before an update's first micro-batch and reduces metrics after the optimizer's
    step. Microseconds, so that the time of an epoch of a thousand updates is right to the millisecond.
    """
    stopwatch = metrics.get_meter("train", "train_wall")
    if stopwatch is not None and stopwatch.start_time is not None:
        metrics.log_scalar("update_seconds", time.perf_counter() - stopwatch.start_time, round=6)
