"""Moves of the cluster's journal, as people and programs read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mobikectl.cli.output import coloured, human_seconds, visible
from mobikectl.cluster.records import MoveState
from mobikectl.watch.moves import timed_steps, took

if TYPE_CHECKING:
    from rich.text import Text

    from mobikectl.cluster.records import MoveRecord

COLOUR = {
    MoveState.PLANNED: "dim",
    MoveState.CANCELLED: "dim",
    MoveState.VERIFIED: "green",
    MoveState.REFUSED: "yellow",
    MoveState.ROLLED_BACK: "yellow",
    MoveState.TIMED_OUT: "red",
}
"""Moves that are under way have no colour of their own."""


def as_dict(move: MoveRecord) -> dict[str, Any]:
    """Given a move, return it for JSON, with each step and how long it took."""
    return {
        "number": move.number,
        "state": move.state.value,
        "done": move.done,
        "sas": list(move.sas),
        "source": move.source,
        "source_address": str(move.source_address),
        "target": move.target,
        "target_address": str(move.target_address),
        "mechanism": move.mechanism.word,
        "reason": move.reason.value,
        "took_s": took(move),
        "token": move.token,
        "steps": [
            {
                "state": step.state.value,
                "time": datetime.fromtimestamp(step.at, UTC).isoformat(timespec="milliseconds"),
                "after_s": after,
                "note": step.note,
            }
            for step, after in timed_steps(move)
        ],
    }


def what(move: MoveRecord) -> str:
    """Given a move, return what it moves."""
    more = f" and {len(move.sas) - 1} more" if len(move.sas) > 1 else ""
    return f"{visible(move.sas[0])}{more}"


def where(move: MoveRecord) -> str:
    """Given a move, return from where to where."""
    if move.source == move.target:
        return f"{move.source}: {move.source_address} -> {move.target_address}"
    return f"{move.source} -> {move.target} ({move.target_address})"


def state_cell(move: MoveRecord) -> Text:
    """Given a move, return its state as a cell."""
    return coloured(move.state.value, COLOUR.get(move.state, "cyan"))


def steps_line(move: MoveRecord) -> str:
    """Given a move, return its steps with their durations, and the last note of who carried it out."""
    said = [
        step.state.value + ("" if after is None else f" +{human_seconds(after)}")
        for step, after in timed_steps(move)
    ]
    note = next((step.note for step in reversed(move.steps[1:]) if step.note), "")
    return ", ".join(said) + (f": {note}" if note else "")


def clock(at: float) -> str:
    """Given seconds since 1970, return the local time, with the day when it is another one than today."""
    then = datetime.fromtimestamp(at).astimezone()
    today = datetime.now().astimezone().date()
    return then.strftime("%H:%M:%S" if then.date() == today else "%Y-%m-%d %H:%M:%S")


def line(move: MoveRecord) -> str:
    """Given a move, return one line: when its last step was, what, from where to where, how, why and its state."""
    step, after = timed_steps(move)[-1]
    return (
        f"{clock(step.at)} #{move.number} {what(move)}: {where(move)} by {move.mechanism.word}"
        f" ({move.reason.value}): {step.state.value}"
        + (f" after {human_seconds(after)}" if after is not None else "")
        + (f": {step.note}" if step.note else "")
    )


def outcome(move: MoveRecord) -> str:
    """Given a move that ended, return one line: what, from where to where, how, its state, in which time and why."""
    seconds, step = took(move), move.steps[-1]
    return (
        f"{clock(step.at)} {what(move)}: {where(move)} by {move.mechanism.word}: {step.state.value}"
        + (f" in {human_seconds(seconds)}" if seconds is not None else "")
        + (f": {step.note}" if step.note else "")
    )
