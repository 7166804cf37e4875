"""What can be done about load: mobikectl's policy, and the two baselines that products offer today."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mobikectl.policy.balance import plan
from mobikectl.policy.cluster import Ints, Mechanism
from mobikectl.policy.placement import place

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.policy.cluster_settings import BalanceSettings
    from mobikectl.policy.placement import Placement
    from mobikectl.sim.cluster import Cluster

REFUSED_S = 300.0
"""How long a peer that refused a move is left alone."""


class Strategy(Protocol):
    """Where new clients go, and what is done about those that are there."""

    name: str

    def place(self, cluster: Cluster, count: int) -> Ints:
        """Return the node of each of so many new clients."""

    def rebalance(self, cluster: Cluster, now: float, moved: Callable[[Mechanism, int], None]) -> None:
        """Move what should be served elsewhere; tell ``moved`` how many IKE_SAs by what mechanism."""


class RoundRobin:
    """New clients go to the next gateway in turn, whatever its load (Libreswan's redirect, or DNS)."""

    name = "round-robin"

    def __init__(self) -> None:
        self._next = 0

    def place(self, cluster: Cluster, count: int) -> Ints:
        """Return the nodes in service in turn."""
        able = np.flatnonzero(cluster.in_service)
        chosen = able[(self._next + np.arange(count)) % len(able)]
        self._next = (self._next + count) % len(able)
        return chosen

    def rebalance(self, cluster: Cluster, now: float, moved: Callable[[Mechanism, int], None]) -> None:
        """Leave everything where it is."""


class LeastLoaded:
    """New clients are redirected to the least loaded gateway (Cisco's cluster load balancer, LANCOM).

    It is given every advantage: loads that are exact at each second, and a mean rate booked in advance for each
    client that it sent somewhere within the second.
    """

    name = "least-loaded"

    def place(self, cluster: Cluster, count: int) -> Ints:
        """Return the least loaded node in service for each, one after the other."""
        used, able = cluster.utilisation(), np.flatnonzero(cluster.in_service)
        expected = cluster.scenario.mean_rate / cluster.capacity.bytes_per_s
        heap = [(float(used[node]), int(node)) for node in able]
        heapq.heapify(heap)
        chosen = np.empty(count, dtype=np.int64)
        for i in range(count):
            level, node = heap[0]
            chosen[i] = node
            heapq.heapreplace(heap, (level + expected, node))
        return chosen

    def rebalance(self, cluster: Cluster, now: float, moved: Callable[[Mechanism, int], None]) -> None:
        """Leave everything where it is: these products only decide about new clients."""


class Mobikectl:
    """The policy itself: `mobikectl.policy.balance.plan` and `mobikectl.policy.placement.place`.

    New clients come in round-robin, as DNS would send them, and the gateway that they reach answers with
    its placement.
    """

    name = "mobikectl"

    def __init__(self, settings: BalanceSettings) -> None:
        self._settings = settings
        self._relieving: frozenset[str] = frozenset()
        self._placements: tuple[Placement, ...] = ()
        self._door = 0
        self._clients = 0

    def place(self, cluster: Cluster, count: int) -> Ints:
        """Return where each client ends up that knocks at one gateway after the other."""
        doors = np.flatnonzero(~cluster.dead)
        chosen = np.empty(count, dtype=np.int64)
        for i in range(count):
            door = int(doors[self._door % len(doors)])
            self._door += 1
            self._clients += 1
            chosen[i] = door
            if self._placements:
                share = self._placements[door].target(str(self._clients).encode())
                chosen[i] = int(share.node[1:]) if share else door
            if not cluster.in_service[chosen[i]]:  # newer than the placement: the client tries the next
                chosen[i] = int(
                    np.flatnonzero(cluster.in_service)[self._door % int(cluster.in_service.sum())]
                )
        return chosen

    def rebalance(self, cluster: Cluster, now: float, moved: Callable[[Mechanism, int], None]) -> None:
        """Plan and carry out; a peer that refuses stays where it is."""
        view = cluster.view(now, self._settings.window_s, self._relieving)
        decided = plan(view, self._settings, now)
        self._relieving = decided.relieving
        self._placements = place(view, self._settings, now)
        if not decided.moves:
            return
        numbers = cluster.column("number")
        for move in decided.moves:
            rows = np.searchsorted(numbers, np.array([int(key) for key in move.sas]))
            refusing = cluster.column("refuses")[rows] & (move.mechanism is not Mechanism.RECONNECT)
            cluster.column("refused_until")[rows[refusing]] = now + REFUSED_S
            rows = rows[~refusing]
            if len(rows):
                redirect = move.mechanism is Mechanism.REDIRECT
                cluster.note_move(rows, int(move.target[1:]), now, redirect=redirect)
                moved(move.mechanism, len(rows))
