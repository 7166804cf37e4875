"""The notifies and the payload of draft-dupont-ikev2-addrmgmt-06 (its appendices A to D).

The draft asks for numbers without having any ("248XX"): those here are our choice. Appendix E, the PF_KEY
message, is in `mobikectl.wire.pfkey`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Self

from mobikectl.wire.mobike import SHA1_SIZE, check_no_zone, unpack_address
from mobikectl.wire.notify import NotifyCodec, Source
from mobikectl.wire.reader import Reader, check_length, check_unsigned, impossible, malformed

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

DOCUMENT = "draft-dupont-ikev2-addrmgmt-06"

UPDATE_PAYLOAD = 213
"""The payload type of the Peer Address Update (U) payload here: 128, the first private-use payload type (RFC
7296 section 3.2), plus 0x55 ('U', the draft's letter for it)."""


class PeerAddressOperation(IntEnum):
    """What to do with a peer address (appendix A)."""

    MARK = 1
    """For a further operation: with a peer address update it becomes the primary address."""
    ADD = 2
    """To the set, as an alternate address."""
    DELETE = 3
    """From the set of alternate addresses."""


@dataclass(frozen=True, slots=True)
class _PeerAddress:
    address: IpAddress
    operation: PeerAddressOperation

    def __post_init__(self) -> None:
        check_no_zone(self.address)

    def to_data(self) -> bytes:
        """Return family (IANA: 1 IPv4, 2 IPv6), operation, address: 8 or 20 octets."""
        family = 1 if self.address.version == 4 else 2
        return family.to_bytes(2, "big") + self.operation.to_bytes(2, "big") + self.address.packed

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given 8 or 20 octets, return the notify. Raise DecodeError for others."""
        reader = Reader(data, at)
        family = reader.number(2, "address family")
        if family not in {1, 2}:
            raise malformed(at, "address family 1 (IPv4) or 2 (IPv6)", str(family))
        code_at, code = reader.offset, reader.number(2, "operation")
        if code not in PeerAddressOperation.__members__.values():
            raise malformed(code_at, "operation 1 (MARK), 2 (ADD) or 3 (DELETE)", str(code))
        address = unpack_address(reader.take(4 if family == 1 else 16, "address"))
        reader.end("the peer address")
        return cls(address, PeerAddressOperation(code))


@dataclass(frozen=True, slots=True)
class PeerAddressSource(_PeerAddress):
    """PEER_ADDRESS_SOURCE (appendix A): an address of the sender."""


@dataclass(frozen=True, slots=True)
class PeerAddressDestination(_PeerAddress):
    """PEER_ADDRESS_DESTINATION (appendix A): an address of the receiver."""


@dataclass(frozen=True, slots=True)
class NatPrevention:
    """NAT_PREVENTION (appendix C): protects the addresses of IKE_SA_INIT without offering NAT traversal."""

    digest: bytes

    def __post_init__(self) -> None:
        check_length(self.digest, SHA1_SIZE, SHA1_SIZE, "a SHA-1 digest")

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
class RrCookie:
    """RR_COOKIE (appendix D): 16 to 64 octets that the peer must send back as they are."""

    cookie: bytes

    def __post_init__(self) -> None:
        check_length(self.cookie, 16, 64, "an RR_COOKIE")

    def to_data(self) -> bytes:
        """Return the cookie."""
        return self.cookie

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given 16 to 64 octets, return the notify. Raise DecodeError for any other length."""
        if not 16 <= len(data) <= 64:
            raise malformed(at, "16 to 64 octets of an RR_COOKIE", str(len(data)))
        return cls(data)


class UpdateProtocol(IntEnum):
    """Protocol_Id of the Peer Address Update payload (appendix B); not the numbers of RFC 7296."""

    IKE = 0
    ESP = 1
    AH = 2


@dataclass(frozen=True, slots=True)
class PeerAddressUpdate:
    """The Peer Address Update payload's body (appendix B): which SAs get the new primary address.

    ``all_sas``: the A bit, the IKE_SA and all tunnel mode SAs it negotiated (then IKE, no SPIs).
    ``only``: the O bit, leave the SPD entries as they are. ``spis``: the sender's inbound ESP or AH SPIs.
    """

    all_sas: bool = False
    only: bool = False
    protocol: UpdateProtocol = UpdateProtocol.IKE
    spis: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.all_sas and self.protocol is not UpdateProtocol.IKE:
            raise impossible("protocol IKE with the A bit", self.protocol.name)
        if self.spis and self.protocol is UpdateProtocol.IKE:
            raise impossible("no SPIs with protocol IKE", f"{len(self.spis)}")
        check_unsigned(len(self.spis), 2, "a number of SPIs")
        for spi in self.spis:
            check_unsigned(spi, 4, "an SPI")

    @property
    def spi_size(self) -> int:
        """Octets of one SPI: 0 for IKE, 4 for ESP and AH."""
        return 0 if self.protocol is UpdateProtocol.IKE else 4

    def to_body(self) -> bytes:
        """Return the octets that follow the generic payload header."""
        first = self.all_sas << 7 | self.only << 6 | self.protocol
        head = bytes([first, self.spi_size]) + len(self.spis).to_bytes(2, "big")
        return head + b"".join(spi.to_bytes(4, "big") for spi in self.spis)

    @classmethod
    def from_body(cls, body: bytes, at: int = 0) -> Self:
        """Given the octets after the generic payload header, return the payload. Raise DecodeError."""
        reader = Reader(body, at)
        first = reader.number(1, "A, O and Protocol-ID")
        code = first & 0x3F
        if code not in UpdateProtocol.__members__.values():
            raise malformed(at, "Protocol-ID 0 (IKE), 1 (ESP) or 2 (AH)", str(code))
        protocol = UpdateProtocol(code)
        size = reader.number(1, "SPI size")
        wanted = 0 if protocol is UpdateProtocol.IKE else 4
        if size != wanted:
            raise malformed(at + 1, f"an SPI size of {wanted} for {protocol.name}", str(size))
        count = reader.number(2, "number of SPIs")
        if protocol is UpdateProtocol.IKE and count:
            raise malformed(at + 2, "no SPIs for IKE", str(count))
        if first & 0x80 and protocol is not UpdateProtocol.IKE:
            raise malformed(at, "Protocol-ID 0 with the A bit", str(code))
        if reader.left != count * size:
            raise malformed(reader.offset, f"{count} SPIs of {size} octets", f"{reader.left} octets")
        spis = tuple(reader.number(4, "SPI") for _ in range(count))
        return cls(bool(first & 0x80), bool(first & 0x40), protocol, spis)


def nat_prevention_hash(source: IpAddress, destination: IpAddress, udp_length: int) -> bytes:
    """Given the packet's addresses and its UDP length, return SHA-1 of the UDP pseudo-header, 20 octets.

    Appendix C says "the transport pseudo-header" and no more; this reads it as UDP's: RFC 768 for IPv4
    (addresses, zero, protocol, length), RFC 2460 section 8.1 for IPv6. Raise DecodeError when the addresses
    are of two families or the length does not fit 16 bits.
    """
    if source.version != destination.version:
        raise impossible("addresses of one family", f"{source} and {destination}")
    check_unsigned(udp_length, 2, "a UDP length")
    if source.version == 4:
        tail = bytes([0, 17]) + udp_length.to_bytes(2, "big")
    else:
        tail = udp_length.to_bytes(4, "big") + bytes([0, 0, 0, 17])
    return hashlib.sha1(source.packed + destination.packed + tail, usedforsecurity=False).digest()


CODECS: tuple[NotifyCodec, ...] = (
    NotifyCodec(
        "PEER_ADDRESS_SOURCE",
        24801,
        Source(DOCUMENT, "A"),
        "what to do with an address of the sender",
        PeerAddressSource,
    ),
    NotifyCodec(
        "PEER_ADDRESS_DESTINATION",
        24802,
        Source(DOCUMENT, "A"),
        "what to do with an address of the receiver",
        PeerAddressDestination,
    ),
    NotifyCodec(
        "NAT_PREVENTION",
        24803,
        Source(DOCUMENT, "C"),
        "hash of the pseudo-header: a NAT on the way would change it, and none is wanted",
        NatPrevention,
    ),
    NotifyCodec(
        "RR_COOKIE",
        24804,
        Source(DOCUMENT, "D"),
        "return routability check: to be copied into the reply",
        RrCookie,
    ),
)
"""The draft's rows, numbered from its "248XX"."""
