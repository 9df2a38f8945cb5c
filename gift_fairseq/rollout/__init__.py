"""Tokens from the decoder without gradient: in one teacher-forced pass, step by step on its own outputs, or by beam.

``decoder`` is fairseq's (unwrapped) decoder, past any hook on its call. ``encoder_out`` is what its encoder returned.
"""

from gift_fairseq.rollout.beam import beam
from gift_fairseq.rollout.choosing import DTYPES, Choice, dtype_named, new_noise, random_choice, scores_of
from gift_fairseq.rollout.parallel import teacher_forced
from gift_fairseq.rollout.stepwise import free_running, to_its_end

__all__ = [
    "DTYPES",
    "Choice",
    "beam",
    "dtype_named",
    "free_running",
    "new_noise",
    "random_choice",
    "scores_of",
    "teacher_forced",
    "to_its_end",
]
