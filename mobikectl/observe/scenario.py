"""A lab scenario's result document (`mobikectl.lab.results`) as a `Timeline` to draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mobikectl.errors import DecodeError
from mobikectl.observe.timeline import Mark, MarkKind, Row, Span, Timeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SHOWN = ("recovery_ms", "lost", "longest_gap_ms")
"""Metrics that the caption names, in this order, with their words below."""
WORDS = {"recovery_ms": "new path after {} ms", "lost": "{} lost", "longest_gap_ms": "longest gap {} ms"}


def timeline_of(result: Mapping[str, Any]) -> Timeline:
    """Given a result document, return its timeline; its zero is the start of the measurement.

    Raise DecodeError when the document is not one.
    """
    try:
        zero = result["timeline"]["from"]
        tracks = result["timeline"]["tracks"]
        return Timeline(
            title=result["scenario"],
            end=result["timeline"]["to"] - zero,
            rows=tuple(_rows(tracks, zero)),
            marks=tuple(sorted(_marks(tracks, zero), key=lambda mark: mark.at)),
            lost=tuple(
                point["at"] - zero for track in tracks if track["kind"] == "lost" for point in track["points"]
            ),
            caption=_caption(result),
        )
    except (KeyError, TypeError) as error:
        raise DecodeError(
            f"not a scenario's result: {error} is missing or of the wrong kind",
            hint="give a result.json that `mobikectl lab run` wrote",
        ) from error


def _rows(tracks: list[dict[str, Any]], zero: float) -> Iterator[Row]:
    for track in tracks:
        if track["kind"] not in {"path", "charon"}:
            continue
        side = _side([one["label"] for one in track["intervals"]])
        spans = tuple(
            Span(one["from"] - zero, one["to"] - zero, (one["label"].split(" -> ") * 2)[side])
            for one in track["intervals"]
        )
        yield Row(track["name"].replace(": path ", "\n"), spans)


def _side(labels: list[str]) -> int:
    """Given the paths of a row, return which end tells them apart: 0 the near one, 1 the far one."""
    ends = [label.split(" -> ") for label in labels if " -> " in label]
    near, far = {one[0] for one in ends}, {one[1] for one in ends}
    return 1 if len(near) == 1 and len(far) > 1 else 0


def _marks(tracks: list[dict[str, Any]], zero: float) -> Iterator[Mark]:
    for track in tracks:
        for point in track.get("points", ()):
            kind = _kind(track["kind"], point["label"])
            if kind is not None:
                text = point["label"].partition(": ")[2] if kind is MarkKind.CAUSE else point["label"]
                yield Mark(point["at"] - zero, kind, text)


def _kind(track: str, label: str) -> MarkKind | None:
    if track == "cause":
        return MarkKind.CAUSE
    if track == "decision":
        return MarkKind.DECISION
    if track != "move":
        return None
    for word, kind in (
        (": requested", MarkKind.MOVE),
        (": verified", MarkKind.VERIFIED),
        (": undone", MarkKind.UNDONE),
        (": failed", MarkKind.UNDONE),
    ):
        if word in label:
            return kind
    return None


def _caption(result: Mapping[str, Any]) -> str:
    metrics = result["metrics"]
    shown = [WORDS[name].format(metrics[name]) for name in SHOWN if name in metrics]
    return ", ".join([f"{result['esp']} ESP", *shown])
