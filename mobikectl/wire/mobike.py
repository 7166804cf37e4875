"""The notifies of MOBIKE (RFC 4555 section 4) and NAT detection (RFC 7296 section 2.23)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Self

from mobikectl.wire.notify import NotifyCodec, Source, WithoutData
from mobikectl.wire.reader import Reader, check_length, check_unsigned, impossible, malformed

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

RESPONDER_INITIATED = b"R"
"""The data of MOBIKE_SUPPORTED by which an initiator says that it understands SWITCH_TO_IP_ADDRESS
(draft-smyslov-ipsecme-ikev2-r-mobike-09 section 4.1)."""

SHA1_SIZE = 20


@dataclass(frozen=True, slots=True)
class MobikeSupported:
    """MOBIKE_SUPPORTED (RFC 4555 section 4.2.1): any data is accepted and kept, none is needed."""

    data: bytes = b""

    @property
    def responder_initiated(self) -> bool:
        """Whether the data is the single octet 0x52 ('R'): r-mobike-09 section 5.1.

        Other data is ignored, as RFC 4555 section 4.2.1 demands; it never counts as an 'R'.
        """
        return self.data == RESPONDER_INITIATED

    def to_data(self) -> bytes:
        """Return the notification data."""
        return self.data

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given any notification data, return the notify."""
        del at
        return cls(data)


@dataclass(frozen=True, slots=True)
class AdditionalIp4Address:
    """ADDITIONAL_IP4_ADDRESS (RFC 4555 section 4.2.2)."""

    address: IPv4Address

    def to_data(self) -> bytes:
        """Return the address's 4 octets."""
        return self.address.packed

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given 4 octets, return the notify. Raise DecodeError for any other length."""
        reader = Reader(data, at)
        address = IPv4Address(reader.take(4, "IPv4 address"))
        reader.end("the IPv4 address")
        return cls(address)


@dataclass(frozen=True, slots=True)
class AdditionalIp6Address:
    """ADDITIONAL_IP6_ADDRESS (RFC 4555 section 4.2.2)."""

    address: IPv6Address

    def __post_init__(self) -> None:
        check_no_zone(self.address)

    def to_data(self) -> bytes:
        """Return the address's 16 octets."""
        return self.address.packed

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given 16 octets, return the notify. Raise DecodeError for any other length."""
        reader = Reader(data, at)
        address = IPv6Address(reader.take(16, "IPv6 address"))
        reader.end("the IPv6 address")
        return cls(address)


@dataclass(frozen=True, slots=True)
class NoAdditionalAddresses(WithoutData):
    """NO_ADDITIONAL_ADDRESSES (RFC 4555 section 4.2.3)."""


@dataclass(frozen=True, slots=True)
class UpdateSaAddresses(WithoutData):
    """UPDATE_SA_ADDRESSES (RFC 4555 section 4.2.4)."""


@dataclass(frozen=True, slots=True)
class Cookie2:
    """COOKIE2 (RFC 4555 section 4.2.5): 8 to 64 octets that the peer must send back as they are."""

    cookie: bytes

    def __post_init__(self) -> None:
        check_length(self.cookie, 8, 64, "a COOKIE2")

    def to_data(self) -> bytes:
        """Return the cookie."""
        return self.cookie

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given 8 to 64 octets, return the notify. Raise DecodeError for any other length."""
        if not 8 <= len(data) <= 64:
            raise malformed(at, "8 to 64 octets of a COOKIE2", str(len(data)))
        return cls(data)


