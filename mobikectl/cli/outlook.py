"""What the policy would do now, for commands that look and do not act: the leader's own code on the same store."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from mobikectl.cli.drain_watch import Outlook
from mobikectl.cluster.decisions import plan_for
from mobikectl.cluster.reading import read_view
from mobikectl.policy.balance_places import Places, health_now
from mobikectl.policy.cluster import Health
from mobikectl.policy.explain import why_stays

if TYPE_CHECKING:
    from collections.abc import Collection

    from mobikectl.cli.cluster import Cluster
    from mobikectl.cluster.reading import Reading


class Advisor:
    """Looks at the store, again and again with what it saw before.

    It plans by the ``[cluster.policy]`` of this host; the leader plans by its own.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._store = cluster.store
        self._policy = cluster.settings.policy
        self._last: Reading | None = None

    async def read(self) -> Reading:
        """Return the cluster as it is now."""
        observed = self._last.observed if self._last is not None else None
        self._last = await read_view(self._store, self._policy, now=time.monotonic(), observed=observed)
        return self._last

    async def outlook(self, node: str) -> Outlook:
        """Given a drained node, return what the policy says of it."""
        reading = await self.read()
        found = plan_for(reading, self._policy)
        leaving = (move for move in found.moves if move.source == node and not move.within_node)
        return Outlook(
            ahead=sum(len(move.sas) for move in leaving),
            later=self._may_change(reading, node),
            notes=tuple(note for note in found.notes if note.startswith((f"{node}:", "paused"))),
        )

    def _may_change(self, reading: Reading, node: str) -> bool:
        """Whether time alone can let more of a node's IKE_SAs go: budgets, refusals and redirects are forgotten."""
        view, policy = reading.view, self._policy
        places = Places(view, policy, reading.at)
        number = places.index.get(node)
        if number is None or health_now(view.nodes[number], policy, reading.at) is Health.UNKNOWN:
            return True
        if places.left[number] <= 0 or view.recent_moves >= policy.cluster_moves:
            return True
        rows = places.rows_of(number)
        rows = rows[~view.sas.pinned[rows]]
        refused = view.sas.refused_until[rows] > reading.at
        redirected = view.sas.recent_redirects[rows] >= policy.redirects
        return bool((refused | redirected).any())

    async def why(self, keys: Collection[str]) -> dict[str, str]:
        """Given IKE_SAs, return in a line each why they are where they are."""
        if not keys:
            return {}
        reading = self._last or await self.read()
        found = why_stays(replace(reading.view, paused=False), self._policy, reading.at, keys)
        if reading.view.paused:
            found = {key: f"the cluster is paused; otherwise: {text}" for key, text in found.items()}
        return found | {key: text for key, text in under_way(reading).items() if key in keys}


def under_way(reading: Reading) -> dict[str, str]:
    """Return key -> a line for each IKE_SA whose move is planned or has begun."""
    return {
        key: f"on its way to {move.value.target} by {move.value.mechanism.word}: {move.value.state.value}"
        for move in reading.pending
        for key in move.value.sas
    }
