"""Leader election: campaign, keep, resign.

There may be two that believe to lead for a moment only if one of them stands still (SIGSTOP, a frozen virtual
machine): that one finds its lease over by its own clock before it does anything, and what it sent before carries a
token that the store and every executor refuse (`Store.check_fence`, `Store.append`, `Store.update`).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobikectl.cluster.backend import Backoff
from mobikectl.cluster.lease import hold
from mobikectl.cluster.settings import LeaseSettings
from mobikectl.errors import LostRaceError, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mobikectl.cluster.lease import HeldLease
    from mobikectl.cluster.records import Leader
    from mobikectl.cluster.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Leadership:
    """What the leader has while it leads."""

    leader: Leader
    _lease: HeldLease

    @property
    def token(self) -> int:
        """The fencing token, for each action. Raise LeaseLostError: the leadership is over."""
        self._lease.require()
        return self.leader.token

    @property
    def alive(self) -> bool:
        """Whether it still leads."""
        return self._lease.alive


class Election:
    """This node's part in electing the leader."""

    def __init__(self, store: Store, node: str, instance: str, settings: LeaseSettings | None = None) -> None:
        self._store = store
        self._node = node
        self._instance = instance
        self._ttl_s = (settings or LeaseSettings()).ttl_s

    async def run(self, lead: Callable[[Leadership], Awaitable[None]]) -> None:
        """Given what a leader does, do it whenever this node leads, for ever.

        ``lead`` is cancelled when the leadership is over; when it returns, this node resigns and campaigns again.
        Cancelling this resigns. What ``lead`` raises (other than a lost lease or a fence) comes as an ExceptionGroup.
        """

        async def reign(lease: HeldLease, leader: Leader) -> None:
            log.info("leading with token %d", leader.token)
            await lead(Leadership(leader, lease))

        wait = Backoff(0.1, self._ttl_s / 2)
        while True:
            try:
                async with asyncio.timeout(self._ttl_s):
                    await self._store.wait_until_leaderless()
                await hold(self._store, self._ttl_s, self._campaign, reign)
                wait.reset()
            except (TimeoutError, LostRaceError):
                wait.reset()
                continue
            except StoreError as error:
                log.warning("no election: %s", error)
                await asyncio.sleep(wait.next())

    async def _campaign(self, lease: int) -> Leader:
        return await self._store.campaign(self._node, self._instance, lease)
