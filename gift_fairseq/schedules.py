"""A ratio as a function of a number (of the update, of the decoding step): pure, so the same on every worker and again
after a resume.

Scheduled sampling (Bengio et al. 2015, Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks,
section 2.4) moves from one way of training to another by one of three decays ``s(u)`` from 1 to 0. Here all three are
written alike, ``KIND:START:END:N``, and mean ``END + (START - END) s(u)``, where N is the number at which the decay is
over:

- ``linear``: ``s(u) = 1 - u / N``, from N on 0;
- ``exponential``: ``s(u) = k ** u`` with ``k = 0.01 ** (1 / N)``: at N one hundredth is left;
- ``sigmoid``, the inverse sigmoid: ``s(u) = k / (k + exp(u / k))`` with ``k ln k = N / 2``: half is left at N / 2, and
  at N as much as is missing at 0, which is ``1 / (1 + k)``.

Where we differ: theirs are given by k, and end at 0. A bare number is a constant.
"""

import functools
import math
from dataclasses import dataclass
from typing import Callable, Dict

from gift_fairseq.errors import UserError

UNIT = 10**9  # ratios are added up as whole numbers of this part: 0.1 is a tenth, and rounding moves no update


def _linear(number: float, over: int) -> float:
    return max(0.0, 1 - number / over)


def _exponential(number: float, over: int) -> float:
    return 0.01 ** (number / over)


def _sigmoid(number: float, over: int) -> float:
    k = _steepness(over)
    return 1 / (1 + math.exp(min(number / k, 700.0)) / k)


@functools.cache  # asked at every update, and at every position of a schedule over steps
def _steepness(over: int) -> float:
    """The root of ``k ln k = over / 2``."""
    k = 1.0 + over / 2  # above the root, from where Newton's steps only go down
    for _ in range(50):
        k -= (k * math.log(k) - over / 2) / (math.log(k) + 1)
    return k


DECAYS: Dict[str, Callable[[float, int], float]] = {"linear": _linear, "exponential": _exponential, "sigmoid": _sigmoid}


@dataclass
class Schedule:
    """The ratio (or weight) moves by ``decay`` from ``start`` at 0 to ``end`` at number ``over``, as said above.

    Without ``decay`` it stays ``start``.
    """

    start: float
    end: float
    decay: str = ""
    over: int = 1

    def __post_init__(self):
        self._added = [0, 0]  # a number, and the ratios before it added up, in parts of UNIT

    def ratio(self, number: int) -> float:
        """The ratio at ``number``, 0 being the first."""
        if not self.decay:
            return self.start
        return self.end + (self.start - self.end) * DECAYS[self.decay](number, self.over)

    def is_always(self, ratio: float) -> bool:
        """Whether it is ``ratio`` at every number."""
        return self.start == self.end == ratio

    def falls_on(self, update_num: int) -> bool:
        """Whether ``update_num`` (0 is the first) belongs to the share of all updates that the ratios say.

        With ``S(u)`` the sum of the ratios before update u, true exactly when ``floor(S(u + 1)) > floor(S(u))``: among
        the first n updates ``floor(S(n))`` are chosen, as evenly as the ratio changes; a constant 0.1 chooses updates
        9, 19, 29, ... Ratios are taken to nine decimals.
        """
        before = self._sum_before(update_num)
        return (before + self._part(update_num)) // UNIT > before // UNIT

    def _part(self, number: int) -> int:
        return round(self.ratio(number) * UNIT)

    def _sum_before(self, number: int) -> int:
        if not self.decay:
            return number * self._part(0)
        if number < self._added[0]:
            self._added = [0, 0]
        while self._added[0] < number:  # one step an update; once from the start after a resume
            self._added = [self._added[0] + 1, self._added[1] + self._part(self._added[0])]
        return self._added[1]


def parse_schedule(option: str, text: str, most: float = 1) -> Schedule:
    """``text`` as a :class:`Schedule` of 0 to ``most``; :class:`UserError`, which shows an example, if it is none."""
    kind, *numbers = str(text).split(":")
    try:
        if not numbers:
            found = Schedule(float(kind), float(kind))
        else:
            start, end, over = numbers
            found = Schedule(float(start), float(end), kind, int(over))
            if kind not in DECAYS or found.over < 1:
                raise ValueError
    except ValueError:
        raise UserError(
            f"{option} is {text}, but must be a number between 0 and {most:g}, or KIND:START:END:N with KIND one of "
            f"{', '.join(DECAYS)} and N 1 or more: linear:1:0.5:10000 for example"
        ) from None
    if not (0 <= found.start <= most and 0 <= found.end <= most):
        raise UserError(
            f"{option} is {text}, but must be between 0 and {most:g}: 0.1, or linear:1:0.5:10000 for example"
        )
    return found
