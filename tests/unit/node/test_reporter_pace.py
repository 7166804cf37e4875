"""How often a node measures itself: seldom where that costs much, and never so seldom that it counts as unknown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.node.reporter import pause_s


@pytest.mark.parametrize(
    ("took_s", "report_s", "stale_after_s", "pause"),
    [
        (0.001, 1.0, 30.0, 1.0),
        (0.2, 1.0, 30.0, 4.0),
        (0.65, 1.0, 30.0, 10.0),
        (0.65, 1.0, 3.0, 1.0),
        (0.65, 0.5, 3.0, 1.0),
    ],
)
def test_a_costly_measurement_is_made_seldom_within_what_others_wait(
    took_s: float, report_s: float, stale_after_s: float, pause: float
) -> None:
    assert pause_s(took_s, report_s, stale_after_s) == pytest.approx(pause)


@given(st.floats(0, 100), st.floats(0.1, 60), st.floats(2, 30))
def test_numbers_are_told_before_they_are_too_old(took_s: float, report_s: float, times: float) -> None:
    stale_after_s = times * report_s
    pause = pause_s(took_s, report_s, stale_after_s)
    assert pause >= report_s
    assert pause <= stale_after_s / 2
