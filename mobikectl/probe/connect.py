"""UDP and TCP towards a port over one path: any sign of life of the target counts."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING

from mobikectl.probe.sockets import MAX_DATAGRAM, connect_datagram, failed, open_bound, send

if TYPE_CHECKING:
    from mobikectl.model import IpAddress
    from mobikectl.policy.settings import ProbeSettings

UDP_PORT = 33434
"""Where traceroute sends: mostly closed, so that the target answers with an ICMP port unreachable."""
TCP_PORT = 443
REFUSALS = frozenset({errno.ECONNREFUSED, errno.ECONNRESET})


async def udp_exchange(local: IpAddress, target: IpAddress, link: str, settings: ProbeSettings) -> None:
    """Given a path's addresses and link, return when the target answered a datagram or refused the port.

    Raise ProbeFailedError when it cannot be sent or another ICMP error comes back. The caller sets the deadline.
    """
    with open_bound(socket.SOCK_DGRAM, 0, local, target, link) as sock:
        connect_datagram(sock, target, settings.port or UDP_PORT)
        await send(sock, b"mobikectl", target)
        try:
            await asyncio.get_running_loop().sock_recv(sock, MAX_DATAGRAM)
        except OSError as error:
            if error.errno not in REFUSALS:
                raise failed(error, f"{target} answers", sending=True) from error


async def tcp_exchange(local: IpAddress, target: IpAddress, link: str, settings: ProbeSettings) -> None:
    """Given a path's addresses and link, return when the target accepted or refused a connection.

    Raise ProbeFailedError when there is no way there. The caller sets the deadline.
    """
    with open_bound(socket.SOCK_STREAM, 0, local, target, link) as sock:
        try:
            await asyncio.get_running_loop().sock_connect(sock, (str(target), settings.port or TCP_PORT))
        except OSError as error:
            if error.errno not in REFUSALS:
                raise failed(error, f"connecting to {target}", sending=True) from error
