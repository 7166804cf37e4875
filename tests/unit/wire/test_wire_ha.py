"""strongSwan's HA messages: octets as charon sent them, and everything that could be sent instead."""

from __future__ import annotations

import copy
import pickle
import tomllib
import traceback
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobikectl.errors import DecodeError
from mobikectl.wire.ha import (
    MAX_MESSAGE,
    HaAttribute,
    HaMessage,
    HaType,
    HaValue,
    Host,
    Identity,
    IkeId,
    SecretBytes,
    Selector,
)
from mobikectl.wire.ha_values import KINDS

from .ha_strategies import messages

A = HaAttribute
SESSIONS = tomllib.loads((Path(__file__).parents[2] / "vectors" / "ha-5.9.8.toml").read_text())["session"]
CAPTURED = [
    pytest.param(kind, bytes.fromhex(octets), id=f"{session['name']}-{number}-{kind}")
    for session in SESSIONS
    for number, (kind, octets) in enumerate(session["messages"])
]
ID = IkeId(1, 2, initiator=False)
SECRET = bytes(range(1, 33))


def first(kind: HaType, session: int = 0) -> HaMessage:
    found = next(octets for name, octets in SESSIONS[session]["messages"] if name == kind.name)
    return HaMessage.from_bytes(bytes.fromhex(found))


# --- what charon sent -------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "octets"), CAPTURED)
def test_what_charon_sent_is_written_back_octet_for_octet(kind: str, octets: bytes) -> None:
    read = HaMessage.from_bytes(octets)
    assert read.kind.name == kind
    assert read.to_bytes() == octets


def test_charons_vectors_have_every_type_of_ikev2() -> None:
    seen = {kind for session in SESSIONS for kind, _ in session["messages"]}
    assert seen == {kind.name for kind in HaType} - {"IKE_IV"}


def test_an_ike_update_says_who_and_where() -> None:
    read = first(HaType.IKE_UPDATE)
    assert read.need(A.LOCAL_ID, Identity) == Identity(2, b"gateway")
    assert read.need(A.REMOTE_ADDR, Host) == Host(IPv4Address("198.18.1.2"), 4500)
    assert read.need(A.CONFIG_NAME, str) == "vpn"
    assert Host(IPv6Address("2001:db8:3::2")) in read.all(A.PEER_ADDR, Host)


def test_the_spis_of_a_child_are_those_that_charon_logs() -> None:
    # charon.log of the session: "inbound CHILD_SA net{1} established with SPIs ..." has network order
    octets = bytes.fromhex("03060102" + "00" * 16 + "000e001b0a5961e51c629eff45086e000f0000100000")
    read = HaMessage.from_bytes(octets)
    assert read.need(A.INBOUND_SPI, int) == 0xE561590A
    assert read.need(A.OUTBOUND_SPI, int) == 0x45FF9E62


def test_traffic_selectors_of_both_families_are_read() -> None:
    read = first(HaType.CHILD_ADD, session=1)
    web, net = read.all(A.LOCAL_TS, Selector)
    assert web == Selector(IPv4Address("198.19.2.1"), IPv4Address("198.19.2.1"), 6, 80, 80)
    assert (net.first, net.last) == (
        IPv6Address("2001:db8:2::"),
        IPv6Address("2001:db8:2:0:ffff:ffff:ffff:ffff"),
    )


# --- every message ----------------------------------------------------------------------------------


@given(messages())
def test_what_is_written_is_read_back_the_same(message: HaMessage) -> None:
    octets = message.to_bytes()
    assert HaMessage.from_bytes(octets) == message
    assert HaMessage.from_bytes(octets).to_bytes() == octets


@given(st.binary(max_size=400))
def test_any_octets_are_a_message_or_a_decode_error(octets: bytes) -> None:
    try:
        read = HaMessage.from_bytes(b"\x03" + octets)
    except DecodeError:
        return
    assert read.to_bytes() == b"\x03" + octets


@settings(max_examples=30)
@given(messages())
def test_no_message_cut_short_reads_past_its_end(message: HaMessage) -> None:
    octets = message.to_bytes()
    for length in range(len(octets)):
        try:
            shorter = HaMessage.from_bytes(octets[:length])
        except DecodeError:
            continue
        assert shorter.to_bytes() == octets[:length]


@pytest.mark.parametrize("attribute", HaAttribute)
def test_every_attribute_has_a_form(attribute: HaAttribute) -> None:
    assert attribute in KINDS


# --- what is refused --------------------------------------------------------------------------------

