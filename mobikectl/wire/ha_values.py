"""The attributes of strongSwan's HA messages: their numbers, their values, and how each is written.

Source: strongSwan 5.9.8, ``src/libcharon/plugins/ha/ha_message.{h,c}``. There is no other document.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Final

from mobikectl.wire.mobike import check_no_zone, unpack_address
from mobikectl.wire.reader import check_length, check_unsigned, impossible, malformed
from mobikectl.wire.secret import SecretBytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.model import IpAddress
    from mobikectl.wire.reader import Reader

AF_INET, AF_INET6 = 2, 10
TS_IPV4, TS_IPV6 = 7, 8
"""Traffic selector types (RFC 7296 section 3.13.1)."""


class HaAttribute(IntEnum):
    """What an attribute says (ha_message_attribute_t)."""

    IKE_ID = 1
    IKE_REKEY_ID = 2
    """The IKE_SA that the new one replaces."""
    LOCAL_ID = 3
    REMOTE_ID = 4
    REMOTE_EAP_ID = 5
    LOCAL_ADDR = 6
    REMOTE_ADDR = 7
    CONFIG_NAME = 8
    CONDITIONS = 9
    """A bit set of ike_condition_t."""
    EXTENSIONS = 10
    """A bit set of ike_extension_t."""
    LOCAL_VIP = 11
    REMOTE_VIP = 12
    PEER_ADDR = 13
    """An address of the peer that MOBIKE may use."""
    INITIATOR = 14
    """Whether the sender initiated the exchange that made the CHILD_SA."""
    NONCE_I = 15
    NONCE_R = 16
    SECRET = 17
    """The Diffie-Hellman shared secret."""
    OLD_SKD = 18
    """SK_d of the IKE_SA that was rekeyed."""
    ALG_PRF = 19
    ALG_OLD_PRF = 20
    ALG_ENCR = 21
    ALG_ENCR_LEN = 22
    """The key's length in bits."""
    ALG_INTEG = 23
    ALG_DH = 24
    IPSEC_MODE = 25
    IPCOMP = 26
    INBOUND_SPI = 27
    OUTBOUND_SPI = 28
    INBOUND_CPI = 29
    OUTBOUND_CPI = 30
    LOCAL_TS = 31
    REMOTE_TS = 32
    MID = 33
    """The next message ID."""
    SEGMENT = 34
    ESN = 35
    """1 with extended sequence numbers, 0 without."""
    IKE_VERSION = 36
    LOCAL_DH = 37
    REMOTE_DH = 38
    PSK = 39
    IV = 40
    AUTH_METHOD = 41


@dataclass(frozen=True, slots=True)
class IkeId:
    """How charon names an IKE_SA (ike_sa_id_t).

    ``initiator``: charon is the initiator of this IKE_SA, which changes with a rekeying; ``version``: 1 or
    2, the major version of IKE.
    """

    initiator_spi: int
    responder_spi: int
    initiator: bool
    version: int = 2

    def __post_init__(self) -> None:
        check_unsigned(self.initiator_spi, 8, "an initiator's SPI")
        check_unsigned(self.responder_spi, 8, "a responder's SPI")
        if self.version not in {1, 2}:
            raise impossible("IKE version 1 or 2", str(self.version))

    def __str__(self) -> str:
        return f"{self.initiator_spi:016x}_i {self.responder_spi:016x}_r"


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity: the ID type of RFC 7296 section 3.5 and its octets."""

    type: int
    data: bytes

    def __post_init__(self) -> None:
        check_unsigned(self.type, 1, "an identity's type")
        check_length(self.data, 0, 255, "an identity")


@dataclass(frozen=True, slots=True)
class Host:
    """An address and a port (0 where a port has no meaning)."""

    address: IpAddress
    port: int = 0

    def __post_init__(self) -> None:
        check_no_zone(self.address)
        check_unsigned(self.port, 2, "a port")


@dataclass(frozen=True, slots=True)
class Selector:
    """A traffic selector. ``dynamic``: charon puts the peer's address in its place."""

    first: IpAddress
    last: IpAddress
    protocol: int = 0
    first_port: int = 0
    last_port: int = 65535
    dynamic: bool = False

    def __post_init__(self) -> None:
        check_no_zone(self.first)
        check_no_zone(self.last)
        if self.first.version != self.last.version:
            raise impossible("addresses of one family", f"{self.first} and {self.last}")
        check_unsigned(self.protocol, 1, "a protocol")
        check_unsigned(self.first_port, 2, "a port")
        check_unsigned(self.last_port, 2, "a port")


HaValue = IkeId | Identity | Host | Selector | SecretBytes | str | int


