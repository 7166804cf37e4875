"""The side that asks: one connection to each node that is asked, opened when needed and kept."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from mobikectl.errors import (
    DecodeError,
    MobikectlError,
    NotFoundError,
    TransferDeniedError,
    TransferError,
    TransferRefusedError,
    TransferUnreachableError,
)
from mobikectl.taskgroup import TaskGroup
from mobikectl.transfer.credentials import require_name
from mobikectl.transfer.stream import StreamFrames
from mobikectl.wire.secret import SecretBytes
from mobikectl.wire.transfer import Frame, Greeting, Kind, decode_greeting, decode_refusal, encode_greeting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mobikectl.cluster.store import Store
    from mobikectl.transfer.credentials import Tls

log = logging.getLogger(__name__)

CONNECT_S = 5.0
"""Connecting, TLS and greeting take no longer than this, however late the deadline is."""
NOTHING = SecretBytes(b"")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node takes requests, and which process it must be."""

    host: str
    port: int
    instance: str


def locate_by(store: Store) -> Callable[[str], Awaitable[Endpoint]]:
    """Given the store, return what finds a node's endpoint there. That raises NotFoundError and StoreError."""

    async def locate(node: str) -> Endpoint:
        member = (await store.state()).members.get(node)
        if member is None:
            raise NotFoundError(
                f"{node} is no member of the cluster", hint="`mobikectl nodes` lists the members"
            )
        host, _, port = member.value.transfer.rpartition(":")
        if not host or not port.isdecimal():
            raise NotFoundError(f"{node} takes no IKE_SAs over", hint="configure [cluster.transfer] on it")
        return Endpoint(host.strip("[]"), int(port), member.value.instance)

    return locate


class TransferClient:
    """Asks other nodes (async context manager).

    Given who we are, the certificates, and what finds a node's endpoint.
    """

    def __init__(self, me: Greeting, tls: Tls, locate: Callable[[str], Awaitable[Endpoint]]) -> None:
        self._me = me
        self._tls = tls
        self._locate = locate
        self._links: dict[str, _Link] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._tasks = TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: object
    ) -> None:
        for link in tuple(self._links.values()):
            link.end()
        await self._tasks.__aexit__(kind, exc, trace)  # type: ignore[arg-type]

    async def call(
        self, node: str, verb: str, payload: SecretBytes = NOTHING, *, token: int = 0, deadline: float
    ) -> SecretBytes:
        """Given a node, a request, the fencing token it acts under and seconds, return the answer.

        Raise TransferRefusedError: the node said no; TransferDeniedError: one side does not take the other for what it
        says; TransferUnreachableError: no connection or no answer in time (see its ``maybe_done``); NotFoundError
        and StoreError: the node's endpoint cannot be found; ConfigError: our own certificate cannot be used.
        """
        sent = False
        try:
            async with asyncio.timeout(deadline):
                link = await self._link(node)
                sent = True
                return await link.ask(verb, payload, token)
        except TimeoutError:
            raise TransferUnreachableError(
                f"{node}: {verb}: no answer within {deadline:g} s",
                hint="is the node overloaded, or its transfer port filtered?",
                maybe_done=sent,
            ) from None

    async def _link(self, node: str) -> _Link:
        async with self._opening.setdefault(node, asyncio.Lock()):
            link = self._links.get(node)
            if link is None or link.over:
                link = await self._open(node)
                self._links[node] = link
            return link

    async def _open(self, node: str) -> _Link:
        endpoint = await self._locate(node)
        where = f"{node} ({endpoint.host} port {endpoint.port})"
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(
                    endpoint.host,
                    endpoint.port,
                    ssl=self._tls.client(),
                    server_hostname="",
                    ssl_shutdown_timeout=1.0,
                )
                stream = StreamFrames(reader, writer)
                try:
                    await self._greet(stream, node, endpoint.instance)
                except BaseException:
                    await stream.close()
                    raise
        except ssl.SSLCertVerificationError as error:
            raise TransferDeniedError(
                f"{where}: {error.verify_message}", hint="do both nodes have the same [cluster.transfer] ca?"
            ) from error
        except ssl.SSLError as error:
            raise TransferDeniedError(
                f"{where}: {error.reason or 'TLS failed'}",
                hint="does it speak TLS 1.3, and take our certificate?",
            ) from error
        except OSError as error:
            raise TransferUnreachableError(
                f"{where}: {error.strerror or 'no answer in time'}",
                hint="is its sidecar running, and the port open between the nodes?",
            ) from error
        except DecodeError as error:
            raise TransferDeniedError(
                f"{where}: {error.message}", hint="does mobikectl listen there?"
            ) from error
        return _Link(node, stream, self._tasks)

    async def _greet(self, stream: StreamFrames, node: str, instance: str) -> None:
        require_name(stream.tls, node)
        await stream.send(Frame(Kind.HELLO, payload=encode_greeting(self._me)))
        answer = await stream.receive(CONNECT_S)
        if answer is None:
            raise TransferDeniedError(
                f"{node} closed the connection",
                hint="its log says why: our certificate, or too many connections",
            )
        if answer.kind is Kind.REFUSAL:
            refusal = decode_refusal(answer.payload)
            raise TransferDeniedError(f"{node} refuses us: {refusal.message}", hint=refusal.hint)
        if answer.kind is not Kind.WELCOME:
            raise DecodeError(f"a frame of kind {answer.kind.name}", expected="WELCOME")
        welcome = decode_greeting(answer.payload)
        if welcome != Greeting(self._me.cluster, node, instance):
            raise TransferDeniedError(
                f"{node} is another process than the member of that name",
                hint="it has just been started, or lost its lease: try again in a moment",
            )
        stream.trust()


