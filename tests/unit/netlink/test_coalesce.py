"""When changes are handed on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.netlink.coalesce import URGENT_PER_WINDOW, Coalescer

WINDOW = 0.05


def test_nothing_is_due_while_nothing_is_pending() -> None:
    assert Coalescer(WINDOW).due is None


def test_the_first_event_of_a_burst_is_due_at_once() -> None:
    coalescer = Coalescer(WINDOW)
    coalescer.note(7.0)
    assert coalescer.due == 7.0


def test_what_follows_within_the_window_is_due_at_its_end() -> None:
    coalescer = Coalescer(WINDOW)
    coalescer.note(7.0)
    coalescer.delivered(7.0)
    coalescer.note(7.01)
    coalescer.note(7.04)
    assert coalescer.due == pytest.approx(7.05)


def test_after_a_quiet_window_an_event_is_due_at_once_again() -> None:
    coalescer = Coalescer(WINDOW)
    coalescer.note(7.0)
    coalescer.delivered(7.0)
    coalescer.note(7.06)
    assert coalescer.due == 7.06


def test_a_loss_within_the_window_does_not_wait_and_takes_the_rest_along() -> None:
    coalescer = Coalescer(WINDOW)
    coalescer.note(7.0)
    coalescer.delivered(7.0)
    coalescer.note(7.01)
    coalescer.note(7.02, urgent=True)
    assert coalescer.due == 7.02
    coalescer.delivered(7.02)
    assert coalescer.due is None


def test_a_storm_of_losses_waits_like_anything_else() -> None:
    coalescer = Coalescer(WINDOW)
    coalescer.note(7.0)
    coalescer.delivered(7.0)
    for _ in range(URGENT_PER_WINDOW):
        coalescer.note(7.001, urgent=True)
        assert coalescer.due == 7.001
        coalescer.delivered(7.001)
    coalescer.note(7.002, urgent=True)
    assert coalescer.due == pytest.approx(7.05)


def test_a_new_window_lets_losses_pass_again() -> None:
    coalescer = Coalescer(WINDOW)
    for start in (7.0, 8.0):
        coalescer.note(start)
        coalescer.delivered(start)
        for _ in range(URGENT_PER_WINDOW):
            coalescer.note(start + 0.001, urgent=True)
            assert coalescer.due == start + 0.001
            coalescer.delivered(start + 0.001)


def test_losses_pass_however_many_windows_follow_each_other_without_a_pause() -> None:
    coalescer, now = Coalescer(WINDOW), 7.0
    coalescer.note(now)
    coalescer.delivered(now)
    for _ in range(10 * URGENT_PER_WINDOW):
        coalescer.note(now + 0.01)
        assert coalescer.due == pytest.approx(now + WINDOW)
        now += WINDOW + 0.001
        coalescer.delivered(now)
        coalescer.note(now + 0.005, urgent=True)
        assert coalescer.due == now + 0.005
        coalescer.delivered(now + 0.005)


def test_a_window_of_nothing_hands_each_on_at_once() -> None:
    coalescer = Coalescer(0)
    for now in (7.0, 7.0, 7.001):
        coalescer.note(now)
        assert coalescer.due == now
        coalescer.delivered(now)


def test_a_negative_window_is_refused() -> None:
    with pytest.raises(ValueError, match="less than 0"):
        Coalescer(-1)


@given(st.lists(st.tuples(st.floats(0, 0.1), st.booleans()), min_size=1, max_size=200))
def test_no_event_waits_longer_than_a_window_and_deliveries_are_bounded(
    steps: list[tuple[float, bool]],
) -> None:
    coalescer, now, deliveries = Coalescer(WINDOW), 100.0, 0
    for pause, urgent in steps:
        if coalescer.due is not None and coalescer.due <= now + pause:
            coalescer.delivered(coalescer.due)
            deliveries += 1
        now += pause
        coalescer.note(now, urgent=urgent)
        assert coalescer.due is not None
        assert coalescer.due <= now + WINDOW
    assert deliveries <= ((now - 100.0) / WINDOW + 2) * (URGENT_PER_WINDOW + 1)
