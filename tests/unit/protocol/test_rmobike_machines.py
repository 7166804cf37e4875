"""What draft-smyslov-ipsecme-ikev2-r-mobike-09 says about both roles, transition by transition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.protocol.exchange import Exchange, Message, Retransmission
from mobikectl.protocol.machine import LocalTransitionError, RemoteProtocolError
from mobikectl.protocol.mobike import Alive
from mobikectl.protocol.mobike_initiator import MobikeInitiator
from mobikectl.protocol.mobike_initiator import State as InitiatorState
from mobikectl.protocol.mobike_responder import MobikeResponder
from mobikectl.protocol.rmobike import (
    Asking,
    Following,
    RMobikeInitiator,
    RMobikeResponder,
    SwitchDeclined,
    SwitchDone,
    SwitchFailed,
    SwitchFollowed,
)
from mobikectl.wire.mobike import Cookie2, MobikeSupported, UnacceptableAddresses, UpdateSaAddresses
from mobikectl.wire.rmobike import SwitchToIpAddress

from .protocol_helpers import (
    I1,
    I2,
    I6,
    R1,
    R2,
    R3,
    R6,
    answer,
    current,
    events,
    pair,
    policy,
    pump,
    request_to,
    told,
)

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

FAST = Retransmission(1.0, 1.0, 1.0, suspect_after=2)


def both(**changes: Any) -> tuple[RMobikeInitiator, RMobikeResponder]:
    keep: dict[str, Any] = {k: changes.pop(k) for k in ("willing", "acceptable_switch") if k in changes}
    own = changes.pop("own_r", [R1, R2])
    initiator = RMobikeInitiator([I1, I2], policy(**changes), **keep)
    responder = RMobikeResponder(own, policy(**changes))
    initiator.connect([pair(I1, R1, 500)], 0.0)
    pump(initiator, responder)
    events(initiator), events(responder)
    return initiator, responder


def wish(initiator: RMobikeInitiator, number: int, ip: IpAddress = R2) -> Message:
    return request_to(initiator, number, SwitchToIpAddress(ip), over=pair(I1, R1))


def update_of(machine: MobikeInitiator, now: float = 0.0) -> Message:
    found = [m for m in machine.send(now) if m.has(UpdateSaAddresses)]
    return max(found, key=lambda m: m.message_id)


# --- capability (section 4.1)


def test_a_willing_initiator_advertises_the_octet_r_and_the_responder_sends_no_data() -> None:
    for willing, data, asking in ((True, b"R", Asking.READY), (False, b"", Asking.INCAPABLE)):
        initiator, responder = (
            RMobikeInitiator([I1], policy(), willing=willing),
            RMobikeResponder([R1], policy()),
        )
        initiator.connect([pair(I1, R1, 500)], 0.0)
        carried = [m for m in pump(initiator, responder) if m.exchange is Exchange.IKE_AUTH]
        assert [m.all(MobikeSupported) for m in carried] == [[MobikeSupported(data)], [MobikeSupported()]]
        assert responder.asking is asking


def test_the_responder_must_not_ask_an_initiator_that_did_not_advertise_it() -> None:
    initiator, responder = both(willing=False)
    with pytest.raises(LocalTransitionError):
        responder.switch(R2, 0.0)
    assert responder.asking is Asking.INCAPABLE
    assert pump(initiator, responder) == []


def test_a_responder_without_the_extension_ignores_the_octet() -> None:
    initiator, responder = RMobikeInitiator([I1], policy()), MobikeResponder([R1], policy())
    initiator.connect([pair(I1, R1, 500)], 0.0)
    pump(initiator, responder)
    assert initiator.state is InitiatorState.STABLE


# --- the switch (section 4.2)


def test_a_switch_moves_the_address_and_keeps_the_port() -> None:
    initiator, responder = both()
    responder.switch(R2, 0.0)
    assert current(responder.asking) is Asking.WANTED
    carried = pump(responder, initiator)
    assert [m.response for m in carried[:2]] == [False, True]
    assert carried[1].payloads == ()
    update = next(m for m in carried if m.has(UpdateSaAddresses))
    assert update.destination == pair(I1, R2).remote
    assert initiator.sa_pair == pair(I1, R2)
    assert responder.sa_pair == pair(R2, I1)
    assert responder.asking is Asking.READY
    assert initiator.following is Following.READY
    assert told(initiator, SwitchFollowed) == [SwitchFollowed(pair(I1, R2))]
    assert told(responder, SwitchDone) == [SwitchDone(R2)]


def test_the_responder_changes_nothing_until_the_update_arrives() -> None:
    initiator, responder = both()
    responder.switch(R2, 0.0)
    request = responder.send(0.0)[0]
    assert current(responder.asking) is Asking.ASKED
    assert (responder.pair, responder.sa_pair) == (pair(R1, I1), pair(R1, I1))
    initiator.receive(request, 0.0)
    reply, update = initiator.send(0.0)
    responder.receive(reply, 0.0)
    assert current(responder.asking) is Asking.AWAITING
    assert (responder.pair, responder.sa_pair) == (pair(R1, I1), pair(R1, I1))
    responder.receive(update, 0.0)
    assert responder.pair == pair(R2, I1)
    assert responder.asking is Asking.READY


def test_the_update_may_overtake_the_acknowledgement_or_the_wish_itself() -> None:
    initiator, responder = both()
    responder.switch(R2, 0.0)
    initiator.receive(responder.send(0.0)[0], 0.0)
    reply, update = initiator.send(0.0)
    responder.receive(update, 0.0)
    assert responder.asking is Asking.READY
    responder.receive(reply, 0.0)
    assert responder.asking is Asking.READY
    initiator, responder = both()
    responder.switch(R2, 0.0)
    initiator.update(pair(I1, R2), 0.0)
    responder.receive(update_of(initiator), 0.0)
    assert responder.asking is Asking.READY
    assert not any(m.has(SwitchToIpAddress) for m in responder.send(0.0))


def test_an_update_elsewhere_after_the_acknowledgement_is_a_refusal_and_before_it_is_none() -> None:
    initiator, responder = both(window=2)
    responder.switch(R2, 0.0)
    initiator.update(pair(I2, R1), 0.0)
    responder.receive(update_of(initiator), 0.0)
    assert current(responder.asking) is Asking.WANTED
    responder.send(0.0)
    assert current(responder.asking) is Asking.ASKED
    initiator.update(pair(I1, R1), 0.0)
    responder.receive(update_of(initiator), 0.0)
    assert current(responder.asking) is Asking.ASKED
    for message in responder.send(9.0):
        responder.receive(answer(message, *message.all(Cookie2)), 9.0)
    assert responder.asking is Asking.AWAITING
    initiator, responder = awaiting()
    initiator.update(pair(I2, R1), 1.0)
    responder.receive(update_of(initiator, 1.0), 1.0)
    assert responder.asking is Asking.READY
    assert told(responder, SwitchFailed) == [SwitchFailed(R2)]


def awaiting() -> tuple[RMobikeInitiator, RMobikeResponder]:
    initiator, responder = both()
    responder.switch(R2, 0.0)
    responder.receive(answer(responder.send(0.0)[0]), 0.0)
    assert responder.asking is Asking.AWAITING
    return initiator, responder


def test_an_acknowledgement_without_an_update_fails_after_a_while() -> None:
    _, responder = awaiting()
    assert responder.next_deadline() == 30.0
    responder.send(29.0)
    assert current(responder.asking) is Asking.AWAITING
    responder.send(30.0)
    assert responder.asking is Asking.READY
    assert told(responder, SwitchFailed) == [SwitchFailed(R2)]


def test_a_wish_can_be_changed_before_it_is_sent_and_after_it_is_acknowledged_only() -> None:
    _, responder = both()
    responder.switch(R2, 0.0)
    responder.switch(R1, 0.0)
    assert responder.asking is Asking.WANTED
    assert responder.send(0.0)[0].all(SwitchToIpAddress) == [SwitchToIpAddress(R1)]
    with pytest.raises(LocalTransitionError):
        responder.switch(R2, 0.0)
    _, responder = awaiting()
    responder.switch(R1, 0.0)
    assert responder.asking is Asking.WANTED


def test_an_inappropriate_address_is_refused_and_the_current_one_checked() -> None:
    initiator, responder = both()
    responder.switch(R3, 0.0)
    carried = pump(responder, initiator)
    assert not any(m.has(UpdateSaAddresses) for m in carried)
    assert initiator.pair == initiator.sa_pair == pair(I1, R1)
    assert told(initiator, SwitchDeclined) == [SwitchDeclined(R3, appropriate=False)]
    assert any(m.has(Cookie2) and m.source.ip == I1 for m in carried), (
        "a liveness check over the current pair"
    )
    assert initiator.following is Following.READY
    assert responder.asking is Asking.AWAITING
    assert responder.sa_pair == pair(R1, I1)


def test_the_liveness_check_after_a_refusal_is_waited_for() -> None:
    initiator, _ = both()
    initiator.receive(wish(initiator, 0, R3), 0.0)
    assert current(initiator.following) is Following.REFUSED
    initiator.receive(wish(initiator, 1, R3), 0.0)
    assert current(initiator.following) is Following.REFUSED
    check = next(m for m in initiator.send(0.0) if m.has(Cookie2))
    initiator.receive(answer(check, *check.all(Cookie2)), 0.0)
    assert initiator.following is Following.READY
    assert told(initiator, Alive)


def test_policy_decides_about_addresses_that_were_not_announced() -> None:
    initiator, responder = both(acceptable_switch=lambda ip: ip == R3)
    responder.switch(R3, 0.0)
    pump(responder, initiator)
    assert initiator.sa_pair == pair(I1, R3)


def test_an_address_of_a_family_without_an_own_address_is_inappropriate() -> None:
    initiator, _ = both(own_r=[R1, R6])
    assert R6 in initiator.peer_addresses
    initiator.receive(wish(initiator, 0, R6), 0.0)
    assert current(initiator.following) is Following.REFUSED
    initiator.own = (I1, I6)
    initiator.receive(wish(initiator, 1, R6), 0.0)
    assert initiator.following is Following.MOVING
    assert initiator.pair == pair(I6, R6)


def test_a_wished_address_that_is_dead_does_not_end_the_ike_sa() -> None:
    initiator, responder = both(retransmission=FAST)
    initiator.receive(wish(initiator, 0), 0.0)
    assert current(initiator.following) is Following.MOVING
    for now in (0.0, 1.0, 2.0):
        assert all(m.destination.ip == R2 for m in initiator.send(now) if not m.response) or now == 2.0
    assert current(initiator.following) is Following.RETURNING
    assert told(initiator, SwitchDeclined) == [SwitchDeclined(R2, appropriate=True)]
    pump(initiator, responder, 3.0)
    assert initiator.following is Following.READY
    assert initiator.sa_pair == pair(I1, R1)
    assert responder.sa_pair == pair(R1, I1)


def test_a_wish_during_a_switch_replaces_or_leaves_it() -> None:
    initiator, _ = both(retransmission=FAST)
    initiator.receive(wish(initiator, 0), 0.0)
    initiator.receive(wish(initiator, 1, R3), 0.0)
    assert initiator.following is Following.MOVING, "the inappropriate second wish changes nothing"
    initiator.receive(wish(initiator, 2, R1), 0.0)
    assert initiator.following is Following.MOVING
    assert initiator.pair == pair(I1, R1)
    initiator, _ = both(retransmission=FAST)
    initiator.receive(wish(initiator, 0), 0.0)
    for now in (0.0, 1.0, 2.0):
        initiator.send(now)
    initiator.receive(wish(initiator, 1, R3), 2.0)
    assert current(initiator.following) is Following.RETURNING
    initiator.receive(wish(initiator, 2, R2), 2.0)
    assert initiator.following is Following.MOVING
    refused, _ = both()
    refused.receive(wish(refused, 0, R3), 0.0)
    refused.receive(wish(refused, 1, R2), 0.0)
    assert refused.following is Following.MOVING


def test_local_policy_overrules_a_switch_in_every_state() -> None:
    for name in Following:
        initiator, _ = both(retransmission=FAST)
        if name is Following.REFUSED:
            initiator.receive(wish(initiator, 0, R3), 0.0)
        elif name is not Following.READY:
            initiator.receive(wish(initiator, 0), 0.0)
            for now in (0.0, 1.0, 2.0) if name is Following.RETURNING else ():
                initiator.send(now)
        assert initiator.following is name
        initiator.update(pair(I2, R1), 3.0)
        assert initiator.following is Following.READY
        assert initiator.pair == pair(I2, R1)


def test_unacceptable_addresses_at_the_wished_address_leads_back() -> None:
    initiator, _ = both()
    initiator.receive(wish(initiator, 0), 0.0)
    initiator.receive(answer(update_of(initiator), UnacceptableAddresses()), 0.0)
    assert initiator.following is Following.RETURNING
    assert initiator.pair == pair(I1, R1)


def test_a_wish_without_mobike_is_the_peers_fault() -> None:
    initiator, responder = RMobikeInitiator([I1], policy()), MobikeResponder([R1], policy(), mobike=False)
    initiator.connect([pair(I1, R1, 500)], 0.0)
    pump(initiator, responder)
    with pytest.raises(RemoteProtocolError):
        initiator.receive(wish(initiator, 0), 0.0)
    assert initiator.state is InitiatorState.UNSUPPORTED


def test_the_responder_takes_no_action_on_a_wish_of_the_initiator_but_answers_it() -> None:
    _, responder = both()
    responder.receive(request_to(responder, 2, SwitchToIpAddress(R2)), 0.0)
    reply = responder.send(0.0)
    assert [(m.response, m.payloads) for m in reply] == [(True, ())]
    assert responder.pair == responder.sa_pair == pair(R1, I1)
    assert responder.asking is Asking.READY


def test_an_unwilling_initiator_ignores_the_wish() -> None:
    initiator, _ = both(willing=False)
    initiator.receive(wish(initiator, 0), 0.0)
    assert initiator.following is Following.READY
    assert [m.payloads for m in initiator.send(0.0)] == [()]
