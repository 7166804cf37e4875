"""What RFC 4555 says about the responder, transition by transition."""

from __future__ import annotations

from typing import Any

import pytest

from mobikectl.protocol.exchange import Delete, Endpoint, Message, Pair, Retransmission
from mobikectl.protocol.machine import (
    LocalProtocolError,
    LocalTransitionError,
    RemoteProtocolError,
    RemoteTransitionError,
)
from mobikectl.protocol.mobike import (
    Alive,
    Closed,
    PathInUse,
    Reason,
    ReturnRoutability,
    UnexpectedNat,
    Verified,
)
from mobikectl.protocol.mobike_initiator import MobikeInitiator
from mobikectl.protocol.mobike_responder import MobikeResponder, State
from mobikectl.wire.mobike import (
    AdditionalIp4Address,
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

from . import protocol_helpers
from .protocol_helpers import (
    I1,
    I2,
    R1,
    R2,
    R3,
    VICTIM,
    answer,
    current,
    established,
    from_source,
    pair,
    policy,
    pump,
    told,
    without,
)

MOBILE = ("STABLE", "CHECKING")
FIRST = 2
"""The initiator's first message ID after IKE_SA_INIT and IKE_AUTH."""
FROM_I2 = pair(R1, I2)


def in_state(name: str, **changes: Any) -> MobikeResponder:
    """A responder in the named state; CHECKING has sent its check to I2."""
    if name in {"LISTENING", "NEGOTIATING"}:
        machine = MobikeResponder([R1, R2], policy(**changes))
        if name == "NEGOTIATING":
            machine.receive(initial(nat_traversal=machine.policy.nat_traversal), 0.0)
            machine.send(0.0)
        assert machine.state is State[name]
        return machine
    _, machine = established(
        policy(nat_traversal=changes.get("nat_traversal", True)),
        policy(**changes),
        mobike=name != "UNSUPPORTED",
    )
    if name == "CHECKING":
        machine.receive(update(machine, 0), 0.0)
        machine.send(0.0)
    if name == "CLOSED":
        machine.close(0.0)
    assert machine.state is State[name]
    return machine


def request_to(machine: MobikeResponder, number: int, *payloads: object, over: Pair | None = None) -> Message:
    """The initiator's INFORMATIONAL request with this number, counted from 0."""
    return protocol_helpers.request_to(machine, FIRST + number, *payloads, over=over)


def initial(*, nat_traversal: bool = True) -> Message:
    initiator = MobikeInitiator([I1, I2], policy(nat_traversal=nat_traversal))
    initiator.connect([pair(I1, R1, 500)], 0.0)
    return initiator.send(0.0)[0]


def update(machine: MobikeResponder, number: int, *more: object, over: Pair = FROM_I2) -> Message:
    claim = (
        ()
        if machine.natt
        else (NoNatsAllowed(over.remote.ip, over.local.ip, over.remote.port, over.local.port),)
    )
    return request_to(machine, number, UpdateSaAddresses(), *claim, *more, over=over)


def check_of(machine: MobikeResponder, now: float = 0.0) -> Message:
    """The newest return routability check that is due."""
    checks = [m for m in machine.send(now) if not m.response and m.has(Cookie2)]
    return max(checks, key=lambda m: m.message_id)


def test_the_initial_exchange_answers_with_mobike_supported_and_the_own_addresses() -> None:
    machine = in_state("NEGOTIATING")
    machine.receive(initial(), 0.0)
    assert machine.state is State.NEGOTIATING, "a repeated IKE_SA_INIT"
    initiator, responder = established()
    assert responder.state is State.STABLE
    assert responder.pair == pair(R1, I1), "the addresses of the IKE_AUTH request"
    assert responder.sa_pair == pair(R1, I1)
    assert initiator.peer_addresses == {R1, R2}
    assert responder.peer_addresses == {I1, I2}


def test_an_initiator_without_mobike_gets_none() -> None:
    machine = in_state("UNSUPPORTED")
    with pytest.raises(RemoteTransitionError):
        machine.receive(update(machine, 0), 0.0)
    with pytest.raises(LocalProtocolError):
        machine.announce([R1], 0.0)
    assert machine.state is State.UNSUPPORTED
    assert machine.sa_pair == pair(R1, I1)


def test_the_first_ike_auth_is_protected_from_nats() -> None:
    for changed, state in ((False, State.STABLE), (True, State.LISTENING)):
        initiator = MobikeInitiator([I1], policy(nat_traversal=False))
        machine = MobikeResponder([R1], policy(nat_traversal=False))
        initiator.connect([pair(I1, R1, 500)], 0.0)
        machine.receive(initiator.send(0.0)[0], 0.0)
        initiator.receive(machine.send(0.0)[0], 0.0)
        auth = initiator.send(0.0)[0]
        machine.receive(from_source(auth, VICTIM) if changed else auth, 0.0)
        assert machine.state is state
        reply = machine.send(0.0)[0]
        assert reply.has(UnexpectedNatDetected) is changed
        assert reply.destination.ip == (VICTIM if changed else I1)
        assert (machine.sa_pair is None) is changed


def test_ike_auth_without_no_nats_allowed_is_the_peers_fault() -> None:
    initiator, machine = (
        MobikeInitiator([I1], policy(nat_traversal=False)),
        in_state("LISTENING", nat_traversal=False),
    )
    initiator.connect([pair(I1, R1, 500)], 0.0)
    machine.receive(initiator.send(0.0)[0], 0.0)
    initiator.receive(machine.send(0.0)[0], 0.0)
    with pytest.raises(RemoteProtocolError):
        machine.receive(without(initiator.send(0.0)[0], NoNatsAllowed), 0.0)
    assert machine.state is State.NEGOTIATING


def test_half_open_ike_sas_are_bounded() -> None:
    machine = in_state("LISTENING")
    for spi in range(1, 100):
        first = initial()
        machine.receive(
            Message(first.exchange, 0, False, first.source, first.destination, first.payloads, spi, 0), 0.0
        )
    assert len(machine._half_open) <= 8


def test_an_update_is_answered_at_once_and_ipsec_waits_for_the_check() -> None:
    machine = in_state("STABLE")
    machine.receive(update(machine, 0, Cookie2(b"12345678")), 0.0)
    assert current(machine.state) is State.CHECKING
    assert machine.pair == FROM_I2
    assert machine.sa_pair == pair(R1, I1)
    reply, check = machine.send(0.0)
    assert reply.response
    assert reply.all(Cookie2) == [Cookie2(b"12345678")]
    assert check.destination == FROM_I2.remote
    machine.receive(answer(check, *check.all(Cookie2)), 0.0)
    assert machine.state is State.STABLE
    assert machine.sa_pair == FROM_I2
    assert told(machine, Verified) == [Verified(FROM_I2.remote)]


def test_no_check_for_the_verified_address_or_when_policy_skips_it() -> None:
    machine = in_state("STABLE")
    machine.receive(update(machine, 0, over=pair(R2, I1)), 0.0)
    assert machine.state is State.STABLE
    assert machine.sa_pair == pair(R2, I1)
    skipping = in_state("STABLE", return_routability=ReturnRoutability.SKIP)
    skipping.receive(update(skipping, 0), 0.0)
    assert skipping.state is State.STABLE
    assert skipping.sa_pair == FROM_I2


def test_checking_after_the_update_limits_how_long_traffic_goes_there() -> None:
    machine = in_state("CHECKING", return_routability=ReturnRoutability.AFTER, unverified_limit_s=10.0)
    assert machine.sa_pair == FROM_I2
    assert machine.may_send_esp(9.9)
    assert not machine.may_send_esp(10.0)
    check = check_of(machine, 3.0)
    machine.receive(answer(check, *check.all(Cookie2)), 11.0)
    assert machine.may_send_esp(99.0)


def test_coming_back_to_an_unverified_address_gains_no_time() -> None:
    machine = in_state("CHECKING", return_routability=ReturnRoutability.AFTER, unverified_limit_s=10.0)
    machine.receive(update(machine, 1, over=pair(R1, I1)), 5.0)
    assert machine.may_send_esp(99.0)
    machine.receive(update(machine, 2), 9.0)
    assert machine.sa_pair == FROM_I2
    assert machine.may_send_esp(9.9)
    assert not machine.may_send_esp(10.0)


def test_a_newer_update_restarts_the_check_and_the_old_answer_proves_nothing() -> None:
    machine = in_state("CHECKING")
    third = pair(R1, VICTIM)
    machine.receive(update(machine, 1, over=third), 1.0)
    assert current(machine.state) is State.CHECKING
    old = check_of(machine, 1.0)
    assert old.destination == third.remote, "the outstanding request continues over the new pair"
    machine.receive(answer(old, *old.all(Cookie2)), 1.0)
    assert current(machine.state) is State.CHECKING
    assert machine.sa_pair == pair(R1, I1)
    new = check_of(machine, 1.0)
    assert new.message_id > old.message_id
    machine.receive(answer(new, *new.all(Cookie2)), 1.0)
    assert machine.state is State.STABLE
    assert machine.sa_pair == third


def test_going_back_to_the_verified_address_ends_the_check() -> None:
    machine = in_state("CHECKING")
    machine.receive(update(machine, 1, over=pair(R1, I1)), 1.0)
    assert machine.state is State.STABLE
    assert machine.sa_pair == pair(R1, I1)
    late = machine.send(1.0)
    machine.receive(answer(late[-1], *late[-1].all(Cookie2)), 1.0)
    assert machine.state is State.STABLE


def test_an_older_update_is_answered_but_changes_nothing() -> None:
    for name in MOBILE:
        machine = in_state(name, window=3)
        base = 0 if name == "STABLE" else 1
        machine.receive(update(machine, base + 1, over=pair(R2, I1)), 0.0)
        if name == "CHECKING":
            machine.receive(update(machine, base + 2, over=pair(R2, VICTIM)), 0.0)
        current, state = machine.pair, machine.state
        machine.receive(update(machine, base, over=pair(R1, R3)), 0.0)
        assert machine.state is state is State[name]
        assert machine.pair == current
        assert not any(m.has(UnacceptableAddresses) for m in machine.send(0.0))


def test_unacceptable_addresses_are_refused_and_nothing_changes() -> None:
    for name in MOBILE:
        machine = in_state(name, acceptable=lambda path: path.remote != VICTIM)
        current, base = machine.pair, 0 if name == "STABLE" else 1
        machine.receive(update(machine, base, Cookie2(b"12345678"), over=pair(R1, VICTIM)), 0.0)
        assert machine.state is State[name]
        assert machine.pair == current
        reply = next(m for m in machine.send(0.0) if m.response)
        assert reply.has(UnacceptableAddresses)
        assert reply.has(Cookie2)
        assert reply.destination.ip == VICTIM, "sent to where the request came from"


def test_an_update_changed_by_a_nat_is_refused_and_its_claim_used_for_nothing() -> None:
    for name in MOBILE:
        machine = in_state(name, nat_traversal=False)
        current, base = machine.pair, 0 if name == "STABLE" else 1
        claim = NoNatsAllowed(I2, R1, 4500, 4500)
        message = request_to(machine, base, UpdateSaAddresses(), claim, over=pair(R1, VICTIM))
        machine.receive(message, 0.0)
        assert machine.state is State[name]
        assert (machine.pair, machine.sa_pair) == (current, pair(R1, I1, 500))
        reply = next(m for m in machine.send(0.0) if m.response)
        assert reply.has(UnexpectedNatDetected)
        assert reply.destination.ip == VICTIM
        assert told(machine, UnexpectedNat) == [UnexpectedNat(claim, pair(R1, VICTIM))]


def test_the_initiators_list_is_stored_and_nothing_else_is_done() -> None:
    for name in MOBILE:
        machine = in_state(name)
        current, base = (machine.pair, machine.sa_pair), 0 if name == "STABLE" else 1
        machine.receive(request_to(machine, base, AdditionalIp4Address(R3), over=pair(R1, I1)), 0.0)
        assert machine.state is State[name]
        assert machine.peer_addresses == {I1, R3}
        assert (machine.pair, machine.sa_pair) == current


def test_requests_without_an_update_never_move_anything() -> None:
    machine = in_state("STABLE")
    machine.receive(request_to(machine, 0, Cookie2(b"12345678"), over=pair(R2, I2)), 0.0)
    assert machine.send(0.0)[0].destination.ip == I2
    assert machine.pair == machine.sa_pair == pair(R1, I1)


def test_nat_detection_is_answered_with_the_addresses_seen() -> None:
    machine = in_state("STABLE")
    way = pair(R1, VICTIM, 1234)
    hashes = machine._hashes(Pair(way.remote, way.local), machine.spis)
    machine.receive(request_to(machine, 0, *hashes, over=way), 0.0)
    reply = machine.send(0.0)[0]
    assert reply.all(NatDetectionDestinationIp)[0].matches(*machine.spis, VICTIM, 1234)
    assert reply.all(NatDetectionSourceIp)[0].matches(*machine.spis, R1, 1234)
    machine.receive(request_to(machine, 1), 0.0)
    assert not machine.send(0.0)[0].has(NatDetectionSourceIp)


def test_an_update_enables_and_disables_nat_traversal() -> None:
    machine = in_state("STABLE")
    hashes = machine._hashes(pair(I2, R1), machine.spis)
    machine.receive(update(machine, 0, *hashes, over=pair(R1, VICTIM)), 0.0)
    assert machine.encapsulated
    machine.receive(update(machine, 1, *hashes, over=FROM_I2), 0.0)
    assert not machine.encapsulated


def test_when_the_source_address_goes_away_ipsec_may_move_without_an_update() -> None:
    for name in MOBILE:
        for exception in (True, False):
            machine = in_state(name, responder_exception=exception)
            machine.own_changed([R2], 1.0)
            assert machine.state is State[name]
            expected = pair(R2, I1) if exception else pair(R1, I1)
            assert machine.sa_pair == expected
            assert machine.pair.local.ip == R2
            assert told(machine, PathInUse)[-1:] == ([PathInUse(expected)] if exception else [])


def test_the_loss_of_the_source_is_announced_over_every_known_pair_and_then_anew() -> None:
    machine = in_state("STABLE", retransmission=Retransmission(1.0, 1.0, 1.0))
    machine.own_changed([R2, R3], 0.0)
    ways = [machine.send(float(now))[0] for now in range(8)]
    assert {(m.source.ip, m.destination.ip) for m in ways} == {(r, i) for r in (R2, R3) for i in (I1, I2)}
    assert all(m.has(AdditionalIp4Address) for m in ways)
    machine.receive(answer(ways[-1]), 8.0)
    again = machine.send(8.0)[0]
    assert again.message_id > ways[0].message_id, "several sources: a new request"
    assert (again.source, again.destination) == (ways[-1].source, ways[-1].destination)


def test_a_pair_that_a_request_came_over_is_tried_too_and_ipsec_uses_what_answers() -> None:
    machine = in_state("STABLE", retransmission=Retransmission(1.0, 1.0, 1.0))
    machine.own_changed([R2, R3], 0.0)
    seen = Pair(Endpoint(R3, 4500), Endpoint(VICTIM, 7777))
    machine.receive(request_to(machine, 0, over=seen), 0.0)
    ways = [next(m for m in machine.send(float(now)) if not m.response) for now in range(12)]
    through = next(m for m in ways if m.destination == seen.remote)
    assert through.source.ip == R3
    machine.receive(answer(through), 12.0)
    assert machine.sa_pair == pair(R3, I1), "the own address that works; the initiator's stays as verified"


def test_a_change_of_other_addresses_moves_nothing() -> None:
    machine = in_state("STABLE")
    machine.own_changed([R1, R3], 0.0)
    assert machine.send(0.0)[0].all(AdditionalIp4Address) == [AdditionalIp4Address(R3)]
    assert machine.sa_pair == pair(R1, I1)
    with pytest.raises(LocalProtocolError):
        machine.own_changed([], 0.0)


def test_the_address_can_be_verified_again_all_the_time() -> None:
    machine = in_state("STABLE", recheck_s=30.0)
    assert machine.next_deadline() == 30.0
    assert machine.send(29.0) == []
    check = check_of(machine, 30.0)
    assert current(machine.state) is State.CHECKING
    machine.receive(answer(check, *check.all(Cookie2)), 31.0)
    assert machine.state is State.STABLE
    assert machine.next_deadline() == 61.0


def test_a_changed_cookie_a_delete_silence_or_close_end_it() -> None:
    for name in MOBILE:
        for reason in (Reason.COOKIE2, Reason.DELETED, Reason.TIMEOUT, Reason.LOCAL):
            machine = in_state(name)
            base = 0 if name == "STABLE" else 1
            if name == "STABLE":
                machine.check_liveness(0.0)
            request = machine.send(10.0)[-1]
            match reason:
                case Reason.COOKIE2:
                    machine.receive(answer(request, Cookie2(b"forged!!")), 10.0)
                case Reason.DELETED:
                    machine.receive(request_to(machine, base, Delete()), 10.0)
                case Reason.TIMEOUT:
                    machine.send(320.0)
                case Reason.LOCAL:
                    machine.close(10.0)
            assert machine.state is State.CLOSED
            assert told(machine, Closed) == [Closed(reason)]
            assert machine.sa_pair is None


def test_closing_before_mobike_and_only_once() -> None:
    for name in ("LISTENING", "NEGOTIATING", "UNSUPPORTED"):
        machine = in_state(name)
        machine.close(0.0)
        assert machine.state is State.CLOSED
    ended = in_state("UNSUPPORTED")
    ended.receive(request_to(ended, 0, Delete()), 0.0)
    assert ended.state is State.CLOSED
    with pytest.raises(LocalTransitionError):
        in_state("CLOSED").close(0.0)


def test_the_responder_goes_on_for_at_least_five_minutes() -> None:
    machine = in_state("CHECKING", retransmission=Retransmission())
    now = 0.0
    while machine.state is State.CHECKING:
        machine.send(now)
        deadline = machine.next_deadline()
        if deadline is None:
            break
        now = max(deadline, now + 0.001)
    assert now >= 300.0


def test_liveness_of_the_initiator_can_be_asked_for() -> None:
    initiator, machine = established()
    machine.check_liveness(0.0)
    pump(machine, initiator)
    assert told(machine, Alive) == [Alive(pair(R1, I1), proven=True, probe=False)]


def test_requests_outside_the_window_are_dropped() -> None:
    machine = in_state("STABLE")
    machine.receive(update(machine, 7), 0.0)
    assert machine.send(0.0) == []
    assert machine.pair == pair(R1, I1)


def test_mobike_supported_has_no_data_when_the_responder_sends_it() -> None:
    machine = in_state("LISTENING")
    initiator = MobikeInitiator([I1], policy())
    initiator.connect([Pair(Endpoint(I1, 500), Endpoint(R1, 500))], 0.0)
    carried = pump(initiator, machine)
    assert carried[-1].all(MobikeSupported) == [MobikeSupported(b"")]
    assert NoAdditionalAddresses not in {type(p) for p in carried[-1].payloads}
