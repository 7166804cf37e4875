"""What draft-dupont-ikev2-addrmgmt-06 says about both halves of a peer, transition by transition."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.protocol.addrmgmt import (
    AddrMgmtPolicy,
    BehindNat,
    Cause,
    ChildPair,
    Declined,
    Ended,
    NatFound,
    PeerSet,
    Receiving,
    Routability,
    SasUpdated,
    State,
    UpdateDeclined,
)
from mobikectl.protocol.addrmgmt_peer import AddrMgmtPeer
from mobikectl.protocol.exchange import Delete, Exchange, Message, Pair, Retransmission
from mobikectl.protocol.machine import (
    LocalProtocolError,
    LocalTransitionError,
    RemoteProtocolError,
    RemoteTransitionError,
)
from mobikectl.wire.dupont import (
    NatPrevention,
    PeerAddressDestination,
    PeerAddressOperation,
    PeerAddressSource,
    PeerAddressUpdate,
    RrCookie,
    UpdateProtocol,
)

from .protocol_helpers import (
    I1,
    I2,
    I3,
    R1,
    R2,
    VICTIM,
    answer,
    counting_octets,
    current,
    events,
    from_source,
    pair,
    pump,
    request_to,
    told,
)

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

MARK, ADD, DELETE = PeerAddressOperation
ESP, AH = UpdateProtocol.ESP, UpdateProtocol.AH
HERE = (ChildPair(ESP, 11, 21), ChildPair(AH, 12, 22, bundle=1), ChildPair(ESP, 13, 23, bundle=1))
THERE = tuple(ChildPair(c.protocol, c.spi_out, c.spi_in, c.bundle) for c in HERE)
MOBILE = ("STABLE", "PENDING", "UPDATING", "REFUSED")
ALL = PeerAddressUpdate(all_sas=True)
FIRST = 2
NEW = pair(I2, R1)


def policy(**changes: Any) -> AddrMgmtPolicy:
    return replace(
        AddrMgmtPolicy(retransmission=Retransmission(1.0, 1.0, 1.0), random_octets=counting_octets()),
        **changes,
    )


def both(**changes: Any) -> tuple[AddrMgmtPeer, AddrMgmtPeer]:
    one = AddrMgmtPeer([I1, I2], policy(**changes), children=HERE)
    other = AddrMgmtPeer([R1, R2], policy(**changes), children=THERE, spi=2)
    one.connect(pair(I1, R1), 0.0)
    pump(one, other)
    events(one), events(other)
    assert (one.state, other.state) == (State.STABLE, State.STABLE)
    return one, other


def update_of(machine: AddrMgmtPeer, now: float = 0.0) -> Message:
    found = [m for m in machine.send(now) if not m.response and m.has(PeerAddressUpdate)]
    return max(found, key=lambda m: m.message_id)


def check_of(machine: AddrMgmtPeer, now: float = 0.0) -> Message:
    return next(m for m in machine.send(now) if not m.response and m.has(RrCookie))


def in_state(name: str, **changes: Any) -> AddrMgmtPeer:
    """The initiator of the IKE_SA in the named state."""
    if name in {"IDLE", "CONNECTING", "AUTHENTICATING"}:
        machine = AddrMgmtPeer([I1, I2], policy(**changes), children=HERE)
        if name != "IDLE":
            machine.connect(pair(I1, R1), 0.0)
            request = machine.send(0.0)[0]
            if name == "AUTHENTICATING":
                machine.receive(answer(request, spis=(1, 2)), 0.0)
        assert machine.state is State[name]
        return machine
    machine, _ = both(**changes)
    if name in {"PENDING", "UPDATING", "REFUSED"}:
        if name == "PENDING":
            machine.update(pair(I3, R1), 0.0)
            machine.send(0.0)
        machine.update(NEW, 0.0)
        if name != "PENDING":
            request = update_of(machine)
            if name == "REFUSED":
                machine.receive(answer(request), 0.0)
    if name == "NAT_TRAVERSAL":
        become_natted(machine)
    assert machine.state is State[name]
    return machine


def ask(
    machine: AddrMgmtPeer,
    number: int,
    *payloads: object,
    over: Pair | None = None,
    to: IpAddress | None = None,
) -> Message:
    """The peer's request about addresses; it marks this side's current address."""
    destination = PeerAddressDestination(to or machine.pair.local.ip, MARK)
    return request_to(machine, number, *payloads, destination, over=over)


def become_natted(machine: AddrMgmtPeer, number: int = 0) -> None:
    """Let the peer's update come from an unknown source that alone replies to the check."""
    claim = ask(machine, number, ALL, PeerAddressSource(R2, MARK), over=pair(machine.pair.local.ip, VICTIM))
    machine.receive(claim, 0.0)
    for step in range(1, 60):
        for check in machine.send(float(step)):
            if check.has(RrCookie) and check.destination.ip == VICTIM:
                machine.receive(answer(check, *check.all(RrCookie)), float(step))
                return
    raise AssertionError("the unknown source was never asked")


