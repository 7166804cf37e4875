"""Puts what was seen together: one view of all sources, and what somebody chose of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from mobikectl.watch.moves import step_events
from mobikectl.watch.rows import View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mobikectl.watch.rows import (
        ClusterPart,
        ConnectionRow,
        EventRow,
        Freshness,
        LocalPart,
        MoveRow,
        NodeRow,
        SaViewRow,
    )

EVENTS = 200
"""Events of a view, the newest."""
TOLD_BY_THE_JOURNAL = ("cluster-move-", "cluster-failover-move-")
"""Names of a sidecar's events that are steps of moves: the journal has them of every node."""
OLD_S, DEAD_S = 3.0, 10.0
"""What is older than this is pointed out, or warned of."""


def compose(
    cluster: ClusterPart | None,
    local: LocalPart | None,
    events: Iterable[EventRow],
    fresh: Mapping[str, Freshness],
) -> View:
    """Given what each source told last and how fresh that is, return the view."""
    own = [event for event in events if cluster is None or not event.name.startswith(TOLD_BY_THE_JOURNAL)]
    steps = step_events(cluster.moves) if cluster is not None else ()
    told = sorted([*own, *steps], key=lambda event: event.wall)[-EVENTS:]
    return View(cluster, local, tuple(told), dict(fresh))


class Grade(Enum):
    """How much to trust what is shown."""

    FRESH = "fresh"
    OLD = "old"
    DEAD = "dead"


def grade(fresh: Freshness) -> Grade:
    """Given how a source is doing, return how much to trust what it told."""
    if fresh.age_s is None or fresh.age_s > DEAD_S:
        return Grade.DEAD
    return Grade.OLD if fresh.age_s > OLD_S or fresh.error else Grade.FRESH


def told_age(name: str, fresh: Freshness) -> str:
    """Given a source and how it is doing, return a few words."""
    if fresh.age_s is None:
        return f"{name}: {fresh.error or 'not heard of yet'}"
    age = f"{fresh.age_s:.0f} s" if fresh.age_s < 120 else f"{fresh.age_s / 60:.0f} min"
    if grade(fresh) is Grade.FRESH:
        return f"{name}: {age} ago"
    return f"{name}: as of {age} ago" + (f" ({fresh.error})" if fresh.error else "")


# --- chosen and sorted --------------------------------------------------------------------------


class NodeOrder(Enum):
    """By what the nodes are sorted; the value is its word on the screen."""

    NAME = "name"
    USED = "used"
    SAS = "IKE_SAs"
    BYTES = "bytes/s"
    PACKETS = "packets/s"


_NODE_KEY: dict[NodeOrder, Callable[[NodeRow], float]] = {
    NodeOrder.USED: lambda node: node.used,
    NodeOrder.SAS: lambda node: node.ike_sas,
    NodeOrder.BYTES: lambda node: node.bytes_per_s,
    NodeOrder.PACKETS: lambda node: node.packets_per_s,
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What somebody wants to see of a view."""

    order: NodeOrder = NodeOrder.NAME
    backwards: bool = False
    text: str = ""
    """Only rows that hold it, in whatever case; empty: all."""

    def next_order(self) -> Choice:
        """Return the same by the next order."""
        orders = list(NodeOrder)
        following = orders[(orders.index(self.order) + 1) % len(orders)]
        return Choice(following, self.backwards, self.text)

    def nodes(self, nodes: Sequence[NodeRow]) -> list[NodeRow]:
        """Given nodes, return those that match, sorted: names from a to z, numbers from the largest."""
        chosen = [
            node
            for node in nodes
            if self._match(node.node, node.health, node.site, *(address.ip for address in node.addresses))
        ]
        chosen.sort(key=lambda node: node.node, reverse=self.backwards and self.order is NodeOrder.NAME)
        if self.order is not NodeOrder.NAME:
            chosen.sort(key=_NODE_KEY[self.order], reverse=not self.backwards)
        return chosen

    def moves(self, moves: Sequence[MoveRow]) -> list[MoveRow]:
        """Given moves, return those that match: under way first, then the newest."""
        chosen = [
            move
            for move in moves
            if self._match(*move.sas, move.source, move.target, move.mechanism, move.reason, move.state)
        ]
        return sorted(chosen, key=lambda move: (move.done, -move.number))

    def sas(self, sas: Sequence[SaViewRow], node: str = "") -> list[SaViewRow]:
        """Given IKE_SAs, return those that match (and are at ``node``), the busiest first."""
        chosen = [
            sa
            for sa in sas
            if (not node or sa.node == node) and self._match(sa.key, sa.peer, sa.node, sa.address, sa.pool)
        ]
        return sorted(chosen, key=lambda sa: (-sa.bytes_per_s, sa.key))

    def connections(self, connections: Sequence[ConnectionRow]) -> list[ConnectionRow]:
        """Given this host's IKE_SAs, return those that match."""
        return [one for one in connections if self._match(one.name, one.peer_id, one.path, one.state)]

    def events(self, events: Sequence[EventRow]) -> list[EventRow]:
        """Given events, return those that match."""
        return [event for event in events if self._match(event.source, event.name, event.text)]

    def _match(self, *texts: str) -> bool:
        wanted = self.text.casefold()
        return not wanted or any(wanted in text.casefold() for text in texts)
