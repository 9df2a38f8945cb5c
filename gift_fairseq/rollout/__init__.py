"""Tokens from the decoder without gradient: in one teacher-forced pass, or step by step on its own outputs.

``decoder`` is fairseq's (unwrapped) decoder, past any hook on its call. ``encoder_out`` is what its encoder returned.
"""

from gift_fairseq.rollout.choosing import DTYPES, dtype_named, scores_of
from gift_fairseq.rollout.parallel import teacher_forced
from gift_fairseq.rollout.stepwise import free_running

__all__ = ["DTYPES", "dtype_named", "free_running", "scores_of", "teacher_forced"]
