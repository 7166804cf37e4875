"""strongSwan's HA messages: what charon tells its HA peer about every IKE_SA and CHILD_SA, keys included.

A message is a version octet, a type octet and attributes, each an octet and a value. charon reads them in
order and stops without a word at the first that it does not know, so that what is sent must be right:
here every type has its grammar, and nothing else can be built or read.

Source: strongSwan 5.9.8, ``src/libcharon/plugins/ha``: ``ha_message.c`` (the octets), ``ha_ike.c`` and
``ha_child.c`` (what is sent when), ``ha_dispatcher.c`` (what is made of it).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Self, TypeVar

from mobikectl.wire.ha_values import (
    HaAttribute,
    HaValue,
    Host,
    Identity,
    IkeId,
    Selector,
    check_value,
    read_value,
    write_value,
)
from mobikectl.wire.reader import Reader, impossible, malformed
from mobikectl.wire.secret import SecretBytes

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "MAX_MESSAGE",
    "PORT",
    "VERSION",
    "HaAttribute",
    "HaMessage",
    "HaType",
    "HaValue",
    "Host",
    "Identity",
    "IkeId",
    "SecretBytes",
    "Selector",
]

PORT: Final = 4510
"""The UDP port of both ends (HA_PORT in ha_plugin.h); it cannot be configured."""
VERSION: Final = 3
MAX_MESSAGE: Final = 16_384
"""Octets. charon's own messages have less than 3,000 (two nonces and a secret of at most 1,024 octets)."""


class HaType(IntEnum):
    """What a message is for (ha_message_type_t)."""

    IKE_ADD = 1
    IKE_UPDATE = 2
    IKE_MID_INITIATOR = 3
    IKE_MID_RESPONDER = 4
    IKE_DELETE = 5
    CHILD_ADD = 6
    CHILD_DELETE = 7
    SEGMENT_DROP = 8
    SEGMENT_TAKE = 9
    STATUS = 10
    RESYNC = 11
    IKE_IV = 12


@dataclass(frozen=True, slots=True)
class _Grammar:
    needs: frozenset[HaAttribute] = frozenset()
    once: frozenset[HaAttribute] = frozenset()
    """Allowed at most once."""
    many: frozenset[HaAttribute] = frozenset()

    def allows(self, attribute: HaAttribute) -> bool:
        return attribute in self.needs or attribute in self.once or attribute in self.many


def _grammar(needs: str = "", once: str = "", many: str = "") -> _Grammar:
    return _Grammar(
        *(frozenset(HaAttribute[name] for name in names.split()) for names in (needs, once, many))
    )


_GRAMMARS: Final[dict[HaType, _Grammar]] = {
    HaType.IKE_ADD: _grammar(
        "IKE_ID NONCE_I NONCE_R SECRET",
        "IKE_VERSION IKE_REKEY_ID ALG_OLD_PRF OLD_SKD ALG_ENCR ALG_ENCR_LEN ALG_INTEG ALG_PRF ALG_DH"
        " LOCAL_DH REMOTE_DH PSK AUTH_METHOD REMOTE_ADDR",
    ),
    HaType.IKE_UPDATE: _grammar(
        "IKE_ID",
        "LOCAL_ID REMOTE_ID REMOTE_EAP_ID LOCAL_ADDR REMOTE_ADDR CONDITIONS EXTENSIONS CONFIG_NAME",
        "LOCAL_VIP REMOTE_VIP PEER_ADDR",
    ),
    HaType.IKE_MID_INITIATOR: _grammar("IKE_ID MID"),
    HaType.IKE_MID_RESPONDER: _grammar("IKE_ID MID"),
    HaType.IKE_DELETE: _grammar("IKE_ID"),
    HaType.CHILD_ADD: _grammar(
        "IKE_ID INITIATOR INBOUND_SPI OUTBOUND_SPI CONFIG_NAME NONCE_I NONCE_R",
        "INBOUND_CPI OUTBOUND_CPI IPSEC_MODE IPCOMP ALG_ENCR ALG_ENCR_LEN ALG_INTEG ALG_DH ESN SECRET",
        "LOCAL_TS REMOTE_TS",
    ),
    HaType.CHILD_DELETE: _grammar("IKE_ID INBOUND_SPI"),
    HaType.SEGMENT_DROP: _grammar(many="SEGMENT"),
    HaType.SEGMENT_TAKE: _grammar(many="SEGMENT"),
    HaType.STATUS: _grammar(many="SEGMENT"),
    HaType.RESYNC: _grammar(many="SEGMENT"),
    HaType.IKE_IV: _grammar("IKE_ID IV"),
}

