"""``mobikectl decode`` and ``mobikectl encode``: what is on the wire, explained with document and section."""

from __future__ import annotations

import base64
import binascii
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from mobikectl.cli.output import coloured, console, json_option, print_json, print_table
from mobikectl.errors import DecodeError
from mobikectl.wire import json as wire_json
from mobikectl.wire import registry
from mobikectl.wire.dialects import DIALECTS, EVERY
from mobikectl.wire.ike import Flags, Message, decode_chain, encode_chain, without_marker
from mobikectl.wire.notify import Dialect, Notify
from mobikectl.wire.pcap import is_capture, read_capture
from mobikectl.wire.pfkey import PF_KEY_V2, SADB_X_ADDUPD, AddressUpdate
from mobikectl.wire.rmobike import SWITCH_TO_IP_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mobikectl.wire.pfkey import ByteOrder

MAX_INPUT = 64 * 1024 * 1024
"""Octets read at most."""
MAX_SHOWN = 32
"""Octets of a value shown to people; JSON has them all."""

_HEX = re.compile(r"(?:0[xX])?[0-9a-fA-F\s:]+")
_COLUMNS = ("octet", "payload", "name", "specified in", "what it says")


def _dialect_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option(
        "--switch-number",
        type=click.IntRange(0, 65535),
        default=SWITCH_TO_IP_ADDRESS,
        show_default=True,
        help="Notify type of SWITCH_TO_IP_ADDRESS (its draft has no number).",
    )(function)
    return click.option(
        "--dialect",
        type=click.Choice(sorted(DIALECTS)),
        default=EVERY.name,
        show_default=True,
        help="Whose numbers and formats: the drafts reuse them.",
    )(function)


@click.command()
@click.argument("source", metavar="[INPUT]", default="-")
@click.option(
    "--as",
    "kind",
    type=click.Choice(["auto", "message", "payloads", "pf_key"]),
    default="auto",
    show_default=True,
    help="What the octets are: an IKE message, a payload chain (the inside of SK), or a PF_KEY message.",
)
@click.option(
    "--first", default="N", show_default=True, help="Type of a chain's first payload, name or number."
)
@click.option("--type", "notify_type", help="The octets are the data of this notify (name or number).")
@click.option(
    "--byte-order", type=click.Choice(["little", "big"]), default=sys.byteorder, help="Of PF_KEY's host."
)
@_dialect_options
@json_option
def decode(
    source: str,
    kind: str,
    first: str,
    notify_type: str | None,
    byte_order: ByteOrder,
    dialect: str,
    switch_number: int,
    as_json: bool,
) -> int:
    """Explain IKEv2 octets: every payload with its document and section.

    INPUT is hex, base64, the name of a file (pcap, pcapng, or any of the other forms), or - for standard
    input. In a capture, every plaintext IKE message on ports 500 and 4500 is explained.

    \b
      mobikectl decode 00000010000040113132333435363738
      tcpdump -U -w - udp port 500 | mobikectl decode
    """  # noqa: D301 (click reads the backspace)
    spoken = DIALECTS[dialect].with_number("SWITCH_TO_IP_ADDRESS", switch_number)
    data = _read(source)
    if notify_type is not None:
        result: dict[str, Any] = {"notify": _notify_data(data, notify_type, spoken)}
    elif is_capture(data):
        result = {"datagrams": list(_datagrams(data, spoken))}
    else:
        result = _decode_octets(data, kind if kind != "auto" else _guess(data), first, byte_order, spoken)
    result = {"dialect": dialect} | result
    if as_json:
        print_json(result)
    else:
        _show(result)
    return DecodeError.exit_code if _has_error(result) else 0


@click.command()
@click.argument("source", metavar="[INPUT]", default="-")
@click.option("--base64", "as_base64", is_flag=True, help="Print base64 instead of hex.")
@click.option(
    "--byte-order", type=click.Choice(["little", "big"]), default=sys.byteorder, help="Of PF_KEY's host."
)
@_dialect_options
def encode(source: str, as_base64: bool, byte_order: ByteOrder, dialect: str, switch_number: int) -> None:
    """Turn JSON (as ``decode --json`` prints it) back into octets.

    INPUT is JSON, the name of a file, or - for standard input. One line for each message.

    \b
      mobikectl encode '{"notify": {"name": "SWITCH_TO_IP_ADDRESS", "value": {"address": "198.18.0.2"}}}'
    """  # noqa: D301 (click reads the backspace)
    spoken = DIALECTS[dialect].with_number("SWITCH_TO_IP_ADDRESS", switch_number)
    for octets in _encode(_parse_json(_read_octets(source)), byte_order, spoken):
        click.echo(base64.b64encode(octets).decode("ascii") if as_base64 else octets.hex())


