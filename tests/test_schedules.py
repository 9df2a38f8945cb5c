"""The share of updates that generate: exact, evenly spread, the same wherever it is asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift_fairseq.schedules import falls_on_update


def test_a_tenth_is_every_tenth_update():
    assert [u for u in range(40) if falls_on_update(u, 0.1)] == [9, 19, 29, 39]


@given(st.integers(0, 1000), st.integers(0, 5000))
def test_rounding_moves_no_update(thousandths, update):
    """floor((u + 1) r) > floor(u r) in whole numbers: r = k/1000 has no exact binary fraction."""
    expected = (update + 1) * thousandths // 1000 > update * thousandths // 1000
    assert falls_on_update(update, thousandths / 1000) == expected


@pytest.mark.parametrize("ratio, expected", [(0.0, False), (1.0, True), (0, False), (1, True)])
def test_limits(ratio, expected):
    assert all(falls_on_update(u, ratio) is expected for u in range(100))