# --- the initial exchanges (section 3.1, appendix C)


def test_the_initial_exchanges_use_one_pair_and_nat_prevention() -> None:
    one = AddrMgmtPeer([I1], policy(), children=HERE)
    other = AddrMgmtPeer([R1], policy(), children=THERE, spi=2)
    one.connect(pair(I1, R1), 0.0)
    carried = pump(one, other)
    assert [m.exchange for m in carried] == [Exchange.IKE_SA_INIT] * 2 + [Exchange.IKE_AUTH] * 2
    assert all(m.has(NatPrevention) for m in carried[:2])
    assert {frozenset((m.source, m.destination)) for m in carried} == {
        frozenset((pair(I1, R1).local, pair(I1, R1).remote))
    }
    assert told(one, SasUpdated) == [SasUpdated(pair(I1, R1), True, HERE, True)]
    assert other.sa_pairs == dict.fromkeys(THERE, pair(R1, I1))


def test_changed_addresses_in_ike_sa_init_are_noticed_and_the_message_dropped() -> None:
    request = in_state("CONNECTING")
    init = AddrMgmtPeer([I1], policy())
    init.connect(pair(I1, R1), 0.0)
    message = init.send(0.0)[0]
    responder = AddrMgmtPeer([R1], policy(), spi=2)
    responder.receive(from_source(message, VICTIM), 0.0)
    assert current(responder.state) is State.IDLE
    assert told(responder, NatFound)
    responder.receive(message, 0.0)
    assert responder.state is State.NEGOTIATING
    responder.receive(message, 0.0)
    assert responder.state is State.NEGOTIATING
    responder.receive(from_source(message, VICTIM), 0.0)
    assert responder.state is State.NEGOTIATING
    reply = responder.send(0.0)[0]
    request.receive(from_source(reply, VICTIM), 0.0)
    assert request.state is State.CONNECTING
    assert told(request, NatFound)


def test_ike_auth_over_another_pair_is_the_peers_fault() -> None:
    one, other = AddrMgmtPeer([I1], policy()), AddrMgmtPeer([R1], policy(), spi=2)
    one.connect(pair(I1, R1), 0.0)
    other.receive(one.send(0.0)[0], 0.0)
    one.receive(other.send(0.0)[0], 0.0)
    auth = one.send(0.0)[0]
    with pytest.raises(RemoteProtocolError):
        other.receive(from_source(auth, I2), 0.0)
    assert current(other.state) is State.NEGOTIATING
    other.receive(auth, 0.0)
    assert other.state is State.STABLE
    with pytest.raises(LocalTransitionError):
        one.connect(pair(I1, R1), 0.0)


def test_silence_ends_it_in_every_state_that_waits() -> None:
    for name in ("CONNECTING", "AUTHENTICATING", *MOBILE):
        machine = in_state(name)
        if name in {"STABLE", "REFUSED"}:
            machine.add([I3], 0.0)
        machine.send(0.0)
        machine.send(301.0)
        assert machine.state is State.CLOSED
        assert told(machine, Ended)[-1] == Ended(Cause.TIMEOUT)


