"""Sockets that are bound to one path: to its local address and to its link.

Binding to the link (SO_BINDTODEVICE) makes the kernel use that link's routes, so that what a probe finds does not
depend on which link the main route prefers, nor on the steering routes of a move.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING

from mobikectl.errors import MobikectlError
from mobikectl.policy.track import ProbeError

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

IP_RECVERR = 11
IPV6_RECVERR = 25
MAX_DATAGRAM = 4096

_KINDS = {
    errno.EADDRNOTAVAIL: ProbeError.NO_ADDRESS,
    errno.ENODEV: ProbeError.NO_LINK,
    errno.ENETDOWN: ProbeError.NO_LINK,
    errno.ENXIO: ProbeError.NO_LINK,
    errno.ENETUNREACH: ProbeError.UNREACHABLE,
    errno.EHOSTUNREACH: ProbeError.UNREACHABLE,
    errno.EHOSTDOWN: ProbeError.UNREACHABLE,
    errno.ECONNREFUSED: ProbeError.UNREACHABLE,
    errno.ECONNRESET: ProbeError.UNREACHABLE,
    errno.ENOPROTOOPT: ProbeError.UNREACHABLE,
    errno.EPROTO: ProbeError.UNREACHABLE,
    errno.EMSGSIZE: ProbeError.UNREACHABLE,
    errno.EINVAL: ProbeError.UNREACHABLE,
    errno.ETIMEDOUT: ProbeError.TIMEOUT,
}


class ProbeFailedError(MobikectlError):
    """One packet of a probe got no answer; `mobikectl.probe.probe` makes it a part of the result."""

    def __init__(self, kind: ProbeError, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def failed(error: OSError, doing: str, *, sending: bool = False) -> ProbeFailedError:
    """Given an error of a socket call and what it was for, return it as a finding about the path.

    ``sending``: EPERM is then a local packet filter that rejects the packet, not a missing privilege.
    """
    number = error.errno or 0
    if number in {errno.EPERM, errno.EACCES}:
        kind = ProbeError.UNREACHABLE if sending else ProbeError.NOT_PERMITTED
    else:
        kind = _KINDS.get(number, ProbeError.LOCAL)
    return ProbeFailedError(kind, f"{doing}: {error.strerror or error}")


def open_bound(
    kind: socket.SocketKind, protocol: int, local: IpAddress, target: IpAddress, link: str
) -> socket.socket:
    """Given a socket type, a protocol and a path, return a non-blocking socket bound to the path.

    ``link``: the link's name; empty binds to the address alone. Raise ProbeFailedError.
    """
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    try:
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise failed(error, "opening a socket") from error
    try:
        doing = f"binding to link {link}"
        if link:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
        doing = f"binding to {local}"
        if kind is not socket.SOCK_STREAM:
            level = socket.IPPROTO_IP if target.version == 4 else socket.IPPROTO_IPV6
            sock.setsockopt(level, IP_RECVERR if target.version == 4 else IPV6_RECVERR, 1)
        sock.bind((str(local), 0))
    except OSError as error:
        sock.close()
        raise failed(error, doing) from error
    return sock


def connect_datagram(sock: socket.socket, target: IpAddress, port: int) -> None:
    """Given a datagram socket, connect it: only the target's answers and ICMP errors reach it then.

    Raise ProbeFailedError when there is no route.
    """
    try:
        sock.connect((str(target), port))
    except OSError as error:
        raise failed(error, f"to {target}", sending=True) from error


async def send(sock: socket.socket, data: bytes, target: IpAddress) -> None:
    """Given a connected datagram socket, send one datagram. Raise ProbeFailedError."""
    try:
        await asyncio.get_running_loop().sock_sendall(sock, data)
    except OSError as error:
        raise failed(error, f"sending to {target}", sending=True) from error


async def receive(sock: socket.socket, target: IpAddress) -> bytes:
    """Given a connected datagram socket, return the next datagram. Raise ProbeFailedError on an ICMP error."""
    try:
        return await asyncio.get_running_loop().sock_recv(sock, MAX_DATAGRAM)
    except OSError as error:
        raise failed(error, f"{target} answers", sending=True) from error