@dataclass(frozen=True, slots=True)
class NoNatsAllowed:
    """NO_NATS_ALLOWED (RFC 4555 section 4.2.6): from and to where the packet was sent."""

    source: IpAddress
    destination: IpAddress
    source_port: int
    destination_port: int

    def __post_init__(self) -> None:
        if self.source.version != self.destination.version:
            raise impossible("addresses of one family", f"{self.source} and {self.destination}")
        check_no_zone(self.source)
        check_no_zone(self.destination)
        check_unsigned(self.source_port, 2, "a port")
        check_unsigned(self.destination_port, 2, "a port")

    def to_data(self) -> bytes:
        """Return 12 octets for IPv4, 36 for IPv6."""
        ports = self.source_port.to_bytes(2, "big") + self.destination_port.to_bytes(2, "big")
        return self.source.packed + self.destination.packed + ports

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given 12 or 36 octets, return the notify. Raise DecodeError for any other length."""
        if len(data) not in {12, 36}:
            raise malformed(at, "12 (IPv4) or 36 (IPv6) octets of NO_NATS_ALLOWED", str(len(data)))
        reader = Reader(data, at)
        size = (len(data) - 4) // 2
        source = unpack_address(reader.take(size, "source address"))
        destination = unpack_address(reader.take(size, "destination address"))
        return cls(source, destination, reader.number(2, "source port"), reader.number(2, "destination port"))


@dataclass(frozen=True, slots=True)
class UnacceptableAddresses(WithoutData):
    """UNACCEPTABLE_ADDRESSES (RFC 4555 section 4.1.1)."""


@dataclass(frozen=True, slots=True)
class UnexpectedNatDetected(WithoutData):
    """UNEXPECTED_NAT_DETECTED (RFC 4555 section 4.1.2)."""


@dataclass(frozen=True, slots=True)
class _NatDetection:
    digest: bytes

    def __post_init__(self) -> None:
        check_length(self.digest, SHA1_SIZE, SHA1_SIZE, "a SHA-1 digest")

    def matches(self, initiator_spi: int, responder_spi: int, ip: IpAddress, port: int) -> bool:
        """Whether the digest is that of these SPIs, address and port: no NAT in between changed them."""
        return self.digest == nat_detection_hash(initiator_spi, responder_spi, ip, port)

    def to_data(self) -> bytes:
        """Return the digest's 20 octets."""
        return self.digest

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given 20 octets, return the notify. Raise DecodeError for any other length."""
        reader = Reader(data, at)
        digest = reader.take(SHA1_SIZE, "SHA-1 digest")
        reader.end("the SHA-1 digest")
        return cls(digest)


@dataclass(frozen=True, slots=True)
class NatDetectionSourceIp(_NatDetection):
    """NAT_DETECTION_SOURCE_IP (RFC 7296 section 2.23)."""


@dataclass(frozen=True, slots=True)
class NatDetectionDestinationIp(_NatDetection):
    """NAT_DETECTION_DESTINATION_IP (RFC 7296 section 2.23)."""


def nat_detection_hash(initiator_spi: int, responder_spi: int, ip: IpAddress, port: int) -> bytes:
    """Given the SPIs as in the IKE header, an address and a port, return SHA-1(SPIs | IP | port), 20 octets.

    RFC 7296 section 2.23. Raise DecodeError for an SPI or a port that does not fit its field.
    """
    check_unsigned(initiator_spi, 8, "an initiator SPI")
    check_unsigned(responder_spi, 8, "a responder SPI")
    check_unsigned(port, 2, "a port")
    spis = initiator_spi.to_bytes(8, "big") + responder_spi.to_bytes(8, "big")
    return hashlib.sha1(spis + ip.packed + port.to_bytes(2, "big"), usedforsecurity=False).digest()


def unpack_address(packed: bytes) -> IpAddress:
    """Given 4 or 16 octets, return the address."""
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def check_no_zone(ip: IpAddress) -> None:
    """Raise DecodeError for an IPv6 address with a zone (``%eth0``): none of the formats can carry it."""
    if isinstance(ip, IPv6Address) and ip.scope_id is not None:
        raise impossible("an address without a zone", str(ip), hint="leave out the part from the % on")


def _row(name: str, number: int, section: str, kind: type, meaning: str) -> NotifyCodec:
    return NotifyCodec(name, number, Source("RFC 4555", section), meaning, kind)


CODECS: tuple[NotifyCodec, ...] = (
    _row(
        "UNACCEPTABLE_ADDRESSES", 40, "4.1.1", UnacceptableAddresses, "the address change was not carried out"
    ),
    _row(
        "UNEXPECTED_NAT_DETECTED",
        41,
        "4.1.2",
        UnexpectedNatDetected,
        "a NAT changed what NO_NATS_ALLOWED protects",
    ),
    _row("MOBIKE_SUPPORTED", 16396, "4.2.1", MobikeSupported, "the sender speaks MOBIKE"),
    _row("ADDITIONAL_IP4_ADDRESS", 16397, "4.2.2", AdditionalIp4Address, "one more address of the sender"),
    _row("ADDITIONAL_IP6_ADDRESS", 16398, "4.2.2", AdditionalIp6Address, "one more address of the sender"),
    _row(
        "NO_ADDITIONAL_ADDRESSES",
        16399,
        "4.2.3",
        NoAdditionalAddresses,
        "the sender has only the address it uses",
    ),
    _row(
        "UPDATE_SA_ADDRESSES",
        16400,
        "4.2.4",
        UpdateSaAddresses,
        "move the IKE_SA and its CHILD_SAs to this packet's addresses",
    ),
    _row("COOKIE2", 16401, "4.2.5", Cookie2, "return routability check: to be copied into the response"),
    _row(
        "NO_NATS_ALLOWED",
        16402,
        "4.2.6",
        NoNatsAllowed,
        "the addresses and ports that the packet was sent with",
    ),
    NotifyCodec(
        "NAT_DETECTION_SOURCE_IP",
        16388,
        Source("RFC 7296", "2.23"),
        "hash of the SPIs and the address and port that the packet was sent from",
        NatDetectionSourceIp,
    ),
    NotifyCodec(
        "NAT_DETECTION_DESTINATION_IP",
        16389,
        Source("RFC 7296", "2.23"),
        "hash of the SPIs and the address and port that the packet was sent to",
        NatDetectionDestinationIp,
    ),
)
"""The rows of RFC 4555's registrations (its section 6) and the two of RFC 7296 that MOBIKE uses."""
