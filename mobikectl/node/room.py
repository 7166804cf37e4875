"""Room for so many handovers at once as `mobikectl.policy.pace` says."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mobikectl.policy.pace import Pace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Place:
    """One of those that are let in. What is not given up before is when its context ends."""

    def __init__(self, room: Room, epoch: int) -> None:
        self._room = room
        self._epoch = epoch
        self._left = False

    def took(self, seconds: float, *, good: bool = True) -> None:
        """Say how long that took which tells how crowded it is.

        ``good``: it went well. What failed says something only when it took too long.
        """
        self._room.took(seconds, self._epoch, good=good)

    def leave(self) -> None:
        """Give it up: what remains to be done is only waiting. Again: nothing happens."""
        if not self._left:
            self._left = True
            self._room.leave()


class Room:
    """Lets in who came first, as many at once as the pace says at that moment."""

    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self.inside = 0
        """How many are in now; more than the pace says just after it shrank."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """Wait until there is room; yield the place."""
        await self._enter()
        place = Place(self, self.pace.epoch)
        try:
            yield place
        finally:
            place.leave()

    async def _enter(self) -> None:
        if not self._waiting and self.inside < self.pace.at_once:
            self.inside += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # it was let in at the same moment
            raise

    def took(self, seconds: float, epoch: int, *, good: bool) -> None:
        """See `Place.took`."""
        limit = self.pace.limit_s
        if good:
            full = self.inside >= self.pace.at_once
            self.pace = self.pace.took(seconds, began=epoch, full=full)
        elif limit is not None and seconds > limit:
            self.pace = self.pace.failed(began=epoch)
        self._admit()

    def leave(self) -> None:
        """One is in no longer."""
        self.inside -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.inside < self.pace.at_once:
            turn = self._waiting.popleft()
            if not turn.done():
                self.inside += 1
                turn.set_result(None)
