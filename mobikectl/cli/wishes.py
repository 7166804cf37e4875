"""What operators want, written into the store: shared by the commands and by `mobikectl top`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mobikectl.cli.cluster import asker, change_cluster

if TYPE_CHECKING:
    from mobikectl.cluster.records import NodeIntent
    from mobikectl.cluster.state import ClusterState
    from mobikectl.cluster.store import Store
    from mobikectl.policy.cluster import Mechanism


async def want_drained(
    store: Store,
    node: str,
    *,
    mechanisms: frozenset[Mechanism] = frozenset(),
    rate: float | None = None,
    note: str = "",
) -> NodeIntent:
    """Given a node (and how it is to be emptied), want it drained; return what was wanted of it before."""
    before: list[NodeIntent] = []

    def change(intent: NodeIntent) -> NodeIntent:
        before[:] = [intent]
        return replace(intent, drained=True, mechanisms=mechanisms, rate_per_s=rate, by=asker(), note=note)

    await store.change_intent(node, change)
    return before[0]


async def want_undrained(store: Store, node: str) -> NodeIntent:
    """Given a node, want it to take IKE_SAs again; return what was wanted of it before."""
    before: list[NodeIntent] = []

    def change(intent: NodeIntent) -> NodeIntent:
        before[:] = [intent]
        return replace(intent, drained=False, mechanisms=frozenset(), rate_per_s=None, by=asker(), note="")

    await store.change_intent(node, change)
    return before[0]


async def want_paused(store: Store, paused: bool, *, note: str = "") -> ClusterState:
    """Given whether moves may be planned and begun, want that; return the state that it was changed from."""
    return await change_cluster(
        store, lambda intent: replace(intent, paused=paused, by=asker(), note=note if paused else "")
    )
