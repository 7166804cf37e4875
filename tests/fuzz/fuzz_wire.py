"""Coverage-guided fuzzing of `mobikectl.wire`: any octets parse or raise DecodeError, and what parsed is written back.

    python tests/fuzz/fuzz_wire.py -atheris_runs=100000 CORPUS_DIRECTORY
    python tests/fuzz/fuzz_wire.py --seed CORPUS_DIRECTORY     # fills it from tests/vectors

The first octet of an input chooses the entry point, the second the dialect.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mobikectl"]):
    from mobikectl.errors import DecodeError
    from mobikectl.wire import json as wire_json
    from mobikectl.wire.dialects import DIALECTS
    from mobikectl.wire.ha import HaMessage
    from mobikectl.wire.ike import Message, decode_chain, encode_chain, without_marker
    from mobikectl.wire.notify import Dialect, Notify
    from mobikectl.wire.pcap import read_capture
    from mobikectl.wire.pfkey import AddressUpdate

VECTORS = Path(__file__).parents[1] / "vectors"
SPOKEN = list(DIALECTS.values())


def message(data: bytes, dialect: Dialect) -> None:
    bare = without_marker(data)
    read = Message.from_bytes(bare)
    assert read.to_bytes() == bare
    shown = json.loads(json.dumps(wire_json.message_to_json(read, dialect)))
    assert wire_json.message_from_json(shown, dialect) == read


def chain(data: bytes, dialect: Dialect) -> None:
    read = decode_chain(data[1:], data[0] if data else 0)
    assert encode_chain(read) == data[1:]
    shown = json.loads(json.dumps(wire_json.chain_to_json(read, dialect)))
    assert wire_json.chain_from_json(shown, dialect) == read


def notify(data: bytes, dialect: Dialect) -> None:
    read = Notify.from_body(data)
    assert read.to_body() == data
    typed = dialect.decode(read)
    if typed is not None:
        assert dialect.encode(typed).data == read.data


def pf_key(data: bytes, dialect: Dialect) -> None:
    del dialect
    read = AddressUpdate.from_bytes(data)
    assert AddressUpdate.from_bytes(read.to_bytes()) == read


def capture(data: bytes, dialect: Dialect) -> None:
    del dialect
    for datagram in read_capture(data):
        assert len(datagram.message) <= len(data)


def ha(data: bytes, dialect: Dialect) -> None:
    del dialect
    read = HaMessage.from_bytes(data)
    assert read.to_bytes() == data
    assert HaMessage(read.kind, read.items) == read


def text(data: bytes, dialect: Dialect) -> None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    wire_json.message_from_json(value, dialect).to_bytes()


ENTRIES = (message, chain, notify, pf_key, capture, text, ha)


def one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    try:
        ENTRIES[data[0] % len(ENTRIES)](data[2:], SPOKEN[data[1] % len(SPOKEN)])
    except DecodeError:
        return


def seeds() -> list[bytes]:
    """The vectors' octets, each as an input for the entry that reads it."""
    found = []
    for path in sorted(VECTORS.glob("*.toml")):
        for row in tomllib.loads(path.read_text()).get("vector", []):
            octets = bytes.fromhex(re.sub(r"#.*|\s", "", row["hex"]))
            form = row.get("form", "payloads")
            for dialect in range(len(SPOKEN)):
                if form == "message":
                    found.append(bytes([0, dialect]) + octets)
                    shown = wire_json.message_to_json(Message.from_bytes(octets), SPOKEN[dialect])
                    found.append(bytes([5, dialect]) + json.dumps(shown).encode())
                elif form == "pf_key":
                    found.append(bytes([3, dialect]) + octets)
                else:
                    found.append(bytes([1, dialect, 41]) + octets)
                    found.append(bytes([2, dialect]) + octets[4:])
    for session in tomllib.loads((VECTORS / "ha-5.9.8.toml").read_text())["session"]:
        found += [bytes([6, 0]) + bytes.fromhex(octets) for _, octets in session["messages"]]
    found += [bytes([4, 0]) + path.read_bytes() for path in sorted(VECTORS.glob("*.pcap"))]
    return found


def main() -> None:
    if sys.argv[1:2] == ["--seed"]:
        directory = Path(sys.argv[2])
        directory.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds()):
            (directory / f"seed-{number:04d}").write_bytes(seed)
        return
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