# --- updates of this side (section 3.4, appendix B)


def test_an_update_moves_all_sas_with_both_notifications() -> None:
    one, other = both()
    one.update(NEW, 0.0, delete=[I1])
    assert current(one.state) is State.PENDING
    request = update_of(one)
    assert current(one.state) is State.UPDATING
    assert request.source.ip == I2
    assert request.all(PeerAddressUpdate) == [ALL]
    assert request.all(PeerAddressSource) == [PeerAddressSource(I2, MARK), PeerAddressSource(I1, DELETE)]
    assert request.all(PeerAddressDestination) == [PeerAddressDestination(R1, MARK)]
    other.receive(request, 0.0)
    pump(one, other)
    assert one.state is State.STABLE
    assert (one.pair, other.pair) == (NEW, pair(R1, I2))
    assert one.sa_pairs == dict.fromkeys(HERE, NEW)
    assert other.sa_pairs == dict.fromkeys(THERE, pair(R1, I2))
    assert other.peer == {I2}


def test_single_sas_are_updated_in_pairs_with_those_nested_with_them() -> None:
    one, other = both(routability=Routability.NEVER)
    one.update(NEW, 0.0, children=[HERE[1]], ike=False)
    request = update_of(one)
    assert request.all(PeerAddressUpdate) == [
        PeerAddressUpdate(protocol=ESP, spis=(13,)),
        PeerAddressUpdate(protocol=AH, spis=(12,)),
    ], "one payload per protocol, the sender's inbound SPIs"
    assert request.source.ip == I1, "the IKE_SA stays"
    other.receive(request, 0.0)
    reply = other.send(0.0)[0]
    assert reply.all(PeerAddressUpdate) == [
        PeerAddressUpdate(protocol=ESP, spis=(23,)),
        PeerAddressUpdate(protocol=AH, spis=(22,)),
    ], "the paired SAs in the other direction"
    one.receive(reply, 0.0)
    assert [one.sa_pairs[c].local.ip for c in HERE] == [I1, I2, I2]
    assert [other.sa_pairs[c].remote.ip for c in THERE] == [I1, I2, I2]
    assert (one.pair, other.pair) == (pair(I1, R1), pair(R1, I1))


def test_the_ike_sa_alone_can_be_updated_and_the_spd_left_as_it_is() -> None:
    one, other = both()
    one.update(NEW, 0.0, children=[], only=True)
    request = update_of(one)
    assert request.all(PeerAddressUpdate) == [PeerAddressUpdate(only=True)]
    other.receive(request, 0.0)
    pump(one, other)
    assert told(other, SasUpdated) == [SasUpdated(pair(R1, I2), True, (), spd=False)]
    assert set(other.sa_pairs.values()) == {pair(R1, I1)}


def test_a_newer_update_supersedes_the_one_under_way_in_every_state() -> None:
    for name in MOBILE:
        machine = in_state(name)
        machine.update(pair(I3, R1), 0.0)
        assert machine.state is State.PENDING
        assert machine.pair.local.ip == I3
    with pytest.raises(LocalTransitionError):
        in_state("IDLE").update(NEW, 0.0)
    machine = in_state("UPDATING")
    old = update_of(machine, 1.0)
    machine.update(pair(I3, R1), 1.0)
    assert [m.source.ip for m in machine.send(1.0)] == [I3], "the pending request goes on over the new pair"
    machine.receive(answer(old, ALL), 1.0)
    assert current(machine.state) is State.PENDING
    newest = update_of(machine, 1.0)
    machine.receive(answer(newest, ALL), 1.0)
    assert machine.state is State.STABLE


def test_an_answer_without_the_payload_is_a_refusal_and_policy_decides() -> None:
    machine = in_state("REFUSED")
    assert told(machine, UpdateDeclined)
    machine.keep(0.0)
    assert machine.state is State.STABLE
    assert machine.pair == pair(I1, R1)
    with pytest.raises(LocalTransitionError):
        machine.keep(0.0)


