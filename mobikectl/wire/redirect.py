"""The notifies of redirection: RFC 5685 section 7 and its draft-ietf-ipsecme-ikev2-redirect-01 section 6.

The two write the same things differently: the draft has no length octet before the gateway's identity,
no nonce, and an answer of its own, REDIRECT_ACK (the RFC answers with an empty INFORMATIONAL response).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from mobikectl.errors import DecodeError
from mobikectl.wire.mobike import check_no_zone
from mobikectl.wire.notify import NotifyCodec, NotifyData, Source, WithoutData
from mobikectl.wire.reader import Reader, check_length, impossible, malformed

DRAFT = "draft-ietf-ipsecme-ikev2-redirect-01"

NONCE_SIZES = (16, 256)
"""Fewest and most octets of a nonce (RFC 7296 section 2.10)."""

DRAFT_REDIRECT_ACK = 41045
"""The message type of draft-01's REDIRECT_ACK here: the draft left it to IANA, and the RFC dropped it."""

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


class GatewayIdentType(IntEnum):
    """GW Ident Type (RFC 5685 section 7.2, draft-01 section 6.2)."""

    IPV4 = 1
    IPV6 = 2
    FQDN = 3


@dataclass(frozen=True, slots=True)
class Fqdn:
    """A gateway's name: dot-separated labels of letters, digits, hyphens, underscores; 253 octets at most.

    It is stricter than the documents (they name no alphabet), because it goes to a resolver and a terminal.
    """

    name: str

    def __post_init__(self) -> None:
        labels = self.name.split(".")
        if len(self.name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
            raise impossible("a domain name", ascii(self.name[:80]))

    def __str__(self) -> str:
        return self.name


GatewayIdentity = IPv4Address | IPv6Address | Fqdn


@dataclass(frozen=True, slots=True)
class RedirectSupported(WithoutData):
    """REDIRECT_SUPPORTED (RFC 5685 section 7.1; draft-01 section 6.1)."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """REDIRECT (RFC 5685 section 7.2; draft-01 section 6.2): the gateway to go to.

    ``nonce``: in an IKE_SA_INIT response the request's nonce (Ni), as proof that the sender saw the request;
    empty otherwise, and always in draft-01.
    """

    gateway: GatewayIdentity
    nonce: bytes = b""

    def __post_init__(self) -> None:
        if not isinstance(self.gateway, Fqdn):
            check_no_zone(self.gateway)
        if self.nonce:
            check_length(self.nonce, *NONCE_SIZES, "a nonce")

    def to_data(self) -> bytes:
        """Return the notification data in RFC 5685's layout."""
        kind, identity = _identity_octets(self.gateway)
        return bytes([kind, len(identity)]) + identity + self.nonce

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given notification data in RFC 5685's layout, return the notify. Raise DecodeError."""
        reader = Reader(data, at)
        gateway = _read_identity(reader)
        nonce_at, nonce = reader.offset, reader.rest()
        low, high = NONCE_SIZES
        if nonce and not low <= len(nonce) <= high:
            raise malformed(nonce_at, f"no nonce or one of {low} to {high} octets", f"{len(nonce)} octets")
        return cls(gateway, nonce)


@dataclass(frozen=True, slots=True)
class RedirectedFrom:
    """REDIRECTED_FROM (RFC 5685 section 7.3; draft-01 section 6.3): the gateway that sent us here.

    The identity is an IPv4 or IPv6 address; both documents reserve the other types.
    """

    gateway: IPv4Address | IPv6Address

    def __post_init__(self) -> None:
        check_no_zone(self.gateway)

    def to_data(self) -> bytes:
        """Return the notification data in RFC 5685's layout."""
        kind, identity = _identity_octets(self.gateway)
        return bytes([kind, len(identity)]) + identity

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given notification data in RFC 5685's layout, return the notify. Raise DecodeError."""
        reader = Reader(data, at)
        gateway = _read_identity(reader)
        reader.end("REDIRECTED_FROM")
        return cls(_only_address(gateway, at))


@dataclass(frozen=True, slots=True)
class RedirectAck(WithoutData):
    """REDIRECT_ACK (draft-01 section 6.4): the client's answer to a redirect during the session."""


def _identity_octets(gateway: GatewayIdentity) -> tuple[GatewayIdentType, bytes]:
    match gateway:
        case IPv4Address():
            return GatewayIdentType.IPV4, gateway.packed
        case IPv6Address():
            return GatewayIdentType.IPV6, gateway.packed
        case Fqdn():
            return GatewayIdentType.FQDN, gateway.name.encode("ascii")


def _read_identity(reader: Reader) -> GatewayIdentity:
    at = reader.offset
    kind = reader.number(1, "GW Ident Type")
    length = reader.number(1, "GW Ident Len")
    return _identity(kind, reader.take(length, "gateway identity"), at)


def _identity(kind: int, octets: bytes, at: int) -> GatewayIdentity:
    if kind == GatewayIdentType.IPV4 and len(octets) == 4:
        return IPv4Address(octets)
    if kind == GatewayIdentType.IPV6 and len(octets) == 16:
        return IPv6Address(octets)
    if kind == GatewayIdentType.FQDN:
        try:
            return Fqdn(octets.decode("ascii"))
        except (UnicodeDecodeError, DecodeError):
            raise malformed(at, "a domain name", ascii(octets[:80])) from None
    raise malformed(
        at,
        "a GW Ident Type of 1 (IPv4, 4 octets), 2 (IPv6, 16 octets) or 3 (FQDN)",
        f"type {kind} with {len(octets)} octets",
    )


def _only_address(gateway: GatewayIdentity, at: int) -> IPv4Address | IPv6Address:
    if isinstance(gateway, Fqdn):
        raise malformed(at, "a GW Ident Type of 1 (IPv4) or 2 (IPv6)", "3 (FQDN)")
    return gateway


def _draft_octets(typed: NotifyData) -> bytes:
    """Given a REDIRECT or REDIRECTED_FROM, return its data in draft-01's layout. Raise DecodeError."""
    if not isinstance(typed, Redirect | RedirectedFrom):
        raise impossible("REDIRECT or REDIRECTED_FROM", type(typed).__name__)
    if isinstance(typed, Redirect) and typed.nonce:
        raise impossible(f"no nonce ({DRAFT} has none)", f"{len(typed.nonce)} octets")
    kind, identity = _identity_octets(typed.gateway)
    return bytes([kind]) + identity


def _read_draft_identity(data: bytes, at: int) -> GatewayIdentity:
    reader = Reader(data, at)
    kind = reader.number(1, "GW Ident Type")
    return _identity(kind, reader.rest(), at)


def _read_draft_redirect(data: bytes, at: int) -> NotifyData:
    return Redirect(_read_draft_identity(data, at))


def _read_draft_redirected_from(data: bytes, at: int) -> NotifyData:
    return RedirectedFrom(_only_address(_read_draft_identity(data, at), at))


_SUPPORTED, _REDIRECT, _FROM, _ACK = (
    "the initiator can be redirected",
    "use this gateway instead",
    "the gateway that redirected the initiator",
    "the redirect was understood",
)

CODECS: tuple[NotifyCodec, ...] = (
    NotifyCodec("REDIRECT_SUPPORTED", 16406, Source("RFC 5685", "7.1"), _SUPPORTED, RedirectSupported),
    NotifyCodec("REDIRECT", 16407, Source("RFC 5685", "7.2"), _REDIRECT, Redirect),
    NotifyCodec("REDIRECTED_FROM", 16408, Source("RFC 5685", "7.3"), _FROM, RedirectedFrom),
)
"""RFC 5685's rows."""

ACK = NotifyCodec("REDIRECT_ACK", DRAFT_REDIRECT_ACK, Source(DRAFT, "6.4"), _ACK, RedirectAck)
"""The row that only the draft has."""

DRAFT_CODECS: tuple[NotifyCodec, ...] = (
    NotifyCodec("REDIRECT_SUPPORTED", 16406, Source(DRAFT, "6.1"), _SUPPORTED, RedirectSupported),
    NotifyCodec(
        "REDIRECT", 16407, Source(DRAFT, "6.2"), _REDIRECT, Redirect, _draft_octets, _read_draft_redirect
    ),
    NotifyCodec(
        "REDIRECTED_FROM",
        16408,
        Source(DRAFT, "6.3"),
        _FROM,
        RedirectedFrom,
        _draft_octets,
        _read_draft_redirected_from,
    ),
    ACK,
)
"""draft-01's rows, with the numbers that IANA gave to the RFC's (the draft has none)."""