class Kind(Enum):
    """The form of a value."""

    IKE_ID = "IKE_SA id"
    IDENTITY = "identity"
    HOST = "host"
    NAME = "name"
    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    SPI = "SPI"
    CPI = "CPI"
    CHUNK = "octets"
    SELECTOR = "traffic selector"


A = HaAttribute
KINDS: Final[dict[HaAttribute, Kind]] = {
    **dict.fromkeys((A.IKE_ID, A.IKE_REKEY_ID), Kind.IKE_ID),
    **dict.fromkeys((A.LOCAL_ID, A.REMOTE_ID, A.REMOTE_EAP_ID), Kind.IDENTITY),
    **dict.fromkeys((A.LOCAL_ADDR, A.REMOTE_ADDR, A.LOCAL_VIP, A.REMOTE_VIP, A.PEER_ADDR), Kind.HOST),
    A.CONFIG_NAME: Kind.NAME,
    **dict.fromkeys((A.IKE_VERSION, A.INITIATOR, A.IPSEC_MODE, A.IPCOMP), Kind.U8),
    **dict.fromkeys((A.ALG_DH, A.ALG_PRF, A.ALG_OLD_PRF, A.ALG_ENCR, A.ALG_ENCR_LEN), Kind.U16),
    **dict.fromkeys((A.ALG_INTEG, A.SEGMENT, A.ESN, A.AUTH_METHOD), Kind.U16),
    **dict.fromkeys((A.CONDITIONS, A.EXTENSIONS, A.MID), Kind.U32),
    **dict.fromkeys((A.INBOUND_SPI, A.OUTBOUND_SPI), Kind.SPI),
    **dict.fromkeys((A.INBOUND_CPI, A.OUTBOUND_CPI), Kind.CPI),
    **dict.fromkeys((A.NONCE_I, A.NONCE_R, A.SECRET, A.LOCAL_DH), Kind.CHUNK),
    **dict.fromkeys((A.REMOTE_DH, A.PSK, A.IV, A.OLD_SKD), Kind.CHUNK),
    **dict.fromkeys((A.LOCAL_TS, A.REMOTE_TS), Kind.SELECTOR),
}
"""The form of every attribute's value. Every CHUNK is kept as a secret, nonces too."""


# --- reading ----------------------------------------------------------------------------------------


def read_value(reader: Reader, attribute: HaAttribute) -> HaValue:
    """Given a reader after the attribute's octet, return the value. Raise DecodeError."""
    return _READ[KINDS[attribute]](reader, attribute.name)


def _read_flag(reader: Reader, what: str) -> bool:
    at, number = reader.offset, reader.number(1, what)
    if number > 1:
        raise malformed(at, f"{what} 0 or 1", str(number))
    return number == 1


def _read_ike_id(reader: Reader, what: str) -> IkeId:
    at, version = reader.offset, reader.number(1, f"IKE version of {what}")
    if version not in {1, 2}:
        raise malformed(at, "IKE version 1 or 2", str(version))
    initiator_spi = reader.number(8, f"initiator's SPI of {what}")
    responder_spi = reader.number(8, f"responder's SPI of {what}")
    return IkeId(initiator_spi, responder_spi, _read_flag(reader, f"initiator of {what}"), version)


def _read_identity(reader: Reader, what: str) -> Identity:
    kind = reader.number(1, f"type of {what}")
    return Identity(kind, reader.take(reader.number(1, f"length of {what}"), what))


def _read_host(reader: Reader, what: str) -> Host:
    port = reader.number(2, f"port of {what}")
    at, family = reader.offset, reader.number(1, f"family of {what}")
    if family not in {AF_INET, AF_INET6}:
        raise malformed(at, "family 2 (AF_INET) or 10 (AF_INET6)", str(family))
    return Host(unpack_address(reader.take(4 if family == AF_INET else 16, what)), port)


def _read_name(reader: Reader, what: str) -> str:
    at = reader.offset
    octets = bytearray()
    while octet := reader.number(1, f"{what} and its final zero"):
        octets.append(octet)
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise malformed(at, f"{what} in UTF-8", "other octets") from None


def _read_selector(reader: Reader, what: str) -> Selector:
    at, kind = reader.offset, reader.number(1, f"type of {what}")
    if kind not in {TS_IPV4, TS_IPV6}:
        raise malformed(at, "traffic selector type 7 or 8", str(kind))
    protocol = reader.number(1, f"protocol of {what}")
    first_port, last_port = reader.number(2, f"port of {what}"), reader.number(2, f"port of {what}")
    dynamic = _read_flag(reader, f"dynamic of {what}")
    size = 4 if kind == TS_IPV4 else 16
    first, last = reader.take(size, f"address of {what}"), reader.take(size, f"address of {what}")
    return Selector(unpack_address(first), unpack_address(last), protocol, first_port, last_port, dynamic)


