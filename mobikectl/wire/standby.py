"""What a node tells those that stand by for its IKE_SAs, and what they answer: payloads of the transfer's verbs.

A batch is items, each a kind (one octet), its length (four octets) and its octets. They hold key material.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Self

from mobikectl.errors import DecodeError
from mobikectl.wire.ha_chain import IkeSpis
from mobikectl.wire.handover import Offer
from mobikectl.wire.reader import Reader, impossible
from mobikectl.wire.secret import SecretBytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobikectl.model import IpAddress

STANDBY, STANDBY_ASK = "sa-standby", "sa-standby-ask"
"""The verbs."""
MAX_BATCH: Final = 200_000
"""Octets: what a frame of the transfer takes, with room for what is around it."""
MAX_LISTED: Final = 8_000
"""IKE_SAs of one list."""
_SPIS: Final = 16
_NONE: Final = IkeSpis(0, 0)
_NUMBERS: Final = 5


class _Kind(IntEnum):
    COPY = 1
    TOUCH = 2
    GONE = 3
    LOST = 4
    ALL = 5


@dataclass(frozen=True, slots=True)
class Numbers:
    """How far the ESP of a CHILD_SA is: last numbers sent and received, and packets sent in 1,000 s."""

    spi_in: int
    spi_out: int
    sent: int
    received: int
    per_1000_s: int = 0


@dataclass(frozen=True, slots=True)
class Touch:
    """What changes all the time. ``mids``: message IDs of the next requests, ours and the peer's; None: never told."""

    spis: IkeSpis
    mids: tuple[int | None, int | None]
    numbers: tuple[Numbers, ...] = ()


@dataclass(frozen=True, slots=True)
class Gone:
    """It ended, or is served by another node."""

    spis: IkeSpis


@dataclass(frozen=True, slots=True)
class Lost:
    """The charon that served it has lost it; its client does not know."""

    spis: IkeSpis


@dataclass(frozen=True, slots=True)
class All:
    """The IKE_SAs that this node has copies of, of those whose initiator's SPI modulo ``of`` is ``share``."""

    spis: frozenset[IkeSpis]
    share: int = 0
    of: int = 1

    def about(self, spis: IkeSpis) -> bool:
        """Whether an IKE_SA is one of which it speaks."""
        return spis.initiator % self.of == self.share


Item = Offer | Touch | Gone | Lost | All
"""An `Offer` is a whole copy; its move number means nothing."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is told at once, in order."""

    items: tuple[Item, ...]

    def to_secret(self) -> SecretBytes:
        """Return the payload."""
        return SecretBytes(b"".join(encoded(item) for item in self.items))

    @classmethod
    def from_secret(cls, secret: SecretBytes) -> Self:
        """Given a payload, return the batch. Raise DecodeError, which shows nothing of it."""
        reader = Reader(secret.reveal())
        items = []
        while reader.left:
            kind, length = reader.number(1, "kind"), reader.number(4, "length")
            items.append(_item(kind, reader.take(length, "item")))
        return cls(tuple(items))


@dataclass(frozen=True, slots=True)
class Wants:
    """The answer to a batch: of which IKE_SAs a whole copy is needed, and which are refused for now."""

    missing: frozenset[IkeSpis] = frozenset()
    refused: frozenset[IkeSpis] = frozenset()

    def to_secret(self) -> SecretBytes:
        """Return the payload."""
        missing = _listed(self.missing)
        return SecretBytes(len(missing).to_bytes(4, "big") + missing + _listed(self.refused))

    @classmethod
    def from_secret(cls, secret: SecretBytes) -> Self:
        """Given a payload, return the answer. Raise DecodeError."""
        reader = Reader(secret.reveal())
        missing = reader.take(reader.number(4, "length"), "list")
        return cls(_list(missing), _list(reader.rest()))


@dataclass(frozen=True, slots=True)
class Inquiry:
    """The question whether an IKE daemon answers at one of these addresses, and which of these IKE_SAs are served."""

    addresses: tuple[IpAddress, ...]
    spis: frozenset[IkeSpis]

    def to_secret(self) -> SecretBytes:
        """Return the payload."""
        head = json.dumps([str(each) for each in self.addresses]).encode()
        return SecretBytes(len(head).to_bytes(4, "big") + head + _listed(self.spis))

    @classmethod
    def from_secret(cls, secret: SecretBytes) -> Self:
        """Given a payload, return the question. Raise DecodeError."""
        reader = Reader(secret.reveal())
        texts = _json(reader.take(reader.number(4, "length"), "addresses"))
        if not isinstance(texts, list) or len(texts) > 64:
            raise impossible("a list of addresses", "something else")
        try:
            addresses = tuple(ip_address(str(text)) for text in texts)
        except ValueError:
            raise impossible("addresses", "something else") from None
        return cls(addresses, _list(reader.rest()))


