"""A scenario's result becomes a picture, or one clear complaint."""

from __future__ import annotations

from typing import Any

import pytest

from mobikectl.errors import DecodeError
from mobikectl.observe.scenario import timeline_of
from mobikectl.observe.timeline import MarkKind, Span

RESULT: dict[str, Any] = {
    "scenario": "client-link-down",
    "esp": "userland",
    "metrics": {"recovery_ms": 112.1, "lost": 11},
    "timeline": {
        "from": 100.0,
        "to": 102.0,
        "tracks": [
            {
                "name": "office: path on the wire",
                "kind": "path",
                "intervals": [{"from": 100.0, "to": 100.5, "label": "198.18.1.1 -> 198.18.9.1"}],
            },
            {"name": "office: lost pings", "kind": "lost", "points": [{"at": 100.6, "label": "lost"}]},
            {"name": "causes", "kind": "cause", "points": [{"at": 100.5, "label": "client: wan1 down"}]},
            {
                "name": "decisions",
                "kind": "decision",
                "points": [{"at": 100.51, "label": "client: IKE_SA 1"}],
            },
            {
                "name": "moves",
                "kind": "move",
                "points": [
                    {"at": 100.52, "label": "client: office[1] a => b: planned (x)"},
                    {"at": 100.53, "label": "client: office[1] a => b: requested (x)"},
                    {"at": 100.54, "label": "client: office[1] a => b: verified (x)"},
                ],
            },
        ],
    },
}


def test_times_start_at_the_measurements_begin() -> None:
    timeline = timeline_of(RESULT)
    assert timeline.end == 2.0
    assert timeline.rows[0].spans == (Span(0.0, 0.5, "198.18.1.1"),)
    assert timeline.lost == pytest.approx((0.6,))


def test_each_step_gets_its_own_mark_and_planning_none() -> None:
    kinds = [mark.kind for mark in timeline_of(RESULT).marks]
    assert kinds == [MarkKind.CAUSE, MarkKind.DECISION, MarkKind.MOVE, MarkKind.VERIFIED]
    assert timeline_of(RESULT).marks[0].text == "wan1 down"


def test_the_caption_tells_what_was_measured() -> None:
    assert timeline_of(RESULT).caption == "userland ESP, new path after 112.1 ms, 11 lost"


@pytest.mark.parametrize(
    "broken", [{}, {"timeline": None}, {"timeline": {"from": 0, "to": 1, "tracks": [{}]}}]
)
def test_another_document_is_refused_with_a_hint(broken: dict[str, Any]) -> None:
    with pytest.raises(DecodeError) as caught:
        timeline_of(broken)
    assert "mobikectl lab run" in caught.value.hint


def test_a_path_is_named_by_the_end_that_changes() -> None:
    track = {
        "name": "one: path on the wire",
        "kind": "path",
        "intervals": [
            {"from": 100.0, "to": 101.0, "label": "198.18.1.1 -> 198.18.9.1"},
            {"from": 101.0, "to": 102.0, "label": "198.18.1.1 -> 198.18.10.1"},
        ],
    }
    document = {**RESULT, "timeline": {**RESULT["timeline"], "tracks": [track]}}
    assert [span.label for span in timeline_of(document).rows[0].spans] == ["198.18.9.1", "198.18.10.1"]
