"""The numbers are those of the documents and of IANA's IKEv2 registry, put down here a second time."""

from __future__ import annotations

from mobikectl.wire import pfkey, registry
from mobikectl.wire.dialects import CURRENT, DIALECTS, EVERY
from mobikectl.wire.dupont import PeerAddressOperation, UpdateProtocol
from mobikectl.wire.ike import (
    HEADER_SIZE,
    MAX_MESSAGE,
    NON_ESP_MARKER,
    ExchangeType,
    Flags,
    PayloadType,
    payload_name,
)
from mobikectl.wire.notify import PRIVATE_USE_STATUS
from mobikectl.wire.redirect import GatewayIdentType
from mobikectl.wire.rmobike import SWITCH_TO_IP_ADDRESS

NOTIFIES = """
1 UNSUPPORTED_CRITICAL_PAYLOAD, 4 INVALID_IKE_SPI, 5 INVALID_MAJOR_VERSION, 7 INVALID_SYNTAX, 9 INVALID_MESSAGE_ID,
11 INVALID_SPI, 14 NO_PROPOSAL_CHOSEN, 17 INVALID_KE_PAYLOAD, 24 AUTHENTICATION_FAILED, 34 SINGLE_PAIR_REQUIRED,
35 NO_ADDITIONAL_SAS, 36 INTERNAL_ADDRESS_FAILURE, 37 FAILED_CP_REQUIRED, 38 TS_UNACCEPTABLE, 39 INVALID_SELECTORS,
40 UNACCEPTABLE_ADDRESSES, 41 UNEXPECTED_NAT_DETECTED, 43 TEMPORARY_FAILURE, 44 CHILD_SA_NOT_FOUND,
16384 INITIAL_CONTACT, 16385 SET_WINDOW_SIZE, 16386 ADDITIONAL_TS_POSSIBLE, 16387 IPCOMP_SUPPORTED,
16388 NAT_DETECTION_SOURCE_IP, 16389 NAT_DETECTION_DESTINATION_IP, 16390 COOKIE, 16391 USE_TRANSPORT_MODE,
16392 HTTP_CERT_LOOKUP_SUPPORTED, 16393 REKEY_SA, 16394 ESP_TFC_PADDING_NOT_SUPPORTED,
16395 NON_FIRST_FRAGMENTS_ALSO, 16396 MOBIKE_SUPPORTED, 16397 ADDITIONAL_IP4_ADDRESS,
16398 ADDITIONAL_IP6_ADDRESS, 16399 NO_ADDITIONAL_ADDRESSES, 16400 UPDATE_SA_ADDRESSES, 16401 COOKIE2,
16402 NO_NATS_ALLOWED, 16403 AUTH_LIFETIME, 16404 MULTIPLE_AUTH_SUPPORTED, 16405 ANOTHER_AUTH_FOLLOWS,
16406 REDIRECT_SUPPORTED, 16407 REDIRECT, 16408 REDIRECTED_FROM, 16417 EAP_ONLY_AUTHENTICATION,
16418 CHILDLESS_IKEV2_SUPPORTED, 16420 IKEV2_MESSAGE_ID_SYNC_SUPPORTED, 16430 IKEV2_FRAGMENTATION_SUPPORTED,
16431 SIGNATURE_HASH_ALGORITHMS, 41042 SWITCH_TO_IP_ADDRESS
"""
DRAFTS = """
24801 PEER_ADDRESS_SOURCE, 24802 PEER_ADDRESS_DESTINATION, 24803 NAT_PREVENTION, 24804 RR_COOKIE,
41045 REDIRECT_ACK, 42000 DISCONNECT_NOTIFY, 42004 IPV4_ADDRESS_CHANGE, 42006 IPV6_ADDRESS_CHANGE
"""


def numbered(text: str) -> dict[str, int]:
    rows = (row.split() for row in text.split(","))
    return {name: int(number) for number, name in rows}


def test_notify_types_have_the_numbers_of_the_registry() -> None:
    assert {codec.name: codec.number for codec in CURRENT.codecs} == numbered(NOTIFIES)


def test_the_drafts_have_the_numbers_that_they_or_we_gave_them() -> None:
    assert {codec.name: codec.number for codec in EVERY.codecs} == numbered(NOTIFIES + "," + DRAFTS)


def test_numbers_of_our_own_are_of_the_private_use_range_or_of_the_drafts() -> None:
    assert range(40960, 65536) == PRIVATE_USE_STATUS
    assert SWITCH_TO_IP_ADDRESS in PRIVATE_USE_STATUS
    assert EVERY.named("REDIRECT_ACK").number in PRIVATE_USE_STATUS
    assert {codec.number // 100 for codec in EVERY.codecs if "dupont" in codec.source.document} == {248}


def test_payload_types_have_the_numbers_and_the_names_of_rfc_7296() -> None:
    names = {number: payload_name(number) for number in range(256) if not payload_name(number).isdigit()}
    table = "33 SA, 34 KE, 35 IDi, 36 IDr, 37 CERT, 38 CERTREQ, 39 AUTH, 40 Nonce, 41 N, 42 D, 43 V, 44 TSi, 45 TSr"
    wanted = numbered(table + ", 46 SK, 47 CP, 48 EAP, 53 SKF")
    assert names == {0: "NONE"} | {number: name for name, number in wanted.items()}
    assert set(registry.PAYLOADS) == set(wanted.values()) == set(PayloadType) - {0}


def test_exchange_types_and_flags_have_the_numbers_of_rfc_7296() -> None:
    wanted = numbered(
        "34 IKE_SA_INIT, 35 IKE_AUTH, 36 CREATE_CHILD_SA, 37 INFORMATIONAL, 38 IKE_SESSION_RESUME,"
        "43 IKE_INTERMEDIATE, 44 IKE_FOLLOWUP_KE"
    )
    assert {exchange.name: int(exchange) for exchange in ExchangeType} == wanted
    assert set(registry.EXCHANGES) == set(wanted.values())
    assert {flag.name: int(flag) for flag in Flags} == {"INITIATOR": 8, "VERSION": 16, "RESPONSE": 32}
    assert (HEADER_SIZE, MAX_MESSAGE, NON_ESP_MARKER) == (28, 65535, b"\0\0\0\0")


def test_the_small_registries_are_those_of_their_documents() -> None:
    assert {kind.name: int(kind) for kind in GatewayIdentType} == {"IPV4": 1, "IPV6": 2, "FQDN": 3}
    assert {op.name: int(op) for op in PeerAddressOperation} == {"MARK": 1, "ADD": 2, "DELETE": 3}
    assert {protocol.name: int(protocol) for protocol in UpdateProtocol} == {"IKE": 0, "ESP": 1, "AH": 2}
    assert {kind.name: int(kind) for kind in pfkey.SaType} == {"AH": 2, "ESP": 3}


def test_every_row_of_every_dialect_says_where_it_is_specified_and_what_it_means() -> None:
    for dialect in DIALECTS.values():
        for codec in dialect.codecs:
            assert codec.source.document
            assert codec.source.section
            assert codec.meaning
