"""A user's mistake, and the checks of what a user gave.

Library code raises :class:`UserError`. Where a user's command begins (the command line; fairseq making a task or a
criterion, or calling it) :func:`one_sentence` turns it into one line on stderr and exit status 1.
"""

import contextlib
import io
import math
from pathlib import Path
from typing import Collection, Iterable, Iterator

PLUGIN_SAYS = "gift_fairseq: error: "  # what one_sentence says before a sentence where fairseq calls the plugin


class UserError(ValueError):
    """A mistake that the user can correct. Its text is one sentence: the option, its value, and what is allowed."""


def option(name: str) -> str:
    """What a user types for the setting ``name``."""
    return "--" + name.replace("_", "-")


@contextlib.contextmanager
def one_sentence(program: str = "gift_fairseq") -> Iterator[None]:
    """A :class:`UserError` inside ends the program with its sentence and status 1, without a traceback.

    ``SystemExit`` is no ``Exception``: fairseq's trainer answers every ``Exception`` with a ``crash.pt`` checkpoint.
    """
    try:
        yield
    except UserError as error:
        raise SystemExit(f"{program}: error: {error}") from None


@contextlib.contextmanager
def fairseq_reads(program: str) -> Iterator[None]:
    """Where fairseq, called inside, ends the program over an option: its own sentence as a :class:`UserError`.

    ``--help`` ends it too, with status 0, and goes on.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as end:
        if isinstance(end.code, str):  # one_sentence's
            raise UserError(end.code.removeprefix(PLUGIN_SAYS)) from None
        if end.code == 0:
            raise
        last = said.getvalue().strip().split("\n")[-1]
        raise UserError(f"{program}: {last.split('error: ')[-1]}") from None


def check_ratio(option: str, value: float) -> float:
    """``value`` if it lies in [0, 1]; otherwise (NaN too) :class:`UserError`."""
    if not 0.0 <= value <= 1.0:
        raise UserError(f"{option} is {value}, but must be between 0 and 1")
    return value


def check_at_least(option: str, value: float, least: float) -> float:
    """``value`` if it is not below ``least`` and finite; otherwise (NaN too) :class:`UserError`."""
    if not value >= least:
        raise UserError(f"{option} is {value}, but must be {least} or more")
    if value == math.inf:
        raise UserError(f"{option} is {value}, but must be finite")
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


def check_flags(flags: Iterable[str], refused: Collection[str], advice: str) -> None:
    """:class:`UserError` if one of ``flags``, typed after --, is one of ``refused``."""
    for name in (flag.split("=")[0] for flag in flags):
        if name in refused:
            raise UserError(f"{name} stands after --, which is not taken there: {advice}")


def check_data(data: Path) -> Path:
    """``data`` if it is a data folder of fairseq's; otherwise :class:`UserError`."""
    if not (any(data.glob("dict.*.txt")) and any(data.glob("*.*-*.*"))):
        raise UserError(f"--data is {data}, but that is no data folder: prepare one with gift prepare")
    return data
