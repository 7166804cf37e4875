"""A cluster's journal as a timeline: who served which IKE_SA when, and why it went from one to the other. Pure.

The journal is what was planned and seen, not all that there was: it begins somewhere, and its times are those of the
nodes' own clocks. Where an IKE_SA was before its first move is where that move took it from; where it is now is where
the last verified one put it, or where its node tells of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from mobikectl.cluster.records import FINAL, MoveState
from mobikectl.observe.timeline import LOSS_COLOUR, PATH_COLOURS, Mark, MarkKind, Row, Span, Timeline
from mobikectl.policy.cluster import Reason
from mobikectl.watch.moves import peer_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mobikectl.cluster.records import MoveRecord

ROWS = 60
"""IKE_SAs of one picture: those that were moved last."""
BURST_S = 3.0
"""Moves for one reason that were planned within this time of each other have one cause."""
MARGIN = 0.08
"""Of the whole time, before the first step and behind the last."""
AT_MOST = "the {} moved last of {} IKE_SAs"
UNSERVED = "nobody"
CAUSE = {
    Reason.DRAIN: "drain {source}",
    Reason.IMPAIRED: "{source} is impaired",
    Reason.UPLINK: "an uplink of {source} is down",
    Reason.OVERLOAD: "{source} is overloaded",
    Reason.SPREAD: "balance: {source} is fuller",
    Reason.UPLINK_SPREAD: "balance: an uplink of {source} is fuller",
    Reason.ORDER: "an operator's order",
    Reason.FAILOVER: "{source} is dead",
}
MARKS = {
    MoveState.REQUESTED: MarkKind.MOVE,
    MoveState.VERIFIED: MarkKind.VERIFIED,
    MoveState.ROLLED_BACK: MarkKind.UNDONE,
    MoveState.TIMED_OUT: MarkKind.UNDONE,
    MoveState.REFUSED: MarkKind.UNDONE,
}


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the history that is drawn, in seconds since 1970. None: as far as it goes."""

    begin: float | None = None
    end: float | None = None


def course_of(
    moves: Sequence[MoveRecord], now_at: Mapping[str, str], *, title: str, window: Window | None = None
) -> Timeline | None:
    """Given moves, and which node serves which peer now, return the picture; None: there is nothing to draw.

    ``now_at``: peer identity -> node. Only moves that were begun are drawn: what was planned and taken back changed
    nothing. Its zero is the first step.
    """
    window = window or Window()
    begun = [
        move
        for move in moves
        if len(move.steps) > 1
        and move.state is not MoveState.CANCELLED
        and (window.begin is None or move.steps[-1].at >= window.begin)
        and (window.end is None or move.steps[0].at <= window.end)
    ]
    if not begun:
        return None
    zero = min(move.steps[0].at for move in begun)
    last = max(step.at for move in begun for step in move.steps)
    margin = max((last - zero) * MARGIN, 0.2)
    drawn = Timeline(title, last + margin - zero, (), start=-margin)
    by_peer: dict[str, list[MoveRecord]] = {}
    for move in sorted(begun, key=lambda move: move.steps[1].at):
        for key in move.sas:
            by_peer.setdefault(peer_of(key), []).append(move)
    newest = sorted(by_peer, key=lambda peer: by_peer[peer][-1].steps[1].at)[-ROWS:]
    rows = tuple(
        Row(peer, _spans(by_peer[peer], zero, drawn.start, drawn.end, now_at.get(peer)))
        for peer in sorted(newest, reverse=True)
    )
    return Timeline(
        title=title,
        end=drawn.end,
        start=drawn.start,
        rows=rows,
        marks=tuple(sorted(_marks(begun, zero), key=lambda mark: mark.at)),
        caption=_caption(begun, len(by_peer)),
        loss_known=False,
        colours=_colours(begun),
    )


def _colours(moves: Iterable[MoveRecord]) -> dict[str, str]:
    """Give each node the same colour in every picture of the same cluster."""
    nodes = sorted({node for move in moves for node in (move.source, move.target)})
    found = {node: PATH_COLOURS[place % len(PATH_COLOURS)] for place, node in enumerate(nodes)}
    if any(move.reason is Reason.FAILOVER for move in moves):
        found[UNSERVED] = LOSS_COLOUR
    return found


def _spans(
    moves: Sequence[MoveRecord], zero: float, start: float, end: float, now_at: str | None
) -> tuple[Span, ...]:
    """Given the begun moves of an IKE_SA in their order, return who served it when."""
    spans: list[Span] = []
    at, since = moves[0].source, start
    for move in moves:
        went = _gone_at(move)
        if went is None or move.source == move.target:
            continue
        if move.reason is Reason.FAILOVER:
            # Its node was dead at the latest when a node that stands by claimed it.
            dead = max(move.steps[0].at - zero, since)
            spans.append(Span(since, dead, at))
            spans.append(Span(dead, max(went - zero, dead), UNSERVED))
        else:
            spans.append(Span(since, max(went - zero, since), at))
        at, since = move.target, max(went - zero, since)
    spans.append(Span(since, end, now_at if now_at is not None and len(spans) == 0 else at))
    return tuple(span for span in spans if span.end > span.start)


def _gone_at(move: MoveRecord) -> float | None:
    """Return when a move took effect; None: it did not."""
    if move.state not in {MoveState.VERIFIED, MoveState.MOVED}:
        return None
    return next((step.at for step in move.steps if step.state is MoveState.MOVED), move.steps[-1].at)


def _marks(moves: Iterable[MoveRecord], zero: float) -> list[Mark]:
    found = [
        Mark(step.at - zero, MARKS[step.state], "")
        for move in moves
        for step in move.steps
        if step.state in MARKS
    ]
    planned = sorted(moves, key=lambda move: (move.reason.value, move.source, move.steps[0].at))
    for (reason, source), group in groupby(planned, key=lambda move: (move.reason, move.source)):
        before = float("-inf")
        for move in group:
            if move.steps[0].at - before > BURST_S:
                found.append(
                    Mark(move.steps[0].at - zero, MarkKind.CAUSE, CAUSE[reason].format(source=source))
                )
            before = move.steps[0].at
    return found


def _caption(moves: Sequence[MoveRecord], peers: int) -> str:
    verified = [move for move in moves if move.state is MoveState.VERIFIED]
    parts = [f"{len(verified)} moves verified"]
    if failed := sum(move.state in FINAL - {MoveState.VERIFIED} for move in moves):
        parts.append(f"{failed} not")
    took = sorted(move.steps[-1].at - move.steps[1].at for move in verified)
    if took:
        parts.append(f"{took[len(took) // 2] * 1000:.0f} ms in the middle, {took[-1] * 1000:.0f} ms at most")
    if peers > ROWS:
        parts.append(AT_MOST.format(ROWS, peers))
    return ", ".join(parts)
