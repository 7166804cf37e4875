"""The Notify payload and the table of what its types mean (RFC 7296 section 3.10).

A notify is known at two levels: `Notify` is any notify payload, octet for octet; a typed one
(`mobikectl.wire.mobike.Cookie2`, ...) is its meaning. A `Dialect` says which type number has which meaning;
the dialects of the documents are in `mobikectl.wire.dialects`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, Self

from mobikectl.errors import ConfigError, DecodeError
from mobikectl.wire.reader import Reader, check_length, check_unsigned, malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

FIRST_STATUS_TYPE = 16384
"""Smaller notify message types are errors, this and larger ones status (RFC 7296 section 3.10.1)."""

PRIVATE_USE_STATUS = range(40960, 65536)
"""Status types that anybody may use among consenting parties (RFC 7296 section 3.10.1)."""


@dataclass(frozen=True, slots=True)
class Notify:
    """A Notify payload's body, octet for octet (RFC 7296 section 3.10)."""

    type: int
    data: bytes = b""
    protocol_id: int = 0
    spi: bytes = b""

    def __post_init__(self) -> None:
        check_unsigned(self.type, 2, "a notify message type")
        check_unsigned(self.protocol_id, 1, "a protocol ID")
        check_length(self.spi, 0, 255, "an SPI")

    @property
    def is_error(self) -> bool:
        """Whether it is of an error type (RFC 7296 section 3.10.1)."""
        return self.type < FIRST_STATUS_TYPE

    def to_body(self) -> bytes:
        """Return the octets that follow the generic payload header."""
        head = bytes([self.protocol_id, len(self.spi)]) + self.type.to_bytes(2, "big")
        return head + self.spi + self.data

    @classmethod
    def from_body(cls, body: bytes, at: int = 0) -> Self:
        """Given the octets after the generic payload header, return the notify. Raise DecodeError.

        ``at`` is the offset of ``body`` in the whole input, for errors.
        """
        reader = Reader(body, at)
        protocol_id = reader.number(1, "protocol ID")
        spi_size = reader.number(1, "SPI size")
        number = reader.number(2, "notify message type")
        spi = reader.take(spi_size, "SPI")
        return cls(number, reader.rest(), protocol_id, spi)


class NotifyData(Protocol):
    """What every typed notify can do: become the notification data and come back from it."""

    def to_data(self) -> bytes:
        """Return the notification data."""

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given notification data (``at`` is its offset in the whole input), return the typed notify.

        Raise DecodeError when the data is not what the document says.
        """


class WithoutData:
    """The base of typed notifies whose document says that no data is associated with them."""

    __slots__ = ()

    def to_data(self) -> bytes:
        """Return no octets."""
        return b""

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given no octets, return the notify. Raise DecodeError when there are some."""
        if data:
            raise malformed(at, "no notification data", f"{len(data)} octets")
        return cls()


@dataclass(frozen=True, slots=True)
class Source:
    """Where something is specified."""

    document: str
    section: str

    def __str__(self) -> str:
        return f"{self.document} section {self.section}"