def test_keeping_after_a_superseded_update_tells_the_peer_which_pair_is_kept() -> None:
    machine = in_state("UPDATING")
    old = update_of(machine, 1.0)
    machine.update(pair(I3, R1), 1.0)
    machine.receive(answer(old, ALL), 1.0)
    machine.receive(answer(update_of(machine, 1.0)), 1.0)
    assert current(machine.state) is State.REFUSED
    machine.keep(1.0)
    assert machine.state is State.PENDING
    assert machine.pair == pair(I1, R1)


# --- the address sets (section 3.3)


def test_addresses_are_added_and_deleted_with_a_notification_for_each_peer() -> None:
    one, other = both()
    one.add([I3], 0.0)
    request = one.send(0.0)[0]
    assert request.all(PeerAddressSource) == [PeerAddressSource(I3, ADD)]
    assert request.has(PeerAddressDestination)
    other.receive(request, 0.0)
    assert other.receiving is Receiving.CHECKING, (
        "it does not come from the new address, and nothing authorizes it"
    )
    pump(one, other)
    assert other.peer == {I1, I3}
    one.delete([I3], 0.0)
    pump(one, other)
    assert other.peer == {I1}
    assert told(other, PeerSet)[-1] == PeerSet(frozenset({I1}))
    with pytest.raises(LocalProtocolError):
        one.delete([I1], 0.0)
    with pytest.raises(LocalProtocolError):
        in_state("IDLE").add([I3], 0.0)


def test_deleting_the_primary_address_without_another_changes_nothing() -> None:
    machine = in_state("STABLE")
    machine.receive(ask(machine, 0, PeerAddressSource(R1, DELETE)), 0.0)
    assert machine.peer == {R1}
    assert machine.send(0.0)[0].response


def test_ambiguous_addresses_are_never_sent_and_never_accepted() -> None:
    machine = in_state("STABLE")
    for text in (
        "10.0.0.1",
        "192.168.1.1",
        "169.254.0.1",
        "fe80::1",
        "fd00::1",
        "127.0.0.1",
        "ff02::1",
        "::1",
    ):
        ip = ip_address(text)
        with pytest.raises(LocalProtocolError):
            machine.add([ip], 0.0)
        with pytest.raises(LocalProtocolError):
            machine.update(Pair(replace(NEW.local, ip=ip), NEW.remote), 0.0)
        with pytest.raises(RemoteProtocolError):
            machine.receive(ask(machine, 0, PeerAddressSource(ip, ADD)), 0.0)
    assert machine.state is State.STABLE


def test_messages_about_addresses_need_a_notification_for_each_peer_and_one_primary() -> None:
    machine = in_state("STABLE")
    here, there = PeerAddressDestination(I1, MARK), PeerAddressSource(R2, MARK)
    for payloads in (
        (ALL, there),
        (ALL, here),
        (ALL, here, PeerAddressSource(R2, ADD)),
        (there, here, PeerAddressSource(R1, MARK)),
    ):
        with pytest.raises(RemoteProtocolError):
            machine.receive(request_to(machine, 0, *payloads), 0.0)
    assert machine.peer == {R1}


def test_an_address_that_this_side_does_not_have_cannot_be_marked() -> None:
    machine = in_state("STABLE")
    machine.receive(ask(machine, 0, ALL, PeerAddressSource(R2, MARK), to=VICTIM), 0.0)
    assert machine.send(0.0)[0].payloads == ()
    assert machine.pair == pair(I1, R1)


def test_the_peer_may_choose_another_address_of_this_side() -> None:
    machine = in_state("STABLE")
    machine.receive(ask(machine, 0, ALL, PeerAddressSource(R1, MARK), to=I2), 0.0)
    assert machine.pair == pair(I2, R1)


# --- return routability (sections 3.2 to 4)


