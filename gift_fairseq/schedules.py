"""A ratio as a function of the update number: pure, so it is the same on every worker and after a resume."""

from fractions import Fraction


def falls_on_update(update_num: int, ratio: float) -> bool:
    """Whether ``update_num`` (0 is the first) belongs to the share ``ratio`` of all updates.

    True exactly when ``floor((update_num + 1) * ratio) > floor(update_num * ratio)``: among the first ``n`` updates
    ``floor(n * ratio)`` are chosen, evenly spread; 0.1 chooses updates 9, 19, 29, ... The ratio is taken as the decimal
    the user wrote (0.1 is 1/10, not the nearest binary fraction), so that rounding moves no update.
    """
    share = Fraction(str(ratio))
    return (update_num + 1) * share // 1 > update_num * share // 1
