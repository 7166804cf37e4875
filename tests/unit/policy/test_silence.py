"""Which nodes have fallen silent: what `mobikectl.policy.silence` says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mobikectl.policy.silence import LEAST_S, MISSED, Reports


def reports(*times: float) -> Reports:
    first, *later = times
    known = Reports(first)
    for at in later:
        known = known.heard(at)
    return known


def test_of_a_node_that_was_heard_once_nothing_is_known() -> None:
    assert not reports(10.0).is_silent(1e9)


def test_one_that_reports_each_second_is_silent_after_a_few() -> None:
    known = reports(10.0, 11.0, 12.0)
    assert not known.is_silent(14.4)
    assert known.is_silent(14.6)


def test_one_that_reports_very_often_is_given_a_second() -> None:
    known = reports(10.0, 10.1, 10.2)
    assert not known.is_silent(11.1)
    assert known.is_silent(11.3)


def test_one_that_reports_seldom_is_given_longer() -> None:
    assert not reports(0.0, 60.0).is_silent(60.0 + 149.0)


def test_one_late_report_makes_it_patient_for_a_while() -> None:
    known = reports(0.0, 1.0, 5.0)
    assert not known.is_silent(14.0)
    assert not known.heard(6.0).is_silent(14.0), "also when the next one comes in time"
    for at in range(6, 40):
        known = known.heard(float(at))
    assert known.is_silent(39.0 + 3.0)


def test_after_an_interruption_it_is_not_silent_until_heard_twice_again() -> None:
    assert reports(10.0, 11.0).is_silent(99.0)
    assert not reports(99.0).is_silent(199.0)
    assert reports(99.0, 100.0).is_silent(199.0)


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=50), st.floats(0.0, 0.999))
def test_nobody_is_silent_that_is_not_later_than_it_was_before(gaps: list[float], share: float) -> None:
    at, known = 0.0, Reports(0.0)
    for gap in gaps:
        at += gap
        known = known.heard(at)
    assert not known.is_silent(at + share * max(LEAST_S, MISSED * gaps[-1]))
    assert known.is_silent(at + 1.01 * max(LEAST_S, MISSED * max(gaps)))