def test_a_check_runs_before_the_reply_with_a_fresh_cookie() -> None:
    one, other = both(routability=Routability.ALWAYS)
    one.update(NEW, 0.0)
    other.receive(update_of(one), 0.0)
    assert current(other.receiving) is Receiving.CHECKING
    check = check_of(other)
    assert check.destination.ip == I2
    assert 16 <= len(check.all(RrCookie)[0].cookie) <= 64
    assert other.pair == pair(R1, I1)
    one.receive(check, 0.0)
    reply = one.send(0.0)[0]
    assert reply.payloads == check.payloads
    other.receive(reply, 0.0)
    assert other.receiving is Receiving.QUIET
    assert other.pair == pair(R1, I2)
    assert other.send(0.0)[0].has(PeerAddressUpdate)


def test_when_a_check_is_needed() -> None:
    for routability, authorized, source, checked in (
        (Routability.UNPROVEN, False, R2, False),
        (Routability.UNPROVEN, False, R1, True),
        (Routability.UNPROVEN, True, R1, False),
        (Routability.ALWAYS, True, R2, True),
        (Routability.NEVER, False, R1, False),
        (Routability.NEVER, False, VICTIM, True),
    ):
        machine = in_state("STABLE", routability=routability, authorized=lambda ip, yes=authorized: yes)
        machine.receive(ask(machine, 0, ALL, PeerAddressSource(R2, MARK), over=pair(I1, source)), 0.0)
        assert (machine.receiving is Receiving.CHECKING) is checked
        assert (machine.pair == pair(I1, R2)) is not checked


def test_an_address_that_replied_before_is_not_checked_again() -> None:
    one, other = both(routability=Routability.ALWAYS)
    for way in (NEW, pair(I1, R1), NEW):
        one.update(way, 0.0)
        carried = pump(one, other)
        checks = [m for m in carried if m.has(RrCookie)]
    assert checks == []
    assert other.pair == pair(R1, I2)


def test_a_new_address_that_does_not_reply_is_not_used() -> None:
    machine = in_state("STABLE", check_tries=2)
    machine.receive(ask(machine, 0, ALL, PeerAddressSource(VICTIM, MARK)), 0.0)
    checks = [check_of(machine, float(now)) for now in range(3)]
    assert [c.destination.ip for c in checks] == [VICTIM, VICTIM, R1]
    machine.receive(answer(checks[2], *checks[2].all(RrCookie)), 3.0)
    assert machine.receiving is Receiving.QUIET
    assert machine.pair == pair(I1, R1)
    assert VICTIM not in machine.peer
    assert machine.send(3.0)[0].payloads == (), "the answer carries no update payload"
    assert told(machine, Declined) == [Declined(VICTIM)]


def test_a_peer_that_replies_only_from_the_unknown_source_is_behind_a_nat_and_needs_nat_traversal() -> None:
    for name in MOBILE:
        machine = in_state(name, check_tries=1)
        become_natted(machine)
        assert machine.state is State.NAT_TRAVERSAL
        assert machine.receiving is Receiving.QUIET
        assert told(machine, BehindNat)
        with pytest.raises(LocalTransitionError):
            machine.update(NEW, 9.0)
        with pytest.raises(RemoteProtocolError):
            machine.receive(ask(machine, 1, ALL, PeerAddressSource(R1, MARK)), 9.0)


def test_a_changed_cookie_ends_it_in_every_state() -> None:
    for name in MOBILE:
        machine = in_state(name)
        machine.receive(ask(machine, 0, PeerAddressSource(R2, ADD)), 0.0)
        check = check_of(machine)
        machine.receive(answer(check, RrCookie(b"x" * 16)), 0.0)
        assert machine.state is State.CLOSED
        assert told(machine, Ended) == [Ended(Cause.COOKIE)]


def test_pending_requests_go_to_the_new_address_when_the_primary_is_deleted_even_unchecked() -> None:
    machine = in_state("UPDATING", routability=Routability.ALWAYS)
    machine.receive(ask(machine, 0, ALL, PeerAddressSource(R2, MARK), PeerAddressSource(R1, DELETE)), 0.5)
    assert machine.receiving is Receiving.CHECKING
    pending = update_of(machine, 0.5)
    assert pending.destination.ip == R2
    assert machine.pair.remote.ip == R1