REFUSED = [
    ("nothing", "", 0),
    ("no type", "03", 1),
    ("another version", "020a", 0),
    ("type 0", "0300", 1),
    ("type 13", "030d", 1),
    ("an unknown attribute", "030a2a0000", 2),
    ("a segment cut short", "030a2200", 3),
    ("an attribute of another type of message", "030a2100000001", None),
    ("a second message ID", "0303 0102" + "00" * 17 + "2100000001 2100000001", None),
    ("no IKE_SA", "03032100000001", None),
    ("IKE version 3", "0305 0103" + "00" * 17, 3),
    ("neither initiator nor responder", "0305 0102" + "00" * 16 + "02", 20),
    ("an address of no family", "0302 0102" + "00" * 17 + "06 0000 07 c6120102", 24),
    ("an IPv6 address of four octets", "0302 0102" + "00" * 17 + "06 0000 0a c6120102", 25),
    ("a name without its end", "0302 0102" + "00" * 17 + "08 7670", 24),
    ("a name that is no text", "0302 0102" + "00" * 17 + "08 fffe00", 22),
    ("an identity longer than the message", "0302 0102" + "00" * 17 + "03 02ff 61", 24),
    ("an update whose IKE_SA is not first", "0302 0900000000 0102" + "00" * 17, None),
    ("a secret longer than the message", "030c 0102" + "00" * 17 + "28 ffff 61", 24),
]  # fmt: skip


@pytest.mark.parametrize(("octets", "offset"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_charon_does_not_send_is_refused_and_says_where(octets: str, offset: int | None) -> None:
    with pytest.raises(DecodeError) as caught:
        HaMessage.from_bytes(bytes.fromhex(octets))
    assert caught.value.offset == offset


def test_a_datagram_that_is_too_long_is_refused() -> None:
    octets = b"\x03\x0a" + b"\x22\x00\x01" * (MAX_MESSAGE // 3)
    with pytest.raises(DecodeError, match="at most 16384"):
        HaMessage.from_bytes(octets)


def test_a_message_that_would_be_too_long_is_not_written() -> None:
    big = HaMessage.of(HaType.STATUS, *((A.SEGMENT, 1),) * MAX_MESSAGE)
    with pytest.raises(DecodeError, match="at most 16384"):
        big.to_bytes()


@pytest.mark.parametrize(
    "items",
    [
        ((A.IKE_ID, ID), (A.MID, -1)),
        ((A.IKE_ID, ID), (A.MID, 2**32)),
        ((A.IKE_ID, ID), (A.MID, "1")),
        ((A.IKE_ID, ID), (A.MID, True)),
        ((A.IKE_ID, 7), (A.MID, 1)),
        ((A.IKE_ID, ID),),
    ],
)
def test_a_message_that_cannot_be_said_cannot_be_built(
    items: tuple[tuple[HaAttribute, HaValue], ...],
) -> None:
    with pytest.raises(DecodeError):
        HaMessage(HaType.IKE_MID_INITIATOR, items)


def test_attributes_are_replaced_where_they_were_and_new_ones_come_last() -> None:
    message = HaMessage.of(
        HaType.IKE_UPDATE,
        (A.IKE_ID, ID),
        (A.PEER_ADDR, Host(IPv4Address("198.18.0.1"))),
        (A.CONFIG_NAME, "a"),
    )
    new = Host(IPv4Address("198.18.0.2"))
    changed = message.having([(A.EXTENSIONS, 5), (A.PEER_ADDR, new), (A.PEER_ADDR, new)])
    assert [name for name, _ in changed.items] == [
        A.IKE_ID,
        A.PEER_ADDR,
        A.PEER_ADDR,
        A.CONFIG_NAME,
        A.EXTENSIONS,
    ]
    assert changed.all(A.PEER_ADDR, Host) == (new, new)


# --- secrets ----------------------------------------------------------------------------------------


def shown(thing: object) -> str:
    return f"{thing!r} {thing!s} {thing:>40}" if isinstance(thing, SecretBytes) else f"{thing!r} {thing!s}"


def test_a_secret_shows_only_its_length() -> None:
    secret = SecretBytes(b"correct horse")
    assert repr(secret) == "<13 secret octets>"
    assert "horse" not in shown(secret)
    assert "%s %r" % (secret, secret) == "<13 secret octets> <13 secret octets>"  # noqa: UP031
    assert secret.reveal() == b"correct horse"


def test_a_secret_cannot_be_changed_or_pickled_and_a_copy_is_itself() -> None:
    secret = SecretBytes(SECRET)
    with pytest.raises(AttributeError):
        secret._octets = b""
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert copy.deepcopy(secret) is secret
    assert copy.copy(secret) is secret


def test_secrets_are_equal_by_their_octets_and_equal_to_nothing_else() -> None:
    assert SecretBytes(b"a") == SecretBytes(b"a")
    assert hash(SecretBytes(b"a")) == hash(SecretBytes(b"a"))
    assert SecretBytes(b"a") != SecretBytes(b"b")
    assert SecretBytes(b"a") != b"a"


@pytest.mark.parametrize("kind", [HaType.IKE_ADD, HaType.CHILD_ADD])
def test_no_key_material_shows_in_a_message_or_in_its_errors(kind: HaType) -> None:
    message = first(kind)
    octets = message.to_bytes()
    secrets = [value.reveal() for _, value in message.items if isinstance(value, SecretBytes)]
    assert len(secrets) >= 2
    texts = [shown(message)]
    for bad in (octets + b"\xff", octets[:-1], octets + bytes([A.SEGMENT, 0, 1])):
        with pytest.raises(DecodeError) as caught:
            HaMessage.from_bytes(bad)
        texts.append("".join(traceback.format_exception(caught.value)))
    for secret in secrets:
        for text in texts:
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text
