"""The PF_KEY message SADB_X_ADDUPD (draft-dupont-ikev2-addrmgmt-06 appendix E; PF_KEY: RFC 2367).

The text that we have of appendix E lost the line with the message's format; from its words (an update of an
IPsec SA and all its siblings; new source and destination addresses) and RFC 2367's notation it is read as
<base, SA, address(SD), new_address(SD)>. Extensions are accepted in any order (RFC 2367 section 2.3).
Numbers in PF_KEY are in the host's octet order, addresses and ports in the network's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, Self

from mobikectl.wire.mobike import check_no_zone, unpack_address
from mobikectl.wire.reader import Reader, check_unsigned, impossible, malformed

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

ByteOrder = Literal["little", "big"]

PF_KEY_V2 = 2
SADB_X_ADDUPD = 213
"""Our number: the draft wants a new value and has none; above what systems use (the same as the U payload)."""
SADB_EXT_SA = 1
SADB_EXT_ADDRESS_SRC = 5
SADB_EXT_ADDRESS_DST = 6
SADB_X_EXT_NEW_ADDRESS_SRC = 213
SADB_X_EXT_NEW_ADDRESS_DST = 214
AF_INET = 2
AF_INET6 = 10
"""Linux's number; others differ."""

_ADDRESSES = (
    SADB_EXT_ADDRESS_SRC,
    SADB_EXT_ADDRESS_DST,
    SADB_X_EXT_NEW_ADDRESS_SRC,
    SADB_X_EXT_NEW_ADDRESS_DST,
)
_WORD = 8
"""Octets that PF_KEY counts lengths in."""


class SaType(IntEnum):
    """SA types (RFC 2367 section 3.5)."""

    AH = 2
    ESP = 3


@dataclass(frozen=True, slots=True)
class AddressUpdate:
    """SADB_X_ADDUPD: move an SA and all its siblings from the old pair of addresses to the new one."""

    sa_type: SaType
    spi: int
    source: IpAddress
    destination: IpAddress
    new_source: IpAddress
    new_destination: IpAddress
    sequence: int = 0
    pid: int = 0

    def __post_init__(self) -> None:
        check_unsigned(self.spi, 4, "an SPI")
        check_unsigned(self.sequence, 4, "a sequence number")
        check_unsigned(self.pid, 4, "a process ID")
        for old, new in ((self.source, self.destination), (self.new_source, self.new_destination)):
            check_no_zone(old)
            check_no_zone(new)
            if old.version != new.version:
                raise impossible("source and destination of one family", f"{old} and {new}")

    def to_bytes(self, order: ByteOrder = "little") -> bytes:
        """Given the host's octet order, return the message."""
        sa = _extension(SADB_EXT_SA, self.spi.to_bytes(4, "big") + bytes(8), order)
        pairs = zip(
            _ADDRESSES, (self.source, self.destination, self.new_source, self.new_destination), strict=True
        )
        body = sa + b"".join(_extension(kind, _address_body(ip, order), order) for kind, ip in pairs)
        words = (16 + len(body)) // _WORD
        head = bytes([PF_KEY_V2, SADB_X_ADDUPD, 0, self.sa_type]) + words.to_bytes(2, order) + bytes(2)
        return head + self.sequence.to_bytes(4, order) + self.pid.to_bytes(4, order) + body

    @classmethod
    def from_bytes(cls, data: bytes, order: ByteOrder = "little") -> Self:
        """Given a whole message and the octet order of its host, return it. Raise DecodeError."""
        reader = Reader(data)
        version, kind = reader.number(1, "version"), reader.number(1, "message type")
        if (version, kind) != (PF_KEY_V2, SADB_X_ADDUPD):
            raise malformed(0, f"version {PF_KEY_V2}, type {SADB_X_ADDUPD}", f"{version}, {kind}")
        reader.take(1, "errno")
        type_at, sa_type = reader.offset, reader.number(1, "SA type")
        if sa_type not in SaType.__members__.values():
            raise malformed(type_at, "SA type 2 (AH) or 3 (ESP)", str(sa_type))
        words = int.from_bytes(reader.take(2, "length"), order)
        if words * _WORD != len(data):
            raise malformed(4, f"a length of {len(data)} octets in words of {_WORD}", str(words))
        reader.take(2, "reserved octets")
        sequence = int.from_bytes(reader.take(4, "sequence number"), order)
        pid = int.from_bytes(reader.take(4, "process ID"), order)
        spi, addresses = _read_extensions(reader, order)
        source, destination, new_source, new_destination = (addresses[kind] for kind in _ADDRESSES)
        return cls(SaType(sa_type), spi, source, destination, new_source, new_destination, sequence, pid)


def _extension(kind: int, body: bytes, order: ByteOrder) -> bytes:
    return ((4 + len(body)) // _WORD).to_bytes(2, order) + kind.to_bytes(2, order) + body


def _address_body(ip: IpAddress, order: ByteOrder) -> bytes:
    head = bytes([0, ip.max_prefixlen, 0, 0])
    if ip.version == 4:
        return head + AF_INET.to_bytes(2, order) + bytes(2) + ip.packed + bytes(8)
    return head + AF_INET6.to_bytes(2, order) + bytes(6) + ip.packed + bytes(4) + bytes(4)


def _read_extensions(reader: Reader, order: ByteOrder) -> tuple[int, dict[int, IpAddress]]:
    spi: int | None = None
    addresses: dict[int, IpAddress] = {}
    while reader.left:
        at = reader.offset
        words = int.from_bytes(reader.take(2, "extension length"), order)
        kind = int.from_bytes(reader.take(2, "extension type"), order)
        if words == 0:
            raise malformed(at, "an extension length of 1 or more", "0")
        inside = Reader(reader.take(words * _WORD - 4, "extension"), at + 4)
        if kind == SADB_EXT_SA and spi is None:
            spi = inside.number(4, "SPI")
            inside.take(8, "SA fields")
            inside.end("the SA extension")
        elif kind in _ADDRESSES and kind not in addresses:
            addresses[kind] = _read_address(inside, order)
        else:
            raise malformed(at + 2, "each of SA, address(SD), new_address(SD) once", f"extension {kind}")
    if spi is None or len(addresses) != len(_ADDRESSES):
        missing = [str(kind) for kind in _ADDRESSES if kind not in addresses]
        raise malformed(
            reader.offset, "extensions " + ", ".join([*missing, *(["1"] * (spi is None))]), "the end"
        )
    return spi, addresses


def _read_address(inside: Reader, order: ByteOrder) -> IpAddress:
    inside.take(4, "address head")
    at = inside.offset
    family = int.from_bytes(inside.take(2, "address family"), order)
    if family not in {AF_INET, AF_INET6}:
        raise malformed(at, f"address family {AF_INET} (IPv4) or {AF_INET6} (IPv6)", str(family))
    inside.take(2 if family == AF_INET else 6, "port")
    address = unpack_address(inside.take(4 if family == AF_INET else 16, "address"))
    inside.take(8, "padding")
    inside.end("the address extension")
    return address
