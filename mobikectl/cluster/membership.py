"""This node's place in the cluster: a key under a lease, and its reports beside it.

A node whose lease is over is gone for the others: they take its IKE_SAs for lost to it and may serve its clients. It
must stop acting for the cluster at once (no switches, no plans); its running tunnels are charon's and are not touched.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mobikectl.cluster.backend import Backoff
from mobikectl.cluster.lease import hold
from mobikectl.cluster.settings import LeaseSettings
from mobikectl.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mobikectl.cluster.lease import HeldLease
    from mobikectl.cluster.records import Member, NodeReport, SaPart
    from mobikectl.cluster.store import Store

log = logging.getLogger(__name__)


class Presence:
    """What a member has while it is one."""

    def __init__(self, store: Store, member: Member, lease: HeldLease) -> None:
        self.member = member
        self._store = store
        self._lease = lease

    @property
    def alive(self) -> bool:
        """Whether this node is still a member."""
        return self._lease.alive

    @property
    def lease(self) -> int:
        """The lease. Raise LeaseLostError: stop acting for the cluster."""
        return self._lease.require()

    def require(self) -> None:
        """Return when this node is still a member. Raise LeaseLostError: stop acting for the cluster."""
        self._lease.require()

    async def report(self, report: NodeReport) -> None:
        """Given a report, publish it. Raise LeaseLostError, StoreUnreachableError."""
        await self._store.report(report, self._lease.require())

    async def report_sas(self, parts: Sequence[SaPart]) -> None:
        """Given the parts of this node's IKE_SAs that changed, publish them. Raise as `report`."""
        await self._store.report_sas(parts, self._lease.require())

    async def update(self, member: Member) -> None:
        """Given this node as it is now (new addresses, another weight), publish that."""
        await self._store.join(member, self._lease.require())
        self.member = member


class Membership:
    """Keeps this node a member of the cluster."""

    def __init__(
        self,
        store: Store,
        member: Member,
        settings: LeaseSettings | None = None,
        *,
        replace_other: bool = False,
    ) -> None:
        self._store = store
        self._member = member
        self._ttl_s = (settings or LeaseSettings()).ttl_s
        self._replace_other = replace_other

    async def run(self, present: Callable[[Presence], Awaitable[None]]) -> None:
        """Given what a member does, do it whenever this node is one, for ever.

        ``present`` is cancelled when the lease is over, and begins anew when the node is back. Cancelling this
        leaves the cluster. What ``present`` raises (other than a lost lease or a fence) comes as an ExceptionGroup.
        """

        async def stay(lease: HeldLease, _revision: int) -> None:
            log.info("%s is a member of the cluster", self._member.name)
            await present(Presence(self._store, self._member, lease))

        wait = Backoff(0.1, self._ttl_s / 2)
        while True:
            try:
                await hold(self._store, self._ttl_s, self._join, stay)
                wait.reset()
            except StoreError as error:
                log.warning("%s is no member: %s", self._member.name, error)
            await asyncio.sleep(wait.next())

    async def _join(self, lease: int) -> int:
        return await self._store.join(self._member, lease, replace_other=self._replace_other)
