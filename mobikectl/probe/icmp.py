"""ICMP and ICMPv6 echo (RFC 792, RFC 4443 section 4.1) over one path."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

from mobikectl.policy.track import ProbeError
from mobikectl.probe.sockets import ProbeFailedError, connect_datagram, open_bound, receive, send

if TYPE_CHECKING:
    from mobikectl.model import IpAddress
    from mobikectl.policy.settings import ProbeSettings

ECHO = struct.Struct("!BBHHH")
REQUEST = {4: 8, 6: 128}
REPLY = {4: 0, 6: 129}
TOKEN_SIZE = 8


def checksum(data: bytes) -> int:
    """Given octets, return their Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(version: int, identifier: int, payload: bytes) -> bytes:
    """Given the IP version, an identifier and a payload, return an echo request.

    The kernel fills in ICMPv6's checksum, which covers the IPv6 addresses.
    """
    head = ECHO.pack(REQUEST[version], 0, 0, identifier, 1)
    sum_ = checksum(head + payload) if version == 4 else 0
    return ECHO.pack(REQUEST[version], 0, sum_, identifier, 1) + payload


def is_reply(version: int, datagram: bytes, payload: bytes, *, raw: bool) -> bool:
    """Given what a socket received, return whether it is the echo reply with that payload.

    ``raw``: it came from a raw socket, which hands out IPv4 packets with their IP header.
    """
    if raw and version == 4:
        if len(datagram) < 20:
            return False
        datagram = datagram[(datagram[0] & 0x0F) * 4 :]
    return len(datagram) >= ECHO.size and datagram[0] == REPLY[version] and datagram[ECHO.size :] == payload


async def exchange(local: IpAddress, target: IpAddress, link: str, settings: ProbeSettings) -> None:
    """Given a path's addresses and link, return when the target answered one echo request.

    Raise ProbeFailedError when it cannot be sent or an ICMP error comes back. The caller sets the deadline.
    """
    version = target.version
    payload = os.urandom(TOKEN_SIZE) + bytes(max(0, settings.size - TOKEN_SIZE))
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    raw = False
    try:
        sock = open_bound(socket.SOCK_DGRAM, protocol, local, target, link)
    except ProbeFailedError as error:
        # A ping socket wants net.ipv4.ping_group_range; a raw one wants CAP_NET_RAW.
        if error.kind is not ProbeError.NOT_PERMITTED:
            raise
        sock, raw = open_bound(socket.SOCK_RAW, protocol, local, target, link), True
    with sock:
        connect_datagram(sock, target, 0)
        await send(sock, echo_request(version, int.from_bytes(payload[:2], "big"), payload), target)
        while not is_reply(version, await receive(sock, target), payload, raw=raw):
            pass
