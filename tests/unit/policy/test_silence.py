"""Which nodes have fallen silent: what `mobikectl.policy.silence` says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mobikectl.policy.silence import LEAST_S, MISSED, Silence


def reports(*times: float, node: str = "gw1") -> Silence:
    known = Silence()
    for at in times:
        known = known.heard(node, at)
    return known


def test_of_a_node_that_was_never_heard_nothing_is_known() -> None:
    assert not Silence().is_silent("gw1", 1e9)


def test_nor_of_one_that_was_heard_once() -> None:
    assert not reports(10.0).is_silent("gw1", 1e9)


def test_one_that_reports_each_second_is_silent_after_a_few() -> None:
    known = reports(10.0, 11.0, 12.0)
    assert not known.is_silent("gw1", 14.4)
    assert known.is_silent("gw1", 14.6)


def test_one_that_reports_very_often_is_given_a_second() -> None:
    known = reports(10.0, 10.1, 10.2)
    assert not known.is_silent("gw1", 11.1)
    assert known.is_silent("gw1", 11.3)


def test_one_that_reports_seldom_is_given_longer() -> None:
    assert not reports(0.0, 60.0).is_silent("gw1", 60.0 + 149.0)


def test_one_late_report_makes_it_patient_for_a_while() -> None:
    known = reports(0.0, 1.0, 5.0)
    assert not known.is_silent("gw1", 14.0)
    for at in range(6, 40):
        known = known.heard("gw1", float(at))
    assert known.is_silent("gw1", 39.0 + 3.0)


def test_each_node_is_heard_for_itself() -> None:
    known = reports(10.0, 11.0).heard("gw2", 11.0).heard("gw2", 20.0)
    assert known.is_silent("gw1", 20.0)
    assert not known.is_silent("gw2", 20.5)


def test_after_an_interruption_nobody_is_silent_until_heard_twice_again() -> None:
    known = reports(10.0, 11.0).interrupted()
    assert not known.is_silent("gw1", 99.0)
    assert not known.heard("gw1", 99.0).is_silent("gw1", 199.0)


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=50), st.floats(0.0, 0.999))
def test_nobody_is_silent_that_is_not_later_than_it_was_before(gaps: list[float], share: float) -> None:
    at, known = 0.0, Silence().heard("gw1", 0.0)
    for gap in gaps:
        at += gap
        known = known.heard("gw1", at)
    assert not known.is_silent("gw1", at + share * max(LEAST_S, MISSED * gaps[-1]))
    assert known.is_silent("gw1", at + 1.01 * max(LEAST_S, MISSED * max(gaps)))
