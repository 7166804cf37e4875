"""What draft-kivinen-mobike-protocol-00 says about both halves of a peer, transition by transition."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.protocol.addrnotify import (
    AddressNotifyPeer,
    Announcing,
    Cause,
    DisconnectAllowed,
    Gone,
    Moved,
    NotifyPolicy,
    PeerAway,
    State,
    change,
)
from mobikectl.protocol.exchange import Delete, Message, Retransmission
from mobikectl.protocol.machine import LocalProtocolError, LocalTransitionError, RemoteProtocolError
from mobikectl.wire.kivinen import DisconnectNotify, Ipv4AddressChange

from .protocol_helpers import (
    I1,
    I2,
    I3,
    I6,
    R1,
    R2,
    R3,
    R6,
    VICTIM,
    answer,
    current,
    events,
    from_source,
    pair,
    pump,
    request_to,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.model import IpAddress

FAST = Retransmission(1.0, 2.0, 4.0)
LIVE = ("SETTLED", "CHECKING", "SEARCHING", "AWAY")


def peer(**changes: Any) -> AddressNotifyPeer:
    policy = replace(NotifyPolicy(retransmission=FAST, tries_per_address=2), **changes)
    return AddressNotifyPeer([I1, I2], [R1, R2], policy)


def both(**changes: Any) -> tuple[AddressNotifyPeer, AddressNotifyPeer]:
    policy = replace(NotifyPolicy(retransmission=FAST, tries_per_address=2), **changes)
    return AddressNotifyPeer([I1, I2], [R1, R2], policy), AddressNotifyPeer([R1, R2], [I1, I2], policy)


def notification(machine: AddressNotifyPeer, number: int, *addresses: IpAddress) -> Message:
    return request_to(machine, number, *(change(ip) for ip in addresses), over=pair(I1, R1))


def in_state(name: str, **changes: Any) -> AddressNotifyPeer:
    """A peer in the named state; message ID 0 of the other side is used except in SETTLED."""
    machine = peer(**changes)
    match name:
        case "CHECKING":
            machine.receive(notification(machine, 0, R2, R1), 0.0)
        case "SEARCHING":
            machine.receive(notification(machine, 0, R1, R2), 0.0)
            machine.doubt(0.0)
        case "AWAY":
            machine.receive(request_to(machine, 0, DisconnectNotify(60)), 0.0)
        case "CLOSED":
            machine.close(0.0)
    machine.send(0.0)
    events(machine)
    assert machine.state is State[name]
    return machine


def base(name: str) -> int:
    return 0 if name == "SETTLED" else 1


def silence(machine: AddressNotifyPeer, now: float = 0.0) -> list[tuple[float, Message]]:
    """Everything the machine sends, with its time, until it gives up or wants nothing."""
    sent: list[tuple[float, Message]] = []
    for _ in range(100):
        sent += [(now, message) for message in machine.send(now)]
        deadline = machine.next_deadline()
        if deadline is None:
            return sent
        now = max(now, deadline)
    raise AssertionError("it never gives up")


# --- following (section 2)


def test_a_new_preferred_address_is_used_at_once_while_it_is_checked() -> None:
    for name in LIVE:
        machine = in_state(name)
        machine.receive(notification(machine, base(name), R3, R1), 0.0)
        assert current(machine.state) is State.CHECKING
        assert machine.pair == pair(I1, R3)
        assert machine.may_send_esp()
        probe = next(m for m in machine.send(0.0) if not m.response)
        assert (probe.destination.ip, probe.payloads) == (R3, ())
        machine.receive(answer(probe), 0.0)
        assert machine.state is State.SETTLED
        assert machine.pair == pair(I1, R3)


def test_the_check_may_be_left_out_for_an_address_that_replied_before() -> None:
    for recheck, state in ((False, State.SETTLED), (True, State.CHECKING)):
        for name in LIVE:
            machine = in_state(name, recheck=recheck)
            machine._checked[R3] = True
            machine.receive(notification(machine, base(name), R3), 0.0)
            assert machine.state is state
            assert machine.pair == pair(I1, R3)


def test_after_a_failed_check_the_traffic_moves_only_when_the_address_replies() -> None:
    for name in LIVE:
        machine = in_state(name)
        machine._checked[R3] = False
        before = machine.pair
        machine.receive(notification(machine, base(name), R3, R1), 0.0)
        assert current(machine.state) is State.SEARCHING
        assert machine.pair == before
        probe = next(m for m in machine.send(0.0) if not m.response)
        assert probe.destination.ip == R3
        machine.receive(answer(probe), 0.0)
        assert machine.state is State.SETTLED
        assert machine.pair == pair(I1, R3)


def test_the_preferred_address_in_use_needs_nothing() -> None:
    for name, expected in (
        ("SETTLED", "SETTLED"),
        ("CHECKING", "CHECKING"),
        ("SEARCHING", "SEARCHING"),
        ("AWAY", "SETTLED"),
    ):
        machine = in_state(name)
        current = machine.pair
        machine.receive(notification(machine, base(name), current.remote.ip, R3), 0.0)
        assert machine.state is State[expected]
        assert machine.peer == (current.remote.ip, R3)


def test_an_indirect_indication_only_checks_the_address_in_use() -> None:
    machine = in_state("SETTLED")
    machine.seen(R1, 0.0)
    assert current(machine.state) is State.SETTLED
    machine.seen(VICTIM, 0.0)
    assert machine.state is State.SEARCHING
    assert machine.send(0.0)[0].destination.ip == R1
    assert machine.pair == pair(I1, R1)
    for name in ("CHECKING", "SEARCHING"):
        doubting = in_state(name)
        doubting.doubt(0.0)
        assert doubting.state is State[name]
    with pytest.raises(LocalTransitionError):
        in_state("AWAY").doubt(0.0)


def test_addresses_are_tried_in_order_with_one_message_id_and_fresh_timers() -> None:
    machine = AddressNotifyPeer([I1], [R1, R2, R3], NotifyPolicy(tries_per_address=3, retransmission=FAST))
    machine.doubt(0.0)
    sent = silence(machine)
    assert [m.destination.ip for _, m in sent] == [R1] * 3 + [R2] * 3 + [R3] * 3
    assert len({m.message_id for _, m in sent}) == 1
    assert all(m.payloads == () for _, m in sent)
    times = [time for time, _ in sent]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == [1.0, 2.0, 4.0] * 2 + [1.0, 2.0]
    assert machine.state is State.CLOSED
    assert told(machine, Gone) == [Gone(Cause.EXHAUSTED)]


def test_a_direct_update_whose_addresses_are_all_silent_ends_the_ike_sa_too() -> None:
    machine = in_state("CHECKING")
    sent = silence(machine)
    assert [m.destination.ip for _, m in sent] == [R2, R1, R1]
    assert machine.state is State.CLOSED
    assert not machine.may_send_esp()


def test_whichever_address_replies_is_used_for_all_traffic() -> None:
    machine = in_state("SEARCHING")
    last = [machine.send(now) for now in (1.0, 3.0)][-1][0]
    assert last.destination.ip == R2
    machine.receive(answer(last), 3.5)
    assert machine.state is State.SETTLED
    assert machine.pair == pair(I1, R2)
    assert told(machine, Moved) == [Moved(pair(I1, R2))]
    checking = in_state("CHECKING")
    late = [checking.send(now) for now in (1.0, 3.0)][-1][0]
    assert late.destination.ip == R1
    checking.receive(answer(late), 3.5)
    assert checking.state is State.SETTLED
    assert checking.pair == pair(I1, R1)


def test_a_reply_from_an_address_that_was_not_tried_moves_nothing() -> None:
    machine = in_state("CHECKING")
    probe = machine.send(1.0)[0]
    machine.receive(from_source(answer(probe), VICTIM), 1.0)
    assert machine.state is State.CHECKING
    assert machine.pair == pair(I1, R2)
    assert machine.send(1.0)[0].message_id > probe.message_id


def test_a_request_that_stays_unanswered_starts_the_search() -> None:
    machine = in_state("SETTLED")
    machine.notify([I1], 0.0)
    sent = [machine.send(now)[0] for now in (0.0, 1.0, 3.0)]
    assert current(machine.state) is State.SEARCHING
    assert [m.destination.ip for m in sent] == [R1, R1, R1]
    machine.receive(answer(sent[0]), 3.0)
    assert machine.state is State.SETTLED


# --- announcing (section 3)


def test_all_addresses_are_announced_in_order_in_one_message() -> None:
    one, other = both()
    one.notify([I2, I6, I1], 0.0)
    assert current(one.announcing) is Announcing.WANTED
    message = one.send(0.0)[0]
    assert current(one.announcing) is Announcing.SENT
    assert message.payloads == (change(I2), change(I6), change(I1))
    other.receive(message, 0.0)
    pump(one, other)
    assert one.announcing is Announcing.QUIET
    assert other.peer == (I2, I1), "IPv6 is of no use to a side without"
    assert other.pair == pair(R1, I2)
    assert one.pair == pair(I2, R1)
    with pytest.raises(LocalProtocolError):
        one.notify([], 0.0)


def test_of_two_notifications_the_larger_message_id_wins_and_the_older_is_acknowledged() -> None:
    for name in LIVE:
        machine = in_state(name, window=3)
        first = base(name)
        machine.receive(notification(machine, first + 1, machine.pair.remote.ip, R3), 0.0)
        state = machine.state
        machine.receive(notification(machine, first, R3), 0.0)
        assert machine.state is state
        assert R3 in machine.peer[1:]
        assert len([m for m in machine.send(0.0) if m.response]) == 2
    away = peer(window=3)
    away.receive(request_to(away, 1, DisconnectNotify(60)), 0.0)
    away.receive(notification(away, 0, R3), 0.0)
    assert away.state is State.AWAY
    late = in_state("SETTLED", window=3)
    late.receive(notification(late, 1, R1), 0.0)
    late.receive(request_to(late, 0, DisconnectNotify(60)), 0.0)
    assert late.state is State.SETTLED


def test_at_least_four_addresses_are_processed_and_a_bounded_number_more() -> None:
    machine = peer()
    many = [type(R1)(int(R1) + n) for n in range(40)]
    machine.receive(notification(machine, 0, *many), 0.0)
    assert machine.peer == tuple(many[:16])
    with pytest.raises(LocalProtocolError):
        AddressNotifyPeer([I1], [R1], NotifyPolicy(most_addresses=3))


def test_octets_after_the_address_are_ignored() -> None:
    machine = peer()
    machine.receive(request_to(machine, 0, Ipv4AddressChange(R2, b"future")), 0.0)
    assert machine.peer == (R2,)


def test_the_acknowledgement_is_empty_and_addresses_in_one_are_the_peers_fault() -> None:
    machine = peer()
    machine.receive(notification(machine, 0, R1), 0.0)
    assert [m.payloads for m in machine.send(0.0)] == [()]
    machine.notify([I2], 0.0)
    request = machine.send(0.0)[0]
    with pytest.raises(RemoteProtocolError):
        machine.receive(answer(request, change(VICTIM)), 0.0)
    assert VICTIM not in machine.peer
    assert machine.announcing is Announcing.QUIET


def test_addresses_without_a_common_family_are_the_peers_fault() -> None:
    machine = peer()
    with pytest.raises(RemoteProtocolError):
        machine.receive(notification(machine, 0, R6), 0.0)
    assert machine.peer == (R1, R2)


def test_an_outdated_acknowledgement_does_not_count() -> None:
    for window, state in ((1, Announcing.WANTED), (2, Announcing.SENT)):
        machine = peer(window=window)
        machine.notify([I2], 0.0)
        old = machine.send(0.0)[0]
        machine.notify([I3], 0.0)
        assert current(machine.announcing) is Announcing.WANTED
        machine.send(0.0)
        assert current(machine.announcing) is state
        machine.receive(answer(old), 0.0)
        assert current(machine.announcing) is state
        newest = machine.send(30.0)[-1]
        assert newest.payloads == (change(I3),)
        machine.receive(answer(newest), 30.0)
        assert machine.announcing is Announcing.QUIET


def test_with_a_larger_window_an_outdated_acknowledgement_may_come_last() -> None:
    for leaving, state in ((False, Announcing.QUIET), (True, Announcing.ABSENT)):
        machine = peer(window=2)
        machine.notify([I2], 0.0)
        old = machine.send(0.0)[0]
        if leaving:
            machine.disconnect(5, 0.0)
        else:
            machine.notify([I3], 0.0)
        newest = max(machine.send(0.0), key=lambda m: m.message_id)
        machine.receive(answer(newest), 0.0)
        machine.receive(answer(old), 0.0)
        assert machine.announcing is state


# --- the zero address set (section 5)


def test_a_disconnect_that_is_allowed_keeps_the_ike_sa_until_the_peer_is_back() -> None:
    one, other = both()
    one.disconnect(60, 0.0)
    assert current(one.announcing) is Announcing.LEAVING
    pump(one, other)
    assert current(one.announcing) is Announcing.ABSENT
    assert told(one, DisconnectAllowed)
    assert other.state is State.AWAY
    assert told(other, PeerAway) == [PeerAway(60)]
    assert not other.may_send_esp()
    one.notify([I3], 30.0)
    assert one.announcing is Announcing.WANTED
    pump(one, other, 30.0)
    assert other.pair == pair(R1, I3)
    assert (one.announcing, other.state) == (Announcing.QUIET, State.SETTLED)


def test_a_disconnect_that_is_rejected_deletes_the_ike_sa_in_the_acknowledgement() -> None:
    for name in LIVE:
        machine = in_state(name, allow_disconnect=lambda seconds: seconds <= 60)
        machine.receive(request_to(machine, base(name), DisconnectNotify(61)), 0.0)
        assert machine.state is State.CLOSED
        assert machine.send(0.0)[-1].payloads == (Delete(),) or name == "SETTLED"
    one, other = both(allow_disconnect=lambda seconds: False)
    one.disconnect(1, 0.0)
    pump(one, other)
    assert (one.state, other.state) == (State.CLOSED, State.CLOSED)


def test_the_peer_may_say_again_that_it_is_away() -> None:
    for name in LIVE:
        machine = in_state(name)
        machine.receive(request_to(machine, base(name), DisconnectNotify(90)), 5.0)
        assert machine.state is State.AWAY
        assert machine.next_deadline() == 95.0


def test_a_peer_that_is_away_for_too_long_is_searched() -> None:
    machine = in_state("AWAY")
    assert machine.next_deadline() == 60.0
    assert machine.send(59.0) == []
    assert machine.send(60.0)[0].destination.ip == R1
    assert machine.state is State.SEARCHING


def test_a_disconnect_and_its_change_of_mind_in_every_announcing_state() -> None:
    machine = peer()
    machine.notify([I2], 0.0)
    machine.notify([I1], 0.0)
    assert current(machine.announcing) is Announcing.WANTED
    machine.disconnect(5, 0.0)
    assert current(machine.announcing) is Announcing.LEAVING
    with pytest.raises(LocalTransitionError):
        machine.disconnect(5, 0.0)
    machine.notify([I1], 0.0)
    assert current(machine.announcing) is Announcing.WANTED
    machine.disconnect(5, 0.0)
    assert current(machine.announcing) is Announcing.LEAVING
    machine.send(0.0)
    assert current(machine.announcing) is Announcing.LEFT
    machine.notify([I1], 0.0)
    assert machine.announcing is Announcing.WANTED
    sent = peer()
    sent.notify([I1], 0.0)
    old = sent.send(0.0)[0]
    sent.disconnect(5, 0.0)
    assert sent.announcing is Announcing.LEAVING
    sent.receive(answer(old), 0.0)
    assert sent.announcing is Announcing.LEAVING
    wide = peer(window=2)
    wide.notify([I1], 0.0)
    old = wide.send(0.0)[0]
    wide.disconnect(5, 0.0)
    wide.send(0.0)
    wide.receive(answer(old), 0.0)
    assert wide.announcing is Announcing.LEFT


def test_a_disconnect_is_a_separate_exchange() -> None:
    machine = peer()
    with pytest.raises(RemoteProtocolError):
        machine.receive(request_to(machine, 0, DisconnectNotify(5), change(R2)), 0.0)
    assert machine.state is State.SETTLED


def test_delete_and_close_end_it_in_every_state() -> None:
    for name in LIVE:
        machine = in_state(name)
        machine.receive(request_to(machine, base(name), Delete()), 0.0)
        assert machine.state is State.CLOSED
        closing = in_state(name)
        closing.close(0.0)
        assert closing.state is State.CLOSED
    calls: list[Callable[[AddressNotifyPeer], None]] = [
        lambda m: m.close(0.0),
        lambda m: m.notify([I1], 0.0),
        lambda m: m.disconnect(1, 0.0),
    ]
    for call in calls:
        with pytest.raises(LocalProtocolError):
            call(in_state("CLOSED"))


def test_ike_sa_and_ipsec_sas_share_one_pair() -> None:
    machine = in_state("CHECKING")
    assert machine.pair == pair(I1, R2)
    assert not hasattr(machine, "sa_pair")


def test_both_ends_may_change_their_addresses_at_the_same_time() -> None:
    one, other = both()
    one.notify([I2, I1], 0.0)
    other.notify([R2, R1], 0.0)
    pump(one, other)
    assert (one.pair, other.pair) == (pair(I2, R2), pair(R2, I2))
