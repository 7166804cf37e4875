"""Messages become notifies and come back."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.bridge.translate import (
    MOST_OPEN,
    MOST_SENT,
    QUIET_S,
    WATCHED,
    Assembler,
    later,
    read_mark,
    to_notifies,
    to_payloads,
)
from mobikectl.charon.rmobike_events import NotifySeen
from mobikectl.errors import DecodeError
from mobikectl.model import Path
from mobikectl.protocol.addrnotify import change
from mobikectl.protocol.exchange import Delete
from mobikectl.wire.bridge import BRIDGE_MARK, BRIDGE_PAYLOAD, BridgeMark, BridgePayload, Part, Spoken
from mobikectl.wire.dupont import PeerAddressUpdate, RrCookie, UpdateProtocol
from mobikectl.wire.kivinen import DisconnectNotify
from mobikectl.wire.notify import Notify

PATH = Path(ip_address("198.18.2.10"), ip_address("198.18.1.2"))
REQUEST = BridgeMark(Spoken.KIVINEN, Part.REQUEST)


def seen(
    notify: Notify, message_id: int = 7, *, exchange: str = "INFORMATIONAL", request: bool = True
) -> NotifySeen:
    return NotifySeen(1, exchange, message_id, request, False, PATH, notify)


@pytest.mark.parametrize(
    ("spoken", "payloads"),
    [
        (Spoken.KIVINEN, (DisconnectNotify(3600),)),
        (Spoken.KIVINEN, (change(ip_address("198.18.1.2")), change(ip_address("2001:db8::1")))),
        (Spoken.KIVINEN, (Delete(),)),
        (Spoken.KIVINEN, ()),
        (Spoken.DUPONT, (RrCookie(bytes(32)),)),
        (Spoken.DUPONT, (PeerAddressUpdate(all_sas=True),)),
    ],
)
def test_payloads_come_back_as_they_went(spoken: Spoken, payloads: tuple[object, ...]) -> None:
    mark = BridgeMark(spoken, Part.REQUEST)
    notifies = to_notifies(spoken, payloads, mark)
    assert to_payloads(spoken, notifies) == payloads
    assert read_mark(notifies) == mark
    assert {notify.type for notify in notifies} <= WATCHED
    assert all(notify.protocol_id == 0 for notify in notifies), "the plugin cannot say another"


def test_a_payload_without_a_form_is_refused() -> None:
    with pytest.raises(DecodeError):
        to_notifies(Spoken.KIVINEN, (RrCookie(bytes(32)),), REQUEST)


def test_no_more_notifies_are_sent_than_charon_accepts() -> None:
    addresses = [change(ip_address("198.18.0.0") + number) for number in range(MOST_SENT)]
    assert len(to_notifies(Spoken.KIVINEN, addresses[1:], REQUEST)) == MOST_SENT
    with pytest.raises(DecodeError):
        to_notifies(Spoken.KIVINEN, addresses, REQUEST)


def test_no_message_is_sent_that_would_be_fragmented() -> None:
    spis = tuple(range(1, 281))
    with pytest.raises(DecodeError, match="octets"):
        to_notifies(
            Spoken.DUPONT,
            (PeerAddressUpdate(protocol=UpdateProtocol.ESP, spis=spis),),
            BridgeMark(Spoken.DUPONT, Part.REQUEST),
        )


@pytest.mark.parametrize("data", [b"", b"\x2a", b"\x2a\x03\x00\x00\x00", b"\xd5\x00", b"\x29\x00\x00\x00"])
def test_a_carried_payload_that_is_not_understood_is_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        to_payloads(Spoken.DUPONT, [Notify(BRIDGE_PAYLOAD, data)])


def test_a_message_is_complete_with_its_mark() -> None:
    assembler = Assembler()
    first, last = to_notifies(Spoken.KIVINEN, (DisconnectNotify(60),), REQUEST)
    assert assembler.add(seen(first), 0.0) is None
    heard = assembler.add(seen(last), 0.0)
    assert heard is not None
    assert (heard.ike_id, heard.message_id, heard.mark, heard.path) == (1, 7, REQUEST, PATH)
    assert assembler.next_deadline() is None


def test_a_message_of_another_implementation_is_complete_when_nothing_more_comes() -> None:
    assembler = Assembler()
    assembler.add(seen(Notify(42004, b"\xc6\x12\x01\x02")), 0.0)
    assembler.add(seen(Notify(42004, b"\xc6\x12\x03\x02")), 0.1)
    assert assembler.due(0.25) == []
    assert assembler.next_deadline() == pytest.approx(0.1 + QUIET_S)
    (heard,) = assembler.due(0.4)
    assert (heard.spoken, heard.mark, len(heard.notifies)) == (Spoken.KIVINEN, None, 2)


def test_responses_and_other_exchanges_are_not_messages_of_the_peer() -> None:
    assembler = Assembler()
    assert assembler.add(seen(later(Spoken.KIVINEN), request=False), 0.0) is None
    assert assembler.add(seen(later(Spoken.KIVINEN), exchange="IKE_AUTH"), 0.0) is None
    assert assembler.next_deadline() is None


def test_messages_without_an_end_are_bounded() -> None:
    assembler = Assembler()
    for number in range(10 * MOST_OPEN):
        assembler.add(seen(Notify(42000, bytes(4)), number), 0.0)
    heard = assembler.due(1.0)
    assert len(heard) == MOST_OPEN
    assert heard[-1].message_id == 10 * MOST_OPEN - 1


def test_an_unreadable_mark_ends_the_message_that_its_other_notifies_tell() -> None:
    assembler = Assembler()
    assert assembler.add(seen(Notify(BRIDGE_MARK, b"\x09")), 0.0) is None
    assembler.add(seen(Notify(42000, bytes(4)), 8), 0.0)
    heard = assembler.add(seen(Notify(BRIDGE_MARK, b"\x01\x07\0\0\0\0"), 8), 0.0)
    assert heard is not None
    assert (heard.spoken, heard.mark) == (Spoken.KIVINEN, None)


@given(st.binary(max_size=32))
def test_any_data_of_the_two_notifies_is_read_or_refused(data: bytes) -> None:
    for kind in (BridgeMark, BridgePayload):
        try:
            typed = kind.from_data(data)
        except DecodeError:
            continue
        assert typed.to_data() == data