# --- input --------------------------------------------------------------------------------------


def _read_octets(source: str) -> bytes:
    """Given INPUT, return the octets of standard input, of the file it names, or of the text itself."""
    if source == "-":
        return _bounded(sys.stdin.buffer)
    try:
        is_file = len(source) < 4096 and Path(source).is_file()
    except (OSError, ValueError):  # no file name at all: too long, or with a zero octet
        is_file = False
    if not is_file:
        return source.encode("utf-8", "surrogateescape")
    with Path(source).open("rb") as file:
        return _bounded(file)


def _bounded(file: BinaryIO) -> bytes:
    data = file.read(MAX_INPUT + 1)
    if len(data) > MAX_INPUT:
        raise DecodeError(
            f"more than {MAX_INPUT} octets of input", hint="filter the capture: udp port 500 or 4500"
        )
    return data


def _read(source: str) -> bytes:
    """Given INPUT, return the octets it stands for. Raise DecodeError."""
    data = _read_octets(source)
    if is_capture(data):
        return data
    try:
        text = data.decode("ascii").strip()
    except UnicodeDecodeError:
        return data  # octets as they are, from a file or a pipe
    try:
        if _HEX.fullmatch(text):
            return bytes.fromhex(re.sub(r"^0[xX]|[\s:]", "", text))
        return base64.b64decode("".join(text.split()), validate=True)
    except (ValueError, binascii.Error):
        raise DecodeError(
            f"neither hex nor base64 nor a file: {text[:60]!a}", hint="an odd number of hex digits?"
        ) from None


def _parse_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError(
            f"not JSON: {error}", hint="give JSON as `mobikectl decode --json` prints it"
        ) from None


def _guess(data: bytes) -> str:
    bare = without_marker(data)
    if len(bare) >= 28 and bare[17] >> 4 == 2 and int.from_bytes(bare[24:28], "big") == len(bare):
        return "message"
    return "pf_key" if data[:2] == bytes([PF_KEY_V2, SADB_X_ADDUPD]) else "payloads"


# --- decode -------------------------------------------------------------------------------------


def _decode_octets(data: bytes, kind: str, first: str, order: ByteOrder, dialect: Dialect) -> dict[str, Any]:
    if kind == "message":
        bare = without_marker(data)
        message = Message.from_bytes(bare, len(data) - len(bare))
        return {"message": wire_json.message_to_json(message, dialect)}
    if kind == "pf_key":
        return {"pf_key": wire_json.pfkey_to_json(AddressUpdate.from_bytes(data, order))}
    try:
        chain = decode_chain(data, wire_json.payload_type(_name_or_number(first), dialect))
    except DecodeError as error:
        error.hint = (
            error.hint or "read as a payload chain; say --as, --first or --type if it is something else"
        )
        raise
    return {"payloads": wire_json.chain_to_json(chain, dialect)}


def _notify_data(data: bytes, name: str, dialect: Dialect) -> dict[str, Any]:
    wanted = _name_or_number(name)
    number = wanted if isinstance(wanted, int) else dialect.named(wanted).number
    return wire_json.notify_to_json(Notify(number, data), dialect, -8)


def _name_or_number(text: str) -> str | int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


def _datagrams(data: bytes, dialect: Dialect) -> Iterator[dict[str, Any]]:
    for datagram in read_capture(data):
        shown: dict[str, Any] = {
            "time": datagram.time,
            "from": f"{datagram.source} port {datagram.source_port}",
            "to": f"{datagram.destination} port {datagram.destination_port}",
        }
        try:
            message = Message.from_bytes(datagram.message)
        except DecodeError as error:
            yield shown | {"error": error.message}
        else:
            yield shown | {"message": wire_json.message_to_json(message, dialect)}


def _has_error(value: Any) -> bool:
    if isinstance(value, dict):
        return "error" in value or any(_has_error(item) for item in value.values())
    return isinstance(value, list) and any(_has_error(item) for item in value)


# --- for people ---------------------------------------------------------------------------------


