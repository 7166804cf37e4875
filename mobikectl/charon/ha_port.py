"""The HA port: where charon sends key material, and from where it believes what it is told.

charon has no secret to know its HA peer by; it connects its socket, so that the kernel drops what does not
come from 127.0.0.1:4510. Whoever has that address and port is the peer. So: it is bound here without
SO_REUSEADDR or SO_REUSEPORT (nobody can join it), connected to charon's own address, tied to the loopback
interface, and handed on from broker to broker without being closed.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mobikectl.errors import CharonError, CharonUnreachableError, PrivilegeError
from mobikectl.wire.ha import MAX_MESSAGE, PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

BROKER: Final = IPv4Address("127.0.0.1")
CHARON: Final = IPv4Address("127.0.0.2")
_BUFFER: Final = 8 << 20
_AT_ONCE: Final = 256
_SO_RCVBUFFORCE: Final = 33
_SO_RXQ_OVFL: Final = 40
_UDP_TABLE: Final = Path("/proc/thread-self/net/udp")


class HaPortTakenError(CharonError):
    """Another process has the HA port: keys would go to it."""


@dataclass(slots=True)
class HaPort:
    """The bound and connected socket. ``lost``: datagrams that did not fit the buffer, as far as is known."""

    sock: socket.socket
    lost: int = 0
    _seen: int = 0

    @classmethod
    def bind(cls) -> HaPort:
        """Return the port, bound in this network namespace.

        Raise HaPortTakenError when another process has it, PrivilegeError without CAP_NET_RAW and CAP_NET_ADMIN.
        """
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            sock.bind((str(BROKER), PORT))
            sock.connect((str(CHARON), PORT))
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                raise HaPortTakenError(
                    f"another process has {BROKER} port {PORT}: charon would send it the keys of every IKE_SA",
                    hint="find it with ss -lunp, and stop charon until it is gone",
                ) from error
            raise PrivilegeError(
                f"the HA port cannot be opened: {error.strerror}", hint="give CAP_NET_RAW and CAP_NET_ADMIN"
            ) from error
        return cls.adopt(sock)

    @classmethod
    def adopt(cls, sock: socket.socket) -> HaPort:
        """Given the socket as a broker before has left it, return the port.

        Raise HaPortTakenError when it is another socket.
        """
        sock.setblocking(False)
        if (bound := sock.getsockname()) != (str(BROKER), PORT):
            sock.close()
            raise HaPortTakenError(
                f"the socket handed over is bound to {bound}",
                hint="end the process that held it",
            )
        sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        return cls(sock)

    def receive(self) -> Iterator[bytes]:
        """Yield the datagrams that are there now (a bounded number)."""
        for _ in range(_AT_ONCE):
            try:
                data, extra, flags, _ = self.sock.recvmsg(MAX_MESSAGE + 1, socket.CMSG_SPACE(4))
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue  # charon was not there when we sent something earlier
            for level, kind, value in extra:
                if (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                    self._count(struct.unpack("I", value[:4])[0])
            if flags & socket.MSG_TRUNC:
                self.lost += 1
                continue
            yield data

    def _count(self, dropped: int) -> None:
        if dropped != self._seen:
            self.lost += (dropped - self._seen) & 0xFFFFFFFF
            self._seen = dropped

    def send(self, octets: bytes) -> None:
        """Given a message, send it to charon. Raise CharonUnreachableError when charon has no HA socket."""
        for last in (False, True):
            try:
                self.sock.send(octets)
            except ConnectionRefusedError:
                if last:
                    raise CharonUnreachableError(
                        f"charon does not listen at {CHARON} port {PORT}",
                        hint="load its ha plugin with local = 127.0.0.2 and remote = 127.0.0.1",
                    ) from None
            except OSError as error:
                raise CharonUnreachableError(
                    f"a message cannot be sent to charon's HA port: {error.strerror}", hint="try again"
                ) from error
            else:
                return

    def close(self) -> None:
        """Close this descriptor; the holder keeps the port."""
        with suppress(OSError):
            self.sock.close()


def owner_of_charons_port(table: Path = _UDP_TABLE) -> int | None:
    """Given the kernel's table of UDP sockets, return the user who has charon's HA port; None: nobody.

    Raise CharonUnreachableError when the table cannot be read.
    """
    # The kernel shows an address as it is in memory, read as a number of the machine's byte order.
    address = int.from_bytes(CHARON.packed, "little")
    wanted = f"{address:08X}:{PORT:04X}"
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except OSError as error:
        raise CharonUnreachableError(f"{table} cannot be read: {error.strerror}") from error
    for line in lines:
        fields = line.split()
        if len(fields) > 7 and fields[1] == wanted:
            return int(fields[7])
    return None
