"""What a captured packet is: IKE, ESP or neither, read from its headers. Pure.

Sources: RFC 7296 section 3.1 (IKE header), RFC 3948 section 2 (ESP and IKE on UDP port 4500), RFC 4303.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

from mobikectl.model import Path

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

ESP, UDP = 50, 17
IKE_PORT, NAT_T_PORT = 500, 4500
EXCHANGES = {34: "IKE_SA_INIT", 35: "IKE_AUTH", 36: "CREATE_CHILD_SA", 37: "INFORMATIONAL"}
RESPONSE = 0x20


class Kind(Enum):
    """What a packet carries."""

    IKE = "ike"
    ESP = "esp"
    KEEPALIVE = "keepalive"


@dataclass(frozen=True, slots=True)
class Packet:
    """An IKE or ESP packet seen at a node."""

    time: float
    """CLOCK_MONOTONIC, seconds: when the kernel saw it."""
    outgoing: bool
    path: Path
    """Local and remote address as the node sees them."""
    kind: Kind
    spi: int = 0
    """ESP's SPI, or the IKE initiator's SPI."""
    exchange: str = ""
    response: bool = False
    message_id: int = 0
    version: int = 2
    """IKE's major version."""
    size: int = 0
    """Bytes of the IP packet."""


def read_packet(data: bytes, *, time: float, outgoing: bool) -> Packet | None:
    """Given an IP packet, return it when it is IKE or ESP, otherwise None.

    Fragments, IPv6 extension headers and truncated packets are None too: the lab sends none.
    """
    network = _network(data)
    if network is None:
        return None
    protocol, source, destination, payload = network
    path = Path(source, destination) if outgoing else Path(destination, source)
    if protocol == ESP and len(payload) >= 8:
        return Packet(time, outgoing, path, Kind.ESP, _u32(payload), size=len(data))
    if protocol != UDP or len(payload) < 9:
        return None
    ports = struct.unpack_from("!HH", payload)
    body = payload[8:]
    if NAT_T_PORT in ports:
        if body == b"\xff":
            return Packet(time, outgoing, path, Kind.KEEPALIVE, size=len(data))
        if len(body) >= 8 and body[:4] != b"\0\0\0\0":
            return Packet(time, outgoing, path, Kind.ESP, _u32(body), size=len(data))
        body = body[4:]
    elif IKE_PORT not in ports:
        return None
    return _ike(body, time, outgoing, path, len(data))


def _u32(data: bytes) -> int:
    return int.from_bytes(data[:4], "big")


def _network(data: bytes) -> tuple[int, IpAddress, IpAddress, bytes] | None:
    if len(data) >= 20 and data[0] >> 4 == 4:
        header = (data[0] & 15) * 4
        if int.from_bytes(data[6:8], "big") & 0x3FFF:
            return None
        return data[9], _address(data[12:16]), _address(data[16:20]), data[header:]
    if len(data) >= 40 and data[0] >> 4 == 6:
        return data[6], _address(data[8:24]), _address(data[24:40]), data[40:]
    return None


@lru_cache(maxsize=4096)
def _address(packed: bytes) -> IpAddress:
    return ip_address(packed)


def _ike(body: bytes, time: float, outgoing: bool, path: Path, size: int) -> Packet | None:
    if len(body) < 28:
        return None
    spi, _, _, version, exchange, flags, message_id, _ = struct.unpack_from("!QQBBBBII", body)
    name = EXCHANGES.get(exchange, f"exchange {exchange}")
    response = bool(flags & RESPONSE)
    return Packet(time, outgoing, path, Kind.IKE, spi, name, response, message_id, version >> 4, size)
