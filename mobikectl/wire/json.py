"""The JSON form of everything on the wire, both ways.

Octets are hex, addresses text, SPIs hex of their width, enumerations their names. Reading is strict: an
unknown or missing key is an error that names it. Keys that only explain (``source``, ``meaning``, ...) may be
there and are passed over, so that what `to_json` and `mobikectl decode --json` print can be read back.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, TypeVar

from mobikectl.errors import DecodeError
from mobikectl.wire import registry
from mobikectl.wire.dialects import CURRENT
from mobikectl.wire.dupont import PeerAddressOperation, PeerAddressUpdate, UpdateProtocol
from mobikectl.wire.ike import (
    ENCRYPTED,
    MAX_PAYLOADS,
    Content,
    Delete,
    ExchangeType,
    Flags,
    Message,
    Payload,
    PayloadType,
    data_offset,
    interpret,
    payload_name,
    placed,
)
from mobikectl.wire.mobike import MobikeSupported
from mobikectl.wire.notify import Dialect, Notify, NotifyData
from mobikectl.wire.pfkey import AddressUpdate, SaType
from mobikectl.wire.reader import impossible
from mobikectl.wire.redirect import Fqdn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Json = dict[str, Any]
T = TypeVar("T")

EXPLAINING = frozenset({"source", "meaning", "offset", "size", "error", "time", "from", "to"})
"""Keys that explain and are passed over when reading."""


# --- single values ------------------------------------------------------------------------------


def _found(value: object) -> str:
    """Given any JSON, return a few words for an error; it may be huge, or deeper than repr can go."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return repr(value[:60] if isinstance(value, str) else value)[:80]


def _hex(value: object) -> bytes:
    try:
        return bytes.fromhex(_text(value))
    except ValueError:
        raise impossible("octets in hex", _found(value)) from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise impossible("a text", _found(value))
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise impossible("a whole number", _found(value))
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise impossible("true or false", _found(value))
    return value


def _address(value: object) -> IPv4Address | IPv6Address:
    try:
        return ip_address(_text(value))
    except ValueError:
        raise impossible("an IP address", _found(value)) from None


def _of_version(kind: type[T]) -> Callable[[object], T]:
    def read(value: object) -> T:
        address = _address(value)
        if not isinstance(address, kind):
            raise impossible(f"an {kind.__name__}", str(address))
        return address

    return read


def _gateway(value: object) -> IPv4Address | IPv6Address | Fqdn:
    return (
        Fqdn(_text(value["fqdn"])) if isinstance(value, dict) and set(value) == {"fqdn"} else _address(value)
    )


def _named(kind: type[Any]) -> Callable[[object], Any]:
    def read(value: object) -> Any:
        try:
            return kind[_text(value)]
        except KeyError:
            raise impossible(" or ".join(member.name for member in kind), _found(value)) from None

    return read


def _spi(value: object) -> int:
    octets = _hex(value)
    if len(octets) != 4:
        raise impossible("an SPI of 4 octets in hex", _found(value))
    return int.from_bytes(octets, "big")


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise impossible("a list", _found(value))
    return value


_READ: Mapping[str, Callable[[object], Any]] = {
    "bytes": _hex,
    "int": _number,
    "bool": _flag,
    "IpAddress": _address,
    "IPv4Address": _of_version(IPv4Address),
    "IPv6Address": _of_version(IPv6Address),
    "IPv4Address | IPv6Address": _address,
    "GatewayIdentity": _gateway,
    "PeerAddressOperation": _named(PeerAddressOperation),
    "UpdateProtocol": _named(UpdateProtocol),
    "SaType": _named(SaType),
    "tuple[int, ...]": lambda value: tuple(_spi(item) for item in _list(value)),
    "tuple[bytes, ...]": lambda value: tuple(_hex(item) for item in _list(value)),
}
"""How a field is read, by its annotation."""


