"""The names of charon's connections, asked for once by all that want to know them at the same time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

FRESH_S: Final = 1.0
"""What was asked for so long ago is still true. Many IKE_SAs come at once, and charon tells of each connection."""


class Connections:
    """Given what asks charon, knows the names."""

    def __init__(
        self, ask: Callable[[], Awaitable[frozenset[str]]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._asking: asyncio.Task[frozenset[str]] | None = None
        self._asked_at = 0.0

    async def names(self) -> frozenset[str]:
        """Return them. Raise what asking raises."""
        asking = self._asking
        if asking is None or self._failed(asking) or self._clock() - self._asked_at > FRESH_S:
            asking = self._asking = asyncio.create_task(self._asked(), name="names of connections")
            self._asked_at = self._clock()
        return await asyncio.shield(asking)

    async def _asked(self) -> frozenset[str]:
        return await self._ask()

    @staticmethod
    def _failed(asking: asyncio.Task[frozenset[str]]) -> bool:
        return asking.done() and (asking.cancelled() or asking.exception() is not None)
