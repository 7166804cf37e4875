"""Whether a node that does not answer serves nothing any more, so that what it was asked to start is served here again.

That its lease is over says that its sidecar died, or does not reach the store. Its charon may go on, with the client or
without it, and the sidecar that is started again says which: so it is asked for. What the client meanwhile asks of the
frozen IKE_SA it asks again for minutes (strongSwan: 165 s), and its ESP is forwarded all the time. A charon that nobody
hears is another matter: with it everything is gone that it served.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobikectl.errors import MobikectlError
from mobikectl.policy.cluster import Health

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mobikectl.cluster.state import ClusterState
    from mobikectl.cluster.store import Store
    from mobikectl.model import IpAddress


@dataclass(frozen=True, slots=True)
class FenceTimes:
    """Seconds, since the node's lease is over or it told that its charon is dead."""

    silent_s: float = 2.0
    """So long nobody hears an IKE daemon there: it serves nothing."""
    patience_s: float = 45.0
    """An IKE daemon is heard, and no sidecar comes back to say what it serves: it counts as serving nothing."""


class Fence:
    """Knows since when each node is away.

    ``heard``: given a node and its address, returns whether we, or any other member, hear an IKE daemon there.
    """

    def __init__(
        self,
        store: Store,
        heard: Callable[[str, IpAddress], Awaitable[bool]],
        *,
        times: FenceTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._heard = heard
        self._times = times or FenceTimes()
        self._clock = clock
        self._away: dict[str, float] = {}
        self._silent: dict[tuple[str, IpAddress], float] = {}

    async def is_out(self, node: str, address: IpAddress) -> bool:
        """Given a node and the address at which it was asked to serve an IKE_SA, return whether it does not."""
        try:
            if _is_there(await self._store.state(), node):
                self._back(node)
                return False
            heard = await self._heard(node, address)
        except MobikectlError:
            return False
        now = self._clock()
        away_s = now - self._away.setdefault(node, now)
        if heard:
            self._silent.pop((node, address), None)
            return away_s >= self._times.patience_s
        return now - self._silent.setdefault((node, address), now) >= self._times.silent_s

    def _back(self, node: str) -> None:
        self._away.pop(node, None)
        for key in [key for key in self._silent if key[0] == node]:
            del self._silent[key]


def _is_there(state: ClusterState, node: str) -> bool:
    report = state.reports.get(node)
    return node in state.members and (report is None or report.value.health is not Health.DEAD)
