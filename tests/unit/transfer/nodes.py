"""A cluster's authority, its nodes with their files, and connections that do not behave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

from mobikectl.cluster.node_settings import TransferSettings
from mobikectl.errors import FencedError, TransferDeniedError
from mobikectl.transfer import Endpoint, Request, Tls, TransferClient, Verb, certificates, serving
from mobikectl.wire.secret import SecretBytes
from mobikectl.wire.transfer import Greeting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from mobikectl.transfer.server import Limits

LOOPBACK = "127.0.0.1"
TOKEN = 42


@dataclass(slots=True)
class Members:
    """A guard for whom these are the members, and this is the leader's token."""

    members: set[Greeting] = field(default_factory=set)
    token: int = TOKEN

    async def admit(self, peer: Greeting) -> None:
        if peer not in self.members:
            raise TransferDeniedError(f"{peer.node} is no member of the cluster", hint="start it")

    async def authorise(self, peer: Greeting, token: int) -> None:
        await self.admit(peer)
        if token != self.token:
            raise FencedError(f"the token {token} is old", hint="plan anew")


class Nodes:
    """Makes nodes whose certificates one authority signs."""

    def __init__(self, folder: Path, cluster: str = "lab") -> None:
        self.folder = folder
        self.cluster = cluster
        certificates.make_authority(folder / "ca", cluster, 100, certificates.today())

    def settings(self, node: str, *, name: str = "") -> TransferSettings:
        """Return the settings of a node, with a certificate of its own name or of another."""
        at = self.folder / node
        if not at.exists():
            files = certificates.issue(self.folder / "ca", name or node, 10, certificates.today())
            certificates.install(files, at, replace=False)
        return TransferSettings(
            address=ip_address(LOOPBACK), certificate=at / "node.pem", key=at / "node.key", ca=at / "ca.pem"
        )

    def who(self, node: str) -> Greeting:
        return Greeting(self.cluster, node, f"{node}-1")

    @contextlib.asynccontextmanager
    async def serve(
        self, node: str, guard: Members, verbs: Mapping[str, Verb] | None = None, limits: Limits | None = None
    ) -> AsyncIterator[int]:
        """Have a node answer; give its port."""
        tls = Tls(self.settings(node))
        async with serving(
            self.who(node),
            tls,
            guard,
            {"echo": Verb(echo), **(verbs or {})},
            host=LOOPBACK,
            port=0,
            limits=limits,
        ) as (_, port):
            yield port

    def client(
        self, node: str, port: int, *, settings: TransferSettings | None = None, instance: str = "gw2-1"
    ) -> TransferClient:
        """Return a node's client for which every other node is at this port."""

        async def locate(_node: str) -> Endpoint:
            return Endpoint(LOOPBACK, port, instance)

        return TransferClient(self.who(node), Tls(settings or self.settings(node)), locate)

    async def raw(
        self, node: str, port: int, **versions: ssl.TLSVersion
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection with a node's certificate and say nothing."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        settings = self.settings(node)
        context.load_verify_locations(settings.ca)
        context.load_cert_chain(settings.certificate, settings.key)
        for name, version in versions.items():
            setattr(context, name, version)
        return await asyncio.open_connection(LOOPBACK, port, ssl=context)


class Between:
    """Passes octets on between two nodes, until it resets their connections, as the kernel of a killed process does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        """Give the port at which it listens."""
        async with await asyncio.start_server(self._joined, LOOPBACK, 0) as server:
            yield int(server.sockets[0].getsockname()[1])

    def reset(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._port)
        self._writers += [writer, far_writer]
        await asyncio.gather(
            self._pass_on(reader, far_writer), self._pass_on(far_reader, writer), return_exceptions=True
        )

    @staticmethod
    async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while octets := await reader.read(65536):
            writer.write(octets)
            await writer.drain()


async def echo(request: Request) -> SecretBytes:
    return SecretBytes(request.peer.node.encode() + b":" + request.payload.reveal())
