"""Ratios over updates: by hand, in their limits; the updates they choose are exact, the same wherever it is asked."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift_fairseq.errors import UserError
from gift_fairseq.schedules import parse_schedule


def schedule(text):
    return parse_schedule("--option", text)


def test_a_tenth_is_every_tenth_update():
    assert [u for u in range(40) if schedule("0.1").falls_on(u)] == [9, 19, 29, 39]


@given(st.integers(0, 1000), st.integers(0, 5000))
def test_rounding_moves_no_update(thousandths, update):
    """floor((u + 1) r) > floor(u r) in whole numbers: r = k/1000 has no exact binary fraction."""
    expected = (update + 1) * thousandths // 1000 > update * thousandths // 1000
    assert schedule(str(thousandths / 1000)).falls_on(update) == expected


@pytest.mark.parametrize("ratio, expected", [("0.0", False), ("1.0", True), ("0", False), ("1", True), (0, False)])
def test_limits(ratio, expected):
    """A number, as a config file may give it, is as good as its text."""
    found = schedule(ratio)
    assert all(found.falls_on(u) is expected for u in range(100))
    assert found.is_always(float(ratio)) and not found.is_always(1 - float(ratio))
    assert found.ratio(0) == found.ratio(10**6) == float(ratio)


def test_is_always():
    """Only what is alike at every number: a decay that begins or ends there is not."""
    assert schedule("linear:1:1:10").is_always(1)
    assert not schedule("linear:1:0:10").is_always(1) and not schedule("linear:1:0:10").is_always(0)


BY_HAND = {
    "linear:1:0:10": {0: 1, 1: 0.9, 5: 0.5, 9: 0.1, 10: 0, 11: 0, 10**9: 0},
    "linear:0.2:0.8:4": {0: 0.2, 1: 0.35, 2: 0.5, 3: 0.65, 4: 0.8, 5: 0.8},
    "linear:0.8:0.2:1": {0: 0.8, 1: 0.2, 2: 0.2},
    "exponential:1:0:10": {0: 1, 5: 0.1, 10: 0.01, 15: 0.001, 20: 0.0001, 10**9: 0},
    "exponential:0:0.5:2": {0: 0, 1: 0.45, 2: 0.495, 3: 0.4995, 10**9: 0.5},
    "exponential:1:0.5:1": {0: 1, 1: 0.505, 2: 0.50005},
    # k ln k = 5: k = 3.7686795; 3.7686795 / 4.7686795 = 0.7902983; exp(2 / k) = 1.7001, and exp(10 / k) = k * k
    "sigmoid:1:0:10": {0: 0.790298, 2: 0.689126, 5: 0.5, 8: 0.310874, 10: 0.209702, 100: 0, 10**9: 0},
    "sigmoid:0.2:1:10": {0: 0.367762, 5: 0.6, 10: 0.832239, 10**9: 1},
    # k ln k = 1/2: k = 1.421530
    "sigmoid:1:0:1": {0: 0.587038, 1: 0.412962, 2: 0.258228},
}


@pytest.mark.parametrize("text, number, expected", [(t, n, x) for t, by in BY_HAND.items() for n, x in by.items()])
def test_decays_by_hand(text, number, expected):
    assert schedule(text).ratio(number) == pytest.approx(expected, abs=1e-6)


@given(st.sampled_from(["linear", "exponential"]), st.floats(0, 1), st.integers(1, 10**6))
def test_one_at_the_start_is_exactly_one(kind, end, over):
    """A gold ratio of 1 is ``standard`` bit for bit; 0.9999999 would draw random numbers."""
    assert schedule(f"{kind}:1:{end!r}:{over}").ratio(0) == 1
    assert schedule(f"{kind}:{end!r}:1:{over}").ratio(10**12) == 1


CHANGING = ["linear:0:0.2:50", "linear:1:0:20", "exponential:1:0.1:30", "exponential:0:1:5", "sigmoid:0.05:0.9:40"]


def naive_updates(text, count):
    """The chosen ones of the first ``count`` updates, by floors of sums of whole billionths."""
    found, total, chosen = schedule(text), Fraction(0), []
    for update in range(count):
        before, total = total, total + Fraction(round(Fraction(found.ratio(update)) * 10**9), 10**9)
        if math.floor(total) > math.floor(before):
            chosen.append(update)
    assert len(chosen) == math.floor(total)
    return chosen


def test_a_growing_share_by_hand():
    """Sums of 0, 1/4, 1/2, 3/4, 1, 1: floors 0 0 0 1 2 3, so updates 3, 4, 5."""
    assert [u for u in range(6) if schedule("linear:0:1:4").falls_on(u)] == [3, 4, 5]


@pytest.mark.parametrize("text", CHANGING)
def test_updates_are_the_same_out_of_order_and_after_a_resume(text):
    """The micro-batches of an update ask again, a resume begins in the middle; earlier ones may be asked for."""
    expected = naive_updates(text, 120)
    found = schedule(text)
    for update in [*range(119, -1, -7), *range(0, 120, 5), 50, 50, 49, 50, 51, 0, 119, *range(120)]:
        assert found.falls_on(update) == (update in expected), update
        assert schedule(text).falls_on(update) == (update in expected), update


BAD = ["", "x", "nan", "inf", "1.5", "-0.1", "linear", "linear:1:0", "linear:1:0:0", "linear:1:0:-3", "linear:1:0:1.5"]
BAD += ["square:1:0:10", "linear:2:0:10", "linear:1:-1:10", "linear:1:nan:10", "linear:1:0:10:3", ":1:0:9"]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_schedule_is_refused_with_an_example(text):
    with pytest.raises(UserError) as refused:
        parse_schedule("--gold-ratio", text)
    sentence = str(refused.value)
    assert sentence.startswith(f"--gold-ratio is {text}, but must be ")
    assert "between 0 and 1" in sentence
    example = sentence.rsplit(": ", 1)[1].split(", ")[0].removesuffix(" for example")
    parse_schedule("--gold-ratio", example)
