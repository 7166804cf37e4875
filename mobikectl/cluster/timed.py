"""A backend that tells how long each call took, and is otherwise the one that it wraps."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mobikectl.errors import StoreError, StoreUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from mobikectl.cluster.backend import Backend, Change, Condition, Gap, Lease, Snapshot, Write

Timing = Callable[[str, float, bool], None]
"""Told the call's name, its seconds, and whether the store answered (a refusal is an answer)."""


class TimedBackend:
    """A `mobikectl.cluster.backend.Backend` around another. Watches are not timed: they wait."""

    def __init__(self, backend: Backend, timing: Timing) -> None:
        self._backend = backend
        self._timing = timing

    @asynccontextmanager
    async def _timed(self, call: str) -> AsyncIterator[None]:
        began = time.monotonic()
        try:
            yield
        except StoreError as error:
            answered = not isinstance(error, StoreUnreachableError)
            self._timing(call, time.monotonic() - began, answered)
            raise
        self._timing(call, time.monotonic() - began, True)

    async def read(self, prefix: str, *, last: int | None = None) -> Snapshot:
        """See `Backend.read`."""
        async with self._timed("read"):
            return await self._backend.read(prefix, last=last)

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Write]) -> int:
        """See `Backend.commit`."""
        async with self._timed("commit"):
            return await self._backend.commit(conditions, writes)

    async def grant(self, ttl_s: int) -> Lease:
        """See `Backend.grant`."""
        async with self._timed("grant"):
            return await self._backend.grant(ttl_s)

    async def renew(self, lease: int) -> float:
        """See `Backend.renew`."""
        async with self._timed("renew"):
            return await self._backend.renew(lease)

    async def revoke(self, lease: int) -> None:
        """See `Backend.revoke`."""
        async with self._timed("revoke"):
            await self._backend.revoke(lease)

    def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Change | Gap, None]:
        """See `Backend.watch`."""
        return self._backend.watch(prefix, after=after)

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._backend.close()
