"""How many handovers are under way at once: what `mobikectl.policy.pace` says."""

from __future__ import annotations

import heapq
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.policy.pace import Pace, PaceSettings

SETTINGS = PaceSettings(first=2, most=32, short_s=0.2, factor=2.0, shrink=0.5, forget=0.05)


def pace(bound: float = 2.0, *, best: float | None = 1.0, epoch: int = 0) -> Pace:
    return Pace(SETTINGS, bound=bound, best_s=best, epoch=epoch)


def test_it_begins_with_few() -> None:
    assert Pace(SETTINGS).at_once == 2
    assert Pace(SETTINGS).limit_s is None


def test_the_first_one_says_what_is_short() -> None:
    now = Pace(SETTINGS).took(1.5, began=0, full=True)
    assert now.limit_s == 3.0


def test_it_doubles_with_each_round_while_none_takes_too_long() -> None:
    now = pace()
    for _ in range(2 + 4 + 8):
        now = now.took(1.0, began=0, full=True)
    assert now.at_once == 16


def test_it_never_grows_above_the_most() -> None:
    assert pace(32.0).took(1.0, began=0, full=True).at_once == 32


def test_it_does_not_grow_while_fewer_are_under_way_than_may_be() -> None:
    assert pace().took(1.0, began=0, full=False).bound == 2.0


def test_it_shrinks_when_one_takes_too_long() -> None:
    now = pace(10.0).took(2.1, began=0, full=True)
    assert now.at_once == 5
    assert now.epoch == 1


def test_it_shrinks_once_however_many_of_that_time_take_too_long() -> None:
    now = pace(10.0)
    for _ in range(10):
        now = now.took(5.0, began=0, full=True)
    assert now.at_once == 5


def test_one_that_began_before_it_shrank_does_not_let_it_grow() -> None:
    assert pace(4.0, epoch=1).took(1.0, began=0, full=True).bound == 4.0


def test_having_shrunk_it_grows_by_one_with_each_round() -> None:
    now = pace(4.0, epoch=1)
    for _ in range(4):
        now = now.took(1.0, began=1, full=True)
    assert 4.8 < now.bound < 5.0


def test_one_may_always_be_under_way() -> None:
    assert pace(1.0).failed(began=0).at_once == 1


def test_what_is_short_is_not_too_long_whatever_the_best_was() -> None:
    assert pace(best=0.001).took(0.19, began=0, full=True).at_once == 3


def test_a_lucky_one_does_not_count_for_ever() -> None:
    now = pace(1.0, best=0.3)
    for _ in range(20):
        now = now.took(1.0, began=now.epoch, full=True)
    assert now.limit_s is not None
    assert now.limit_s > 1.0
    assert now.took(1.0, began=now.epoch, full=True).epoch == now.epoch


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": 0},
        {"first": 9, "most": 8},
        {"short_s": -1.0},
        {"factor": 1.0},
        {"shrink": 0.6},
        {"shrink": 0.0},
        {"forget": -0.1},
    ],
)
def test_what_cannot_be_set_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        replace(SETTINGS, **wrong)


happenings = st.lists(
    st.tuples(st.floats(0.0, 100.0), st.integers(0, 3), st.booleans(), st.booleans()), max_size=200
)


@given(happenings)
def test_whatever_happens_it_stays_within_its_bounds(
    happened: list[tuple[float, int, bool, bool]],
) -> None:
    now = Pace(SETTINGS)
    for seconds, late, full, fails in happened:
        began = max(0, now.epoch - late)
        after = now.failed(began=began) if fails else now.took(seconds, began=began, full=full)
        assert 1 <= after.at_once <= SETTINGS.most
        assert after.epoch in {now.epoch, now.epoch + 1}
        assert (after.epoch > now.epoch) <= (after.bound <= now.bound), "it shrinks with each epoch"
        assert after.bound <= now.bound + 1
        assert after.best_s is None or after.best_s >= 0
        now = after


def carried(
    work_s: float, wait_s: float, processors: int, count: int, *, fixed: int | None, seed: int = 1
) -> tuple[float, float]:
    """Return how long `count` handovers take, and how long the median one does.

    Each needs `work_s` of a processor, which all under way share, and `wait_s` of nothing; each a bit more or less.
    """
    chance = random.Random(seed)
    now, left, pace_now = 0.0, count, Pace(SETTINGS)
    running: list[tuple[float, float, int]] = []  # when it would end, when it began, in which epoch
    took: list[float] = []
    while left or running:
        while left and len(running) < (fixed or pace_now.at_once):
            crowd = max(1.0, (len(running) + 1) / processors)
            seconds = (work_s * crowd + wait_s) * chance.uniform(0.9, 1.2)
            heapq.heappush(running, (now + seconds, now, pace_now.epoch))
            left -= 1
        full = len(running) >= pace_now.at_once
        now, began, epoch = heapq.heappop(running)
        took.append(now - began)
        pace_now = pace_now.took(now - began, began=epoch, full=full)
    return now, sorted(took)[len(took) // 2]


@pytest.mark.parametrize("processors", [1, 2, 8])
def test_where_the_processor_is_what_is_waited_for_each_is_as_short_as_it_can_be(processors: int) -> None:
    whole, median = carried(0.3, 0.05, processors, 200, fixed=None)
    crowded, _ = carried(0.3, 0.05, processors, 200, fixed=32)
    assert median < 3 * (0.3 + 0.05)
    assert whole < 1.2 * crowded, "and none is done much later for it"


def test_where_there_is_time_to_wait_for_many_are_under_way() -> None:
    whole, _ = carried(0.002, 0.3, 2, 400, fixed=None)
    eight, _ = carried(0.002, 0.3, 2, 400, fixed=8)
    assert whole < 0.6 * eight
