"""Octets that are not what they claim to be: told with the octet and what was expected, never read past."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.errors import ConfigError, DecodeError
from mobikectl.wire import json as wire_json
from mobikectl.wire.dialects import CURRENT, DUPONT_06, EVERY, KIVINEN_00, REDIRECT_01
from mobikectl.wire.dupont import PeerAddressUpdate, UpdateProtocol, nat_prevention_hash
from mobikectl.wire.ike import (
    MAX_MESSAGE,
    MAX_PAYLOADS,
    Delete,
    Message,
    Payload,
    decode_chain,
    encode_chain,
    interpret,
    update_payload,
    without_marker,
)
from mobikectl.wire.kivinen import DisconnectNotify
from mobikectl.wire.mobike import Cookie2, MobikeSupported, NoNatsAllowed, nat_detection_hash
from mobikectl.wire.notify import Dialect, Notify
from mobikectl.wire.pfkey import AddressUpdate, SaType
from mobikectl.wire.redirect import Fqdn, Redirect, RedirectedFrom
from mobikectl.wire.rmobike import SwitchToIpAddress

from . import wire_strategies as strategies
from .wire_vectors import Vector, load

if TYPE_CHECKING:
    from collections.abc import Callable

SOUND = [vector for vector in load() if not vector.malformed]
V4, V6 = IPv4Address("198.18.0.1"), IPv6Address("2001:db8::1")


def read(vector: Vector, octets: bytes) -> object:
    if vector.form == "message":
        return Message.from_bytes(octets)
    if vector.form == "pf_key":
        return AddressUpdate.from_bytes(octets)
    return decode_chain(octets, wire_json.payload_type(vector.first, vector.dialect))


@pytest.mark.parametrize("vector", SOUND, ids=str)
def test_octets_cut_short_anywhere_are_told_within_the_input(vector: Vector) -> None:
    for length in range(len(vector.octets)):
        with pytest.raises(DecodeError) as caught:
            read(vector, vector.octets[:length])
        assert caught.value.offset is not None
        assert 0 <= caught.value.offset <= len(vector.octets)
        assert caught.value.expected


@pytest.mark.parametrize("vector", SOUND, ids=str)
def test_trailing_octets_are_told(vector: Vector) -> None:
    for extra in (b"\0", b"\xff" * 8):
        with pytest.raises(DecodeError):
            read(vector, vector.octets + extra)


LENGTHS = {
    "UNACCEPTABLE_ADDRESSES": {0},
    "UNEXPECTED_NAT_DETECTED": {0},
    "MOBIKE_SUPPORTED": set(range(100)),
    "ADDITIONAL_IP4_ADDRESS": {4},
    "ADDITIONAL_IP6_ADDRESS": {16},
    "NO_ADDITIONAL_ADDRESSES": {0},
    "UPDATE_SA_ADDRESSES": {0},
    "COOKIE2": set(range(8, 65)),
    "NO_NATS_ALLOWED": {12, 36},
    "NAT_DETECTION_SOURCE_IP": {20},
    "NAT_DETECTION_DESTINATION_IP": {20},
    "SWITCH_TO_IP_ADDRESS": {4, 16},
    "REDIRECT_SUPPORTED": {0},
    "REDIRECT_ACK": {0},
    "DISCONNECT_NOTIFY": {4},
    "IPV4_ADDRESS_CHANGE": set(range(4, 100)),
    "IPV6_ADDRESS_CHANGE": set(range(16, 100)),
    "NAT_PREVENTION": {20},
    "RR_COOKIE": set(range(16, 65)),
}
"""The lengths of data, in octets, that the documents allow."""


@pytest.mark.parametrize("name", LENGTHS)
def test_exactly_the_lengths_of_the_document_are_accepted(name: str) -> None:
    kind = EVERY.named(name).kind
    assert kind is not None
    accepted, offsets = set(), set()
    for length in range(100):
        try:
            kind.from_data(bytes(length))
        except DecodeError as error:
            offsets.add(error.offset)
        else:
            accepted.add(length)
    assert offsets <= {0, 4, 16, 20}, "where the data starts, or where it should have ended"
    assert accepted == LENGTHS[name]


@pytest.mark.parametrize("length", [*range(1, 16), 257, 300])
def test_a_redirect_nonce_has_16_to_256_octets_or_none(length: int) -> None:
    sound = bytes.fromhex("0104c6120002")
    assert CURRENT.decode(Notify(16407, sound + bytes(256))) == Redirect(
        IPv4Address("198.18.0.2"), bytes(256)
    )
    with pytest.raises(DecodeError) as caught:
        CURRENT.decode(Notify(16407, sound + bytes(length)))
    assert caught.value.offset == len(sound)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "01",
        "0105c612000200",
        "0103c61200",
        "0210c6120002",
        "020f" + "00" * 15,
        "0004c6120002",
        "0300",
        "03022e2e",
    ],
)
def test_a_gateway_identity_whose_length_does_not_fit_its_type_is_told(data: str) -> None:
    with pytest.raises(DecodeError):
        CURRENT.decode(Notify(16407, bytes.fromhex(data)))
    with pytest.raises(DecodeError):
        CURRENT.decode(Notify(16408, bytes.fromhex(data)))


def test_the_redirect_draft_and_the_rfc_do_not_read_each_others_octets() -> None:
    redirect = Redirect(IPv4Address("198.18.0.2"))
    with pytest.raises(DecodeError):
        CURRENT.decode(REDIRECT_01.encode(redirect))
    with pytest.raises(DecodeError):
        REDIRECT_01.decode(CURRENT.encode(redirect))
    with pytest.raises(DecodeError, match="no nonce"):
        REDIRECT_01.encode(Redirect(V4, bytes(16)))


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a..b",
        "a.",
        ".a",
        "-a.b",
        "a-.b",
        "a b",
        "a\n.b",
        "ä.b",
        "x" * 64,
        ".".join(["x" * 63] * 4),
        "\x1b[2J",
    ],
)
def test_a_name_that_no_resolver_or_terminal_should_see_is_no_gateway(name: str) -> None:
    with pytest.raises(DecodeError):
        Fqdn(name)
    data = b"\x03" + bytes([len(name.encode())]) + name.encode()
    with pytest.raises(DecodeError):
        CURRENT.decode(Notify(16407, data))


def test_a_redirect_cannot_come_from_a_name() -> None:
    with pytest.raises(DecodeError, match="IPv4"):
        CURRENT.decode(Notify(16408, b"\x03\x03a.b"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cookie2(bytes(7)),
        lambda: Cookie2(bytes(65)),
        lambda: NoNatsAllowed(V4, V6, 500, 500),
        lambda: NoNatsAllowed(V4, V4, 65536, 500),
        lambda: NoNatsAllowed(V4, V4, 500, -1),
        lambda: SwitchToIpAddress(IPv6Address("fe80::1%eth0")),
        lambda: RedirectedFrom(IPv6Address("fe80::1%eth0")),
        lambda: DisconnectNotify(1 << 32),
        lambda: Notify(65536),
        lambda: Notify(1, spi=bytes(256)),
        lambda: Payload(0),
        lambda: Payload(41, reserved=128),
        lambda: Payload(41, first_inside=1),
        lambda: Payload(41, bytes(MAX_MESSAGE)),
        lambda: Message(1 << 64, 0, 34, 8, 0),
        lambda: Message(1, 0, 34, 8, 1 << 32),
        lambda: Message(1, 0, 34, 8, 0, minor_version=16),
        lambda: Message(1, 0, 34, 8, 0, (Payload(46), Payload(41, bytes(4)))),
        lambda: Message(1, 0, 34, 8, 0, (Payload(43, bytes(65531)),)),
        lambda: PeerAddressUpdate(all_sas=True, protocol=UpdateProtocol.ESP),
        lambda: PeerAddressUpdate(spis=(1,)),
        lambda: PeerAddressUpdate(protocol=UpdateProtocol.AH, spis=(1 << 32,)),
        lambda: Delete(3, 0, (b"",)),
        lambda: Delete(3, 4, (b"123",)),
        lambda: nat_detection_hash(1, 2, V4, 65536),
        lambda: nat_prevention_hash(V4, V6, 8),
        lambda: update_payload(PeerAddressUpdate(), CURRENT),
        lambda: CURRENT.encode(DisconnectNotify(1)),
    ],
)
def test_a_value_that_no_octets_can_say_cannot_be_made(make: Callable[[], object]) -> None:
    with pytest.raises(DecodeError):
        make()


def test_more_payloads_than_the_limit_are_refused_without_reading_them() -> None:
    one = bytes([43, 0, 0, 4])
    last = bytes([0, 0, 0, 4])
    assert len(decode_chain(one * (MAX_PAYLOADS - 1) + last, 43)) == MAX_PAYLOADS
    with pytest.raises(DecodeError, match=f"at most {MAX_PAYLOADS}") as caught:
        decode_chain(one * 16000 + last, 43)
    assert caught.value.offset == 4 * MAX_PAYLOADS
    with pytest.raises(DecodeError):
        encode_chain((Payload(43),) * (MAX_PAYLOADS + 1))


def test_a_payload_shorter_than_its_own_header_does_not_loop() -> None:
    for length in range(4):
        with pytest.raises(DecodeError) as caught:
            decode_chain(bytes([41, 0, 0, length]) * 4, 41)
        assert caught.value.offset == 2


def test_a_length_in_the_header_other_than_the_messages_is_told() -> None:
    sound = Message(1, 2, 37, 8, 3, (Payload(43, b"abcd"),)).to_bytes()
    for wrong in (0, 28, len(sound) - 1, len(sound) + 1, 0xFFFFFFFF):
        with pytest.raises(DecodeError) as caught:
            Message.from_bytes(sound[:24] + struct.pack(">I", wrong) + sound[28:])
        assert caught.value.offset == 24


@pytest.mark.parametrize("major", [0, 1, 3, 15])
def test_another_major_version_is_told(major: int) -> None:
    sound = Message(1, 2, 37, 8, 3).to_bytes()
    with pytest.raises(DecodeError, match="major version 2") as caught:
        Message.from_bytes(sound[:17] + bytes([major << 4]) + sound[18:])
    assert caught.value.offset == 17


def test_a_malformed_notify_does_not_hide_its_neighbours() -> None:
    chain = (
        Payload(41, Notify(16401, b"short").to_body()),
        Payload(41, CURRENT.encode(MobikeSupported(b"R")).to_body()),
    )
    shown = wire_json.chain_to_json(chain)
    assert "8 to 64 octets" in shown[0]["notify"]["error"]
    assert shown[1]["notify"]["value"] == {"data": "52"}


def test_an_unknown_payload_keeps_its_critical_bit_and_its_octets() -> None:
    payload = Payload(200, b"later", critical=True, reserved=0x55)
    octets = encode_chain((payload,))
    assert octets == bytes.fromhex("00d50009") + b"later"
    assert decode_chain(octets, 200) == (payload,)
    assert interpret(payload) == b"later"


def test_the_update_payload_is_only_understood_by_who_speaks_the_draft() -> None:
    payload = update_payload(PeerAddressUpdate(all_sas=True), DUPONT_06)
    assert payload.critical, "appendix B: the critical bit MUST be set to one"
    assert interpret(payload, DUPONT_06) == PeerAddressUpdate(all_sas=True)
    assert interpret(payload, CURRENT) == payload.body


@pytest.mark.parametrize(
    "body",
    [
        "",
        "00",
        "000000",
        "03000000",
        "3f000000",
        "00040000",
        "01000000",
        "01040001",
        "0104000100000001ff",
        "00000001",
        "81040000",
    ],
)
def test_a_malformed_update_payload_is_told(body: str) -> None:
    with pytest.raises(DecodeError):
        PeerAddressUpdate.from_body(bytes.fromhex(body))


@pytest.mark.parametrize("body", ["", "030400", "03000001", "0304000100", "030400010000000100"])
def test_a_malformed_delete_payload_is_told(body: str) -> None:
    with pytest.raises(DecodeError):
        Delete.from_body(bytes.fromhex(body))


def test_the_non_esp_marker_is_taken_off_and_nothing_else() -> None:
    message = Message(0x1122334455667788, 0, 34, 8, 0).to_bytes()
    assert without_marker(bytes(4) + message) == message
    assert without_marker(message) == message
    odd = Message(0x0000000055667788, 0, 34, 8, 0).to_bytes()
    assert without_marker(odd) == odd, "an SPI may begin with zeros"
    assert without_marker(b"") == b""


# --- dialects -----------------------------------------------------------------------------------


def test_the_number_of_a_switch_is_configurable() -> None:
    other = CURRENT.with_number("SWITCH_TO_IP_ADDRESS", 40999)
    assert other.encode(SwitchToIpAddress(V4)).type == 40999
    assert other.decode(Notify(40999, V4.packed)) == SwitchToIpAddress(V4)
    assert other.decode(Notify(41042, V4.packed)) is None
    assert CURRENT.number_of(SwitchToIpAddress) == 41042


@pytest.mark.parametrize("number", [16396, 42004])
def test_a_number_that_means_something_else_already_is_refused(number: int) -> None:
    with pytest.raises(ConfigError, match=str(number)) as caught:
        KIVINEN_00.with_number("SWITCH_TO_IP_ADDRESS", number)
    assert "40960-65535" in caught.value.hint


def test_one_number_can_mean_two_things_in_two_dialects() -> None:
    as_switch = CURRENT.with_number("SWITCH_TO_IP_ADDRESS", 42004)
    notify = Notify(42004, V4.packed)
    assert as_switch.decode(notify) == SwitchToIpAddress(V4)
    assert KIVINEN_00.decode(notify) != SwitchToIpAddress(V4)


def test_an_error_type_is_below_16384() -> None:
    assert Notify(40).is_error
    assert Notify(16383).is_error
    assert not Notify(16384).is_error


def test_the_protocol_id_is_ignored_where_there_is_no_spi() -> None:
    assert CURRENT.decode(Notify(16401, bytes(8), protocol_id=1)) == Cookie2(bytes(8))


def test_the_address_changes_of_kivinens_draft_are_sent_with_protocol_id_1() -> None:
    for name, wanted in (("IPV4_ADDRESS_CHANGE", 1), ("IPV6_ADDRESS_CHANGE", 1), ("DISCONNECT_NOTIFY", 0)):
        assert KIVINEN_00.named(name).protocol_id == wanted
    assert KIVINEN_00.encode(DisconnectNotify(5)).protocol_id == 0


def test_only_the_single_octet_r_advertises_responder_initiated_updates() -> None:
    assert MobikeSupported(b"R").responder_initiated
    for data in (b"", b"r", b"RR", b"R\0", b"\0R"):
        assert not MobikeSupported(data).responder_initiated


@given(strategies.chains, st.integers(0, 400), st.integers(1, 255))
def test_a_chain_with_one_octet_changed_is_read_or_told(
    chain: tuple[Payload, ...], where: int, change: int
) -> None:
    octets = bytearray(encode_chain(chain))
    if not octets:
        return
    octets[where % len(octets)] ^= change
    try:
        back = decode_chain(bytes(octets), chain[0].type)
    except DecodeError:
        return
    assert encode_chain(back) == bytes(octets)


def test_what_is_left_out_when_making_a_value_is_the_plainest() -> None:
    assert PeerAddressUpdate().to_body() == bytes(4), "the IKE_SA alone, its SPD entries too"
    assert Delete(1).to_body() == bytes([1, 0, 0, 0])
    assert Payload(43).critical is False
    assert encode_chain((Payload(43),)) == bytes([0, 0, 0, 4])
    assert Message(1, 2, 37, 8, 3).to_bytes()[16:18] == bytes([0, 0x20])
    assert Notify(16400).to_body() == bytes.fromhex("00004010")
    assert AddressUpdate(SaType.ESP, 1, V4, V4, V4, V4).to_bytes()[8:16] == bytes(8)


@pytest.mark.parametrize(
    ("dialect", "notify", "offset"),
    [
        (CURRENT, Notify(16401, b"short"), 7),
        (CURRENT, Notify(16397, b"abc"), 7),
        (CURRENT, Notify(16400, b"x"), 7),
        (CURRENT, Notify(16402, bytes(13)), 7),
        (CURRENT, Notify(16388, bytes(21)), 27),
        (CURRENT, Notify(41042, bytes(5)), 7),
        (CURRENT, Notify(16407, b"\x01\x04abcdx"), 13),
        (KIVINEN_00, Notify(42000, bytes(5)), 11),
        (KIVINEN_00, Notify(42006, bytes(15)), 7),
        (DUPONT_06, Notify(24801, bytes.fromhex("0003000100000000")), 7),
        (DUPONT_06, Notify(24801, bytes.fromhex("000100010000000000")), 15),
        (DUPONT_06, Notify(24804, bytes(15)), 7),
    ],
)
def test_an_error_counts_octets_from_the_start_of_the_whole_input(
    dialect: Dialect, notify: Notify, offset: int
) -> None:
    with pytest.raises(DecodeError) as caught:
        dialect.decode(notify, 7)
    assert caught.value.offset == offset
    assert f"octet {offset}:" in str(caught.value)
    with pytest.raises(DecodeError) as caught:
        dialect.decode(notify)
    assert caught.value.offset == offset - 7


@pytest.mark.parametrize(
    ("octets", "offset"),
    [
        ("02d50000 0200 0000 00000000 00000000", 3),
        ("02d50003 0300 0000 00000000 00000000", 4),
        ("01d50003 0200 0000 00000000 00000000", 0),
        ("02d50003 0200 0000 00000000 00000000", 16),
        ("02d50003 0300 0000 00000000 00000000 0000 0100 00000000", 16),
        ("02d50003 0300 0000 00000000 00000000 0100 0900 00000000", 18),
        ("02d50003 0300 0000 00000000 00000000 0200 0100 00000000", 20),
        ("02d50003 0400 0000 00000000 00000000 0200 0500 00200000 0300 0000 00000000", 24),
    ],
)
def test_a_malformed_pf_key_message_is_told_with_its_octet(octets: str, offset: int) -> None:
    with pytest.raises(DecodeError) as caught:
        AddressUpdate.from_bytes(bytes.fromhex(octets))
    assert caught.value.offset == offset


def test_pf_key_extensions_may_come_in_any_order_but_each_only_once() -> None:
    octets = AddressUpdate(SaType.AH, 7, V4, V4, V6, V6, 1, 2).to_bytes()
    head, sa, rest = octets[:16], octets[16:32], octets[32:]
    assert AddressUpdate.from_bytes(head + rest + sa) == AddressUpdate.from_bytes(octets)
    longer = head[:4] + struct.pack("<H", (len(octets) + 16) // 8) + head[6:]
    with pytest.raises(DecodeError, match="once"):
        AddressUpdate.from_bytes(longer + sa + rest + sa)
