"""The side that is asked: takes connections of the cluster's nodes and hands their requests to handlers.

Bounds: connections in all, of one address and of one node; seconds for the TLS handshake, the greeting, a frame and a
request; requests at once on a connection. A request whose connection is lost is still carried out to its end, so that
nothing is half done; who asked can ask again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobikectl.errors import ConfigError, DecodeError, MobikectlError, TransferDeniedError, TransferError
from mobikectl.taskgroup import TaskGroup
from mobikectl.transfer.credentials import require_name
from mobikectl.transfer.stream import FRAME_S, StreamFrames
from mobikectl.wire.transfer import (
    Frame,
    Greeting,
    Kind,
    Refusal,
    decode_greeting,
    encode_greeting,
    encode_refusal,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from mobikectl.transfer.credentials import Tls
    from mobikectl.transfer.guard import Guard
    from mobikectl.wire.secret import SecretBytes

log = logging.getLogger(__name__)

_ACCEPT_PAUSE_S = 0.2
"""After the system could not take a connection (no file descriptors)."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler is given."""

    peer: Greeting
    """The node that asks: authenticated and a member."""
    verb: str
    token: int
    """The fencing token that it acts under; checked when the verb is fenced."""
    payload: SecretBytes


@dataclass(frozen=True, slots=True)
class Verb:
    """A request that this node answers."""

    handle: Callable[[Request], Awaitable[SecretBytes]]
    """Given a request, return the answer's payload. Raise a MobikectlError: the other side gets its words."""
    fenced: bool = True
    """It is done under the present leader's token only. Undoing and asking need none."""
    deadline_s: float = 10.0
    """It is cancelled after this time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds in numbers and seconds."""

    connections: int = 64
    per_address: int = 8
    per_node: int = 4
    """When a node opens another, its oldest is closed: it may have lost it without our knowing."""
    requests: int = 16
    """Of one connection at once; it is not read while there are as many."""
    handshake_s: float = 5.0
    greeting_s: float = 5.0
    frame_s: float = FRAME_S
    idle_s: float = 300.0


@contextlib.asynccontextmanager
async def serving(
    me: Greeting,
    tls: Tls,
    guard: Guard,
    verbs: Mapping[str, Verb],
    *,
    host: str,
    port: int,
    limits: Limits | None = None,
) -> AsyncIterator[tuple[str, int]]:
    """Given who we are, the certificates, who may ask and the verbs, answer requests while the context lasts.

    Give the address and port that are listened on. Raise ConfigError: a file cannot be used; TransferError: the
    address cannot be listened on.
    """
    tls.server()
    listener = _listen(host, port)
    server = _Server(me, tls, guard, verbs, limits or Limits())
    try:
        async with TaskGroup() as group:
            accepting = group.create_task(server.accept(listener, group))
            try:
                yield listener.getsockname()[:2]
            finally:
                accepting.cancel()
                server.stop()
    finally:
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=32)
    except OSError as error:
        raise TransferError(
            f"cannot listen on {host} port {port}: {error.strerror}",
            hint="is the address on this host and the port free? See [cluster.transfer]",
        ) from error
    listener.setblocking(False)
    return listener


