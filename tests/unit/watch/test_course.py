"""A journal as a picture: who served which IKE_SA when, and why."""

from __future__ import annotations

from typing import Any

from mobikectl.cluster.records import MoveRecord, MoveState, MoveStep
from mobikectl.observe.timeline import MarkKind, Span
from mobikectl.policy.cluster import Reason
from mobikectl.watch.course import ROWS, Window, course_of

from ..cli.a_cluster import move

S = MoveState
DONE = (S.PLANNED, S.REQUESTED, S.ACKNOWLEDGED, S.MOVED, S.VERIFIED)


def moved(
    at: float, peer: str = "alice", states: tuple[MoveState, ...] = DONE, step_s: float = 1.0, **more: Any
) -> MoveRecord:
    steps = tuple(MoveStep(state, at + place * step_s) for place, state in enumerate(states))
    source = more.get("source", "gw1")
    return move([f"{source}/{peer}#1"], steps=steps, **more)


def spans(timeline: Any, label: str) -> list[Span]:
    (row,) = [row for row in timeline.rows if row.label == label]
    return list(row.spans)


def test_an_ike_sa_is_at_its_source_until_the_step_that_moved_it() -> None:
    drawn = course_of([moved(1000.0)], {"alice": "gw2"}, title="x")
    assert drawn is not None
    before, after = spans(drawn, "alice")
    assert (before.label, before.end) == ("gw1", 3.0)
    assert (after.label, after.start, after.end) == ("gw2", 3.0, drawn.end)
    assert not drawn.loss_known


def test_names_differ_from_node_to_node_and_the_peer_is_one_row() -> None:
    back = moved(1010.0, source="gw2", target="gw1", reason=Reason.ORDER)
    drawn = course_of([moved(1000.0), back], {}, title="x")
    assert drawn is not None
    assert [span.label for span in spans(drawn, "alice")] == ["gw1", "gw2", "gw1"]


def test_what_was_undone_or_refused_changed_nothing_but_is_marked() -> None:
    for end in (S.ROLLED_BACK, S.REFUSED):
        states = (
            (S.PLANNED, S.REQUESTED, S.ROLLING_BACK, end)
            if end is S.ROLLED_BACK
            else (S.PLANNED, S.REQUESTED, end)
        )
        drawn = course_of([moved(1000.0, states=states)], {}, title="x")
        assert drawn is not None
        assert [span.label for span in spans(drawn, "alice")] == ["gw1"]
        assert MarkKind.UNDONE in {mark.kind for mark in drawn.marks}


def test_between_a_node_s_death_and_the_one_that_stood_by_nobody_served() -> None:
    drawn = course_of([moved(1000.0, reason=Reason.FAILOVER)], {}, title="x")
    assert drawn is not None
    assert [(span.label, span.start, span.end) for span in spans(drawn, "alice")][:2] == [
        ("gw1", drawn.start, 0.0),
        ("nobody", 0.0, 3.0),
    ]
    assert "nobody" in drawn.colours


def test_a_burst_has_one_cause_and_a_later_one_its_own() -> None:
    moves = [moved(1000.0 + n, f"peer{n}") for n in range(3)] + [moved(1060.0, "late")]
    drawn = course_of(moves, {}, title="x")
    assert drawn is not None
    causes = [mark for mark in drawn.marks if mark.kind is MarkKind.CAUSE]
    assert [(mark.at, mark.text) for mark in causes] == [(0.0, "drain gw1"), (60.0, "drain gw1")]


def test_what_was_planned_and_taken_back_is_not_drawn() -> None:
    assert (
        course_of(
            [moved(1.0, states=(S.PLANNED,)), moved(1.0, states=(S.PLANNED, S.CANCELLED))], {}, title="x"
        )
        is None
    )
    assert course_of([], {}, title="x") is None


def test_a_window_leaves_out_what_ended_before_it() -> None:
    drawn = course_of([moved(1000.0, "old"), moved(2000.0, "new")], {}, title="x", window=Window(1500.0))
    assert drawn is not None
    assert [row.label for row in drawn.rows] == ["new"]


def test_a_picture_is_bounded_and_says_what_it_leaves_out() -> None:
    drawn = course_of([moved(1000.0 + n, f"peer{n}") for n in range(ROWS + 5)], {}, title="x")
    assert drawn is not None
    assert len(drawn.rows) == ROWS
    assert f"the {ROWS} moved last of {ROWS + 5}" in drawn.caption