def _show(result: dict[str, Any]) -> None:
    if "datagrams" in result:
        for number, datagram in enumerate(result["datagrams"], 1):
            console.print(
                f"datagram {number}: {datagram['from']} -> {datagram['to']}", style="bold", markup=False
            )
            if "error" in datagram:
                console.print(f"  not readable: {datagram['error']}", style="red", markup=False)
            else:
                _show_message(datagram["message"])
        if not result["datagrams"]:
            console.print("no IKE message in this capture")
    elif "message" in result:
        _show_message(result["message"])
    elif "payloads" in result:
        print_table(_COLUMNS, (_row(payload) for payload in result["payloads"]), empty="no payloads")
    elif "notify" in result:
        print_table(_COLUMNS[1:], [_row({"payload": "N", "notify": result["notify"]})[1:]])
    else:
        says = f"SADB_X_ADDUPD {_values(result['pf_key'])}"
        print_table(_COLUMNS[2:], [("PF_KEY", "draft-dupont-ikev2-addrmgmt-06 section E", says)])


def _show_message(message: dict[str, Any]) -> None:
    exchange = message["exchange"]
    source = {name: registry.EXCHANGES[int(number)] for name, number in wire_json.EXCHANGE_NUMBERS.items()}
    where = f" ({source[exchange]})" if exchange in source else ""
    role = "request" if not message["response"] else "response"
    sender = "initiator" if message["flags"] & Flags.INITIATOR else "responder"
    console.print(
        f"{exchange} {role}{where}, message ID {message['message_id']}, from the original {sender}\n"
        f"  SPIs {message['initiator_spi']} (initiator) {message['responder_spi']} (responder)",
        markup=False,
    )
    print_table(_COLUMNS, (_row(payload) for payload in message["payloads"]), empty="  no payloads")


def _row(payload: dict[str, Any]) -> tuple[object, ...]:
    inner = payload.get("notify") or payload
    says: object = _says(payload, inner)
    error = inner.get("error") or payload.get("error")
    if error:
        says = coloured(f"malformed: {error}", "red")
    name = inner.get("name") or inner.get("number", "")
    where = inner.get("source") or ("unknown to this dialect" if "notify" in payload else "")
    mark = "!" if payload.get("critical") else ""
    return (payload.get("offset", ""), f"{payload['payload']}{mark}", str(name), where, says)


def _says(payload: dict[str, Any], inner: dict[str, Any]) -> str:
    for key in ("delete", "peer_address_update"):
        if key in payload:
            return f"{inner.get('meaning', '')}: {_values(payload[key])}"
    data = inner.get("data")
    values = _values(inner["value"]) if inner.get("value") else ""
    if data:
        octets = len(data) // 2
        values = f"{octets} octets" if octets > MAX_SHOWN else f"{octets} octets: {data}"
    extra = f"first inside: {payload['first_inside']}" if "first_inside" in payload else ""
    if inner.get("spi"):
        extra = f"SPI {inner['spi']}"
    return "; ".join(part for part in (inner.get("meaning", ""), values, extra) if part)


def _values(value: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_short(item)}" for name, item in value.items() if item not in ("", [], None))


def _short(item: Any) -> str:
    if isinstance(item, dict):
        return _values(item)
    if isinstance(item, list):
        shown = " ".join(str(entry) for entry in item[:MAX_SHOWN])
        return shown if len(item) <= MAX_SHOWN else f"{shown} ... ({len(item)})"
    text = str(item)
    return text if len(text) <= 2 * MAX_SHOWN else f"{text[: 2 * MAX_SHOWN]}... ({len(text) // 2} octets)"


# --- encode -------------------------------------------------------------------------------------


def _encode(value: Any, order: ByteOrder, dialect: Dialect) -> Iterator[bytes]:
    match value:
        case {"datagrams": [*datagrams]}:
            for datagram in datagrams:
                if not isinstance(datagram, dict) or "message" not in datagram:
                    raise DecodeError("a datagram without a message", hint="leave out those with an error")
                yield wire_json.message_from_json(datagram["message"], dialect).to_bytes()
        case {"message": message}:
            yield wire_json.message_from_json(message, dialect).to_bytes()
        case {"payloads": chain}:
            yield encode_chain(wire_json.chain_from_json(chain, dialect))
        case {"notify": notify}:
            yield encode_chain((wire_json.payload_from_json({"payload": "N", "notify": notify}, dialect),))
        case {"pf_key": update}:
            yield wire_json.pfkey_from_json(update).to_bytes(order)
        case _:
            raise DecodeError(
                "the JSON holds none of: message, payloads, notify, pf_key, datagrams",
                hint="`mobikectl decode --json` prints the form",
            )
