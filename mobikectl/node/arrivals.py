"""Whether a client that left is at another node now, as that node tells the store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mobikectl.cluster.backend import lease_clock
from mobikectl.errors import StoreError

if TYPE_CHECKING:
    from mobikectl.cluster.state import ClusterSas
    from mobikectl.cluster.store import Store

EVERY_S = 0.5
"""The store is read at most so often, however many clients are waited for."""


class Arrivals:
    """Looks for clients in what the nodes tell of their IKE_SAs. One reading serves all who wait."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: ClusterSas | None = None
        self._names: dict[str, dict[str, set[str]]] = {}
        """By node and client."""
        self._read_at = float("-inf")
        self._turn = asyncio.Lock()

    async def present(self, node: str, peer: str, *, age_s: float = 2.0) -> frozenset[str] | None:
        """Given a node and a client's identity, return the names of its IKE_SAs there, at most ``age_s`` seconds old.

        None: that node does not tell of its IKE_SAs. Raise StoreError.
        """
        async with self._turn:
            if lease_clock() - self._read_at >= age_s:
                self._known = await self._store.sas(self._known)
                self._read_at = lease_clock()
                self._names = {}
                for name, rows in self._known.by_node().items():
                    of_node = self._names.setdefault(name, {})
                    for row in rows:
                        of_node.setdefault(row.peer_id, set()).add(row.key)
        of_node = self._names.get(node)  # type: ignore[assignment]
        return None if of_node is None else frozenset(of_node.get(peer, ()))

    async def wait(self, node: str, peer: str, before: frozenset[str], timeout: float) -> bool | None:
        """Wait until a client has an IKE_SA at a node that it did not have ``before``; return whether it has.

        None: the node does not tell of any. While the store is away nobody can tell: ``timeout`` (seconds) begins when
        it is back.
        """
        deadline = lease_clock() + timeout
        while True:
            try:
                present = await self.present(node, peer, age_s=EVERY_S)
            except StoreError:
                deadline = lease_clock() + timeout
            else:
                if present is not None and present - before:
                    return True
                if lease_clock() >= deadline:
                    return None if present is None else False
            await asyncio.sleep(EVERY_S)