def _show(value: object, annotation: str) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [item.hex() if isinstance(item, bytes) else f"{item:08x}" for item in value]
    if isinstance(value, Fqdn):
        return {"fqdn": value.name}
    if isinstance(value, (PeerAddressOperation, UpdateProtocol, SaType)):
        return value.name
    return value if annotation in {"int", "bool"} else str(value)


def fields_to_json(value: Any) -> Json:
    """Given a typed notify, `Delete`, `PeerAddressUpdate` or `AddressUpdate`, return its fields."""
    return {field.name: _show(getattr(value, field.name), str(field.type)) for field in fields(value)}


def fields_from_json(kind: type[T], value: object) -> T:
    """Given such a class and its fields in JSON, return the value. Raise DecodeError naming the key."""
    given = _object(value, kind.__name__)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    _no_others(given, known.keys(), kind.__name__)
    read: Json = {}
    for name, field in known.items():
        if name in given:
            read[name] = _at(name, _READ[str(field.type)], given[name])
        elif field.default is MISSING:
            raise impossible(f"the key {name!r} in {kind.__name__}", "none")
    return kind(**read)


def _object(value: object, what: str) -> Json:
    if not isinstance(value, dict):
        raise impossible(f"an object for {what}", _found(value))
    return value


def _no_others(given: Json, known: Any, what: str) -> None:
    others = set(given) - set(known) - EXPLAINING
    if others:
        raise impossible(
            f"only the keys {', '.join(sorted(known))} in {what}", ", ".join(sorted(map(repr, others)))
        )


def _at(name: str, read: Callable[[object], T], value: object) -> T:
    try:
        return read(value)
    except DecodeError as error:
        raise DecodeError(f"{name}: {error.message}", hint=error.hint, expected=error.expected) from None


# --- payloads and messages ----------------------------------------------------------------------


def notify_to_json(notify: Notify, dialect: Dialect = CURRENT, at: int = 0) -> Json:
    """Given a notify payload, return its JSON: with ``value`` when it has a typed form that says it all.

    Otherwise with its octets as ``data``, and with an ``error`` when they are malformed. ``at``: the offset
    of its generic payload header in the whole input.
    """
    codec = dialect.codec(notify.type)
    shown: Json = {"name": codec.name} if codec else {}
    shown |= {"number": notify.type, "protocol_id": notify.protocol_id, "spi": notify.spi.hex()}
    if codec:
        shown |= {"source": str(codec.source), "meaning": codec.meaning}
    try:
        typed = dialect.decode(notify, at + data_offset(notify))
    except DecodeError as error:
        return shown | {"data": notify.data.hex(), "error": error.message}
    if isinstance(typed, MobikeSupported) and typed.responder_initiated:
        shown |= {"source": str(registry.RESPONDER_INITIATED[0]), "meaning": registry.RESPONDER_INITIATED[1]}
    return shown | ({"data": notify.data.hex()} if typed is None else {"value": fields_to_json(typed)})


def notify_from_json(value: object, dialect: Dialect = CURRENT) -> Notify:
    """Given a notify's JSON, return it. The number may be left out when the dialect knows the name.

    Raise DecodeError when it is not one, or says two different things.
    """
    given = _object(value, "a notify")
    _no_others(given, {"name", "number", "protocol_id", "spi", "value", "data"}, "a notify")
    codec = dialect.named(_at("name", _text, given["name"])) if "name" in given else None
    if codec is None and "number" not in given:
        raise impossible("'name' or 'number' in a notify", "neither")
    number = _at("number", _number, given["number"]) if codec is None or "number" in given else codec.number
    if codec is not None and codec.number != number:
        raise impossible(f"number {codec.number} for {codec.name}", str(number))
    codec = codec or dialect.codec(number)
    default_id = codec.protocol_id if codec else 0
    protocol_id = _at("protocol_id", _number, given.get("protocol_id", default_id))
    spi = _at("spi", _hex, given.get("spi", ""))
    if "data" in given and "value" in given:
        raise impossible("'data' or 'value' in a notify", "both")
    if "data" in given:
        return Notify(number, _at("data", _hex, given["data"]), protocol_id, spi)
    if codec is None or codec.kind is None:
        return Notify(number, b"", protocol_id, spi)
    typed: NotifyData = _at("value", lambda v: fields_from_json(codec.kind, v), given.get("value", {}))  # type: ignore[arg-type]
    return Notify(number, dialect.encode(typed).data, protocol_id, spi)


