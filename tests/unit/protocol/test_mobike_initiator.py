"""What RFC 4555 says about the initiator, transition by transition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.protocol.exchange import Delete, Exchange, Message, Retransmission
from mobikectl.protocol.machine import (
    LocalProtocolError,
    LocalTransitionError,
    RemoteProtocolError,
    RemoteTransitionError,
)
from mobikectl.protocol.mobike import (
    Alive,
    AnnounceFailed,
    Closed,
    Established,
    PathInUse,
    PathSuspect,
    PeerAddresses,
    Reason,
    ReturnRoutability,
    UpdateRefused,
)
from mobikectl.protocol.mobike_initiator import MobikeInitiator, State
from mobikectl.protocol.mobike_responder import MobikeResponder
from mobikectl.wire.mobike import (
    AdditionalIp4Address,
    AdditionalIp6Address,
    Cookie2,
    MobikeSupported,
    NatDetectionDestinationIp,
    NatDetectionSourceIp,
    NoAdditionalAddresses,
    NoNatsAllowed,
    UnacceptableAddresses,
    UnexpectedNatDetected,
    UpdateSaAddresses,
)

from .protocol_helpers import (
    I1,
    I2,
    I6,
    R1,
    R2,
    R6,
    VICTIM,
    answer,
    current,
    established,
    events,
    from_source,
    pair,
    policy,
    pump,
    request_to,
    told,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NEW = pair(I2, R1)
MOBILE = ("STABLE", "PENDING", "UPDATING", "REFUSED")


def in_state(name: str, **changes: Any) -> MobikeInitiator:
    """An initiator in the named state."""
    if name in {"IDLE", "CONNECTING", "AUTHENTICATING"}:
        machine = MobikeInitiator([I1, I2], policy(**changes))
        if name != "IDLE":
            machine.connect([pair(I1, R1, 500)], 0.0)
            request = machine.send(0.0)[0]
            if name == "AUTHENTICATING":
                machine.receive(answer(request, spis=(1, 2)), 0.0)
        assert machine.state is State[name]
        return machine
    machine, _ = established(policy(**changes), mobike=name != "UNSUPPORTED")
    if name in {"PENDING", "UPDATING", "REFUSED"}:
        if name == "PENDING":
            machine.check_liveness(0.0)
            machine.send(0.0)
        machine.update(NEW, 0.0)
        for request in machine.send(0.0) if name != "PENDING" else ():
            if name == "REFUSED":
                machine.receive(answer(request, UnacceptableAddresses()), 0.0)
    if name == "CLOSED":
        machine.close(0.0)
    assert machine.state is State[name]
    return machine


def update_request(machine: MobikeInitiator, now: float = 0.0) -> Message:
    requests = [m for m in machine.send(now) if m.has(UpdateSaAddresses)]
    return max(requests, key=lambda m: m.message_id)


# --- the initial exchanges


def test_connecting_tries_the_pairs_in_turn_and_keeps_the_one_that_answers() -> None:
    machine, responder = MobikeInitiator([I1, I2], policy()), MobikeResponder([R1], policy())
    machine.connect([pair(I1, R1, 500), pair(I2, R1, 500)], 0.0)
    assert current(machine.state) is State.CONNECTING
    first, second = machine.send(0.0)[0], machine.send(5.0)[0]
    assert (first.source.ip, second.source.ip) == (I1, I2)
    responder.receive(second, 5.0)
    machine.receive(responder.send(5.0)[0], 5.0)
    assert machine.state is State.AUTHENTICATING
    auth = machine.send(5.0)[0]
    assert (auth.source.ip, auth.source.port, auth.destination.port) == (I2, 4500, 4500)


def test_ike_auth_carries_mobike_supported_without_data_and_the_other_addresses() -> None:
    machine = MobikeInitiator([I1, I2, I6], policy())
    responder = MobikeResponder([R1, R2, R6], policy())
    machine.connect([pair(I1, R1, 500)], 0.0)
    carried = pump(machine, responder)
    auth = [m for m in carried if m.exchange is Exchange.IKE_AUTH]
    assert [m.all(MobikeSupported) for m in auth] == [[MobikeSupported(b"")], [MobikeSupported(b"")]]
    assert auth[0].all(AdditionalIp4Address) == [AdditionalIp4Address(I2)]
    assert auth[0].all(AdditionalIp6Address) == [AdditionalIp6Address(I6)]
    assert machine.state is State.STABLE
    assert machine.peer_addresses == {R1, R2, R6}
    assert told(machine, Established) == [Established(mobike=True)]


def test_data_in_mobike_supported_is_ignored() -> None:
    machine = in_state("AUTHENTICATING")
    auth = machine.send(0.0)[0]
    machine.receive(answer(auth, MobikeSupported(b"future")), 0.0)
    assert machine.state is State.STABLE


def test_without_nat_traversal_port_500_stays_and_ike_auth_has_no_nats_allowed() -> None:
    machine = in_state("AUTHENTICATING", nat_traversal=False)
    auth = machine.send(0.0)[0]
    assert auth.all(NoNatsAllowed) == [NoNatsAllowed(I1, R1, 500, 500)]


def test_a_responder_without_mobike_leaves_the_initiator_without_updates() -> None:
    machine = in_state("UNSUPPORTED")
    with pytest.raises(LocalTransitionError):
        machine.update(NEW, 0.0)
    with pytest.raises(LocalProtocolError):
        machine.check_liveness(0.0)
    assert machine.state is State.UNSUPPORTED


def test_unexpected_nat_in_ike_auth_is_retried_from_a_new_ike_sa_init_several_times() -> None:
    machine = in_state("AUTHENTICATING", nat_traversal=False, nat_retries=2)
    spis = {machine.spis[0]}
    for _ in range(2):
        machine.receive(answer(machine.send(0.0)[0], UnexpectedNatDetected()), 0.0)
        assert machine.state is State.CONNECTING
        init = machine.send(0.0)[0]
        assert init.exchange is Exchange.IKE_SA_INIT
        spis.add(init.spi_i)
        machine.receive(answer(init, spis=(init.spi_i, 9)), 0.0)
    machine.receive(answer(machine.send(0.0)[0], UnexpectedNatDetected()), 0.0)
    assert machine.state is State.CLOSED
    assert told(machine, Closed) == [Closed(Reason.NAT)]
    assert len(spis) == 3


def test_a_cookie_before_authentication_closes_nothing() -> None:
    machine = in_state("CONNECTING")
    request = machine.send(5.0)[0]
    machine.receive(answer(request, Cookie2(b"x" * 8), spis=(1, 2)), 5.0)
    assert machine.state is State.AUTHENTICATING


def test_closing_is_possible_in_every_state_but_closed() -> None:
    for name in ("IDLE", "CONNECTING", "AUTHENTICATING", "UNSUPPORTED", *MOBILE):
        machine = in_state(name)
        machine.close(0.0)
        assert machine.state is State.CLOSED
        assert told(machine, Closed) == [Closed(Reason.LOCAL)]
    with pytest.raises(LocalTransitionError):
        in_state("CLOSED").close(0.0)


def test_no_answer_in_time_closes() -> None:
    for name in ("CONNECTING", "AUTHENTICATING", *MOBILE):
        machine = in_state(name)
        if name in {"STABLE", "REFUSED"}:
            machine.check_liveness(0.0)
            machine.send(0.0)
        machine.send(301.0)
        assert machine.state is State.CLOSED
        assert told(machine, Closed) == [Closed(Reason.TIMEOUT)]


def test_the_peers_delete_closes_and_is_answered() -> None:
    for name in ("UNSUPPORTED", *MOBILE):
        machine = in_state(name)
        machine.receive(request_to(machine, 0, Delete()), 0.0)
        assert machine.state is State.CLOSED
        assert machine.send(0.0)[0].response


def test_a_request_that_overtakes_the_ike_auth_response_is_not_answered_yet() -> None:
    machine = in_state("AUTHENTICATING")
    machine.send(0.0)
    machine.receive(request_to(machine, 0, NoAdditionalAddresses()), 0.0)
    assert machine.send(0.0) == []
    assert machine.state is State.AUTHENTICATING


# --- updates (section 3.5)


def test_an_update_goes_over_the_new_pair_and_settles() -> None:
    machine, responder = established()
    machine.update(NEW, 0.0)
    assert current(machine.state) is State.PENDING
    request = machine.send(0.0)[0]
    assert current(machine.state) is State.UPDATING
    assert (request.source.ip, request.destination.ip) == (I2, R1)
    assert request.has(NatDetectionSourceIp)
    assert request.has(NatDetectionDestinationIp)
    assert request.has(Cookie2)
    responder.receive(request, 0.0)
    pump(machine, responder)
    assert machine.state is State.STABLE
    assert machine.sa_pair == NEW
    assert responder.sa_pair == pair(R1, I2)


def test_pending_update_waits_for_the_window_and_the_outstanding_request_moves_along() -> None:
    machine = in_state("PENDING")
    moved = machine.send(0.0)
    assert [(m.source.ip, m.has(UpdateSaAddresses)) for m in moved] == [(I2, False)]
    machine.receive(answer(moved[0], *moved[0].all(Cookie2)), 0.0)
    assert update_request(machine).source.ip == I2
    assert machine.state is State.UPDATING


def test_a_change_while_waiting_starts_again_and_the_old_response_changes_nothing() -> None:
    machine = in_state("UPDATING")
    old = machine.send(3.0)[0]
    third = pair(I1, R2)
    machine.update(third, 3.0)
    assert current(machine.state) is State.PENDING
    assert machine.send(3.0)[0].destination.ip == R2, "the old request continues over the new pair"
    machine.receive(answer(old, *old.all(Cookie2)), 3.0)
    assert current(machine.state) is State.PENDING
    assert not told(machine, UpdateRefused)
    request = update_request(machine, 3.0)
    assert request.message_id == old.message_id + 1
    machine.receive(answer(request, *request.all(Cookie2)), 3.0)
    assert machine.state is State.STABLE
    assert machine.sa_pair == third


def test_with_a_larger_window_superseded_answers_change_nothing_in_any_state() -> None:
    for order, reply, expected in (
        ("old first", (), State.UPDATING),
        ("new first", (), State.STABLE),
        ("new first", (UnacceptableAddresses(),), State.REFUSED),
    ):
        machine, _ = established(policy(window=2))
        machine.update(NEW, 0.0)
        old = update_request(machine)
        machine.update(pair(I1, R2), 0.0)
        new = update_request(machine)
        if order == "new first":
            machine.receive(answer(new, *new.all(Cookie2), *reply), 0.0)
            assert machine.state is expected
        machine.receive(answer(old, *old.all(Cookie2), UnacceptableAddresses()), 0.0)
        assert machine.state is expected


def test_a_change_is_possible_in_every_mobile_state() -> None:
    for name in MOBILE:
        machine = in_state(name)
        machine.update(pair(I2, R2), 0.0)
        assert machine.state is State.PENDING
        assert machine.pair == pair(I2, R2)
    for name in ("IDLE", "CONNECTING", "AUTHENTICATING", "CLOSED"):
        with pytest.raises(LocalTransitionError):
            in_state(name).update(NEW, 0.0)


def test_before_means_that_ipsec_waits_for_the_answer_from_an_unverified_responder_address() -> None:
    machine, responder = established()
    machine.update(pair(I1, R2), 0.0)
    request = update_request(machine)
    assert machine.sa_pair == pair(I1, R1)
    responder.receive(request, 0.0)
    pump(machine, responder)
    assert machine.sa_pair == pair(I1, R2)
    machine.update(pair(I1, R1), 1.0)
    assert machine.sa_pair == pair(I1, R1), "an address verified earlier is used at once"


def test_after_means_that_ipsec_moves_at_once_but_only_for_a_limited_time() -> None:
    machine, responder = established(
        policy(return_routability=ReturnRoutability.AFTER, unverified_limit_s=10.0)
    )
    machine.update(pair(I1, R2), 0.0)
    assert machine.sa_pair == pair(I1, R2)
    assert machine.may_send_esp(9.0)
    assert not machine.may_send_esp(10.0)
    pump(machine, responder, 5.0)
    assert machine.may_send_esp(100.0)


def test_skip_means_no_cookie_and_no_waiting() -> None:
    machine, _ = established(policy(return_routability=ReturnRoutability.SKIP))
    machine.update(pair(I1, R2), 0.0)
    assert machine.sa_pair == pair(I1, R2)
    assert not update_request(machine).has(Cookie2)


def test_a_suspected_nat_enables_encapsulation_at_once() -> None:
    machine, _ = established()
    machine.update(NEW, 0.0, suspect_nat=True)
    assert machine.encapsulated


def test_unacceptable_addresses_leaves_the_choice_to_policy() -> None:
    machine = in_state("REFUSED")
    assert told(machine, UpdateRefused) == [UpdateRefused(NEW, Reason.UNACCEPTABLE)]
    machine.keep(0.0)
    assert machine.state is State.STABLE
    assert machine.pair == machine.sa_pair == pair(I1, R1)
    with pytest.raises(LocalTransitionError):
        machine.keep(0.0)
    again = in_state("REFUSED")
    again.update(pair(I2, R2), 0.0)
    assert again.state is State.PENDING


def test_keeping_after_a_superseded_update_tells_the_responder_which_pair_is_kept() -> None:
    machine = in_state("UPDATING")
    old = machine.send(3.0)[0]
    machine.update(pair(I1, R2), 3.0)
    machine.send(3.0)
    machine.receive(answer(old, *old.all(Cookie2)), 3.0)
    request = update_request(machine, 3.0)
    machine.receive(answer(request, UnacceptableAddresses()), 3.0)
    assert current(machine.state) is State.REFUSED
    machine.keep(3.0)
    assert machine.state is State.PENDING
    assert update_request(machine, 3.0).arrival == pair(R1, I1)


def test_a_lost_answer_makes_the_path_suspect_after_some_tries_once() -> None:
    machine = in_state("UPDATING", retransmission=Retransmission(1.0, 1.0, 1.0, suspect_after=3))
    for now in (1.0, 2.0, 3.0, 4.0, 5.0):
        assert len(machine.send(now)) == 1
    assert told(machine, PathSuspect) == [PathSuspect(NEW)]


# --- COOKIE2 (section 3.7)


def test_a_changed_or_missing_cookie_closes_in_every_mobile_state() -> None:
    for name in MOBILE:
        for cookies in ((), (Cookie2(b"forged!!"),), (Cookie2(b"forged!!"), Cookie2(b"forged!!"))):
            machine = in_state(name)
            if name in {"STABLE", "REFUSED"}:
                machine.check_liveness(10.0)
            request = machine.send(10.0)[0]
            machine.receive(answer(request, *cookies), 10.0)
            assert machine.state is State.CLOSED
            assert told(machine, Closed) == [Closed(Reason.COOKIE2)]
            assert machine.send(10.0)[0].has(Delete)


def test_cookies_are_fresh_unpredictable_and_of_legal_size() -> None:
    machine = MobikeInitiator([I1])
    cookies = {machine._cookie().cookie for _ in range(100)}
    assert len(cookies) == 100
    assert all(8 <= len(cookie) <= 64 for cookie in cookies)


def test_the_cookie_of_a_request_is_copied_as_it_is() -> None:
    machine = in_state("STABLE")
    machine.receive(request_to(machine, 0, Cookie2(b"12345678")), 0.0)
    assert machine.send(0.0)[0].all(Cookie2) == [Cookie2(b"12345678")]


# --- NAT prohibition (section 3.9)


def test_unexpected_nat_is_retried_with_new_requests_then_refused() -> None:
    machine, _ = established(policy(nat_traversal=False, nat_retries=2))
    machine.update(NEW, 0.0)
    numbers = []
    for _ in range(2):
        request = update_request(machine)
        assert request.all(NoNatsAllowed) == [NoNatsAllowed(I2, R1, 4500, 4500)]
        numbers.append(request.message_id)
        machine.receive(answer(request, UnexpectedNatDetected()), 0.0)
        assert machine.state is State.PENDING
    request = update_request(machine)
    machine.receive(answer(request, UnexpectedNatDetected()), 0.0)
    assert machine.state is State.REFUSED
    assert told(machine, UpdateRefused) == [UpdateRefused(NEW, Reason.NAT)]
    assert len({*numbers, request.message_id}) == 3


def test_one_modified_packet_does_not_spoil_a_path() -> None:
    machine, responder = established(policy(nat_traversal=False), policy(nat_traversal=False))
    machine.update(NEW, 0.0)
    responder.receive(from_source(update_request(machine), VICTIM), 0.0)
    refusal = responder.send(0.0)[0]
    assert refusal.destination.ip == VICTIM
    machine.receive(refusal, 0.0)
    pump(machine, responder)
    assert machine.state is State.STABLE
    assert responder.sa_pair == pair(R1, I2)


def test_the_responders_list_is_protected_from_nats_too_in_every_mobile_state() -> None:
    for name in MOBILE:
        machine = in_state(name, nat_traversal=False)
        before = machine.peer_addresses
        claim = NoNatsAllowed(R1, I1, 4500, 4500)
        message = request_to(machine, 0, NoAdditionalAddresses(), claim, over=pair(I1, VICTIM))
        machine.receive(message, 0.0)
        assert machine.state is State[name]
        assert machine.peer_addresses == before
        reply = next(m for m in machine.send(0.0) if m.response)
        assert reply.has(UnexpectedNatDetected)
        assert reply.destination.ip == VICTIM


def test_an_update_without_no_nats_allowed_is_the_peers_fault() -> None:
    machine = in_state("STABLE", nat_traversal=False)
    with pytest.raises(RemoteProtocolError):
        machine.receive(request_to(machine, 0, NoAdditionalAddresses()), 0.0)
    assert machine.state is State.STABLE


# --- NAT mappings (section 3.8)


def behind_nat(port: int) -> Callable[[Message], Message]:
    def change(message: Message) -> Message:
        inside = message.source.ip == I1
        if inside:
            return from_source(message, I2, port)
        return Message(
            message.exchange,
            message.message_id,
            message.response,
            message.source,
            pair(I1, R1).local if message.exchange is not Exchange.IKE_SA_INIT else pair(I1, R1, 500).local,
            message.payloads,
            message.spi_i,
            message.spi_r,
        )

    return change


def test_a_changed_nat_mapping_is_seen_in_a_liveness_check_and_starts_an_update() -> None:
    machine, responder = established(change=behind_nat(10_000))
    assert machine.local_nat
    assert responder.sa_pair == pair(R1, I2, 4500).__class__(pair(R1, I2).local, pair(R1, I2, 10_000).remote)
    machine.update(pair(I1, R1), 0.0)
    pump(machine, responder, 0.0, change=behind_nat(10_000))
    machine.check_liveness(1.0)
    carried = pump(machine, responder, 1.0, change=behind_nat(10_000))
    assert not any(m.has(UpdateSaAddresses) for m in carried), "nothing changed"
    assert current(machine.state) is State.STABLE
    machine.check_liveness(2.0)
    liveness = machine.send(2.0)[0]
    responder.receive(from_source(liveness, I2, 20_000), 2.0)
    machine.receive(responder.send(2.0)[0], 2.0)
    assert current(machine.state) is State.PENDING
    pump(machine, responder, 2.0, change=behind_nat(20_000))
    assert machine.state is State.STABLE
    assert responder.sa_pair is not None
    assert responder.sa_pair.remote.port == 20_000


def test_a_suspected_nat_mapping_may_be_updated_without_detection() -> None:
    machine = in_state("STABLE")
    machine.update(machine.pair, 0.0)
    assert update_request(machine).arrival == pair(R1, I1)


# --- address lists (section 3.6) and path tests (section 3.10)


def test_the_peers_list_replaces_the_old_one_in_every_mobile_state() -> None:
    for name in MOBILE:
        machine = in_state(name)
        machine.receive(request_to(machine, 0, AdditionalIp4Address(R2), over=pair(I1, R1)), 0.0)
        assert machine.state is State[name]
        assert machine.peer_addresses == {R1, R2}
        machine.receive(request_to(machine, 1, NoAdditionalAddresses(), over=pair(I1, R2)), 0.0)
        assert machine.peer_addresses == {R2}
        lists = told(machine, PeerAddresses)
        assert lists[-1] == PeerAddresses(frozenset({R2}), current_gone=True, source=R2)


def test_of_two_lists_the_one_with_the_larger_message_id_wins() -> None:
    machine = in_state("STABLE", window=2)
    machine.receive(request_to(machine, 1, AdditionalIp4Address(R2)), 0.0)
    machine.receive(request_to(machine, 0, NoAdditionalAddresses()), 0.0)
    assert machine.peer_addresses == {R1, R2}
    assert len([m for m in machine.send(0.0) if m.response]) == 2, "the older one is answered all the same"


def test_a_list_without_mobike_is_the_peers_fault() -> None:
    machine = in_state("UNSUPPORTED")
    with pytest.raises(RemoteTransitionError):
        machine.receive(request_to(machine, 0, NoAdditionalAddresses()), 0.0)
    assert machine.state is State.UNSUPPORTED


def test_own_addresses_are_announced_completely_and_may_ride_on_an_update() -> None:
    machine, responder = established()
    machine.announce([I1], 0.0)
    request = machine.send(0.0)[0]
    assert request.has(NoAdditionalAddresses)
    responder.receive(request, 0.0)
    pump(machine, responder)
    assert responder.peer_addresses == {I1}
    machine.announce([I1, I2], 0.0)
    machine.update(NEW, 0.0)
    request = update_request(machine)
    assert request.all(AdditionalIp4Address) == [AdditionalIp4Address(I1)]
    responder.receive(request, 0.0)
    pump(machine, responder)
    assert responder.peer_addresses == {I1, I2}


def test_a_list_retransmitted_from_another_source_address_is_sent_anew() -> None:
    machine = in_state("STABLE")
    machine.announce([I1, I2], 0.0)
    first = machine.send(0.0)[0]
    machine.update(NEW, 0.0)
    machine.send(0.0)
    machine.receive(answer(first), 0.0)
    again = machine.send(0.0)[0]
    assert again.message_id > first.message_id
    assert again.all(AdditionalIp4Address) == [AdditionalIp4Address(I1)]


def test_an_announcement_that_a_nat_spoils_is_given_up_after_the_retries() -> None:
    machine = in_state("STABLE", nat_traversal=False, nat_retries=2)
    machine.announce([I1], 0.0)
    for _ in range(3):
        machine.receive(answer(machine.send(0.0)[0], UnexpectedNatDetected()), 0.0)
    assert told(machine, AnnounceFailed)
    assert machine.send(0.0) == []


def test_a_path_test_changes_nothing_and_proves_only_what_went_over_one_pair() -> None:
    machine, responder = established()
    machine.probe(pair(I2, R2), 0.0)
    pump(machine, responder)
    assert told(machine, Alive) == [Alive(pair(I2, R2), proven=True, probe=True)]
    assert machine.pair == pair(I1, R1)
    assert responder.pair == pair(R1, I1), "a request without UPDATE_SA_ADDRESSES never moves the responder"
    machine.probe(pair(I2, R1), 0.0)
    machine.send(0.0)
    machine.probe(pair(I2, R2), 0.0)
    pump(machine, responder)
    assert told(machine, Alive) == [Alive(pair(I2, R2), proven=False, probe=True)]


def test_unreliable_hints_lead_to_a_liveness_check_only() -> None:
    machine, responder = established()
    machine.check_liveness(0.0)
    pump(machine, responder)
    assert told(machine, Alive) == [Alive(pair(I1, R1), proven=True, probe=False)]
    assert machine.state is State.STABLE


def test_ipsec_packets_with_other_addresses_are_no_evidence() -> None:
    machine = in_state("STABLE")
    assert machine.is_evidence(pair(I1, R1))
    assert not machine.is_evidence(pair(I1, R2))
    assert not machine.is_evidence(pair(I2, R1))


def test_only_the_initiator_updates_so_an_update_request_is_the_peers_fault() -> None:
    for name in MOBILE:
        machine = in_state(name)
        before = machine.pair
        with pytest.raises(RemoteTransitionError):
            machine.receive(request_to(machine, 0, UpdateSaAddresses()), 0.0)
        assert machine.state is State[name]
        assert machine.pair == before


def test_messages_of_other_ike_sas_late_and_repeated_ones_are_harmless() -> None:
    machine, responder = established()
    machine.update(NEW, 0.0)
    request = update_request(machine)
    response = answer(request, *request.all(Cookie2))
    stranger = Message(
        response.exchange, response.message_id, True, response.source, response.destination, (), 77, 78
    )
    machine.receive(stranger, 0.0)
    assert current(machine.state) is State.UPDATING
    machine.receive(response, 0.0)
    machine.receive(response, 0.0)
    assert machine.state is State.STABLE
    assert [e for e in events(machine) if isinstance(e, PathInUse)] == [PathInUse(NEW)]
    responder.receive(request, 0.0)
    first = responder.send(0.0)[0]
    responder.receive(from_source(request, VICTIM), 0.0)
    repeated = responder.send(0.0)[0]
    assert repeated.payloads == first.payloads
    assert repeated.destination.ip == VICTIM
    assert responder.pair == pair(R1, I2), "a repeated request is answered, not processed again"


def test_nothing_of_a_response_to_another_exchange_is_believed() -> None:
    machine = in_state("UPDATING")
    request = machine.send(3.0)[0]
    wrong = answer(request)
    machine.receive(
        Message(
            Exchange.IKE_AUTH, wrong.message_id, True, wrong.source, wrong.destination, (), *machine.spis
        ),
        3.0,
    )
    assert current(machine.state) is State.UPDATING
    machine.receive(without(answer(request, *request.all(Cookie2)), type(None)), 3.0)
    assert machine.state is State.STABLE
