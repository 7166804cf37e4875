"""What happens in a store that has to be polled, told to all watches of a process by one that polls.

Each look costs some system calls and two switches of threads, so that a look for each watch is dear where either is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from mobikectl.cluster.backend import Backoff, Gap, lease_clock
from mobikectl.errors import StoreError, StoreUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from mobikectl.cluster.backend import Change
    from mobikectl.cluster.settings import SqliteSettings

    Look = Callable[[str, int], Awaitable[tuple[int, list[Change | Gap], float]]]
    """Given a prefix and a revision, return the newest revision, what changed in between, and when a lease ends."""

LEAST_PAUSE_S = 0.002
"""Between two looks."""


@dataclass(eq=False, slots=True)
class _Watch:
    prefix: str
    position: int
    """The revision up to which it was told."""
    waiting: deque[Change | Gap] = field(default_factory=deque)
    error: StoreError | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Feed:
    """Given how to look, and how often, feeds the watches. Looks only while there are any."""

    def __init__(self, settings: SqliteSettings, look: Look) -> None:
        self._settings = settings
        self._look = look
        self._watches: set[_Watch] = set()
        self._position = 0
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._closed = False

    def stir(self) -> None:
        """This process wrote something: there is no need to wait for the next look."""
        self._stirred.set()

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Change | Gap, None]:
        """Given a prefix and a revision, yield what changes below it since then, until it is closed.

        Raise what a look raises, but for StoreUnreachableError: then it is tried again.
        """
        watch = await self._begin(prefix, after)
        try:
            while not self._closed:
                while watch.waiting:
                    yield watch.waiting.popleft()
                if watch.error is not None:
                    raise watch.error
                watch.news.clear()
                if not self._closed:
                    await watch.news.wait()
        finally:
            self._watches.discard(watch)
            self._rest()

    async def _begin(self, prefix: str, after: int) -> _Watch:
        """Return a watch that was told all up to where the others are, and is among them."""
        wait = Backoff(self._settings.poll_min_s, self._settings.poll_max_s)
        watch = _Watch(prefix, after)
        while not self._closed:
            try:
                async with self._looking:
                    watch.position, changes, _ = await self._look(prefix, after)
                    watch.waiting.extend(changes)
                    if not self._watches:
                        self._position = watch.position
                    self._watches.add(watch)
                break
            except StoreUnreachableError:
                await asyncio.sleep(wait.next())
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run(), name="store watches")
        return watch

    def _rest(self) -> None:
        if not self._watches and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        idle = Backoff(self._settings.poll_min_s, self._settings.poll_max_s)
        while True:
            self._stirred.clear()
            ends_at = inf
            try:
                async with self._looking:
                    ends_at, changed = await self._once()
                if changed:
                    idle.reset()
            except StoreUnreachableError:
                pass
            except StoreError as error:
                for watch in self._watches:
                    watch.error = error
                    watch.news.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(min(idle.next(), ends_at - lease_clock()), LEAST_PAUSE_S)):
                    await self._stirred.wait()

    async def _once(self) -> tuple[float, bool]:
        """Look, and tell everybody; return when a lease ends, and whether there was anything."""
        self._position, changes, ends_at = await self._look("", self._position)
        for change in changes:
            for watch in self._watches:
                self._tell(watch, change)
        for watch in self._watches:
            watch.position = max(watch.position, self._position)
        return ends_at, bool(changes)

    def _tell(self, watch: _Watch, change: Change | Gap) -> None:
        if isinstance(change, Gap):
            watch.waiting.clear()
            watch.position = change.revision
        elif change.revision <= watch.position or not change.key.startswith(watch.prefix):
            return
        elif len(watch.waiting) >= self._settings.history:
            watch.waiting.clear()
            change = Gap(change.revision, "it was not read for long")
        watch.waiting.append(change)
        watch.news.set()

    async def close(self) -> None:
        """End all watches."""
        self._closed = True
        for watch in self._watches:
            watch.news.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
