"""`mobikectl decode` explains octets with document and section; `mobikectl encode` turns the JSON back."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mobikectl.cli.decode import decode, encode
from mobikectl.errors import DecodeError

VECTORS = Path(__file__).parents[2] / "vectors"
COOKIE = "00000010 00004011 3132333435363738"


def run(command: Any, *arguments: str, stdin: bytes | str = "") -> Result:
    return CliRunner().invoke(command, arguments, input=stdin, standalone_mode=False, env={"COLUMNS": "200"})


def documents() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    found = []
    for path in sorted(VECTORS.glob("*.toml")):
        content = tomllib.loads(path.read_text())
        found += [(path.stem, content, row) for row in content.get("vector", [])]
    return found


@pytest.mark.parametrize(
    ("stem", "content", "row"), documents(), ids=lambda v: v.get("name") if isinstance(v, dict) else v
)
def test_the_examples_of_every_document_are_explained(
    stem: str, content: dict[str, Any], row: dict[str, Any]
) -> None:
    octets = re.sub(r"#.*|\s", "", row["hex"])
    arguments = [
        octets,
        "--dialect",
        content["dialect"],
        "--first",
        row.get("first", "N"),
        "--byte-order",
        "little",
    ]
    result = run(decode, *arguments)
    malformed = any("error" in entry for entry in row.get("expect", []))
    assert result.exception is None
    assert result.return_value == (DecodeError.exit_code if malformed else 0)
    shown = " ".join(result.output.split())
    for entry in row.get("expect", []):
        assert entry.get("name", entry.get("payload")) in shown
        assert ("malformed" in shown) == malformed
    assert shown.count(" section ") >= len(row.get("expect", ()))
    if stem != "charon-5.9.8" and all("name" in entry for entry in row.get("expect", [])):
        assert content["document"] in shown or row["section"] in {"4.1", "4.2"}, (
            "those repeat RFC 4555's notifies"
        )
    again = run(
        encode,
        "--dialect",
        content["dialect"],
        "--byte-order",
        "little",
        stdin=run(decode, "--json", *arguments).output,
    )
    assert again.exception is None
    assert again.output.strip() == octets.lower()


@pytest.mark.parametrize(
    "text",
    [
        COOKIE,
        COOKIE.replace(" ", ""),
        "0x" + COOKIE.replace(" ", ""),
        COOKIE.replace(" ", ":").upper(),
        base64.b64encode(bytes.fromhex(COOKIE)).decode(),
    ],
)
def test_hex_and_base64_are_read_from_the_argument_and_from_standard_input(text: str) -> None:
    for result in (run(decode, text), run(decode, stdin=text + "\n"), run(decode, "-", stdin=text)):
        assert result.exception is None
        assert "RFC 4555 section 4.2.5" in result.output
        assert "cookie=3132333435363738" in result.output


def test_octets_as_they_are_come_from_a_pipe_or_a_file(tmp_path: Path) -> None:
    octets = bytes.fromhex("0000000c0000400dc6120002")
    (tmp_path / "octets").write_bytes(octets)
    for result in (run(decode, stdin=octets), run(decode, str(tmp_path / "octets"))):
        assert "address=198.18.0.2" in result.output


def test_a_capture_is_explained_message_by_message() -> None:
    path = VECTORS / "charon-5.9.8.pcap"
    for result in (run(decode, str(path)), run(decode, stdin=path.read_bytes())):
        assert result.exception is None
        assert "datagram 1: 198.18.1.1 port 500 -> 198.18.9.1 port 500" in result.output
        assert "IKE_SA_INIT request (RFC 7296 section 1.2)" in result.output
        assert "NAT_DETECTION_DESTINATION_IP" in result.output
        assert "not readable without keys" in result.output


def test_a_capture_goes_through_json_and_back_to_its_messages() -> None:
    shown = run(decode, "--json", str(VECTORS / "charon-5.9.8.pcap")).output
    lines = run(encode, stdin=shown).output.split()
    assert len(lines) == len(json.loads(shown)["datagrams"])
    for line in lines:
        assert run(decode, line).return_value == 0


def test_json_gives_the_octet_where_each_payload_starts() -> None:
    shown = json.loads(run(decode, "--json", "29000008 0000400c 0000000c 0000400d c6120102").output)
    assert [payload["offset"] for payload in shown["payloads"]] == [0, 8]
    assert shown["payloads"][1]["notify"]["value"] == {"address": "198.18.1.2"}


def test_the_dialect_decides_what_a_number_means() -> None:
    draft = "0000000d 00004017 01c6120002"
    assert "malformed" in run(decode, draft).output
    assert "gateway=198.18.0.2" in run(decode, draft, "--dialect", "redirect-01").output
    switch = "0000000c 00009fff c6120002"
    assert "unknown to this dialect" in run(decode, switch).output
    assert "SWITCH_TO_IP_ADDRESS" in run(decode, switch, "--switch-number", "40959").output


def test_the_data_of_a_notify_can_be_given_alone() -> None:
    for name in ("SWITCH_TO_IP_ADDRESS", "41042"):
        result = run(decode, "--type", name, "c6120002")
        assert result.return_value == 0
        assert "address=198.18.0.2" in result.output


def test_the_inside_of_an_encrypted_payload_is_read_as_a_chain() -> None:
    result = run(decode, "--as", "payloads", "--first", "D", "0000000c 03040001 01020304")
    assert "RFC 7296 section 3.11" in result.output
    assert "spis=01020304" in result.output


@pytest.mark.parametrize("text", ["abc", "zz zz", "0x", "é", "00ff", "{}"])
def test_what_cannot_be_read_is_a_decode_error_with_a_hint(text: str) -> None:
    result = run(decode, text)
    assert isinstance(result.exception, DecodeError)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "none of"),
        ('{"notify": {"name": "COOKIE3"}}', "COOKIE3"),
        ('{"notify": {"name": "COOKIE2"}}', "cookie"),
        ('{"notify": {"name": "COOKIE2", "value": {"cookie": "00"}}}', "8 to 64"),
        ('{"notify": {"name": "COOKIE2", "value": {"cooky": "00"}}}', "cooky"),
        ('{"notify": {"name": "COOKIE2", "number": 5, "data": ""}}', "16401"),
        ('{"notify": {"name": "COOKIE2", "value": {}, "data": ""}}', "both"),
        (
            '{"notify": {"name": "ADDITIONAL_IP4_ADDRESS", "value": {"address": "2001:db8::1"}}}',
            "IPv4Address",
        ),
        ('{"notify": {"number": true}}', "whole number"),
        ('{"payloads": [{"payload": "X"}]}', "payload 1"),
        ('{"payloads": [{"payload": "N", "data": "00", "notify": {"number": 1}}]}', "one content"),
        ('{"message": {"exchange": "IKE_SA_INIT"}}', "initiator_spi"),
        ('{"message": {"initiator_spi": "01", "exchange": "X", "message_id": 0}}', "IKE_SA_INIT"),
        (
            '{"message": {"initiator_spi": "01", "exchange": 34, "message_id": 0, "flags": 8, "initiator": false}}',
            "agree",
        ),
        ('{"pf_key": {"spi": "0102"}}', "4 octets"),
        ('{"datagrams": [{"error": "cut short"}]}', "without a message"),
        ('{"notify": ' + "[" * 900 + "]" * 900 + "}", "a list"),
        ('{"message": {"initiator_spi": "' + "ff" * 100_000 + '", "exchange": 34, "message_id": 0}}', "bits"),
        ('{"notify": {"name": "DISCONNECT_NOTIFY", "value": {"seconds": ' + "9" * 4000 + "}}}", "seconds"),
    ],
)
def test_json_that_says_no_octets_is_told_by_what_is_wrong_in_it(text: str, said: str) -> None:
    result = run(encode, stdin=text)
    assert isinstance(result.exception, DecodeError)
    assert said in str(result.exception)


def test_encode_writes_base64_on_request_and_takes_json_as_argument() -> None:
    text = '{"notify": {"name": "SWITCH_TO_IP_ADDRESS", "value": {"address": "198.18.0.2"}}}'
    assert run(encode, text).output.strip() == "0000000c0000a052c6120002"
    assert run(encode, text, "--switch-number", "40999").output.strip() == "0000000c0000a027c6120002"
    assert base64.b64decode(run(encode, "--base64", text).output) == bytes.fromhex("0000000c0000a052c6120002")


def test_octets_that_end_a_terminals_peace_are_not_printed_as_they_are() -> None:
    chain = "00000012 00004017 0308 1b5b324a1b5b324a"
    output = run(decode, chain).output
    assert "\x1b" not in output
    assert "malformed" in output


def test_the_program_ends_with_the_exit_code_of_decode_errors() -> None:
    command = [sys.executable, "-m", "mobikectl", "decode"]
    bad = subprocess.run(
        [*command, "00000008 00004011"], capture_output=True, text=True, timeout=60, check=False
    )
    assert bad.returncode == DecodeError.exit_code
    assert "malformed" in " ".join(bad.stdout.split())
    cut = subprocess.run([*command, "00000010"], capture_output=True, text=True, timeout=60, check=False)
    assert cut.returncode == DecodeError.exit_code
    assert "octet 4: expected 12 octets of payload N, found 0" in cut.stderr
    good = subprocess.run(
        [*command, "00000008 00004010"], capture_output=True, text=True, timeout=60, check=False
    )
    assert good.returncode == 0


def test_the_r_of_mobike_supported_is_explained_by_the_draft_that_gave_it_its_meaning() -> None:
    assert "r-mobike-09 section 5.1" in run(decode, "00000009 0000400c 52").output
    assert "RFC 4555 section 4.2.1" in run(decode, "00000008 0000400c").output
