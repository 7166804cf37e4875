"""Who may ask what: a node of the cluster, and what changes anything only under the present leader's token."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from mobikectl.errors import FencedError, StoreUnreachableError, TransferDeniedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.cluster.state import ClusterState
    from mobikectl.cluster.store import Store
    from mobikectl.wire.transfer import Greeting

FRESH_S = 2.0
"""A member that was seen in the store this recently needs no second look, unless its request is fenced."""
REMEMBERED_S = 60.0
"""While the store is away, a member that was seen this recently may still undo and ask: unfenced requests only."""
MAX_REMEMBERED = 1000


class Guard(Protocol):
    """Decides on requests. Both raise TransferDeniedError, or what the store raises."""

    async def admit(self, peer: Greeting) -> None:
        """Given a node, return when it is a member: the very process that says so, not a predecessor."""

    async def authorise(self, peer: Greeting, token: int) -> None:
        """Given a node and a fencing token, return when it is a member and the token the leader's. Or FencedError."""


class StoreGuard:
    """Asks the store. Given the store, and the clock (seconds, monotonic)."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._seen: dict[Greeting, float] = {}

    async def admit(self, peer: Greeting) -> None:
        """As `Guard`. While the store is unreachable a member that was seen shortly before is still one."""
        seen = self._seen.get(peer)
        if seen is not None and self._clock() - seen < FRESH_S:
            return
        try:
            self._require_member(await self._store.state(), peer)
        except StoreUnreachableError:
            if seen is None or self._clock() - seen >= REMEMBERED_S:
                raise

    async def authorise(self, peer: Greeting, token: int) -> None:
        """As `Guard`: one reading of the store, so that both are true at one moment."""
        state = await self._store.state()
        self._require_member(state, peer)
        leader = state.leader
        if leader is None or token <= 0 or leader.token != token:
            raise FencedError(
                f"the token {token} is not that of the present leader",
                hint="another node leads now: the move is planned anew, if it is still wanted",
            )

    def _require_member(self, state: ClusterState, peer: Greeting) -> None:
        member = state.members.get(peer.node)
        if member is None or member.value.instance != peer.instance:
            self._seen.pop(peer, None)
            raise TransferDeniedError(
                f"{peer.node} is no member of the cluster"
                if member is None
                else f"{peer.node} has another process now",
                hint="is its sidecar running, and is its lease alive? `mobikectl nodes` lists the members",
            )
        if len(self._seen) >= MAX_REMEMBERED:
            self._seen.clear()
        self._seen[peer] = self._clock()