@dataclass(frozen=True, slots=True)
class NotifyCodec:
    """One row of a dialect: a notify type's number, name, meaning and place in the documents."""

    name: str
    number: int
    source: Source
    meaning: str
    """One line for people."""
    kind: type[NotifyData] | None = None
    """The typed notify; None when its data is kept as it is."""
    encode_data: Callable[[NotifyData], bytes] | None = None
    """How this dialect writes the data, where it differs from ``kind.to_data``."""
    decode_data: Callable[[bytes, int], NotifyData] | None = None
    """How this dialect reads the data, where it differs from ``kind.from_data``."""
    protocol_id: int = 0
    """What the document says the Protocol ID field must be when sending."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the notify types and payload types mean between two peers.

    Where two documents give one number two meanings (drafts with private-use numbers, drafts that left
    the number open), the dialect decides.
    """

    name: str
    codecs: tuple[NotifyCodec, ...]
    update_payload: int | None = None
    """Payload type of Dupont's Peer Address Update payload (the draft has no number); None: not spoken."""
    _by_number: Mapping[int, NotifyCodec] = field(init=False, repr=False, compare=False)
    _by_name: Mapping[str, NotifyCodec] = field(init=False, repr=False, compare=False)
    _by_kind: Mapping[type, NotifyCodec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_number: dict[int, NotifyCodec] = {}
        for codec in self.codecs:
            other = by_number.setdefault(codec.number, codec)
            if other is not codec:
                raise ConfigError(
                    f"dialect {self.name}: notify type {codec.number} is both {other.name} and {codec.name}",
                    hint="give one of them another number of the private-use range 40960-65535",
                )
        by_name = {codec.name: codec for codec in self.codecs}
        by_kind = {codec.kind: codec for codec in self.codecs if codec.kind is not None}
        object.__setattr__(self, "_by_number", MappingProxyType(by_number))
        object.__setattr__(self, "_by_name", MappingProxyType(by_name))
        object.__setattr__(self, "_by_kind", MappingProxyType(by_kind))

    def codec(self, number: int) -> NotifyCodec | None:
        """Given a notify message type, return its row, or None when the dialect does not know it."""
        return self._by_number.get(number)

    def named(self, name: str) -> NotifyCodec:
        """Given a notify's name (``COOKIE2``), return its row. Raise DecodeError when unknown."""
        try:
            return self._by_name[name]
        except KeyError:
            raise DecodeError(
                f"dialect {self.name} has no notify named {name!r}",
                hint="names are those of the documents, e.g. COOKIE2; or give the number",
            ) from None

    def number_of(self, kind: type) -> int:
        """Given a typed notify's class, return its message type. Raise DecodeError when not spoken."""
        return self._codec_of(kind).number

    def _codec_of(self, kind: type) -> NotifyCodec:
        try:
            return self._by_kind[kind]
        except KeyError:
            raise DecodeError(
                f"dialect {self.name} has no notify type for {kind.__name__}",
                hint="choose the dialect of the document that defines it",
            ) from None

    def encode(self, typed: NotifyData) -> Notify:
        """Given a typed notify, return its payload body. Raise DecodeError when it cannot be said here."""
        codec = self._codec_of(type(typed))
        data = typed.to_data() if codec.encode_data is None else codec.encode_data(typed)
        return Notify(codec.number, data, codec.protocol_id)

    def decode(self, notify: Notify, at: int = 0) -> NotifyData | None:
        """Given a notify payload, return its typed form, or None when the dialect has none for its type.

        ``at`` is the offset of the notification data in the whole input. The Protocol ID is ignored
        when there is no SPI (RFC 7296 section 3.10). Raise DecodeError when the data is malformed, or when
        an SPI is there that the document excludes.
        """
        codec = self.codec(notify.type)
        if codec is None or codec.kind is None:
            return None
        if notify.spi:
            raise malformed(at, f"no SPI with {codec.name}", f"one of {len(notify.spi)} octets")
        if codec.decode_data is not None:
            return codec.decode_data(notify.data, at)
        return codec.kind.from_data(notify.data, at)

    def with_number(self, name: str, number: int) -> Dialect:
        """Given a notify's name and a number, return the dialect that uses it.

        Raise ConfigError when the number already means something else, DecodeError for an unknown name.
        """
        check_unsigned(number, 2, "a notify message type")
        chosen = self.named(name)
        codecs = (replace(codec, number=number) if codec is chosen else codec for codec in self.codecs)
        return replace(self, codecs=tuple(codecs))

    def joined(self, name: str, rows: Iterable[NotifyCodec], *, update_payload: int | None = None) -> Dialect:
        """Given more rows, return a dialect with both; a row replaces the one of the same name."""
        rows = tuple(rows)
        names = {row.name for row in rows}
        kept = tuple(codec for codec in self.codecs if codec.name not in names)
        return Dialect(name, kept + rows, update_payload or self.update_payload)
