"""The notifies of draft-kivinen-mobike-protocol-00 (its sections 3, 5 and 7)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from mobikectl.wire.mobike import check_no_zone
from mobikectl.wire.notify import NotifyCodec, Source
from mobikectl.wire.reader import Reader, check_unsigned

DOCUMENT = "draft-kivinen-mobike-protocol-00"


@dataclass(frozen=True, slots=True)
class Ipv4AddressChange:
    """IPV4_ADDRESS_CHANGE (section 3). ``extra``: octets after the address, ignored but kept."""

    address: IPv4Address
    extra: bytes = b""

    def to_data(self) -> bytes:
        """Return the notification data."""
        return self.address.packed + self.extra

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given 4 octets or more, return the notify. Raise DecodeError for fewer."""
        reader = Reader(data, at)
        return cls(IPv4Address(reader.take(4, "IPv4 address")), reader.rest())


@dataclass(frozen=True, slots=True)
class Ipv6AddressChange:
    """IPV6_ADDRESS_CHANGE (section 3). ``extra``: octets after the address, ignored but kept."""

    address: IPv6Address
    extra: bytes = b""

    def __post_init__(self) -> None:
        check_no_zone(self.address)

    def to_data(self) -> bytes:
        """Return the notification data."""
        return self.address.packed + self.extra

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given 16 octets or more, return the notify. Raise DecodeError for fewer."""
        reader = Reader(data, at)
        return cls(IPv6Address(reader.take(16, "IPv6 address")), reader.rest())


@dataclass(frozen=True, slots=True)
class DisconnectNotify:
    """DISCONNECT_NOTIFY (section 5): for how many seconds the sender expects to be disconnected."""

    seconds: int

    def __post_init__(self) -> None:
        check_unsigned(self.seconds, 4, "seconds")

    def to_data(self) -> bytes:
        """Return the 32-bit number."""
        return self.seconds.to_bytes(4, "big")

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given 4 octets, return the notify. Raise DecodeError for any other length."""
        reader = Reader(data, at)
        seconds = reader.number(4, "seconds")
        reader.end("DISCONNECT_NOTIFY")
        return cls(seconds)


CODECS: tuple[NotifyCodec, ...] = (
    NotifyCodec(
        "DISCONNECT_NOTIFY",
        42000,
        Source(DOCUMENT, "5"),
        "the sender will be without any address for so many seconds",
        DisconnectNotify,
    ),
    NotifyCodec(
        "IPV4_ADDRESS_CHANGE",
        42004,
        Source(DOCUMENT, "3"),
        "an address of the sender; the first is the one it prefers",
        Ipv4AddressChange,
        protocol_id=1,
    ),
    NotifyCodec(
        "IPV6_ADDRESS_CHANGE",
        42006,
        Source(DOCUMENT, "3"),
        "an address of the sender; the first is the one it prefers",
        Ipv6AddressChange,
        protocol_id=1,
    ),
)
"""The draft's rows. Its section 3 contradicts itself on the Protocol ID of the address changes: the text says
that it MUST be 1, the diagram shows 0. We send what the MUST says and accept either."""