def _reversed(reader: Reader, octets: int, what: str) -> int:
    return int.from_bytes(reader.take(octets, what), "little")


_READ: Final[dict[Kind, Callable[[Reader, str], HaValue]]] = {
    Kind.IKE_ID: _read_ike_id,
    Kind.IDENTITY: _read_identity,
    Kind.HOST: _read_host,
    Kind.NAME: _read_name,
    Kind.U8: lambda reader, what: reader.number(1, what),
    Kind.U16: lambda reader, what: reader.number(2, what),
    Kind.U32: lambda reader, what: reader.number(4, what),
    Kind.SPI: lambda reader, what: _reversed(reader, 4, what),
    Kind.CPI: lambda reader, what: _reversed(reader, 2, what),
    Kind.CHUNK: lambda reader, what: SecretBytes(reader.take(reader.number(2, f"length of {what}"), what)),
    Kind.SELECTOR: _read_selector,
}


# --- writing ----------------------------------------------------------------------------------------


def write_value(attribute: HaAttribute, value: HaValue) -> bytes:
    """Given an attribute and its checked value, return the octets after the attribute's own."""
    return _WRITE[KINDS[attribute]](value)


def check_value(attribute: HaAttribute, value: HaValue) -> None:
    """Raise DecodeError when the value is not of the attribute's form or does not fit it."""
    kind = KINDS[attribute]
    wanted = _TYPES[kind]
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise impossible(f"a value of {attribute.name} that is a {wanted.__name__}", type(value).__name__)
    if isinstance(value, int):
        check_unsigned(value, _WIDTHS[kind], attribute.name)
    elif isinstance(value, str):
        if "\0" in value:
            raise impossible(f"{attribute.name} without a zero octet", "one")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise impossible(f"{attribute.name} in UTF-8", "a surrogate") from None
    elif isinstance(value, SecretBytes) and len(value) > 0xFFFF:
        raise impossible(f"{attribute.name} of at most 65535 octets", str(len(value)))


def _write_ike_id(value: IkeId) -> bytes:
    spis = value.initiator_spi.to_bytes(8, "big") + value.responder_spi.to_bytes(8, "big")
    return bytes([value.version]) + spis + bytes([value.initiator])


def _write_host(value: Host) -> bytes:
    family = AF_INET if value.address.version == 4 else AF_INET6
    return value.port.to_bytes(2, "big") + bytes([family]) + value.address.packed


def _write_selector(value: Selector) -> bytes:
    kind = TS_IPV4 if value.first.version == 4 else TS_IPV6
    ports = value.first_port.to_bytes(2, "big") + value.last_port.to_bytes(2, "big")
    head = bytes([kind, value.protocol]) + ports + bytes([value.dynamic])
    return head + value.first.packed + value.last.packed


_WRITE: Final[dict[Kind, Callable[..., bytes]]] = {
    Kind.IKE_ID: _write_ike_id,
    Kind.IDENTITY: lambda value: bytes([value.type, len(value.data)]) + value.data,
    Kind.HOST: _write_host,
    Kind.NAME: lambda value: value.encode() + b"\0",
    Kind.U8: lambda value: value.to_bytes(1, "big"),
    Kind.U16: lambda value: value.to_bytes(2, "big"),
    Kind.U32: lambda value: value.to_bytes(4, "big"),
    Kind.SPI: lambda value: value.to_bytes(4, "little"),
    Kind.CPI: lambda value: value.to_bytes(2, "little"),
    Kind.CHUNK: lambda value: len(value).to_bytes(2, "big") + value.reveal(),
    Kind.SELECTOR: _write_selector,
}
_TYPES: Final[dict[Kind, type]] = {
    Kind.IKE_ID: IkeId,
    Kind.IDENTITY: Identity,
    Kind.HOST: Host,
    Kind.NAME: str,
    Kind.CHUNK: SecretBytes,
    Kind.SELECTOR: Selector,
    **dict.fromkeys((Kind.U8, Kind.U16, Kind.U32, Kind.SPI, Kind.CPI), int),
}
_WIDTHS: Final = {Kind.U8: 1, Kind.U16: 2, Kind.U32: 4, Kind.SPI: 4, Kind.CPI: 2}
"""charon writes SPIs and CPIs with htonl and htons although they are in network order already: on a
little-endian machine their octets are reversed. On a big-endian one they would not be."""
