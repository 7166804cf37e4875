"""A sidecar's state (`GET /state` of its control socket) as rows. Pure; nothing in it is believed to be well-formed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from mobikectl.errors import DecodeError
from mobikectl.watch.rows import ConnectionRow, EventRow, LocalPart, OwnMoveRow, PathRow

if TYPE_CHECKING:
    from collections.abc import Mapping

MOVES = 50
"""Of the sidecar's own moves, the newest."""


def local_part(state: Mapping[str, Any]) -> LocalPart:
    """Given a sidecar's state, return it as rows. Raise DecodeError: it is none, or of another version."""
    try:
        explained = {one["sa_uniqueid"]: one for one in state["paths"]}
        cluster = state.get("cluster") or {}
        return LocalPart(
            version=state["version"],
            role=state["role"],
            node=cluster.get("node", ""),
            charon=state["charon"]["state"],
            problems=tuple(state["health"].get("problems", ())),
            connections=tuple(
                _connection(sa, explained.get(sa["uniqueid"]))
                for sa in sorted(state["sas"], key=lambda sa: sa["uniqueid"])
            ),
            moves=tuple(_move(move) for move in state["moves"][-MOVES:]),
        )
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DecodeError(
            f"not a sidecar's state: {error} is missing or of the wrong kind",
            hint="the sidecar and this program may be of different versions",
        ) from error


def _connection(sa: Mapping[str, Any], explained: Mapping[str, Any] | None) -> ConnectionRow:
    return ConnectionRow(
        uniqueid=sa["uniqueid"],
        name=sa["name"],
        peer_id=sa["remote_id"],
        state=sa["state"],
        path=_path(sa["path"]),
        initiator=sa["original_initiator"],
        behind_nat=sa["nat_local"] or sa["nat_remote"],
        children=tuple(f"{child['name']} {child['state']}" for child in sa["children"]),
        established_s=sa["established_s"],
        verdict=explained["verdict"] if explained else "",
        paths=tuple(_candidate(one, explained) for one in explained["candidates"]) if explained else (),
    )


def _candidate(one: Mapping[str, Any], explained: Mapping[str, Any]) -> PathRow:
    track = one["track"] or {}
    return PathRow(
        path=_path(one["path"]),
        link=one["link"] or "-",
        state=track.get("state", "-"),
        rtt_s=track.get("srtt_s"),
        loss=loss_of(track.get("window") or []),
        in_use=one["in_use"],
        target=one["path"] == explained["target"],
        why="; ".join(objection["text"] for objection in one["objections"]) or one["note"],
    )


def loss_of(window: list[list[int]]) -> float | None:
    """Given (sent, received) of the last probe rounds, return the share that was lost; None: none was sent."""
    sent = sum(sent for sent, _ in window)
    return 1 - sum(received for _, received in window) / sent if sent else None


def _move(move: Mapping[str, Any]) -> OwnMoveRow:
    steps = move["steps"]
    return OwnMoveRow(
        sa=f"{move['name']}[{move['sa']}]",
        before=_path(move["before"]),
        after=_path(move["after"]),
        cause=move["cause"],
        state=move["state"],
        took_s=steps[-1]["at"] - steps[0]["at"],
    )


def _path(path: Mapping[str, str]) -> str:
    return f"{path['local']} -> {path['remote']}"


def event_row(event: Mapping[str, Any]) -> EventRow:
    """Given an event as the control socket tells it, return its row. Raise DecodeError."""
    try:
        wall = datetime.fromisoformat(event["time"]).timestamp()
        return EventRow(wall, event["source"], event["name"], event["text"])
    except (KeyError, TypeError, ValueError) as error:
        raise DecodeError(f"not an event: {error}", hint="is the sidecar of another version?") from error
