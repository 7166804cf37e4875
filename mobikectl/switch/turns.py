"""Taking turns: who may change the steering route to a peer's address, or deal with an IKE_SA, one at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from mobikectl.errors import MoveError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.model import IpAddress


K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Place:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted_by: int = 0


class OneByOne(Generic[K]):
    """One at a time for each of something. What nobody wants is not remembered."""

    def __init__(self) -> None:
        self._places: dict[K, _Place] = {}

    def __len__(self) -> int:
        return len(self._places)

    def taken(self, of: K) -> bool:
        """Return whether it is somebody's turn there."""
        place = self._places.get(of)
        return place is not None and place.lock.locked()

    @contextlib.asynccontextmanager
    async def alone(self, of: K) -> AsyncIterator[None]:
        """Wait for the turn, and have it while the context lasts."""
        place = self._places.setdefault(of, _Place())
        place.wanted_by += 1  # it is this lock for all, also for who comes while one waits for it
        try:
            async with place.lock:
                yield
        finally:
            place.wanted_by -= 1
            if not place.wanted_by:
                del self._places[of]


class Turns:
    """The turns at each peer's address."""

    def __init__(self) -> None:
        self._places: OneByOne[IpAddress] = OneByOne()

    def taken(self, remote: IpAddress) -> bool:
        """Given a peer's address, return whether it is somebody's turn there."""
        return self._places.taken(remote)

    @contextlib.asynccontextmanager
    async def alone(self, remotes: set[IpAddress], timeout: float | None = None) -> AsyncIterator[None]:
        """Given addresses, have the turn at all of them while the context lasts.

        Raise MoveError when it does not come within ``timeout`` seconds (None: wait on).
        """
        # One order for all, so that no two wait for each other.
        ordered = sorted(remotes, key=lambda remote: (remote.version, int(remote)))
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout(timeout):
                    for remote in ordered:
                        await held.enter_async_context(self._places.alone(remote))
            except TimeoutError:
                raise MoveError(
                    f"other moves of the peer at {' or '.join(map(str, ordered))} are under way",
                    hint="`mobikectl monitor` shows them; try again after them",
                ) from None
            yield