def payload_to_json(payload: Payload, dialect: Dialect = CURRENT, at: int = 0) -> Json:
    """Given a payload, return its JSON. ``at``: the offset of its generic header in the whole input."""
    update = dialect.update_payload is not None and payload.type == dialect.update_payload
    shown: Json = {"payload": "U" if update else _payload_key(payload.type)}
    if payload.critical:
        shown["critical"] = True
    if payload.reserved:
        shown["reserved"] = payload.reserved
    if payload.first_inside:
        shown["first_inside"] = _payload_key(payload.first_inside)
    explained = registry.UPDATE_PAYLOAD if update else registry.PAYLOADS.get(payload.type)
    if explained is not None and payload.type != PayloadType.N:
        shown |= {"source": str(explained[0]), "meaning": explained[1]}
    shown |= {"offset": at, "size": payload.size}
    try:
        content = interpret(payload, dialect, at)
    except DecodeError as error:
        return shown | {"data": payload.body.hex(), "error": error.message}
    return shown | _content_to_json(content, dialect, at)


def _content_to_json(content: Content, dialect: Dialect, at: int) -> Json:
    match content:
        case Notify():
            return {"notify": notify_to_json(content, dialect, at)}
        case Delete():
            return {"delete": fields_to_json(content)}
        case PeerAddressUpdate():
            return {"peer_address_update": fields_to_json(content)}
        case bytes():
            return {"data": content.hex()}


def _payload_key(kind: int) -> str | int:
    name = payload_name(kind)
    return kind if name.isdigit() else name


_PAYLOADS = {payload_name(kind): int(kind) for kind in PayloadType}


EXCHANGE_NUMBERS: Mapping[str, int] = {exchange.name: int(exchange) for exchange in ExchangeType}
"""Exchange types by name."""


def payload_type(value: object, dialect: Dialect = CURRENT) -> int:
    """Given a payload's short name (``N``, ``D``, ``U``, ...) or number, return its type. Raise DecodeError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if value == "U" and dialect.update_payload is not None:
        return dialect.update_payload
    try:
        return _PAYLOADS[_text(value)]
    except KeyError:
        raise impossible("a payload's short name (N, D, SA, ...) or number", _found(value)) from None


def payload_from_json(value: object, dialect: Dialect = CURRENT) -> Payload:
    """Given a payload's JSON, return it. Raise DecodeError when it is not one."""
    given = _object(value, "a payload")
    contents = {"notify", "delete", "peer_address_update", "data"}
    _no_others(given, {"payload", "critical", "reserved", "first_inside"} | contents, "a payload")
    if "payload" not in given:
        raise impossible("the key 'payload' in a payload", "none")
    kind = payload_type(given["payload"], dialect)
    if len(contents & given.keys()) > 1:
        raise impossible("one content in a payload", ", ".join(sorted(contents & given.keys())))
    if "notify" in given:
        body = notify_from_json(given["notify"], dialect).to_body()
    elif "delete" in given:
        body = fields_from_json(Delete, given["delete"]).to_body()
    elif "peer_address_update" in given:
        body = fields_from_json(PeerAddressUpdate, given["peer_address_update"]).to_body()
    else:
        body = _at("data", _hex, given.get("data", ""))
    inside = payload_type(given.get("first_inside", 0), dialect) if kind in ENCRYPTED else 0
    critical = _at("critical", _flag, given.get("critical", False))
    return Payload(kind, body, critical, _at("reserved", _number, given.get("reserved", 0)), inside)


