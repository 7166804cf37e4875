"""An asyncio VICI session: requests, streams and events, each on a connection of its own while it lasts.

A connection is used again only after a whole answer was read from it. After a timeout, a
cancellation or anything unexpected it is closed, so that no caller can ever read another's answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from vici.protocol import Packet as ViciPacket

from mobikectl.charon.transport import MAX_FRAME, Args, Connection, Message, Packet, decode, encode
from mobikectl.errors import (
    CharonError,
    CharonProtocolError,
    CharonRefusedError,
    CharonTimeoutError,
    CharonUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable

DEFAULT_SOCKET = Path("/var/run/charon.vici")
"""Where charon serves VICI unless `charon.plugins.vici.socket` says otherwise."""

Timing = Callable[[str, float, bool], None]
"""Told the command, its seconds, and whether it was answered (a refusal is an answer)."""

_AT_ONCE = 8
"""Requests and streams under way at once; others wait for their turn. Each has a connection, kept for the next."""
_NO_EVENT = "-"
"""No event is called so: that it is unknown is the quickest answer that there is."""
_CROWDED_S = 1.0
"""charon's queue of connections that it has not accepted yet takes four (vici_socket.c), of all programs together.
Where there is no room in it, it is tried again for so long."""
_CROWDED_AGAIN_S = 0.01
_SLICE_S = 0.005
"""After this much work on one stream the event loop gets its turn."""


class LinkState(Enum):
    """What a session knows about the other end."""

    UP = "up"
    DOWN = "down"
    """Nobody listens, or the connection was closed."""
    HUNG = "hung"
    """Connected, but no answer within the deadline."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the link to charon, since when (CLOCK_MONOTONIC seconds), and why."""

    state: LinkState
    since: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A VICI event."""

    name: str
    message: Message


@dataclass(frozen=True, slots=True)
class EventLost:
    """The subscription's connection was lost: no events until the next EventGap."""

    reason: str