@dataclass(frozen=True, slots=True)
class Testimony:
    """The answer to an inquiry. ``heard``: an IKE daemon answered.

    ``undecided``: of these a handover from here is under way, and its target may have begun to serve them. They follow
    those that are served, behind SPIs that no IKE_SA has: a node that knows of one list only takes all for served.
    """

    heard: bool
    served: frozenset[IkeSpis]
    undecided: frozenset[IkeSpis] = frozenset()

    def to_secret(self) -> SecretBytes:
        """Return the payload."""
        undecided = _spis(_NONE) + _listed(self.undecided - {_NONE}) if self.undecided else b""
        return SecretBytes(bytes([self.heard]) + _listed(self.served - {_NONE}) + undecided)

    @classmethod
    def from_secret(cls, secret: SecretBytes) -> Self:
        """Given a payload, return it. Raise DecodeError."""
        reader = Reader(secret.reveal())
        heard = bool(reader.number(1, "heard"))
        both = _in_order(reader.rest())
        between = both.index(_NONE) if _NONE in both else len(both)
        return cls(heard, frozenset(both[:between]), frozenset(both[between + 1 :]))


def encoded(item: Item) -> bytes:
    """Given an item, return its octets in a batch. Raise DecodeError when it is too long for any."""
    match item:
        case Offer():
            kind, octets = _Kind.COPY, item.to_secret().reveal()
        case Touch():
            kind, octets = _Kind.TOUCH, _spis(item.spis) + _touch(item)
        case Gone():
            kind, octets = _Kind.GONE, _spis(item.spis)
        case Lost():
            kind, octets = _Kind.LOST, _spis(item.spis)
        case All():
            head = item.share.to_bytes(2, "big") + item.of.to_bytes(2, "big")
            kind, octets = _Kind.ALL, head + _listed(item.spis)
    if len(octets) > MAX_BATCH:
        raise impossible(f"an item of at most {MAX_BATCH} octets", str(len(octets)))
    return bytes([kind]) + len(octets).to_bytes(4, "big") + octets


def _item(kind: int, octets: bytes) -> Item:
    reader = Reader(octets)
    match kind:
        case _Kind.COPY:
            return Offer.from_secret(SecretBytes(octets))
        case _Kind.TOUCH:
            return _read_touch(_read_spis(reader), _json(reader.rest()))
        case _Kind.GONE | _Kind.LOST:
            spis = _read_spis(reader)
            reader.end("an item")
            return Gone(spis) if kind == _Kind.GONE else Lost(spis)
        case _Kind.ALL:
            share, of = reader.number(2, "share"), reader.number(2, "of")
            if not share < of:
                raise impossible("a share of so many", f"{share} of {of}")
            return All(_list(reader.rest()), share, of)
        case _:
            raise impossible("an item of a batch", str(kind))


def _touch(touch: Touch) -> bytes:
    rows = [[n.spi_in, n.spi_out, n.sent, n.received, n.per_1000_s] for n in touch.numbers]
    return json.dumps([*touch.mids, rows], separators=(",", ":")).encode()


def _read_touch(spis: IkeSpis, value: Any) -> Touch:
    if not isinstance(value, list) or len(value) != 3 or not isinstance(value[2], list):
        raise impossible("message IDs and numbers", "something else")
    ours, theirs = (None if each is None else _number(each) for each in value[:2])
    numbers = []
    for row in value[2]:
        if not isinstance(row, list) or len(row) != _NUMBERS:
            raise impossible(f"{_NUMBERS} numbers", "something else")
        numbers.append(Numbers(*map(_number, row)))
    return Touch(spis, (ours, theirs), tuple(numbers))


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise impossible("a number of 64 bits", "something else")
    return value


def _json(octets: bytes) -> Any:
    try:
        return json.loads(octets)
    except (ValueError, RecursionError):
        raise DecodeError("not JSON", expected="JSON") from None


def _spis(spis: IkeSpis) -> bytes:
    return spis.initiator.to_bytes(8, "big") + spis.responder.to_bytes(8, "big")


def _read_spis(reader: Reader) -> IkeSpis:
    return IkeSpis(reader.number(8, "SPI"), reader.number(8, "SPI"))


def _listed(spis: Iterable[IkeSpis]) -> bytes:
    return b"".join(_spis(each) for each in sorted(spis))


def _list(octets: bytes) -> frozenset[IkeSpis]:
    return frozenset(_in_order(octets))


def _in_order(octets: bytes) -> list[IkeSpis]:
    if len(octets) % _SPIS or len(octets) > _SPIS * MAX_LISTED:
        raise impossible(f"a list of at most {MAX_LISTED} IKE_SAs", f"{len(octets)} octets")
    reader = Reader(octets)
    return [_read_spis(reader) for _ in range(len(octets) // _SPIS)]
