"""A lease that is kept alive, and that knows by itself when to stop.

The store ends a lease TTL seconds after it took the last renewal. This side counts from *before* that renewal was sent,
and stops a fifth of the TTL earlier: so it has stopped when the store lets somebody else in, whatever the network or
the scheduler did in between. The clock goes on while the machine is suspended (CLOCK_BOOTTIME).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from mobikectl.cluster.backend import Backoff, lease_clock
from mobikectl.errors import FencedError, LeaseLostError, StoreError, StoreUnreachableError
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mobikectl.cluster.store import Store

T = TypeVar("T")

MARGIN = 0.2
"""Share of the TTL that is given up for clocks that run at different speeds and for what is under way."""
RENEWALS = 3
"""Renewals within one TTL: two may get lost."""

log = logging.getLogger(__name__)


class HeldLease:
    """A lease of this process. `require` before every action that needs it."""

    def __init__(
        self, lease: int, ttl_s: float, asked_at: float, *, clock: Callable[[], float] = lease_clock
    ) -> None:
        self._id = lease
        self._ttl_s = ttl_s
        self._asked_at = asked_at
        self._clock = clock
        self._lost = False

    @property
    def ends_at(self) -> float:
        """When it is over for us (seconds of `lease_clock`)."""
        return self._asked_at + self._ttl_s * (1 - MARGIN)

    @property
    def alive(self) -> bool:
        """Whether it may still be acted upon."""
        return not self._lost and self._clock() < self.ends_at

    def require(self) -> int:
        """Return the lease's number when it may still be acted upon. Raise LeaseLostError: stop at once."""
        if not self.alive:
            raise LeaseLostError(
                "the lease is over: the store was not reached in time, or this process stood still",
                hint="nothing more is done under it; it is asked for anew",
            )
        return self._id

    def lose(self) -> None:
        """Give it up for good, on this side."""
        self._lost = True

    async def keep(self, store: Store) -> None:
        """Renew it for ever. Raise LeaseLostError as soon as it is over."""
        wait = Backoff(self._ttl_s / 50, self._ttl_s / 10)
        next_at = self._asked_at + self._ttl_s / RENEWALS
        while True:
            await asyncio.sleep(max(min(next_at, self.ends_at) - self._clock(), 0))
            self.require()
            asked_at = self._clock()
            try:
                async with asyncio.timeout(self.ends_at - asked_at):
                    ttl_s = await store.renew(self._id)
            except (StoreUnreachableError, TimeoutError):
                next_at = self._clock() + wait.next()
                continue
            except LeaseLostError:
                self.lose()
                raise
            self.require()
            wait.reset()
            self._asked_at, self._ttl_s = asked_at, min(ttl_s, self._ttl_s)
            next_at = asked_at + self._ttl_s / RENEWALS


async def hold(
    store: Store,
    ttl_s: int,
    claim: Callable[[int], Awaitable[T]],
    work: Callable[[HeldLease, T], Awaitable[None]],
) -> None:
    """Given what to claim under a new lease and what to do while it is held, do that once.

    ``work`` is cancelled when the lease is over; then this returns. It gives the lease back in any case.
    Raise what granting and claiming raise; what ``work`` raises comes as an ExceptionGroup.
    """
    asked_at = lease_clock()
    lease = await store.grant(ttl_s)
    held = HeldLease(lease.id, lease.ttl_s, asked_at)
    try:
        claimed = await claim(held.require())
        held.require()
        await _work(store, held, lambda: work(held, claimed))
    finally:
        held.lose()
        with suppress(StoreError):
            await store.revoke(lease.id)


async def _work(store: Store, held: HeldLease, work: Callable[[], Awaitable[None]]) -> None:
    try:
        async with TaskGroup() as tasks:
            keeper = tasks.create_task(held.keep(store))
            await work()
            keeper.cancel()
    except* (LeaseLostError, FencedError) as lost:
        log.warning("stopped: %s", lost.exceptions[0])
