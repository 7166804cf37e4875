"""Rows, made by hand, for tests that show them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mobikectl.watch.rows import (
    AddressRow,
    ClusterPart,
    ConnectionRow,
    EventRow,
    Freshness,
    LocalPart,
    MoveRow,
    NodeRow,
    OwnMoveRow,
    PathRow,
    SaViewRow,
    StepRow,
    View,
)


def node(name: str, **more: Any) -> NodeRow:
    return replace(
        NodeRow(
            node=name,
            there=True,
            health="healthy",
            overload_limit=0.9,
            headroom=0.4,
            used=0.5,
            used_sas=0.5,
            used_bytes=0.25,
            used_packets=0.1,
            ike_sas=50,
            bytes_per_s=1e6,
            packets_per_s=1000.0,
            carries=True,
            standby=7,
            addresses=(AddressRow("198.18.1.1", True),),
        ),
        **more,
    )


def move(number: int, *states: str, **more: Any) -> MoveRow:
    states = states or ("planned",)
    ended = states[-1] in {"verified", "refused", "timed-out", "rolled-back", "cancelled"}
    return replace(
        MoveRow(
            number=number,
            sas=(f"gw1/peer{number}@example.org#{number}",),
            peers=(f"peer{number}@example.org",),
            source="gw1",
            target="gw2",
            source_address="198.18.1.1",
            target_address="198.18.2.1",
            mechanism="notify",
            reason="drain",
            state=states[-1],
            done=ended,
            steps=tuple(
                StepRow(state, 1000.0 * number + place, None if place == 0 else 1.0, "")
                for place, state in enumerate(states)
            ),
        ),
        **more,
    )


def sa(peer: str, at: str = "gw1", **more: Any) -> SaViewRow:
    return replace(
        SaViewRow(
            key=f"{at}/{peer}#1",
            peer_id=peer,
            peer="198.19.0.1",
            node=at,
            address="198.18.1.1",
            bytes_per_s=10.0,
            packets_per_s=1.0,
            can=("mobike",),
            behind_nat=False,
            pinned=False,
            pool="",
            site="",
            moving_to="",
        ),
        **more,
    )


def cluster(**more: Any) -> ClusterPart:
    return replace(
        ClusterPart(
            name="default",
            leader="gw1",
            paused=False,
            paused_by="",
            even_level=0.42,
            nodes=(node("gw1", leader=True), node("gw2", used=0.7, ike_sas=70)),
            moves=(),
            moving=0,
            sas=(sa("alice@example.org"), sa("bob@example.org", "gw2")),
            notes=(),
        ),
        **more,
    )


def local(**more: Any) -> LocalPart:
    path = PathRow("198.18.1.1 -> 198.18.9.1", "wan1", "up", 0.001, 0.0, True, False, "")
    other = PathRow("198.18.2.1 -> 198.18.9.1", "wan2", "down", None, 1.0, False, False, "silent")
    connection = ConnectionRow(
        *(1, "office", "gw@example.org", "ESTABLISHED", path.path, True, False, ("net INSTALLED",), 60.0),
        *("on the best path", (path, other)),
    )
    moved = OwnMoveRow("office[1]", path.path, other.path, "wan1 is down", "verified", 0.03)
    return replace(
        LocalPart(
            version="0.1.0",
            role="client",
            node="",
            charon="up",
            problems=(),
            connections=(connection,),
            moves=(moved,),
        ),
        **more,
    )


def event(wall: float, name: str = "ike-up", text: str = "it is up", source: str = "charon") -> EventRow:
    return EventRow(wall, source, name, text)


def view(part: ClusterPart | None, own: LocalPart | None = None) -> View:
    fresh = {}
    if part is not None:
        fresh["store"] = Freshness(0.2)
    if own is not None:
        fresh["sidecar"] = Freshness(0.2)
    return View(part, own, (event(1.0),), fresh)