@dataclass(frozen=True, slots=True)
class EventGap:
    """Events before this point may have been missed; those after it are complete: resync now.

    The first item of every subscription, and the first after each reconnection. `unknown` holds the
    optional events that this charon does not have.
    """

    reason: str
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before reconnecting, in seconds: doubled from `first` to at most `most`.

    Each wait is shortened by up to `jitter` (a fraction) at random, so that many do not come at once.
    """

    first: float = 0.1
    most: float = 5.0
    jitter: float = 0.5

    def delay(self, attempt: int) -> float:
        """Given the number of failures in a row (from 0), return the seconds to wait."""
        full = min(self.most, self.first * 2.0 ** min(attempt, 30))
        return full * (1.0 - self.jitter * random.random())  # noqa: S311 - spreads load, hides nothing


class Session:
    """A VICI session with whatever serves VICI at a unix socket: charon, or a plugin's own socket.

    `timeout` (seconds) is the deadline of every call that does not bring its own. `peer` is what
    errors call the other end. `heartbeat` is the cheap command that `watch` sends. `timing` is told how long
    each request took. Safe to use from many tasks of one event loop. Opens connections when needed; close it with
    `aclose`.
    """

    def __init__(
        self,
        path: Path | str = DEFAULT_SOCKET,
        *,
        timeout: float = 5.0,
        backoff: Backoff | None = None,
        max_frame: int = MAX_FRAME,
        peer: str = "charon",
        heartbeat: str = "version",
        timing: Timing | None = None,
    ) -> None:
        self.path = Path(path)
        self._timing = timing or (lambda _command, _seconds, _answered: None)
        self.peer = peer
        self._timeout = timeout
        self._backoff = backoff or Backoff()
        self._max_frame = max_frame
        self._heartbeat = heartbeat
        self._idle: list[Connection] = []
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._door = asyncio.Lock()
        self._status = Status(LinkState.DOWN, time.monotonic(), "not connected yet")
        self._changed = asyncio.Event()

    # --- status ---------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """What is known about the other end at this moment."""
        return self._status

    async def status_after(self, seen: Status) -> Status:
        """Given a status seen before, wait until it is another one, and return that. Wait for ever."""
        while self._status == seen:
            await self._changed.wait()
        return self._status

    async def watch(self, interval: float = 5.0) -> None:
        """Send the heartbeat each `interval` seconds, for ever, so that `status` follows a hung charon."""
        while True:
            try:
                await self.request(self._heartbeat)
            except CharonRefusedError:
                pass  # an answer all the same
            except CharonError:
                pass  # request() has recorded it in the status
            await asyncio.sleep(interval)

    def _set_status(self, state: LinkState, detail: str = "") -> None:
        if self._status.state is state:
            return
        self._status = Status(state, time.monotonic(), detail)
        self._changed.set()
        self._changed = asyncio.Event()

    def _record(self, error: CharonError) -> None:
        if isinstance(error, CharonTimeoutError):
            self._set_status(LinkState.HUNG, error.message)
        elif isinstance(error, CharonUnreachableError | CharonProtocolError):
            self._set_status(LinkState.DOWN, error.message)

    # --- requests -------------------------------------------------------------------------------

    async def request(
        self, command: str, args: Args | None = None, *, timeout: float | None = None
    ) -> Message:
        """Given a command and its arguments, return the answer.

        Raise CharonRefusedError when the answer is success=no (with charon's errmsg) or the command
        is unknown, CharonTimeoutError after `timeout` seconds, CharonUnreachableError when nobody
        listens or the connection ends, CharonProtocolError when the answer is not VICI.
        """
        message = encode(args)
        limit = self._timeout if timeout is None else timeout
        began = time.monotonic()
        try:
            async with (
                self._guard(command, limit),
                asyncio.timeout(limit),
                self._lent(command, limit) as connection,
            ):
                await connection.request(command, message)
                packet = await connection.receive()
                answer = self._answer(command, packet)
        except CharonError:
            self._timing(command, time.monotonic() - began, False)
            raise
        self._timing(command, time.monotonic() - began, True)
        return self._accepted(command, answer)

    async def stream(
        self, command: str, event: str, args: Args | None = None, *, timeout: float | None = None
    ) -> AsyncGenerator[Message, None]:
        """Given a command that reports by events (list-sas by list-sa, ...), yield each event's message.

        `timeout` bounds the silence between two messages, in seconds; the caller's own time does not
        count. Leave the loop early only within `contextlib.aclosing`. Raises as `request` does.
        """
        message = encode(args)
        limit = self._timeout if timeout is None else timeout
        async with self._lent(command, limit) as connection:
            async with self._guard(command, limit), asyncio.timeout(limit):
                if not await connection.register(event):
                    raise CharonRefusedError(f"{self.peer} does not know the event {event}")
                await connection.request(command, message)
            turn = _Turn()
            while True:
                async with self._guard(command, limit), asyncio.timeout(limit):
                    packet = await connection.receive()
                    if packet.kind != ViciPacket.EVENT:
                        answer = self._answer(command, packet)
                        await connection.unregister(event)
                        break
                    item = decode(packet.payload)
                yield item
                await turn.pause()
        self._accepted(command, answer)

    def _answer(self, command: str, packet: Packet) -> Message | None:
        """Return the decoded answer, or None when the command is unknown."""
        if packet.kind == ViciPacket.CMD_UNKNOWN:
            return None
        if packet.kind != ViciPacket.CMD_RESPONSE:
            raise CharonProtocolError(f"{self.peer} answered {command} with a packet of type {packet.kind}")
        return decode(packet.payload)

    def _accepted(self, command: str, answer: Message | None) -> Message:
        if answer is None:
            raise CharonRefusedError(
                f"{self.peer} does not know the command {command}",
                hint="its version or plugins do not have it",
            )
        if answer.get("success") == b"no":
            reason = answer.get("errmsg", b"")
            text = reason.decode("utf-8", "replace")[:500] if isinstance(reason, bytes) else ""
            raise CharonRefusedError(f"{self.peer} refused {command}: {text or 'no reason given'}")
        return answer

    # --- events ---------------------------------------------------------------------------------

    async def events(
        self,
        names: Iterable[str],
        *,
        optional: Iterable[str] = (),
        keep: Callable[[Packet], bool] | None = None,
    ) -> AsyncGenerator[Event | EventLost | EventGap, None]:
        """Yield an EventGap, then events as they come; for a lost connection EventLost, then an EventGap again.

        Reconnects for ever, with backoff. `keep` sees each packet before it is decoded and may drop
        it (a cheap filter for chatty events). Use it within `contextlib.aclosing`. Raise
        CharonRefusedError when charon does not know one of `names`.
        """
        wanted, extra = tuple(names), tuple(optional)
        attempt = 0
        reason = "subscribed"
        while True:
            try:
                connection, unknown = await self._subscribe(wanted, extra)
            except CharonRefusedError:
                raise
            except CharonError as error:
                reason = error.message
                await asyncio.sleep(self._backoff.delay(attempt))
                attempt += 1
                continue
            attempt = 0
            try:
                yield EventGap(reason, unknown)
                async for event in self._received(connection, keep):
                    yield event
            except CharonError as error:
                self._record(error)
                reason = error.message
            finally:
                connection.close()
            yield EventLost(reason)
            await asyncio.sleep(self._backoff.delay(attempt))

    async def _subscribe(
        self, names: tuple[str, ...], optional: tuple[str, ...]
    ) -> tuple[Connection, frozenset[str]]:
        unknown = set()
        connection = None
        try:
            async with self._guard("event registration", self._timeout), asyncio.timeout(self._timeout):
                connection = await self._open()
                for name in (*names, *optional):
                    if not await connection.register(name):
                        unknown.add(name)
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        if missing := unknown & set(names):
            connection.close()
            raise CharonRefusedError(
                f"{self.peer} does not know the events {', '.join(sorted(missing))}",
                hint="its version is too old, or a plugin is missing",
            )
        self._set_status(LinkState.UP)
        return connection, frozenset(unknown)

    async def _received(
        self, connection: Connection, keep: Callable[[Packet], bool] | None
    ) -> AsyncIterator[Event]:
        turn = _Turn()
        while True:
            packet = await connection.receive(rest_timeout=self._timeout)
            if packet.kind != ViciPacket.EVENT:
                raise CharonProtocolError(f"{self.peer} sent a packet of type {packet.kind} among events")
            if keep is None or keep(packet):
                yield Event(packet.name, decode(packet.payload))
            await turn.pause()

    # --- connections ----------------------------------------------------------------------------

    @asynccontextmanager
    async def _lent(self, what: str, timeout: float) -> AsyncIterator[Connection]:
        """Lend a connection, within `timeout`; it is kept for the next only if the body ends normally."""
        async with AsyncExitStack() as stack:
            async with self._guard(what, timeout), asyncio.timeout(timeout):
                await stack.enter_async_context(self._room)
                connection = self._reusable() or await self._open()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._set_status(LinkState.UP)
            self._idle.append(connection)

    @asynccontextmanager
    async def _guard(self, what: str, timeout: float) -> AsyncIterator[None]:
        """Turn a deadline into the typed error, and record what an error says about the other end."""
        try:
            yield
        except TimeoutError as error:
            typed = CharonTimeoutError(
                f"{self.peer} did not answer {what} within {timeout:g} s",
                hint="it hangs or is overloaded: see its log and load",
            )
            self._record(typed)
            raise typed from error
        except CharonError as error:
            self._record(error)
            raise

    def _reusable(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.stale:
                return connection
            connection.close()
        return None

    async def _open(self) -> Connection:
        """Return a new connection that is accepted: one at a time waits for that in the queue, which is short."""
        async with self._door:
            connection = await self._connected()
            try:
                await connection.unregister(_NO_EVENT)
            except BaseException:
                connection.close()
                raise
            return connection

    async def _connected(self) -> Connection:
        until = time.monotonic() + _CROWDED_S
        while True:
            try:
                return await Connection.open(self.path, peer=self.peer, max_frame=self._max_frame)
            except CharonTimeoutError:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(_CROWDED_AGAIN_S)

    async def aclose(self) -> None:
        """Close the idle connections. Those in use are closed by their users' cancellation."""
        while self._idle:
            self._idle.pop().close()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.aclose()


class _Turn:
    """Gives the event loop its turn when a stream has worked for long without waiting."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    async def pause(self) -> None:
        if time.monotonic() - self._since > _SLICE_S:
            await asyncio.sleep(0)
            self._since = time.monotonic()