class _Link:
    """A connection on which requests and answers cross."""

    def __init__(self, node: str, stream: StreamFrames, group: TaskGroup) -> None:
        self._node = node
        self._stream = stream
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Frame]] = {}
        self.over = False
        """Whether it cannot be used any more."""
        self._reading = group.create_task(self._read())

    def end(self) -> None:
        self.over = True
        self._reading.cancel()

    async def ask(self, verb: str, payload: SecretBytes, token: int) -> SecretBytes:
        number = next(self._numbers) & 0xFFFFFFFF
        waiting: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            try:
                await self._stream.send(Frame(Kind.REQUEST, number, verb, token, payload))
            except OSError as error:
                self.end()
                raise self._lost() from error
            answer = await waiting
        finally:
            self._waiting.pop(number, None)
        if answer.kind is Kind.ANSWER:
            return answer.payload
        refusal = decode_refusal(answer.payload)
        raise TransferRefusedError(
            f"{self._node}: {verb}: {refusal.message}", hint=refusal.hint, kind=refusal.kind
        )

    async def _read(self) -> None:
        why: MobikectlError | None = None
        try:
            while (frame := await self._stream.receive(None)) is not None:
                self._take(frame)
        except DecodeError as error:
            log.warning("transfer: %s answers nonsense: %s", self._node, error.message)
            why = TransferError(
                f"{self._node} answers nonsense: {error.message}", hint="the log there says more"
            )
        except OSError as error:
            log.info("transfer: the connection to %s is lost: %s", self._node, error)
        finally:
            self.over = True
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(why or self._lost())
            with contextlib.suppress(OSError):
                await self._stream.close()

    def _take(self, frame: Frame) -> None:
        if frame.kind not in (Kind.ANSWER, Kind.REFUSAL):
            raise DecodeError(f"a frame of kind {frame.kind.name}", expected="an answer")
        waiting = self._waiting.get(frame.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(frame)

    def _lost(self) -> TransferUnreachableError:
        return TransferUnreachableError(
            f"the connection to {self._node} is lost",
            hint="ask again: whether the request was carried out is not known",
            maybe_done=True,
        )
