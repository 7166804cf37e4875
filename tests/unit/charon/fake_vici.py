"""A VICI server in this process, for the faults that a real charon cannot be made to show."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from vici.protocol import Message, Packet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Handler = Callable[["Peer", dict[str, Any]], Awaitable[None]]


def frame(payload: bytes) -> bytes:
    return struct.pack("!I", len(payload)) + payload


def response(message: dict[str, Any] | None = None) -> bytes:
    return frame(bytes([Packet.CMD_RESPONSE]) + Message.serialize(message or {}))


def event(name: str, message: dict[str, Any]) -> bytes:
    return frame(bytes([Packet.EVENT, len(name)]) + name.encode() + Message.serialize(message))


def ike(uniqueid: int = 1, **keys: Any) -> dict[str, Any]:
    return {
        "uniqueid": uniqueid,
        "version": "2",
        "state": "ESTABLISHED",
        "local-host": "198.18.0.1",
        "local-port": "4500",
        "local-id": "me",
        "remote-host": "198.18.0.2",
        "remote-port": "4500",
        "remote-id": "peer",
        "initiator": "yes",
        "initiator-spi": f"{uniqueid:016x}",
        "responder-spi": f"{uniqueid + 0x1000:016x}",
        "established": "10",
        **keys,
    }


def child(uniqueid: int = 1, **keys: Any) -> dict[str, Any]:
    return {
        "name": "net",
        "uniqueid": uniqueid,
        "reqid": "1",
        "state": "INSTALLED",
        "mode": "TUNNEL",
        "protocol": "ESP",
        "spi-in": f"{uniqueid:08x}",
        "spi-out": f"{uniqueid + 0x100:08x}",
        **keys,
    }


class Peer:
    """One client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.events: set[str] = set()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


class FakeVici:
    """Answers `version` and `list-sas`; other commands, or these in another way, by `commands`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commands: dict[str, Handler] = {"version": self._version, "list-sas": self._list_sas}
        self.known_events = {"ike-updown", "ike-rekey", "child-updown", "child-rekey", "list-sa", "log"}
        self.sas: list[dict[str, Any]] = []
        self.peers: list[Peer] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.was_asked = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for peer in self.peers:
            peer.writer.transport.abort()
        self.peers.clear()
        self.path.unlink(missing_ok=True)

    async def raise_event(self, name: str, message: dict[str, Any]) -> None:
        for peer in self.peers:
            if name in peer.events:
                await peer.send(event(name, message))

    async def _version(self, peer: Peer, _args: dict[str, Any]) -> None:
        await peer.send(response({"daemon": "fake", "version": "5.9.8"}))

    async def _list_sas(self, peer: Peer, args: dict[str, Any]) -> None:
        for sa in list(self.sas):
            if args.get("ike-id", str(sa["uniqueid"]).encode()) == str(sa["uniqueid"]).encode():
                await peer.send(event("list-sa", {"home": sa}))
        await peer.send(response())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = struct.unpack("!I", await reader.readexactly(4))
                await self._packet(peer, await reader.readexactly(length))
        writer.close()

    async def _packet(self, peer: Peer, data: bytes) -> None:
        name = data[2 : 2 + data[1]].decode()
        if data[0] == Packet.EVENT_REGISTER:
            known = name in self.known_events
            if known:
                peer.events.add(name)
            await peer.send(frame(bytes([Packet.EVENT_CONFIRM if known else Packet.EVENT_UNKNOWN])))
            return
        if data[0] == Packet.EVENT_UNREGISTER:
            known = name in peer.events
            peer.events.discard(name)
            await peer.send(frame(bytes([Packet.EVENT_CONFIRM if known else Packet.EVENT_UNKNOWN])))
            return
        args = dict(Message.deserialize(Packet.parse(b"\x01" + data[2 + data[1] :]).payload))
        self.asked.append((name, args))
        self.was_asked.set()
        if name in self.commands:
            await self.commands[name](peer, args)
        else:
            await peer.send(frame(bytes([Packet.CMD_UNKNOWN])))


@asynccontextmanager
async def fake_vici(path: Path) -> AsyncIterator[FakeVici]:
    fake = FakeVici(path)
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()
