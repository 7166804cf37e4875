"""From what the store says to what the balance policy looks at.

Nodes have no common clock. A reader notes, by its own, when it first saw a report, and takes off how old its numbers
already were: that is when they were measured, at the latest. A report that does not change grows old, also when the
node's lease is still alive (its reporter hangs).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

from mobikectl.cluster.records import NodeIntent, NodeReport
from mobikectl.policy.cluster import Health, Load, Node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobikectl.cluster.records import Member
    from mobikectl.cluster.state import ClusterState


@dataclass(frozen=True, slots=True)
class Seen:
    """A report as this reader saw it first."""

    instance: str
    sequence: int
    at: float
    """When its numbers were measured, by the reader's clock."""


@dataclass(frozen=True, slots=True)
class RecentMoves:
    """What was moved in and out of a node lately, by the reader's clock."""

    count: int = 0
    last_at: float = -inf


def look(seen: Mapping[str, Seen], state: ClusterState, now: float) -> dict[str, Seen]:
    """Given what was seen before, the state and the reader's time, return when each report was measured."""
    found = {}
    for name, report in state.reports.items():
        said = report.value
        before = seen.get(name)
        if before is not None and (before.instance, before.sequence) == (said.instance, said.sequence):
            found[name] = before
        else:
            found[name] = Seen(said.instance, said.sequence, now - said.age_s)
    return found


def nodes(
    state: ClusterState,
    seen: Mapping[str, Seen],
    moves: Mapping[str, RecentMoves],
    *,
    now: float,
    stale_after_s: float,
) -> tuple[Node, ...]:
    """Given the state and what was seen, return the members as the policy's nodes, by name.

    A node without a report, or whose report is older than ``stale_after_s``, has unknown health: the policy neither
    gives to it nor takes from it.
    """
    found = []
    for name, member in sorted(state.members.items()):
        report = state.reports.get(name)
        at = seen.get(name)
        said = None
        if report is not None and at is not None and report.value.instance == member.value.instance:
            said = report.value
        fresh = said is not None and at is not None and now - at.at <= stale_after_s
        found.append(
            _node(
                member.value,
                said or NodeReport(name, member.value.instance, 0),
                state.intent(name).value,
                at=at.at if said is not None and at is not None else -inf,
                fresh=fresh,
                moves=moves.get(name, RecentMoves()),
            )
        )
    return tuple(found)


def _node(
    member: Member, report: NodeReport, intent: NodeIntent, *, at: float, fresh: bool, moves: RecentMoves
) -> Node:
    load: Load = report.load(at)
    return Node(
        name=member.name,
        addresses=tuple(
            replace(address, usable=address.usable and address.ip not in report.down)
            for address in member.addresses
        ),
        load=load,
        capacity=member.capacity,
        weight=member.weight if intent.weight is None else intent.weight,
        overload_limit=member.overload_limit,
        health=report.health if fresh else Health.UNKNOWN,
        drained=intent.drained or report.maintenance,
        carries=member.carries,
        site=member.site,
        pools=member.pools,
        recent_moves=moves.count,
        last_move_at=moves.last_at,
    )
