"""Looks, again and again, at the store and at a sidecar. A source that is away makes what is shown old, no more."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING

from mobikectl.cluster.reading import read_view
from mobikectl.control.client import ControlClient
from mobikectl.errors import DecodeError, MobikectlError, SidecarError
from mobikectl.watch.cluster import cluster_part
from mobikectl.watch.local import event_row, local_part
from mobikectl.watch.rows import Freshness
from mobikectl.watch.view import EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mobikectl.cluster.reading import Reading
    from mobikectl.cluster.store import Store
    from mobikectl.policy.cluster_settings import BalanceSettings
    from mobikectl.watch.rows import ClusterPart, EventRow, LocalPart

PACE_S = 1.0
"""A source is looked at as often as it is wanted, but not more often than this."""
LOOK_S = 5.0
"""A look that takes longer has failed."""


class _Eye:
    """What looking at any source has in common: pace, deadline, and how fresh it is."""

    def __init__(self, pace_s: float) -> None:
        self._pace_s = pace_s
        self._wanted = asyncio.Event()
        self._looked = asyncio.Event()
        self._at: float | None = None
        self._error = ""

    def want(self) -> None:
        """Somebody watches: look (again) as soon as the pace allows."""
        self._wanted.set()

    async def wanted_within(self, seconds: float) -> None:
        """Want a look, and return when there was one, or after so many seconds."""
        self._looked.clear()
        self.want()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._looked.wait()

    async def run(self) -> None:
        """Look whenever it is wanted, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._look()
            except TimeoutError:
                self._error = f"no answer within {LOOK_S:.0f} s"
            except MobikectlError as error:
                self._error = error.message
            else:
                self._at, self._error = time.monotonic(), ""
            self._looked.set()
            await asyncio.sleep(self._pace_s)

    async def _look(self) -> None:
        raise NotImplementedError

    def fresh(self) -> Freshness:
        """Return how the source is doing."""
        return Freshness(None if self._at is None else time.monotonic() - self._at, self._error)


class StoreEye(_Eye):
    """Looks at a cluster's store. ``part`` is the last look."""

    def __init__(self, store: Store, policy: BalanceSettings, name: str, *, pace_s: float = PACE_S) -> None:
        super().__init__(pace_s)
        self._store = store
        self._policy = policy
        self._name = name
        self.reading: Reading | None = None
        self.part: ClusterPart | None = None

    async def _look(self) -> None:
        observed = self.reading.observed if self.reading is not None else None
        self.reading = await read_view(self._store, self._policy, now=time.monotonic(), observed=observed)
        self.part = cluster_part(self.reading, self._policy, self._name)


class SidecarEye(_Eye):
    """Looks at a sidecar through its control socket, and follows its events."""

    def __init__(self, socket: Path, *, pace_s: float = PACE_S) -> None:
        super().__init__(pace_s)
        self._socket = socket
        self.part: LocalPart | None = None
        self._events: deque[EventRow] = deque(maxlen=EVENTS)

    @property
    def events(self) -> Iterable[EventRow]:
        """Its newest events, oldest first."""
        return tuple(self._events)

    async def _look(self) -> None:
        async with ControlClient(self._socket) as client:
            self.part = local_part(await client.state())

    async def follow(self) -> None:
        """Follow its events, until cancelled; begin anew whenever they end."""
        while True:
            with contextlib.suppress(SidecarError, DecodeError):  # `fresh` tells of it
                async with (
                    ControlClient(self._socket) as client,
                    contextlib.aclosing(client.events(backlog=EVENTS)) as events,
                ):
                    self._events.clear()
                    async for event in events:
                        self._events.append(event_row(event))
            await asyncio.sleep(self._pace_s)
