"""Events: one line each, for `mobikectl monitor`, the log, the control socket and the pictures.

The log is a bounded ring; each follower has a bounded queue of its own. A follower that does not
keep up loses the oldest events and is told how many: nobody's slowness holds up the sidecar.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

logger = logging.getLogger("mobikectl")

RING = 10_000
"""Events kept in memory for those who ask what happened before they came."""

FOLLOWER_QUEUE = 2_000


class Source(Enum):
    """Where an event comes from."""

    NETLINK = "netlink"
    CHARON = "charon"
    PROBE = "probe"
    DECISION = "decision"
    ACTION = "action"
    BRIDGE = "bridge"
    SIDECAR = "sidecar"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    ``at``: seconds of CLOCK_MONOTONIC (comparable between processes of one machine); ``wall``: the
    same moment as seconds of the Unix epoch; ``name``: a stable kebab-case word for programs;
    ``text``: the line for people; ``data``: JSON-able details.
    """

    number: int
    at: float
    wall: float
    source: Source
    name: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON-able dictionary."""
        return {
            "number": self.number,
            "at": round(self.at, 6),
            "time": datetime.fromtimestamp(self.wall, UTC).isoformat(timespec="milliseconds"),
            "source": self.source.value,
            "name": self.name,
            "text": self.text,
            "data": dict(self.data),
        }

    def as_json(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(self.as_dict(), default=str, separators=(",", ":"))


class EventLog:
    """The one place where events are recorded, and followed. Belongs to one event loop."""

    def __init__(self, *, ring: int = RING) -> None:
        self._ring: deque[Event] = deque(maxlen=ring)
        self._followers: set[_Follower] = set()
        self._listeners: list[Callable[[Event], None]] = []
        self._number = 0

    def listen(self, take: Callable[[Event], None]) -> None:
        """Given what is to be told each event at once, do that from now on. It must be quick, and not raise."""
        self._listeners.append(take)

    def record(
        self,
        source: Source,
        name: str,
        text: str,
        *,
        at: float | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Event:
        """Given what happened (``at``: monotonic seconds, default now), keep it and tell followers."""
        self._number += 1
        now = time.monotonic()
        at = now if at is None else at
        event = Event(self._number, at, time.time() - (now - at), source, name, text, data or {})
        self._ring.append(event)
        for follower in self._followers:
            follower.put(event)
        for take in self._listeners:
            take(event)
        logger.info("%s %s: %s", source.value, name, text, extra={"event": event})
        return event

    def recent(self, limit: int | None = None) -> list[Event]:
        """Return the newest events, oldest first; at most ``limit``."""
        events = list(self._ring)
        return events if limit is None else events[-limit:] if limit else []

    async def follow(self, *, backlog: int = 0) -> AsyncGenerator[Event, None]:
        """Yield up to ``backlog`` past events, then each new one, until cancelled or closed."""
        follower = _Follower(self.recent(backlog))
        self._followers.add(follower)
        try:
            while True:
                for event in await follower.take():
                    yield event
        finally:
            self._followers.discard(follower)


class _Follower:
    def __init__(self, backlog: list[Event]) -> None:
        self._waiting: deque[Event] = deque(backlog, maxlen=FOLLOWER_QUEUE)
        self._news = asyncio.Event()
        self._lost = 0
        if backlog:
            self._news.set()

    def put(self, event: Event) -> None:
        if len(self._waiting) == self._waiting.maxlen:
            self._lost += 1
        self._waiting.append(event)
        self._news.set()

    async def take(self) -> Iterator[Event]:
        await self._news.wait()
        self._news.clear()
        taken, self._waiting = self._waiting, deque(maxlen=FOLLOWER_QUEUE)
        lost, self._lost = self._lost, 0
        if lost:
            first = taken[0]
            text = f"{lost} events were dropped because the reader is slow"
            taken.appendleft(
                Event(first.number, first.at, first.wall, Source.SIDECAR, "events-lost", text, {"lost": lost})
            )
        return iter(taken)
