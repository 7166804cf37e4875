"""The octets of the five documents say what the documents say, and go back to the same octets."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from mobikectl.wire import json as wire_json
from mobikectl.wire.dialects import DIALECTS, EVERY
from mobikectl.wire.dupont import nat_prevention_hash
from mobikectl.wire.ike import Message, decode_chain, encode_chain
from mobikectl.wire.mobike import NatDetectionSourceIp, nat_detection_hash
from mobikectl.wire.pfkey import AddressUpdate

from .wire_vectors import (
    DOCUMENTS,
    Vector,
    expected_payload,
    load,
    table,
    without_explanations,
)

VECTORS = load(*DOCUMENTS, "charon-5.9.8")


def decoded(vector: Vector) -> Any:
    """The vector's octets as JSON."""
    if vector.form == "message":
        return wire_json.message_to_json(Message.from_bytes(vector.octets), vector.dialect)
    if vector.form == "pf_key":
        return wire_json.pfkey_to_json(AddressUpdate.from_bytes(vector.octets))
    first = wire_json.payload_type(vector.first, vector.dialect)
    return wire_json.chain_to_json(decode_chain(vector.octets, first), vector.dialect)


def encoded(vector: Vector, shown: Any) -> bytes:
    """JSON as octets again."""
    if vector.form == "message":
        return wire_json.message_from_json(shown, vector.dialect).to_bytes()
    if vector.form == "pf_key":
        return wire_json.pfkey_from_json(shown).to_bytes()
    return encode_chain(wire_json.chain_from_json(shown, vector.dialect))


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_the_octets_say_what_the_document_says(vector: Vector) -> None:
    shown = without_explanations(decoded(vector))
    payloads = [expected_payload(entry, vector.dialect) for entry in vector.expect]
    if vector.form == "message":
        assert shown == vector.header | {"payloads": payloads}
    elif vector.form == "pf_key":
        assert shown == {"spi": shown["spi"]} | {
            key: value for key, value in vector.pf_key.items() if key not in wire_json.EXPLAINING
        }
        assert decoded(vector) == vector.pf_key
    else:
        assert shown == payloads


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_the_json_of_a_vector_becomes_the_same_octets(vector: Vector) -> None:
    assert encoded(vector, decoded(vector)) == vector.octets


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.form != "pf_key"], ids=str)
def test_what_the_hand_wrote_becomes_the_same_octets(vector: Vector) -> None:
    payloads = [expected_payload(entry, vector.dialect) for entry in vector.expect]
    written = vector.header | {"payloads": payloads} if vector.form == "message" else payloads
    assert encoded(vector, written) == vector.octets


@pytest.mark.parametrize("vector", [v for v in VECTORS if not v.malformed], ids=str)
def test_every_payload_is_explained_with_its_document_and_section(vector: Vector) -> None:
    if vector.form == "pf_key":
        return
    shown = decoded(vector)
    for payload in shown["payloads"] if vector.form == "message" else shown:
        explained = payload.get("notify", payload)
        assert " section " in explained["source"]
        assert explained["meaning"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_notifies_of_a_document_cite_that_document(name: str) -> None:
    content = table(name)
    document, dialect = content["document"], DIALECTS[content["dialect"]]
    cited = {codec.name for codec in dialect.codecs if codec.source.document == document}
    used = {entry["name"] for row in content["vector"] for entry in row.get("expect", []) if "name" in entry}
    assert cited, f"no notify cites {document}"
    assert cited <= used, f"without a vector: {cited - used}"


def test_each_document_has_vectors_from_the_sections_that_define_formats() -> None:
    wanted = {
        "RFC 4555": {"4.1.1", "4.1.2", "4.2.1", "4.2.2", "4.2.3", "4.2.4", "4.2.5", "4.2.6"},
        "draft-ietf-ipsecme-ikev2-redirect-01": {"6.1", "6.2", "6.3", "6.4"},
        "RFC 5685": {"7.1", "7.2", "7.3"},
        "draft-smyslov-ipsecme-ikev2-r-mobike-09": {"5.1", "5.2"},
        "draft-kivinen-mobike-protocol-00": {"3", "5"},
        "draft-dupont-ikev2-addrmgmt-06": {"A", "B", "C", "D", "E"},
    }
    for document, sections in wanted.items():
        assert sections <= {vector.section for vector in VECTORS if vector.document == document}


@pytest.mark.parametrize("row", table("hashes")["nat_detection"], ids=lambda row: row["ip"])
def test_the_nat_detection_hash_is_sha1_of_spis_address_and_port(row: dict[str, Any]) -> None:
    spis = int(row["initiator_spi"], 16), int(row["responder_spi"], 16)
    digest = bytes.fromhex(row["sha1"])
    assert nat_detection_hash(*spis, ip_address(row["ip"]), row["port"]) == digest
    assert NatDetectionSourceIp(digest).matches(*spis, ip_address(row["ip"]), row["port"])
    assert not NatDetectionSourceIp(digest).matches(*spis, ip_address(row["ip"]), row["port"] + 1)
    assert not NatDetectionSourceIp(digest).matches(*spis[::-1], ip_address(row["ip"]), row["port"])


@pytest.mark.parametrize("row", table("hashes")["nat_prevention"], ids=lambda row: row["source"])
def test_the_nat_prevention_hash_is_sha1_of_the_udp_pseudo_header(row: dict[str, Any]) -> None:
    digest = nat_prevention_hash(ip_address(row["source"]), ip_address(row["destination"]), row["udp_length"])
    assert digest == bytes.fromhex(row["sha1"])


def test_the_dialect_that_knows_everything_reads_the_vectors_of_all_documents_but_the_redirect_draft() -> (
    None
):
    for vector in VECTORS:
        if vector.form != "payloads" or vector.malformed or vector.dialect.name == "redirect-01":
            continue
        first = wire_json.payload_type(vector.first, EVERY)
        shown = wire_json.chain_to_json(decode_chain(vector.octets, first), EVERY)
        assert without_explanations(shown) == without_explanations(decoded(vector))
