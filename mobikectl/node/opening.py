"""Opens what carries IKE_SAs over, and tries again for as long as another process has the HA port.

The rest of the node does not wait for that: without it clients are redirected, and nothing is taken over.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from mobikectl.charon.ha_port import HaPortTakenError
from mobikectl.cluster.backend import Backoff
from mobikectl.errors import MobikectlError, innermost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from mobikectl.node.carriage import Carriage

log = logging.getLogger(__name__)

AGAIN_FIRST_S: Final = 1.0
AGAIN_MOST_S: Final = 30.0
"""Who has the port may have it for days, and each try asks a process that keeps the broker's descriptors."""
CLOSED: Final = "it is just being opened"


class Opening:
    """Has what carries IKE_SAs over open while `run` runs.

    ``open_it``: returns the context that `mobikectl.node.carriage.carriage` makes. ``opened``: is called with what that
    yields, before it is used. ``off``: is called with each new reason why it cannot be opened. ``wait``: the pauses.
    """

    def __init__(
        self,
        open_it: Callable[[], AbstractAsyncContextManager[Carriage]],
        *,
        opened: Callable[[Carriage], Awaitable[None]],
        off: Callable[[str], None],
        wait: Backoff | None = None,
    ) -> None:
        self._open_it = open_it
        self._opened = opened
        self._off = off
        self._wait = wait or Backoff(AGAIN_FIRST_S, AGAIN_MOST_S)
        self._tried = asyncio.Event()
        self.carriage: Carriage | None = None
        """What carries IKE_SAs over; None: it is not open."""
        self.why_not = CLOSED
        """Why it is not open; empty: it is."""

    async def tried(self) -> None:
        """Wait until the first try has ended, well or not. Its parts have deadlines of their own."""
        await self._tried.wait()

    async def run(self) -> None:
        """Open it and have it open until cancelled. Return when it cannot be opened, and no waiting mends that.

        Raise ExceptionGroup: what failed while it was open, or a fault of our own.
        """
        async with AsyncExitStack() as stack:
            try:
                carriage = await self._open(stack)
                if carriage is None:
                    return
                await self._opened(carriage)
                self.carriage, self.why_not = carriage, ""
            finally:
                self._tried.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.carriage, self.why_not = None, CLOSED

    async def _open(self, stack: AsyncExitStack) -> Carriage | None:
        while True:
            try:
                return await stack.enter_async_context(self._open_it())
            except MobikectlError as error:
                why: BaseException = error
            except (
                BaseExceptionGroup
            ) as group:  # of a task group that was open already, the broker's or the client's
                if group.split(MobikectlError)[1] is not None:
                    raise
                why = innermost(group)
            again = isinstance(why, HaPortTakenError)
            self._cannot(f"{why}; it is tried again until the port is free" if again else str(why))
            if not again:
                return None
            self._tried.set()
            await asyncio.sleep(self._wait.next())

    def _cannot(self, why: str) -> None:
        if why == self.why_not:
            return
        self.why_not = why
        log.warning("IKE_SAs are not carried over: %s", why)
        self._off(why)
