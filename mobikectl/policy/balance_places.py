"""The places of a cluster in columns: which give, which may take, what each serves and how full it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobikectl.policy.balance_fill import Fill
from mobikectl.policy.cluster import Bools, ClusterView, Floats, Health, Ints, Mechanism, Node

if TYPE_CHECKING:
    from mobikectl.policy.balance_units import UnitKey
    from mobikectl.policy.cluster_settings import BalanceSettings


def health_now(node: Node, settings: BalanceSettings, now: float) -> Health:
    """Given a node, return its health, `UNKNOWN` when its report is too old to believe a better one."""
    if node.health is not Health.DEAD and now - node.load.at > settings.stale_after_s:
        return Health.UNKNOWN
    return node.health


class Places:
    """What a view says about its nodes and their addresses. Fixed for a plan, but for `enter`."""

    def __init__(self, view: ClusterView, settings: BalanceSettings, now: float) -> None:
        nodes, sas = view.nodes, view.sas
        self._view = view
        self.names = tuple(node.name for node in nodes)
        self.index = {name: i for i, name in enumerate(self.names)}
        self.notes: list[str] = []
        health = [health_now(node, settings, now) for node in nodes]
        drained = _bools(node.drained for node in nodes)
        healthy = _bools(state is Health.HEALTHY for state in health)
        self.live: Bools = healthy & ~drained
        """Healthy and not drained: gives by balance, and takes."""
        self.impaired: Bools = _bools(state is Health.IMPAIRED for state in health)
        self.draining: Bools = healthy & drained
        self.weight: Floats = np.array([node.weight for node in nodes])
        self.limit: Floats = np.array([node.overload_limit for node in nodes])
        self.left: Ints = np.array(
            [max(settings.node_moves - node.recent_moves, 0) for node in nodes], dtype=np.int64
        )
        self._carries = _bools(node.carries for node in nodes)
        self._full_memory = np.array([node.load.memory for node in nodes]) > self.limit
        count = len(nodes)
        small = np.int16 if count < 2**15 else np.int32
        self._order = np.argsort(sas.owner.astype(small), kind="stable")
        per_node = np.bincount(sas.owner, minlength=count)
        self._cuts = np.concatenate(([0], np.cumsum(per_node)))
        self.load: Floats = np.stack(
            [
                np.bincount(sas.owner, weights=sas.bytes_per_s, minlength=count),
                np.bincount(sas.owner, weights=sas.packets_per_s, minlength=count),
                per_node.astype(np.float64),
            ],
            axis=1,
        ).reshape(count, 3)
        self.capacity: Floats = np.array(
            [(n.capacity.bytes_per_s, n.capacity.packets_per_s, n.capacity.sas) for n in nodes]
        ).reshape(count, 3)
        self._learn_from_cpu(settings)
        self._usable = np.array(
            [[any(a.usable and a.ip.version == v for a in node.addresses) for v in (4, 6)] for node in nodes]
        ).reshape(count, 2)
        self._masks: dict[tuple[int, bool, bool], Bools] = {}
        self._prepare_uplinks()
        for node, state in zip(nodes, health, strict=True):
            if state in (Health.DEAD, Health.UNKNOWN):
                self.notes.append(f"{node.name}: {state.value}, so nothing is planned for what it serves")

    def _learn_from_cpu(self, settings: BalanceSettings) -> None:
        """Believe a node whose processors are fuller than its rates explain: its packets cost more.

        Only a reading taken after the last move settled counts, or one overload would be answered twice.
        """
        for i, node in enumerate(self._view.nodes):
            cpu, packets = node.load.cpu, self.load[i, 1]
            settled = node.load.at >= node.last_move_at + settings.settle_s
            if settled and packets > 0 and cpu > node.overload_limit:
                self.capacity[i, 1] = min(self.capacity[i, 1], packets / cpu)

    # Nodes.

    def rows_of(self, node: int) -> Ints:
        """Return the rows of what a node serves."""
        rows: Ints = self._order[self._cuts[node] : self._cuts[node + 1]]
        return rows

    def can_carry(self, source: int) -> bool:
        """Return whether an IKE_SA's state can leave a node to some other one."""
        return bool(self._carries[source] and (self._carries & self.live).sum() > int(self.live[source]))

    def even_level(self, load: Floats) -> float:
        """Return the relative level at which all nodes that take would be equally full."""
        takers = self.live
        if not takers.any():
            return 0.0
        room = (self.capacity[takers] * self.weight[takers, None]).sum(axis=0)
        return float((load[takers].sum(axis=0) / room).max())

    def kinds(self, rows: Ints) -> Ints:
        """Given rows, return for each where it may go: pool, site and address family as one number."""
        sas = self._view.sas
        v6 = self._v6[sas.owner[rows], sas.address[rows]]
        sites = len(sas.sites) + 1
        kinds: Ints = ((sas.pool[rows].astype(np.int64) + 1) * sites + sas.site[rows] + 1) * 2 + v6
        return kinds

    def targets(self, key: UnitKey, leave_site: bool) -> Bools:
        """Return which nodes may take units of a key."""
        carried = key.mechanism in (Mechanism.NOTIFY, Mechanism.IMPLICIT)
        wanted = key.kind, carried, leave_site
        if wanted not in self._masks:
            self._masks[wanted] = self._mask(*wanted)
        return self._masks[wanted]

    def _mask(self, kind: int, carried: bool, leave_site: bool) -> Bools:
        sas, nodes = self._view.sas, self._view.nodes
        pool, site = divmod(kind // 2, len(sas.sites) + 1)
        mask: Bools = self.live & ~self._full_memory & self._usable[:, kind % 2]
        if carried:
            mask &= self._carries
        if pool:
            name = sas.pools[pool - 1]
            mask &= _bools(node.pools is None or name in node.pools for node in nodes)
        if site and not leave_site:
            mask &= _bools(node.site == sas.sites[site - 1] for node in nodes)
        return mask

    # Addresses and their uplinks.

    def _prepare_uplinks(self) -> None:
        nodes, sas = self._view.nodes, self._view.sas
        width = self._width = max((len(node.addresses) for node in nodes), default=1)
        shape = (len(nodes), width)
        self._v6 = np.zeros(shape, dtype=np.int64)
        self._address_usable = np.zeros(shape, dtype=np.bool_)
        self._uplink_capacity = np.full(shape, np.inf)
        for i, node in enumerate(nodes):
            for j, address in enumerate(node.addresses):
                self._v6[i, j] = address.ip.version == 6
                self._address_usable[i, j] = address.usable
                self._uplink_capacity[i, j] = address.bytes_per_s
        flat = sas.owner.astype(np.int64) * width + sas.address if width > 1 else sas.owner
        size = len(nodes) * width
        self._uplink_load = np.bincount(flat, weights=sas.bytes_per_s, minlength=size).reshape(shape)
        self._arrived = np.zeros(shape)
        self._uplink_sas = np.bincount(flat, minlength=size).reshape(shape)

    def enter(self, node: int, kind: int, bytes_per_s: float) -> int:
        """Choose the address at which a node serves a unit that comes to it: the least full uplink's."""
        load = self._uplink_load[node] + self._arrived[node]
        level = (load + bytes_per_s) / self._uplink_capacity[node]
        fits = self._address_usable[node] & (self._v6[node] == kind % 2)
        address = int(np.where(fits, level, np.inf).argmin())
        self._arrived[node, address] += bytes_per_s
        return address

    def rows_at(self, node: int, address: int, gone: Bools) -> Ints:
        """Return the rows of what a node serves at one of its addresses and is not moved by this plan."""
        rows = self.rows_of(node)
        kept: Ints = rows[(self._view.sas.address[rows] == address) & ~gone[rows]]
        return kept

    def dead_uplinks(self) -> list[tuple[int, int]]:
        """Return nodes and addresses that serve something although the address's uplink is down."""
        alive = self.live[:, None] & ~self._address_usable & (self._uplink_sas > 0)
        return [(int(i), int(j)) for i, j in np.argwhere(alive)]

    def uneven_uplinks(self, settings: BalanceSettings) -> list[tuple[int, int]]:
        """Return nodes and addresses whose uplink is above the band of the node's other uplinks."""
        if self._width < 2:
            return []
        known = self._address_usable & np.isfinite(self._uplink_capacity)
        several = self.live & (known.sum(axis=1) > 1)
        level = np.where(known, self._uplink_load / self._uplink_capacity, 0.0)
        room = np.where(known, self._uplink_capacity, 0.0).sum(axis=1)
        even = np.where(known, self._uplink_load, 0.0).sum(axis=1) / np.maximum(room, 1.0)
        most = np.maximum(even * (1 + settings.high), settings.idle)
        above = several[:, None] & known & (level > most[:, None])
        return [(int(i), int(j)) for i, j in np.argwhere(above)]

    def uplinks_of(self, node: int, fill: Fill, gone: Bools) -> Fill:
        """Return a node's uplinks as places of their own, loaded as this plan leaves them so far."""
        rows = self.rows_of(node)
        rows = rows[~gone[rows]]
        sas = self._view.sas
        addresses = len(self._view.nodes[node].addresses)
        load = np.zeros((addresses, 3))
        load[:, 0] = np.bincount(sas.address[rows], weights=sas.bytes_per_s[rows], minlength=addresses)
        load[:, 0] += self._arrived[node, :addresses]
        load[:, 2] = np.bincount(sas.address[rows], minlength=addresses)
        capacity = np.full((addresses, 3), np.inf)
        capacity[:, 0] = self._uplink_capacity[node, :addresses]
        budget = int(min(fill.left[node], fill.total_left))
        return Fill(load, capacity, np.ones(addresses), np.full(addresses, budget), budget)

    def even_uplink(self, uplinks: Fill) -> float:
        """Return the level at which a node's uplinks of known capacity would be equally full."""
        known = uplinks.per_unit[:, 0] > 0
        if not known.any():
            return 0.0
        return float(uplinks.load[known, 0].sum() / (1.0 / uplinks.per_unit[known, 0]).sum())

    def uplink_targets(self, node: int, address: int) -> tuple[Bools, Bools]:
        """Return which addresses of a node may take what another one serves, for IPv4 and for IPv6."""
        addresses = len(self._view.nodes[node].addresses)
        usable = self._address_usable[node, :addresses].copy()
        usable[address] = False
        v6 = self._v6[node, :addresses] == 1
        return usable & ~v6, usable & v6


def _bools(values: object) -> Bools:
    return np.array(list(values), dtype=np.bool_)  # type: ignore[call-overload]