_V = TypeVar("_V", bound=HaValue)


@dataclass(frozen=True, slots=True)
class HaMessage:
    """A message: its kind and its attributes in their order.

    Building one that its type's grammar does not allow raises DecodeError. Neither ``repr`` nor any
    error shows key material.
    """

    kind: HaType
    items: tuple[tuple[HaAttribute, HaValue], ...] = ()

    def __post_init__(self) -> None:
        grammar = _GRAMMARS[self.kind]
        seen: set[HaAttribute] = set()
        for attribute, value in self.items:
            if not grammar.allows(attribute):
                raise impossible(f"an attribute of {self.kind.name}", attribute.name)
            if attribute in seen and attribute not in grammar.many:
                raise impossible(f"{attribute.name} once", "it again")
            check_value(attribute, value)
            seen.add(attribute)
        if missing := grammar.needs - seen:
            names = ", ".join(sorted(each.name for each in missing))
            raise impossible(f"{self.kind.name} with {names}", "none")
        if self.kind is HaType.IKE_UPDATE and self.items[0][0] is not HaAttribute.IKE_ID:
            raise impossible("IKE_ID first in IKE_UPDATE", self.items[0][0].name)

    @classmethod
    def of(cls, kind: HaType, *items: tuple[HaAttribute, HaValue]) -> Self:
        """Given the type and the attributes, return the message. Raise DecodeError when it cannot be one."""
        return cls(kind, items)

    # --- octets ---------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Return the octets. Raise DecodeError when they are more than `MAX_MESSAGE`."""
        body = b"".join(bytes([name]) + write_value(name, value) for name, value in self.items)
        if len(body) + 2 > MAX_MESSAGE:
            raise impossible(f"a message of at most {MAX_MESSAGE} octets", str(len(body) + 2))
        return bytes([VERSION, self.kind]) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Given a whole datagram, return the message: `to_bytes` gives the same octets again.

        Raise DecodeError when it is cut short, too long, of another version, or has a type, an
        attribute or a value that charon 5.9.8 does not send.
        """
        if len(data) > MAX_MESSAGE:
            raise malformed(MAX_MESSAGE, f"at most {MAX_MESSAGE} octets", str(len(data)))
        reader = Reader(data)
        version = reader.number(1, "version")
        if version != VERSION:
            raise malformed(0, f"version {VERSION}", str(version), hint="this is for strongSwan 5.9 and 6.0")
        number = reader.number(1, "message type")
        if number not in HaType.__members__.values():
            raise malformed(1, "a message type from 1 to 12", str(number))
        items = []
        while reader.left:
            at, code = reader.offset, reader.number(1, "attribute")
            if code not in HaAttribute.__members__.values():
                raise malformed(at, "an attribute from 1 to 41", str(code))
            attribute = HaAttribute(code)
            items.append((attribute, read_value(reader, attribute)))
        return cls(HaType(number), tuple(items))

    # --- what is in it --------------------------------------------------------------------------

    def get(self, attribute: HaAttribute, kind: type[_V]) -> _V | None:
        """Given an attribute and the type of its value, return the first such value, None without any."""
        for name, value in self.items:
            if name is attribute and isinstance(value, kind):
                return value
        return None

    def need(self, attribute: HaAttribute, kind: type[_V]) -> _V:
        """Return what `get` returns. Raise DecodeError when it is not there."""
        value = self.get(attribute, kind)
        if value is None:
            raise impossible(f"{attribute.name} in {self.kind.name}", "none")
        return value

    def all(self, attribute: HaAttribute, kind: type[_V]) -> tuple[_V, ...]:
        """Given an attribute and the type of its value, return all such values in their order."""
        return tuple(value for name, value in self.items if name is attribute and isinstance(value, kind))

    @property
    def ike_id(self) -> IkeId | None:
        """The IKE_SA that it is about; None in SEGMENT_*, STATUS and RESYNC."""
        return self.get(HaAttribute.IKE_ID, IkeId)

    def having(self, items: Iterable[tuple[HaAttribute, HaValue]]) -> Self:
        """Given attributes, return the message with these instead of those of the same names.

        Where one of the name was, the new ones stand; those of new names come last.
        """
        wanted = list(items)
        changed = {name for name, _ in wanted}
        placed: set[HaAttribute] = set()
        merged: list[tuple[HaAttribute, HaValue]] = []
        for name, value in self.items:
            if name not in changed:
                merged.append((name, value))
            elif name not in placed:
                placed.add(name)
                merged += [item for item in wanted if item[0] is name]
        merged += [item for item in wanted if item[0] not in placed]
        return replace(self, items=tuple(merged))
