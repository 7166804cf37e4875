"""IKEv2 messages as far as they are readable without keys: header and payload chain (RFC 7296 section 3).

A `Message` keeps every octet, so that it is written back exactly as it was read. What a payload means is a
second step, `interpret`: one malformed payload does not hide the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Self

from mobikectl.wire.dialects import CURRENT
from mobikectl.wire.dupont import PeerAddressUpdate
from mobikectl.wire.notify import Dialect, Notify, NotifyData
from mobikectl.wire.reader import Reader, check_length, check_unsigned, impossible, malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER_SIZE = 28
PAYLOAD_HEADER_SIZE = 4
MAX_MESSAGE = 65535
"""Octets: more do not fit a UDP datagram."""
MAX_PAYLOADS = 256
"""More payloads in one message are refused: it bounds the work for one datagram."""
NON_ESP_MARKER = bytes(4)
"""What comes before an IKE message on port 4500 (RFC 3948 section 2.2)."""


class ExchangeType(IntEnum):
    """Exchange types (RFC 7296 section 3.1; RFC 5723, RFC 9242, RFC 9370)."""

    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37
    IKE_SESSION_RESUME = 38
    IKE_INTERMEDIATE = 43
    IKE_FOLLOWUP_KE = 44


class Flags(IntFlag):
    """Flags of the IKE header (RFC 7296 section 3.1)."""

    INITIATOR = 0x08
    """Sent by the original initiator of the IKE_SA."""
    VERSION = 0x10
    """The sender can speak a higher major version."""
    RESPONSE = 0x20


class PayloadType(IntEnum):
    """Payload types (RFC 7296 section 3.2; SKF: RFC 7383)."""

    NONE = 0
    SA = 33
    KE = 34
    IDI = 35
    IDR = 36
    CERT = 37
    CERTREQ = 38
    AUTH = 39
    NONCE = 40
    N = 41
    D = 42
    V = 43
    TSI = 44
    TSR = 45
    SK = 46
    CP = 47
    EAP = 48
    SKF = 53


ENCRYPTED = frozenset({PayloadType.SK, PayloadType.SKF})
"""Payloads whose Next Payload field tells the first payload inside; nothing follows them."""


@dataclass(frozen=True, slots=True)
class Payload:
    """One payload of a chain, its body octet for octet (RFC 7296 section 3.2)."""

    type: int
    body: bytes = b""
    critical: bool = False
    reserved: int = 0
    """The seven bits after the critical bit: zero when sent, ignored when received."""
    first_inside: int = 0
    """Of SK and SKF: the type of the first payload inside."""

    def __post_init__(self) -> None:
        check_unsigned(self.type, 1, "a payload type")
        check_unsigned(self.first_inside, 1, "a payload type")
        if self.type == PayloadType.NONE:
            raise impossible("a payload type", "0, which means that no payload follows")
        if not 0 <= self.reserved < 0x80:
            raise impossible("7 reserved bits", str(self.reserved))
        if self.first_inside and self.type not in ENCRYPTED:
            raise impossible("SK or SKF to have payloads inside", f"payload type {self.type}")
        check_length(self.body, 0, MAX_MESSAGE - PAYLOAD_HEADER_SIZE, "a payload body")

    @property
    def size(self) -> int:
        """Octets on the wire, the generic payload header included."""
        return PAYLOAD_HEADER_SIZE + len(self.body)


@dataclass(frozen=True, slots=True)
class Message:
    """An IKE message (RFC 7296 section 3.1). SPIs are numbers as in `mobikectl.model.IkeSa`."""

    initiator_spi: int
    responder_spi: int
    exchange: int
    flags: int
    message_id: int
    payloads: tuple[Payload, ...] = ()
    minor_version: int = 0

    def __post_init__(self) -> None:
        check_unsigned(self.initiator_spi, 8, "an initiator SPI")
        check_unsigned(self.responder_spi, 8, "a responder SPI")
        check_unsigned(self.exchange, 1, "an exchange type")
        check_unsigned(self.flags, 1, "flags")
        check_unsigned(self.message_id, 4, "a message ID")
        if not 0 <= self.minor_version < 0x10:
            raise impossible("a minor version of 4 bits", str(self.minor_version))
        _check_chain(self.payloads)
        if self.size > MAX_MESSAGE:
            raise impossible(f"a message of at most {MAX_MESSAGE} octets", str(self.size))

    @property
    def size(self) -> int:
        """Octets on the wire."""
        return HEADER_SIZE + sum(payload.size for payload in self.payloads)

    @property
    def is_response(self) -> bool:
        """Whether the R flag is set."""
        return bool(self.flags & Flags.RESPONSE)

    @property
    def from_initiator(self) -> bool:
        """Whether the I flag is set: sent by the original initiator."""
        return bool(self.flags & Flags.INITIATOR)

    def to_bytes(self) -> bytes:
        """Return the message's octets, without a non-ESP marker."""
        first = self.payloads[0].type if self.payloads else int(PayloadType.NONE)
        return b"".join(
            (
                self.initiator_spi.to_bytes(8, "big"),
                self.responder_spi.to_bytes(8, "big"),
                bytes([first, 0x20 | self.minor_version, self.exchange, self.flags]),
                self.message_id.to_bytes(4, "big"),
                self.size.to_bytes(4, "big"),
                encode_chain(self.payloads),
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes, at: int = 0) -> Self:
        """Given a whole message without a non-ESP marker, return it. Raise DecodeError.

        ``at`` is the offset of ``data`` in the whole input, for errors.
        """
        reader = Reader(data, at)
        initiator_spi = reader.number(8, "initiator SPI")
        responder_spi = reader.number(8, "responder SPI")
        first = reader.number(1, "next payload")
        version = reader.number(1, "version")
        if version >> 4 != 2:
            raise malformed(reader.offset - 1, "IKE major version 2", str(version >> 4))
        exchange = reader.number(1, "exchange type")
        flags = reader.number(1, "flags")
        message_id = reader.number(4, "message ID")
        length_at, length = reader.offset, reader.number(4, "length")
        if length != len(data) or length > MAX_MESSAGE:
            raise malformed(length_at, f"the message's length, {len(data)} octets", str(length))
        payloads = decode_chain(reader.rest(), first, at + HEADER_SIZE)
        return cls(initiator_spi, responder_spi, exchange, flags, message_id, payloads, version & 0x0F)

    def placed(self) -> Iterator[tuple[int, Payload]]:
        """Yield each payload with the offset of its generic payload header in the message."""
        return placed(self.payloads, HEADER_SIZE)


def placed(payloads: tuple[Payload, ...], at: int = 0) -> Iterator[tuple[int, Payload]]:
    """Given a chain and where it starts, yield each payload with its offset."""
    for payload in payloads:
        yield at, payload
        at += payload.size


def _check_chain(payloads: tuple[Payload, ...]) -> None:
    if len(payloads) > MAX_PAYLOADS:
        raise impossible(f"at most {MAX_PAYLOADS} payloads", str(len(payloads)))
    if any(payload.type in ENCRYPTED for payload in payloads[:-1]):
        raise impossible("SK or SKF to be the last payload", "payloads after it")


def encode_chain(payloads: tuple[Payload, ...]) -> bytes:
    """Given a payload chain, return its octets. Raise DecodeError for one that cannot be on the wire.

    The type of its first payload is not in them: it stands in the header or payload before.
    """
    _check_chain(payloads)
    following = [int(payload.type) for payload in payloads[1:]] + [0]
    parts: list[bytes] = []
    for payload, after in zip(payloads, following, strict=False):
        next_payload = payload.first_inside if payload.type in ENCRYPTED else after
        parts.append(bytes([next_payload, payload.critical << 7 | payload.reserved]))
        parts.append(payload.size.to_bytes(2, "big"))
        parts.append(payload.body)
    return b"".join(parts)


def decode_chain(data: bytes, first: int, at: int = 0) -> tuple[Payload, ...]:
    """Given a payload chain and its first payload's type, return the payloads. Raise DecodeError.

    With it the decrypted inside of an SK payload can be read, too. ``at``: the offset of ``data`` in the
    whole input.
    """
    reader = Reader(data, at)
    payloads: list[Payload] = []
    kind = first
    while kind != PayloadType.NONE:
        if len(payloads) == MAX_PAYLOADS:
            raise malformed(reader.offset, f"at most {MAX_PAYLOADS} payloads", "more")
        following = reader.number(1, "next payload")
        bits = reader.number(1, "critical bit")
        length_at, length = reader.offset, reader.number(2, "payload length")
        if length < PAYLOAD_HEADER_SIZE:
            raise malformed(length_at, f"a payload length of {PAYLOAD_HEADER_SIZE} or more", str(length))
        body = reader.take(length - PAYLOAD_HEADER_SIZE, f"payload {payload_name(kind)}")
        encrypted = kind in ENCRYPTED
        payloads.append(Payload(kind, body, bits >= 0x80, bits & 0x7F, following if encrypted else 0))
        kind = 0 if encrypted else following
    reader.end("the payload chain")
    return tuple(payloads)


_NAMES = {int(kind): kind.name for kind in PayloadType} | {
    PayloadType.IDI: "IDi",
    PayloadType.IDR: "IDr",
    PayloadType.TSI: "TSi",
    PayloadType.TSR: "TSr",
    PayloadType.NONCE: "Nonce",
}


def payload_name(kind: int) -> str:
    """Given a payload type, return its short name in RFC 7296's notation, or the number where it has none."""
    return _NAMES.get(kind, str(kind))


@dataclass(frozen=True, slots=True)
class Delete:
    """A Delete payload's body (RFC 7296 section 3.11)."""

    protocol_id: int
    spi_size: int = 0
    spis: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        check_unsigned(self.protocol_id, 1, "a protocol ID")
        check_unsigned(self.spi_size, 1, "an SPI size")
        check_unsigned(len(self.spis), 2, "a number of SPIs")
        if self.spis and not self.spi_size:
            raise impossible("no SPIs of no octets", str(len(self.spis)))
        for spi in self.spis:
            check_length(spi, self.spi_size, self.spi_size, "an SPI")

    def to_body(self) -> bytes:
        """Return the octets that follow the generic payload header."""
        head = bytes([self.protocol_id, self.spi_size]) + len(self.spis).to_bytes(2, "big")
        return head + b"".join(self.spis)

    @classmethod
    def from_body(cls, body: bytes, at: int = 0) -> Self:
        """Given the octets after the generic payload header, return the payload. Raise DecodeError."""
        reader = Reader(body, at)
        protocol_id = reader.number(1, "protocol ID")
        size = reader.number(1, "SPI size")
        count_at, count = reader.offset, reader.number(2, "number of SPIs")
        if count and not size:
            raise malformed(count_at, "no SPIs when their size is 0", str(count))
        if reader.left != count * size:
            raise malformed(reader.offset, f"{count} SPIs of {size} octets", f"{reader.left} octets")
        return cls(protocol_id, size, tuple(reader.take(size, "SPI") for _ in range(count)))


Content = Notify | Delete | PeerAddressUpdate | bytes
"""What a payload holds; bytes for those that are not looked into (SA, KE, Nonce, SK, ...)."""


def interpret(payload: Payload, dialect: Dialect = CURRENT, at: int = 0) -> Content:
    """Given a payload, return what it holds. Raise DecodeError when its body is malformed.

    ``at`` is the offset of the payload's generic header in the whole input.
    """
    body_at = at + PAYLOAD_HEADER_SIZE
    if payload.type == PayloadType.N:
        return Notify.from_body(payload.body, body_at)
    if payload.type == PayloadType.D:
        return Delete.from_body(payload.body, body_at)
    if dialect.update_payload is not None and payload.type == dialect.update_payload:
        return PeerAddressUpdate.from_body(payload.body, body_at)
    return payload.body


def notify_payload(typed: NotifyData, dialect: Dialect = CURRENT) -> Payload:
    """Given a typed notify, return its payload in this dialect. Raise DecodeError when it cannot be said."""
    return Payload(PayloadType.N, dialect.encode(typed).to_body())


def update_payload(update: PeerAddressUpdate, dialect: Dialect) -> Payload:
    """Given a peer address update, return its payload, with the critical bit that its appendix B demands.

    Raise DecodeError when the dialect has no such payload.
    """
    if dialect.update_payload is None:
        raise impossible("a dialect with the Peer Address Update payload", dialect.name)
    return Payload(dialect.update_payload, update.to_body(), critical=True)


def typed_notifies(payloads: tuple[Payload, ...], dialect: Dialect = CURRENT) -> tuple[NotifyData, ...]:
    """Given a payload chain, return its notifies that the dialect knows as typed ones, in order.

    Raise DecodeError when one of them is malformed.
    """
    found: list[NotifyData] = []
    for at, payload in placed(payloads):
        if payload.type == PayloadType.N:
            notify = Notify.from_body(payload.body, at + PAYLOAD_HEADER_SIZE)
            typed = dialect.decode(notify, at + data_offset(notify))
            if typed is not None:
                found.append(typed)
    return tuple(found)


def data_offset(notify: Notify) -> int:
    """Given a notify, return where its data starts, counted from the generic payload header."""
    return PAYLOAD_HEADER_SIZE + 4 + len(notify.spi)


def without_marker(datagram: bytes) -> bytes:
    """Given what a UDP datagram carried, return the IKE message: without the non-ESP marker, if one is there.

    A message itself cannot start with four zero octets, unless its initiator SPI does: then the
    version tells.
    """
    marked = datagram[: len(NON_ESP_MARKER)] == NON_ESP_MARKER
    version_after_marker = datagram[len(NON_ESP_MARKER) + 17 : len(NON_ESP_MARKER) + 18]
    return datagram[len(NON_ESP_MARKER) :] if marked and version_after_marker == b"\x20" else datagram