class _Server:
    def __init__(
        self, me: Greeting, tls: Tls, guard: Guard, verbs: Mapping[str, Verb], limits: Limits
    ) -> None:
        self._welcome = encode_greeting(me)
        self._me = me
        self._tls = tls
        self._guard = guard
        self._verbs = verbs
        self._limits = limits
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._of_node: dict[str, list[StreamFrames]] = {}

    async def accept(self, listener: socket.socket, group: TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("transfer: cannot take a connection: %s", error.strerror)
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            host = str(address[0])
            if (
                len(self._tasks) >= self._limits.connections
                or Counter(self._tasks.values())[host] >= self._limits.per_address
            ):
                log.warning("transfer: too many connections: one from %s is refused", host)
                sock.close()
                continue
            task = group.create_task(self._serve(sock, host))
            self._tasks[task] = host
            task.add_done_callback(self._tasks.pop)

    def stop(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()

    async def _serve(self, sock: socket.socket, host: str) -> None:
        try:
            stream = await self._secure(sock)
        except (OSError, ConfigError) as error:
            log.info("transfer: no TLS with %s: %s", host, _words(error))
            sock.close()
            return
        try:
            peer = await self._greet(stream)
            await self._requests(stream, peer)
        except (OSError, MobikectlError) as error:
            log.info("transfer: the connection from %s is closed: %s", host, _words(error))
        finally:
            for streams in self._of_node.values():
                if stream in streams:
                    streams.remove(stream)
            await stream.close()

    async def _secure(self, sock: socket.socket) -> StreamFrames:
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            sock,
            ssl=self._tls.server(),
            ssl_handshake_timeout=self._limits.handshake_s,
            ssl_shutdown_timeout=1.0,
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        return StreamFrames(reader, writer, frame_s=self._limits.frame_s)

    async def _greet(self, stream: StreamFrames) -> Greeting:
        """Return who the other side is. Raise TransferDeniedError, or what the guard raises: it was told."""
        hello = await stream.receive(self._limits.greeting_s)
        if hello is None or hello.kind is not Kind.HELLO:
            raise DecodeError("a connection without a greeting", expected="HELLO")
        try:
            peer = decode_greeting(hello.payload)
            require_name(stream.tls, peer.node)
            if peer.cluster != self._me.cluster:
                raise TransferDeniedError(
                    f"this node is of the cluster {self._me.cluster}, not of {peer.cluster}",
                    hint="[cluster.store] cluster names it",
                )
            await self._guard.admit(peer)
        except MobikectlError as error:
            await stream.send(_refusal(hello.number, error))
            raise
        stream.trust()
        await stream.send(Frame(Kind.WELCOME, hello.number, payload=self._welcome))
        return peer

    async def _requests(self, stream: StreamFrames, peer: Greeting) -> None:
        streams = self._of_node.setdefault(peer.node, [])
        while len(streams) >= self._limits.per_node:
            streams.pop(0).cut()
        streams.append(stream)
        room = asyncio.Semaphore(self._limits.requests)
        async with TaskGroup() as group:
            while (frame := await self._next(stream)) is not None:
                await room.acquire()
                task = group.create_task(self._answer(stream, peer, frame))
                task.add_done_callback(lambda _: room.release())

    async def _next(self, stream: StreamFrames) -> Frame | None:
        """Return the next request; None when the connection is over, however that came: requests go on to their end."""
        try:
            frame = await stream.receive(self._limits.idle_s)
        except (OSError, DecodeError) as error:
            log.info("transfer: a connection is over: %s", _words(error))
            return None
        if frame is not None and frame.kind is not Kind.REQUEST:
            log.info("transfer: a connection is over: it sent a %s", frame.kind.name)
            return None
        return frame

    async def _answer(self, stream: StreamFrames, peer: Greeting, frame: Frame) -> None:
        verb = self._verbs.get(frame.verb)
        try:
            if verb is None:
                raise TransferError(
                    f"this node does not know the request {frame.verb[:40]!r}",
                    hint="run the same mobikectl on all nodes",
                )
            async with asyncio.timeout(verb.deadline_s):
                await (self._guard.authorise(peer, frame.token) if verb.fenced else self._guard.admit(peer))
                payload = await verb.handle(Request(peer, frame.verb, frame.token, frame.payload))
            answer = Frame(Kind.ANSWER, frame.number, frame.verb, payload=payload)
        except TimeoutError:
            answer = _refusal(
                frame.number,
                TransferError(f"{frame.verb}: not done within {verb.deadline_s if verb else 0:g} s"),
            )
        except MobikectlError as error:
            log.info("transfer: %s of %s is refused: %s", frame.verb, peer.node, error.message)
            answer = _refusal(frame.number, error)
        except OSError as error:
            log.warning("transfer: %s of %s failed: %s", frame.verb, peer.node, _words(error))
            answer = _refusal(frame.number, TransferError(f"{frame.verb} failed: {_words(error)}"))
        with contextlib.suppress(OSError):
            await stream.send(answer)


def _refusal(number: int, error: MobikectlError) -> Frame:
    return Frame(
        Kind.REFUSAL,
        number,
        payload=encode_refusal(Refusal(type(error).__name__, error.message, error.hint)),
    )


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return error.reason or "TLS failed"
    if isinstance(error, TimeoutError):
        return "nothing came in time"
    return str(error) or type(error).__name__
