"""The picture says what happened in words that can be found in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mobikectl.observe.timeline import Mark, MarkKind, Row, Span, Timeline, _cause_levels, draw

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("matplotlib")

TIMELINE = Timeline(
    "client-link-down",
    10.0,
    (Row("client", (Span(0, 4.1, "eth0"), Span(4.2, 10, "eth1"))),),
    (
        Mark(4.0, MarkKind.CAUSE, "eth0 goes down"),
        Mark(4.02, MarkKind.DECISION, "move"),
        Mark(4.05, MarkKind.MOVE, ""),
        Mark(4.2, MarkKind.VERIFIED, ""),
    ),
    tuple(4.0 + n / 100 for n in range(12)),
    "kernel ESP",
)


def test_an_svg_names_paths_causes_and_losses(tmp_path: Path) -> None:
    file = tmp_path / "t.svg"
    draw((TIMELINE,), file)
    text = file.read_text()
    for words in (
        "client-link-down",
        "eth0",
        "eth1",
        "eth0 goes down",
        "lost (12)",
        "move verified",
        "kernel ESP",
    ):
        assert words in text


def test_several_timelines_share_one_picture(tmp_path: Path) -> None:
    file = tmp_path / "t.png"
    draw((TIMELINE, TIMELINE), file)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_timeline_without_anything_is_still_drawn(tmp_path: Path) -> None:
    file = tmp_path / "t.svg"
    draw((Timeline("empty", 0.0, ()),), file)
    assert "empty" in file.read_text()


def test_causes_that_are_close_to_each_other_stand_on_lines_of_their_own() -> None:
    causes = tuple(Mark(at, MarkKind.CAUSE, "something long happened here") for at in (1.0, 1.1, 1.2, 9.0))
    levels = [level for _, level in _cause_levels(Timeline("t", 10.0, (), causes))]
    assert levels == [0, 1, 2, 0]
