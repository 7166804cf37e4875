"""One VICI connection: bounded frames over a unix socket; what is sent is encoded by the `vici` package.

The protocol is strongSwan's `src/libcharon/plugins/vici/README.md`: each frame is a 32-bit length in
network order and a packet; a packet is a type, for some types a name, and a message.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vici.protocol import Message as ViciMessage
from vici.protocol import Packet as ViciPacket

from mobikectl.errors import (
    CharonProtocolError,
    CharonRefusedError,
    CharonTimeoutError,
    CharonUnreachableError,
)

if TYPE_CHECKING:
    from pathlib import Path

Message = dict[str, Any]
"""A decoded VICI message: text keys; values are bytes, lists of bytes, or such a message."""
Args = Mapping[str, Any]
"""What goes into a request: text, bytes, numbers, booleans (sent as yes and no), lists, and mappings."""

MAX_FRAME = 512 * 1024
"""The largest packet in bytes that charon sends or takes (VICI_MESSAGE_SIZE_MAX)."""

_LENGTH = struct.Struct("!I")
_NAME_MAX = 255
_VALUE_MAX = 65535
_READ_BUFFER = 256 * 1024


@dataclass(frozen=True, slots=True)
class Packet:
    """A received packet: its type (`vici.protocol.Packet`'s numbers), the event's name, the message's bytes."""

    kind: int
    name: str
    payload: bytes


def decode(payload: bytes) -> Message:
    """Given a packet's message bytes, return the message. Raise CharonProtocolError when it is malformed.

    Own code because a listing of 3,000 SAs is mostly decoding, at which the `vici` package takes twice
    as long, and because that takes a value which the data cut short for whole.
    """
    try:
        return _decode(payload)
    except (IndexError, UnicodeDecodeError) as error:
        raise CharonProtocolError(
            f"a VICI message of {len(payload)} bytes cannot be decoded: {error}"
        ) from error


def _decode(data: bytes) -> Message:
    section: Message = {}
    outer: list[Message] = []
    at, end = 0, len(data)
    while at < end:
        kind = data[at]
        if kind == ViciMessage.SECTION_END:
            section = outer.pop()
            at += 1
            continue
        stop = at + 2 + data[at + 1]
        name = data[at + 2 : stop].decode()
        if kind == ViciMessage.KEY_VALUE:
            at = stop + 2 + (data[stop] << 8 | data[stop + 1])
            section[name] = data[stop + 2 : at]
        elif kind == ViciMessage.SECTION_START:
            outer.append(section)
            inner: Message = {}
            section[name] = inner
            section, at = inner, stop
        elif kind == ViciMessage.LIST_START:
            section[name], at = _items(data, stop)
        else:
            raise CharonProtocolError(f"a VICI message has an element of type {kind}")
    if at != end or outer:
        raise CharonProtocolError(f"a VICI message of {end} bytes ends in the middle")
    return section


def _items(data: bytes, at: int) -> tuple[list[bytes], int]:
    items = []
    while data[at] == ViciMessage.LIST_ITEM:
        stop = at + 3 + (data[at + 1] << 8 | data[at + 2])
        items.append(data[at + 3 : stop])
        at = stop
    if data[at] != ViciMessage.LIST_END:
        raise CharonProtocolError("a list in a VICI message does not end")
    return items, at + 1


def encode(args: Args | None) -> bytes:
    """Given a request's arguments, return the message's bytes. Raise CharonRefusedError when one does not fit."""
    return bytes(ViciMessage.serialize(_plain(args))) if args else b""


def _plain(args: Args) -> Message:
    plain: Message = {}
    for key, value in args.items():
        if not 0 < len(key.encode()) <= _NAME_MAX:
            raise CharonRefusedError(f"{key[:40]!r}... is too long a key for VICI", hint="at most 255 bytes")
        if isinstance(value, Mapping):
            plain[key] = _plain(value)
        elif isinstance(value, list | tuple):
            plain[key] = [_blob(key, item) for item in value]
        else:
            plain[key] = _blob(key, value)
    return plain


def _blob(key: str, value: object) -> bytes:
    if isinstance(value, bool):
        blob = b"yes" if value else b"no"
    else:
        blob = value if isinstance(value, bytes) else str(value).encode()
    if len(blob) > _VALUE_MAX:
        raise CharonRefusedError(f"the value of {key!r} is too long for VICI", hint="at most 65,535 bytes")
    return blob


class Connection:
    """A connection that belongs to one caller at a time.

    Nothing here has a deadline of its own but the second half of `receive`: the owner sets it, and
    after a timeout or cancellation closes the connection, because an answer may be half read.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str, max_frame: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._peer = peer
        self._max_frame = max_frame

    @classmethod
    async def open(cls, path: Path, *, peer: str = "charon", max_frame: int = MAX_FRAME) -> Connection:
        """Given a unix socket's path, return a connection to it.

        Raise CharonUnreachableError when nobody listens, CharonTimeoutError when the listener has
        stopped accepting (its queue is full: a hung process).
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(str(path))
            reader, writer = await asyncio.open_unix_connection(sock=sock, limit=_READ_BUFFER)
        except BlockingIOError as error:
            sock.close()
            raise CharonTimeoutError(
                f"{peer} does not accept connections at {path}",
                hint="it is stopped or hangs: see its log, or restart it",
            ) from error
        except OSError as error:
            sock.close()
            raise _unreachable(peer, path, error) from error
        except BaseException:
            sock.close()
            raise
        return cls(reader, writer, peer, max_frame)

    @property
    def stale(self) -> bool:
        """Whether the other end closed it, or sent something that nobody asked for."""
        return self._reader.at_eof() or self._writer.is_closing()

    def close(self) -> None:
        """Close it now; what is under way is lost."""
        self._writer.transport.abort()

    async def request(self, command: str, message: bytes) -> None:
        """Send a command and its encoded arguments."""
        await self._send(ViciPacket.request(_name(command), message))

    async def register(self, event: str) -> bool:
        """Ask for an event. Return whether the other end knows it.

        Events registered before may come first: they are dropped (a subscriber resyncs after it).
        """
        return await self._manage(ViciPacket.register_event(_name(event)))

    async def unregister(self, event: str) -> bool:
        """Ask for an event no more: none comes after this. Return whether it was asked for."""
        return await self._manage(ViciPacket.unregister_event(_name(event)))

    async def _manage(self, asking: bytes) -> bool:
        await self._send(asking)
        packet = await self.receive()
        while packet.kind == ViciPacket.EVENT:
            packet = await self.receive()
        if packet.kind not in (ViciPacket.EVENT_CONFIRM, ViciPacket.EVENT_UNKNOWN):
            raise self._unexpected(packet)
        return bool(packet.kind == ViciPacket.EVENT_CONFIRM)

    async def receive(self, *, rest_timeout: float | None = None) -> Packet:
        """Return the next packet.

        The first byte may take for ever (set a deadline outside, or wait for events without one);
        when `rest_timeout` (seconds) is given, the rest must follow the first byte within it. Raise
        CharonUnreachableError at the end of the stream, CharonTimeoutError when the rest does not
        come, CharonProtocolError when the length or the type cannot be.
        """
        try:
            if rest_timeout is None:
                return self._parse(await self._frame(b""))
            first = await self._reader.readexactly(1)
            async with asyncio.timeout(rest_timeout):
                return self._parse(await self._frame(first))
        except TimeoutError as error:
            raise CharonTimeoutError(
                f"{self._peer} sent a part of a message and then nothing for {rest_timeout:g} s"
            ) from error
        except (asyncio.IncompleteReadError, OSError) as error:
            raise CharonUnreachableError(
                f"{self._peer} closed the connection", hint="it was stopped or restarted: see its log"
            ) from error

    async def _frame(self, first: bytes) -> bytes:
        (length,) = _LENGTH.unpack(first + await self._reader.readexactly(_LENGTH.size - len(first)))
        if not 1 <= length <= self._max_frame:
            raise CharonProtocolError(
                f"{self._peer} announced a message of {length} bytes (at most {self._max_frame} are taken)",
                hint="is this a VICI socket?",
            )
        return await self._reader.readexactly(length)

    def _parse(self, frame: bytes) -> Packet:
        kind = frame[0]
        if kind != ViciPacket.EVENT:
            return Packet(kind, "", frame[1:])
        end = 2 + frame[1] if len(frame) > 1 else len(frame) + 1
        if end > len(frame):
            raise CharonProtocolError(f"{self._peer} sent an event whose name is cut short")
        return Packet(kind, frame[2:end].decode("ascii", "replace"), frame[end:])

    async def _send(self, packet: bytes) -> None:
        if len(packet) > self._max_frame:
            raise CharonRefusedError(f"the request of {len(packet)} bytes is larger than VICI allows")
        try:
            self._writer.write(_LENGTH.pack(len(packet)) + packet)
            await self._writer.drain()
        except OSError as error:
            raise CharonUnreachableError(
                f"{self._peer} closed the connection", hint="it was stopped or restarted: see its log"
            ) from error

    def _unexpected(self, packet: Packet) -> CharonProtocolError:
        return CharonProtocolError(f"{self._peer} answered with an unexpected packet of type {packet.kind}")


def _name(name: str) -> str:
    if not 0 < len(name.encode()) <= _NAME_MAX:
        raise CharonRefusedError(f"{name[:40]!r} cannot be the name of a VICI command or event")
    return name


def _unreachable(peer: str, path: Path, error: OSError) -> CharonUnreachableError:
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "run as root, or as a member of the group that owns the socket"
    elif error.errno == errno.ENOENT:
        hint = f"start {peer}, or name its socket (strongswan.conf: charon.plugins.vici.socket)"
    else:
        hint = f"is {peer} running? see its log"
    reason = errno.errorcode.get(error.errno or 0, str(error))
    return CharonUnreachableError(f"{peer} is not reachable at {path}: {reason}", hint=hint)