def chain_to_json(payloads: tuple[Payload, ...], dialect: Dialect = CURRENT, at: int = 0) -> list[Json]:
    """Given a payload chain and where it starts, return its JSON."""
    return [payload_to_json(payload, dialect, offset) for offset, payload in placed(payloads, at)]


def chain_from_json(value: object, dialect: Dialect = CURRENT) -> tuple[Payload, ...]:
    """Given a list of payloads in JSON, return the chain. Raise DecodeError."""
    given = _list(value)
    if len(given) > MAX_PAYLOADS:
        raise impossible(f"at most {MAX_PAYLOADS} payloads", str(len(given)))
    return tuple(
        _at(f"payload {number}", lambda item: payload_from_json(item, dialect), item)
        for number, item in enumerate(given, 1)
    )


def message_to_json(message: Message, dialect: Dialect = CURRENT) -> Json:
    """Given a message, return its JSON."""
    exchange = message.exchange
    known_exchange = exchange in ExchangeType.__members__.values()
    return {
        "initiator_spi": f"{message.initiator_spi:016x}",
        "responder_spi": f"{message.responder_spi:016x}",
        "version": f"2.{message.minor_version}",
        "exchange": ExchangeType(exchange).name if known_exchange else exchange,
        "flags": message.flags,
        "initiator": message.from_initiator,
        "response": message.is_response,
        "message_id": message.message_id,
        "payloads": [payload_to_json(payload, dialect, at) for at, payload in message.placed()],
    }


def message_from_json(value: object, dialect: Dialect = CURRENT) -> Message:
    """Given a message's JSON, return it; ``flags`` or both ``initiator`` and ``response``. Raise DecodeError."""
    given = _object(value, "a message")
    keys = {"initiator_spi", "responder_spi", "version", "exchange", "flags", "message_id", "payloads"}
    _no_others(given, keys | {"initiator", "response"}, "a message")
    missing = {"initiator_spi", "exchange", "message_id"} - given.keys()
    if missing:
        raise impossible("the keys " + ", ".join(sorted(missing)) + " in a message", "none")
    return Message(
        int.from_bytes(_at("initiator_spi", _hex, given["initiator_spi"]), "big"),
        int.from_bytes(_at("responder_spi", _hex, given.get("responder_spi", "")), "big"),
        _at("exchange", _exchange, given["exchange"]),
        _flags(given),
        _at("message_id", _number, given["message_id"]),
        _at("payloads", lambda chain: chain_from_json(chain, dialect), given.get("payloads", [])),
        _at("version", _minor, given.get("version", "2.0")),
    )


def _exchange(value: object) -> int:
    return _number(value) if isinstance(value, int) else int(_named(ExchangeType)(value))


def _minor(value: object) -> int:
    major, _, minor = _text(value).partition(".")
    if major != "2" or not (minor.isascii() and minor.isdigit()) or len(minor) > 2:
        raise impossible("version 2.x", _found(value))
    return int(minor)


def _flags(given: Json) -> int:
    named = 0
    for name, bit in (("initiator", Flags.INITIATOR), ("response", Flags.RESPONSE)):
        named |= bit if _at(name, _flag, given.get(name, False)) else 0
    if "flags" not in given:
        return int(named)
    flags = _at("flags", _number, given["flags"])
    for name, bit in (("initiator", Flags.INITIATOR), ("response", Flags.RESPONSE)):
        if name in given and bool(flags & bit) is not given[name]:
            raise impossible(f"{name!r} to agree with 'flags'", f"{given[name]} and {flags:#04x}")
    return flags


def pfkey_to_json(update: AddressUpdate) -> Json:
    """Given SADB_X_ADDUPD, return its JSON."""
    return fields_to_json(update) | {"spi": f"{update.spi:08x}"}


def pfkey_from_json(value: object) -> AddressUpdate:
    """Given SADB_X_ADDUPD's JSON, return it. Raise DecodeError."""
    given = _object(value, "SADB_X_ADDUPD")
    if "spi" in given:
        given = given | {"spi": _at("spi", _spi, given["spi"])}
    return fields_from_json(AddressUpdate, given)
