"""Checks of what the user gave. A user's mistake ends in one sentence, without a traceback."""

import math
from typing import Collection


class UserError(SystemExit):
    """A mistake the user can mend: Python prints the sentence to stderr and exits with status 1.

    It is a ``SystemExit`` and no ``Exception`` because fairseq's trainer answers every ``Exception`` with a
    ``crash.pt`` checkpoint and a traceback.
    """

    def __init__(self, sentence: str):
        super().__init__(f"gift_fairseq: error: {sentence}")


def check_ratio(option: str, value: float) -> float:
    """``value`` if it lies in [0, 1]; otherwise (NaN too) :class:`UserError`."""
    if not 0.0 <= value <= 1.0:
        raise UserError(f"{option} is {value}, but must be between 0 and 1")
    return value


def check_at_least(option: str, value: float, least: float) -> float:
    """``value`` if it is not below ``least``; otherwise (NaN too) :class:`UserError`."""
    if not value >= least:
        raise UserError(f"{option} is {value}, but must be {least} or more")
    return value


def check_above(option: str, value: float, bound: float) -> float:
    """``value`` if it is above ``bound`` and finite; otherwise (NaN too) :class:`UserError`."""
    if not bound < value < math.inf:
        raise UserError(f"{option} is {value}, but must be above {bound} and finite")
    return value


def check_choice(option: str, value: str, allowed: Collection[str]) -> str:
    """``value`` if it is one of ``allowed``; otherwise :class:`UserError`."""
    if value not in allowed:
        raise UserError(f"{option} is {value}, but must be one of {', '.join(allowed)}")
    return value
