"""The synthetic cluster's state in one run: columns of IKE_SAs and what the nodes are up to."""

from __future__ import annotations

from collections import deque
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import numpy as np

from mobikectl.policy.cluster import (
    Bools,
    Capacity,
    ClusterView,
    Floats,
    Health,
    Ints,
    Load,
    Node,
    SaTable,
    ServingAddress,
)
from mobikectl.policy.cluster_settings import MAX_REDIRECTS, REDIRECT_PERIOD_S
from mobikectl.sim.workload import BYTES_PER_PACKET, NODE_BYTES_PER_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobikectl.sim.workload import Clients, Scenario

_FIRST_ADDRESS = int(IPv4Address("198.18.0.1"))
_COLUMNS: dict[str, type] = {
    "number": np.int64,
    "owner": np.int32,
    "rate": np.float64,
    "leaves_at": np.float64,
    "capability": np.uint8,
    "behind_nat": np.bool_,
    "refuses": np.bool_,
    "last_moved_at": np.float64,
    "refused_until": np.float64,
}


class Numbers:
    """Keys as a sequence that is written out only where somebody looks."""

    def __init__(self, numbers: Ints) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, row: int) -> str:
        return str(self._numbers[row])


class Cluster:
    """Rows are IKE_SAs. One that has left belongs to node number `nodes` (nobody) until `compact`."""

    def __init__(self, scenario: Scenario, first: Clients) -> None:
        self.scenario = scenario
        self.nodes = scenario.nodes
        self.capacity = Capacity(NODE_BYTES_PER_S, sas=4 * scenario.sas / scenario.nodes)
        self.dead: Bools = np.zeros(self.nodes, dtype=np.bool_)
        self.drained: Bools = np.zeros(self.nodes, dtype=np.bool_)
        self.last_move_at: Floats = np.full(self.nodes, -np.inf)
        self.count = 0
        self._numbered = 0
        self._column: dict[str, NDArray[Any]] = {
            name: np.zeros(0, dtype=kind) for name, kind in _COLUMNS.items()
        }
        self._redirected_at = np.zeros((0, MAX_REDIRECTS))
        self._recent: deque[tuple[float, Ints]] = deque()
        self.add(first, np.arange(len(first)) % self.nodes)

    def column(self, name: str) -> NDArray[Any]:
        """Return a column (a view that may be written) of all rows."""
        return self._column[name][: self.count]

    @property
    def in_service(self) -> Bools:
        """Nodes that new clients may go to."""
        return ~self.dead & ~self.drained

    def add(self, clients: Clients, owner: Ints) -> None:
        """Append clients, served by these nodes."""
        end = self.count + len(clients)
        if end > len(self._redirected_at):
            self._grow(int(end * 1.25) + 16)
        self.count, start = end, self.count
        values = {
            "number": np.arange(self._numbered, self._numbered + len(clients)),
            "owner": owner,
            "rate": clients.bytes_per_s,
            "leaves_at": clients.leaves_at,
            "capability": clients.capability,
            "behind_nat": clients.behind_nat,
            "refuses": clients.refuses,
            "last_moved_at": -np.inf,
            "refused_until": -np.inf,
        }
        for name, value in values.items():
            self._column[name][start:end] = value
        self._redirected_at[start:end] = -np.inf
        self._numbered += len(clients)

    def _grow(self, size: int) -> None:
        for name, old in self._column.items():
            self._column[name] = np.zeros(size, dtype=old.dtype)
            self._column[name][: len(old)] = old
        redirected = np.zeros((size, MAX_REDIRECTS))
        redirected[: len(self._redirected_at)] = self._redirected_at
        self._redirected_at = redirected

    def leave(self, now: float) -> None:
        """Let go whose time is up."""
        gone = self.column("leaves_at") <= now
        self.column("owner")[gone] = self.nodes
        self.column("rate")[gone] = 0.0

    def compact(self) -> None:
        """Forget the rows of those that left."""
        kept = np.flatnonzero(self.column("owner") < self.nodes)
        if len(kept) == self.count:
            return
        for column in self._column.values():
            column[: len(kept)] = column[kept]
        self._redirected_at[: len(kept)] = self._redirected_at[kept]
        self.count = len(kept)

    def served_by(self, node: int) -> Ints:
        """Return the rows that a node serves."""
        return np.flatnonzero(self.column("owner") == node)

    def utilisation(self) -> Floats:
        """Return how full each node is."""
        owner = self.column("owner")
        rates = np.bincount(owner, weights=self.column("rate"), minlength=self.nodes + 1)[: self.nodes]
        sas = np.bincount(owner, minlength=self.nodes + 1)[: self.nodes]
        return np.maximum(rates / self.capacity.bytes_per_s, sas / self.capacity.sas)

    def best_possible(self) -> float:
        """Return the lowest peak that any placement could have: perfectly even, or the heaviest IKE_SA alone."""
        rates = self.column("rate")
        served = int((self.column("owner") < self.nodes).sum())
        even = max(float(rates.sum()) / self.capacity.bytes_per_s, served / self.capacity.sas)
        heaviest = float(rates.max(initial=0.0)) / self.capacity.bytes_per_s
        return max(even / max(int(self.in_service.sum()), 1), heaviest)

    def note_move(self, rows: Ints, target: int, now: float, *, redirect: bool) -> None:
        """Let another node serve rows from now on."""
        counts = np.bincount(self.column("owner")[rows], minlength=self.nodes)
        counts[target] += len(rows)
        self._recent.append((now, counts))
        self.last_move_at[counts > 0] = now
        self.column("owner")[rows] = target
        self.column("last_moved_at")[rows] = now
        if redirect:
            oldest = self._redirected_at[rows].argmin(axis=1)
            self._redirected_at[rows, oldest] = now

    def view(self, now: float, window_s: float, relieving: frozenset[str]) -> ClusterView:
        """Return what the policy is shown."""
        self.compact()
        while self._recent and self._recent[0][0] <= now - window_s:
            self._recent.popleft()
        recent = sum((counts for _, counts in self._recent), np.zeros(self.nodes, dtype=np.int64))
        nodes = tuple(
            Node(
                name=f"g{i}",
                addresses=(ServingAddress(IPv4Address(_FIRST_ADDRESS + i)),),
                load=Load(at=now),
                capacity=self.capacity,
                overload_limit=self.scenario.overload_limit,
                health=Health.DEAD if self.dead[i] else Health.HEALTHY,
                drained=bool(self.drained[i]),
                carries=True,
                recent_moves=int(recent[i]),
                last_move_at=float(self.last_move_at[i]),
            )
            for i in range(self.nodes)
        )
        return ClusterView(nodes, self._table(now), int(recent.sum()) // 2, relieving)

    def _table(self, now: float) -> SaTable:
        rates, rows = self.column("rate"), self.count
        redirected = self._redirected_at[:rows] > now - REDIRECT_PERIOD_S
        nowhere = np.full(rows, -1, dtype=np.int16)
        return SaTable(
            keys=Numbers(self.column("number")),  # type: ignore[arg-type]  # a sequence for all that is asked of it
            owner=self.column("owner"),
            address=np.zeros(rows, dtype=np.int16),
            peer=np.arange(rows, dtype=np.int32),
            bytes_per_s=rates,
            packets_per_s=rates / BYTES_PER_PACKET,
            capability=self.column("capability"),
            behind_nat=self.column("behind_nat"),
            pinned=np.zeros(rows, dtype=np.bool_),
            last_moved_at=self.column("last_moved_at"),
            recent_redirects=redirected.sum(axis=1, dtype=np.int16),
            refused_until=self.column("refused_until"),
            pool=nowhere,
            site=nowhere,
        )
