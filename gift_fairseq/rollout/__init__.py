"""Tokens from the decoder without gradient: in one teacher-forced pass, step by step on its own outputs, or by beam.

``decoder`` is fairseq's (unwrapped) decoder, past any hook on its call. ``encoder_out`` is what its encoder returned.
"""

from gift_fairseq.rollout.beam import beam
from gift_fairseq.rollout.parallel import teacher_forced
from gift_fairseq.rollout.sampling import (
    DTYPES,
    Sampler,
    SeveralDrawn,
    dtype_named,
    generating,
    scores_of,
    seeded,
    worker_generator,
)
from gift_fairseq.rollout.stepwise import free_running, until_eos

__all__ = [
    "DTYPES",
    "Sampler",
    "SeveralDrawn",
    "beam",
    "dtype_named",
    "free_running",
    "generating",
    "scores_of",
    "seeded",
    "teacher_forced",
    "until_eos",
    "worker_generator",
]
