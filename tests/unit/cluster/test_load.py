"""Load from /proc: what is understood, and what is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.cluster.load import (
    CpuTimes,
    HostLoad,
    Smoothed,
    cpu_share,
    parse_meminfo,
    parse_stat,
    rate,
    read_memory,
    read_times,
    smooth,
)

if TYPE_CHECKING:
    from pathlib import Path

STAT = "cpu  100 20 30 800 50 1 2 7 40 0\ncpu0 1 2 3 4\nintr 5\n"
MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    250 kB\n"


def test_waiting_for_a_disk_is_idle_and_guests_are_counted_once() -> None:
    assert parse_stat(STAT) == CpuTimes(busy=160, total=1010)


def test_memory_in_use_is_what_is_not_available() -> None:
    assert parse_meminfo(MEMINFO) == 0.75


@given(st.text(max_size=200))
def test_text_that_is_something_else_is_nothing_known(text: str) -> None:
    assert parse_stat("x" + text) is None
    found = parse_meminfo(text)
    assert found is None or 0 <= found <= 1


@pytest.mark.parametrize("text", ["cpu", "cpu 1 2 3", "cpu 1 2 x 4 5", "cpu 1 2 -3 4 5"])
def test_a_first_line_that_is_cut_or_odd_is_nothing_known(text: str) -> None:
    assert parse_stat(text) is None


def test_the_share_is_of_the_time_between_two_readings() -> None:
    assert cpu_share(CpuTimes(10, 100), CpuTimes(40, 200)) == 0.3
    assert cpu_share(CpuTimes(10, 100), CpuTimes(10, 100)) is None
    assert cpu_share(CpuTimes(10, 100), CpuTimes(5, 50)) is None


def test_a_counter_that_began_anew_has_no_rate() -> None:
    assert rate(1000, 3000, 2.0) == 1000.0
    assert rate(1000, 10, 2.0) is None
    assert rate(1000, 3000, 0.0) is None


def test_half_of_the_past_is_gone_after_the_half_life() -> None:
    assert Smoothed(1.0, 0.0).then(0.0, 10.0, half_life_s=10.0).value == pytest.approx(0.5)
    assert Smoothed(1.0, 0.0).then(0.0, 20.0, half_life_s=10.0).value == pytest.approx(0.25)


@given(st.floats(0, 1), st.floats(0, 1), st.lists(st.floats(0.01, 5), min_size=1, max_size=6))
def test_smoothing_depends_on_time_and_not_on_how_often_it_was_read(
    start: float, value: float, steps: list[float]
) -> None:
    many = Smoothed(start, 0.0)
    for step in steps:
        many = many.then(value, many.at + step, half_life_s=3.0)
    once = Smoothed(start, 0.0).then(value, many.at, half_life_s=3.0)
    assert many.value == pytest.approx(once.value, abs=1e-9)
    assert min(start, value) - 1e-9 <= many.value <= max(start, value) + 1e-9


def test_a_reading_that_could_not_be_had_changes_nothing() -> None:
    known = Smoothed(0.5, 1.0)
    assert smooth(known, None, 2.0, half_life_s=1.0) == known
    assert smooth(None, None, 2.0, half_life_s=1.0) is None
    assert known.then(0.9, 1.0, half_life_s=1.0) == known


def test_a_host_is_known_after_two_readings() -> None:
    host = HostLoad().then(CpuTimes(10, 100), 0.5, 1.0)
    assert host.cpu is None
    host = host.then(CpuTimes(60, 200), 0.5, 2.0).then(None, None, 3.0)
    assert host.cpu == Smoothed(0.5, 2.0)
    assert host.memory is not None
    assert host.memory.value == 0.5


def test_this_machine_can_be_read_and_one_without_proc_is_unknown(tmp_path: Path) -> None:
    times, memory = read_times(), read_memory()
    assert times is not None
    assert 0 < times.busy < times.total
    assert memory is not None
    assert 0 < memory < 1
    assert read_times(tmp_path) is None
    assert read_memory(tmp_path) is None
