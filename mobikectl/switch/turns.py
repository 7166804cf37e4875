"""Taking turns: who may change the steering route to a peer's address, one at a time."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobikectl.errors import MoveError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.model import IpAddress


@dataclass(slots=True)
class _Place:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted_by: int = 0


class Turns:
    """The turns at each peer's address. What nobody wants is not remembered."""

    def __init__(self) -> None:
        self._places: dict[IpAddress, _Place] = {}

    def taken(self, remote: IpAddress) -> bool:
        """Given a peer's address, return whether it is somebody's turn there."""
        place = self._places.get(remote)
        return place is not None and place.lock.locked()

    @contextlib.asynccontextmanager
    async def alone(self, remotes: set[IpAddress], timeout: float | None = None) -> AsyncIterator[None]:
        """Given addresses, have the turn at all of them while the context lasts.

        Raise MoveError when it does not come within ``timeout`` seconds (None: wait on).
        """
        # One order for all, so that no two wait for each other.
        ordered = sorted(remotes, key=lambda remote: (remote.version, int(remote)))
        places = [self._places.setdefault(remote, _Place()) for remote in ordered]
        for place in places:
            place.wanted_by += 1
        try:
            async with contextlib.AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(timeout):
                        for place in places:
                            await held.enter_async_context(place.lock)
                except TimeoutError:
                    raise MoveError(
                        f"other moves of the peer at {' or '.join(map(str, ordered))} are under way",
                        hint="`mobikectl monitor` shows them; try again after them",
                    ) from None
                yield
        finally:
            for remote, place in zip(ordered, places, strict=True):
                place.wanted_by -= 1
                if not place.wanted_by:
                    del self._places[remote]
