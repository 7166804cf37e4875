"""A stateless IKE probe: is an IKE daemon there, without making it keep anything.

A request with a higher major version than a node speaks is dropped by it, and it should answer with an
unauthenticated INVALID_MAJOR_VERSION notification (RFC 7296 sections 2.5 and 3.10.1).
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import TYPE_CHECKING

from mobikectl.probe.sockets import ProbeFailedError, connect_datagram, open_bound, receive, send

if TYPE_CHECKING:
    from mobikectl.model import IpAddress
    from mobikectl.policy.settings import ProbeSettings

IKE_PORT = 500
NATT_PORT = 4500
HEADER = struct.Struct("!8s8sBBBBII")
"""SPIs, next payload, version, exchange type, flags, message ID, length (RFC 7296 section 3.1)."""
NON_ESP_MARKER = b"\0\0\0\0"
"""Before every IKE message on port 4500 (RFC 3948 section 2.2)."""
HIGHER_VERSION = 0x30
IKE_SA_INIT = 34
FLAG_INITIATOR = 0x08


def request(spi: bytes) -> bytes:
    """Given an initiator SPI (8 octets, not all zero), return the probe: a bare IKE header of major version 3."""
    return HEADER.pack(spi, bytes(8), 0, HIGHER_VERSION, IKE_SA_INIT, FLAG_INITIATOR, 0, HEADER.size)


def is_answer(datagram: bytes, spi: bytes) -> bool:
    """Given a datagram without the non-ESP marker, return whether it is an IKE message that answers the probe.

    Any message with our SPI is taken: who answers is there, whatever it thinks of the version.
    """
    if len(datagram) < HEADER.size:
        return False
    first, second, _, _, _, _, _, length = HEADER.unpack_from(datagram)
    return spi in {first, second} and length == len(datagram)


async def exchange(local: IpAddress, target: IpAddress, link: str, settings: ProbeSettings) -> None:
    """Given a path's addresses and link, return when an IKE daemon at the target answered.

    Without a configured port, 500 and 4500 are asked side by side and one answer is enough: NATs and filters
    may let only one of them through. Raise ProbeFailedError. The caller sets the deadline.
    """
    ports = (IKE_PORT, NATT_PORT) if settings.port is None else (settings.port,)
    asking = [asyncio.create_task(_ask(local, target, link, port)) for port in ports]
    try:
        error: ProbeFailedError | None = None
        for answer in asyncio.as_completed(asking):
            try:
                await answer
            except ProbeFailedError as failure:
                error = failure
            else:
                return
        if error is not None:
            raise error
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _ask(local: IpAddress, target: IpAddress, link: str, port: int) -> None:
    spi = os.urandom(7) + b"\1"
    marker = NON_ESP_MARKER if port != IKE_PORT else b""
    with open_bound(socket.SOCK_DGRAM, 0, local, target, link) as sock:
        connect_datagram(sock, target, port)
        await send(sock, marker + request(spi), target)
        while not is_answer((await receive(sock, target)).removeprefix(marker), spi):
            pass
