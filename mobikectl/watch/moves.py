"""Moves of the journal, and the names in them, read for people. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobikectl.cluster import records
from mobikectl.watch.rows import EventRow, MoveRow, StepRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mobikectl.cluster.records import MoveRecord, MoveStep


def timed_steps(move: MoveRecord) -> list[tuple[MoveStep, float | None]]:
    """Given a move, return each step with the seconds since the one before.

    The first has none; the second is by another clock (the leader planned, the source began): never below zero.
    """
    found: list[tuple[MoveStep, float | None]] = [(move.steps[0], None)]
    for before, step in zip(move.steps, move.steps[1:], strict=False):
        found.append((step, round(max(step.at - before.at, 0.0), 6)))
    return found


def took(move: MoveRecord) -> float | None:
    """Given a move, return the seconds from its beginning at the source to its end; None: it has not both."""
    if not move.done or len(move.steps) < 3:
        return None
    return round(max(move.steps[-1].at - move.steps[1].at, 0.0), 6)


def peer_of(key: str) -> str:
    """Given the name of an IKE_SA in the cluster, return the peer's identity, or what else there is to show."""
    return records.peer_of(key) or key


def move_row(move: MoveRecord) -> MoveRow:
    """Given a move, return its row."""
    return MoveRow(
        number=move.number,
        sas=move.sas,
        peers=tuple(peer_of(key) for key in move.sas),
        source=move.source,
        target=move.target,
        source_address=str(move.source_address),
        target_address=str(move.target_address),
        mechanism=move.mechanism.word,
        reason=move.reason.value,
        state=move.state.value,
        done=move.done,
        steps=tuple(
            StepRow(step.state.value, step.at, after, step.note) for step, after in timed_steps(move)
        ),
        took_s=took(move),
    )


def what(move: MoveRow) -> str:
    """Given a move, return what it moves."""
    more = f" and {len(move.peers) - 1} more" if len(move.peers) > 1 else ""
    return f"{move.peers[0]}{more}" if move.peers else "nothing"


def where(move: MoveRow) -> str:
    """Given a move, return from where to where."""
    if move.source == move.target:
        return f"{move.source}: {move.source_address} -> {move.target_address}"
    return f"{move.source} -> {move.target}"


def step_events(moves: Iterable[MoveRow]) -> Iterator[EventRow]:
    """Given moves, yield each of their steps as an event, in no order."""
    for move in moves:
        for place, step in enumerate(move.steps):
            by = "leader" if place == 0 else move.target if move.reason == "failover" else move.source
            text = f"{what(move)}: {where(move)} by {move.mechanism} ({move.reason}): {step.state}"
            yield EventRow(
                step.wall, by, f"move-{step.state}", text + (f": {step.note}" if step.note else "")
            )