# --- order (section 3.4)


def test_requests_about_addresses_are_processed_in_order() -> None:
    machine = in_state("STABLE", window=3, routability=Routability.NEVER)
    machine.receive(ask(machine, 1, ALL, PeerAddressSource(R1, MARK)), 0.0)
    assert machine.send(0.0) == []
    machine.receive(ask(machine, 0, ALL, PeerAddressSource(R2, MARK)), 0.0)
    replies = machine.send(0.0)
    assert [m.message_id for m in replies] == [0, 1]
    assert machine.pair == pair(I1, R1)
    assert [e.pair.remote.ip for e in told(machine, SasUpdated)] == [R2, R1]


def test_a_request_waits_for_the_check_of_the_one_before() -> None:
    machine = in_state("STABLE", window=3)
    machine.receive(ask(machine, 0, ALL, PeerAddressSource(R2, MARK)), 0.0)
    machine.receive(ask(machine, 1, ALL, PeerAddressSource(R1, MARK)), 0.0)
    assert machine.receiving is Receiving.CHECKING
    check = check_of(machine)
    machine.receive(answer(check, *check.all(RrCookie)), 0.0)
    assert [m.message_id for m in machine.send(0.0)] == [0, 1]
    assert machine.pair == pair(I1, R1)


def test_the_reply_goes_to_the_newest_source_of_the_request() -> None:
    machine = in_state("STABLE")
    request = ask(machine, 0, ALL, PeerAddressSource(R2, MARK))
    machine.receive(request, 0.0)
    check = check_of(machine)
    machine.receive(from_source(request, R2), 0.5)
    machine.receive(answer(check, *check.all(RrCookie)), 0.5)
    assert machine.send(0.5)[0].destination.ip == R2


def test_updates_of_both_sides_at_once_do_not_block_each_other() -> None:
    one, other = both(routability=Routability.ALWAYS)
    one.update(NEW, 0.0)
    other.update(pair(R2, I1), 0.0)
    first, second = update_of(one), update_of(other)
    other.receive(first, 0.0)
    one.receive(second, 0.0)
    pump(one, other)
    assert (one.state, other.state) == (State.STABLE, State.STABLE)
    assert (one.receiving, other.receiving) == (Receiving.QUIET, Receiving.QUIET)
    with pytest.raises(LocalProtocolError):
        AddrMgmtPeer([I1], policy(window=1))


def test_delete_and_close_end_it() -> None:
    for name in (*MOBILE, "NAT_TRAVERSAL"):
        machine = in_state(name, check_tries=1)
        number = 1 if name == "NAT_TRAVERSAL" else 0
        machine.receive(request_to(machine, number, Delete()), 0.0)
        assert machine.state is State.CLOSED
        closing = in_state(name, check_tries=1)
        closing.close(0.0)
        assert closing.state is State.CLOSED
        assert closing.send(0.0)[-1].has(Delete) or name != "STABLE"
    with pytest.raises(LocalTransitionError):
        in_state("CONNECTING").close(0.0)
    machine = in_state("AUTHENTICATING")
    with pytest.raises(RemoteTransitionError):
        machine.receive(request_to(machine, 0, Delete()), 0.0)


def test_superseded_answers_change_nothing_in_any_state() -> None:
    for name in ("PENDING", "UPDATING", "STABLE", "REFUSED"):
        machine = in_state("UPDATING")
        old = update_of(machine, 1.0)
        machine._exchanger.window = 4
        machine.update(pair(I3, R1), 1.0)
        request = machine._exchanger.outstanding[0]
        if name != "PENDING":
            del machine._exchanger._open[request.message_id]
            new = update_of(machine, 1.0)
            machine._exchanger._open[request.message_id] = request
            if name != "UPDATING":
                machine.receive(answer(new, *([ALL] if name == "STABLE" else [])), 1.0)
        assert machine.state is State[name]
        machine.receive(answer(old, ALL), 1.0)
        assert machine.state is State[name]
