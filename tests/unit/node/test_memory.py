"""What is remembered of peers that were moved."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mobikectl.cluster.records import MoveRecord, MoveState, MoveStep, peer_of
from mobikectl.node import memory as module
from mobikectl.node.memory import FIRST_S, LONGEST_S, Memory
from mobikectl.policy.cluster import Capability, Mechanism, Reason
from mobikectl.protocol.handover import DID_NOT_COME

FULL = Capability.MOBIKE | Capability.SWITCH | Capability.REDIRECT
S = MoveState


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_move(
    number: int,
    *states: MoveState,
    mechanism: Mechanism = Mechanism.REDIRECT,
    key: str = "gw1/alice#7",
    at: float = 0.0,
    note: str = "",
) -> MoveRecord:
    node = key.partition("/")[0]
    return MoveRecord(
        token=1,
        sas=(key,),
        source=node,
        target="gw3",
        mechanism=mechanism,
        reason=Reason.SPREAD,
        source_address=ip_address("198.18.1.1"),
        target_address=ip_address("198.18.3.1"),
        steps=tuple(MoveStep(state, at, note) for state in (S.PLANNED, *states)),
        number=number,
    )


def test_a_client_that_is_sent_from_node_to_node_is_counted_over_all_of_them() -> None:
    clock = Clock()
    memory = Memory(clock)
    for number, key in enumerate(("gw1/alice#7", "gw2/alice#1", "gw1/alice#9"), 1):
        memory.take(a_move(number, S.REQUESTED, S.MOVED, S.VERIFIED, key=key))
    assert memory.redirects("alice") == 3
    assert memory.redirects("bob") == 0
    clock.now += 301
    assert memory.redirects("alice") == 0


def test_each_move_counts_once_however_often_the_journal_tells_of_it() -> None:
    memory = Memory(Clock())
    for states in ((), (S.REQUESTED,), (S.REQUESTED,), (S.REQUESTED, S.REFUSED), (S.REQUESTED, S.REFUSED)):
        memory.take(a_move(1, *states))
    assert memory.redirects("alice") == 1
    assert memory.capability("gw1/alice#7", FULL) == FULL & ~Capability.REDIRECT


def a_failure_of_the_nodes(number: int, mechanism: Mechanism = Mechanism.NOTIFY) -> MoveRecord:
    move = a_move(number, S.REQUESTED, mechanism=mechanism)
    return move.to(S.ROLLING_BACK, at=1.0, note="the source was restarted").to(S.ROLLED_BACK, at=1.0)


def test_what_fails_between_the_nodes_takes_no_mechanism_from_a_client_and_is_tried_after_a_rest() -> None:
    clock = Clock()
    memory = Memory(clock)
    for number in range(8):
        memory.take(a_failure_of_the_nodes(number))
        assert memory.refused_for("gw1/alice#7") == min(FIRST_S * 2**number, LONGEST_S)
        assert memory.capability("gw1/alice#7", FULL) == FULL


def test_where_it_has_to_leave_what_the_nodes_failed_to_do_three_times_is_done_without_them() -> None:
    clock = Clock()
    memory = Memory(clock)
    for number in (1, 2, 3):
        assert memory.capability("gw1/alice#7", FULL, leaving=True) == FULL
        memory.take(a_failure_of_the_nodes(number))
    assert memory.capability("gw1/alice#7", FULL, leaving=True) == Capability.REDIRECT
    assert memory.capability("gw1/alice#7", FULL) == FULL
    clock.now += 601
    assert memory.capability("gw1/alice#7", FULL, leaving=True) == FULL


@pytest.mark.parametrize("state", [S.REFUSED, S.TIMED_OUT])
def test_what_a_node_refuses_or_loses_is_not_tried_again_at_once(state: MoveState) -> None:
    memory = Memory(Clock())
    move = a_move(1, S.REQUESTED, mechanism=Mechanism.NOTIFY)
    memory.take(move.to(state, at=1.0, note="gw3: this node's charon has no connection vpn"))
    assert memory.refused_for("gw1/alice#7") == FIRST_S
    assert memory.capability("gw1/alice#7", FULL) == FULL


def test_a_client_that_did_not_come_is_tried_by_another_mechanism_next() -> None:
    memory = Memory(Clock())
    move = a_move(1, S.REQUESTED, mechanism=Mechanism.NOTIFY)
    memory.take(move.to(S.ROLLING_BACK, at=1.0, note=DID_NOT_COME).to(S.ROLLED_BACK, at=1.0))
    assert memory.capability("gw1/alice#7", FULL) == FULL & ~Capability.SWITCH


def test_what_was_never_asked_for_is_no_redirect() -> None:
    memory = Memory(Clock())
    memory.take(a_move(1))
    memory.take(a_move(1, S.CANCELLED))
    memory.take(a_move(2, S.REFUSED))
    assert memory.redirects("alice") == 0


def test_what_a_start_finds_counts_as_just_done_whatever_clock_its_writer_had() -> None:
    clock = Clock()
    memory = Memory(clock)
    memory.take(a_move(1, S.REQUESTED, S.MOVED, S.VERIFIED, at=5e9))
    memory.take(a_move(2, S.REQUESTED, S.MOVED, S.VERIFIED, at=1.0, key="gw2/bob#1"))
    clock.now += 10
    assert (memory.moved_ago("alice"), memory.moved_ago("bob")) == (10, 10)
    assert (memory.redirects("alice"), memory.redirects("bob")) == (1, 1)
    assert memory.moved_ago("carol") is None


@pytest.mark.parametrize("state", [S.TIMED_OUT, S.ROLLED_BACK])
def test_a_peer_or_path_that_does_not_work_is_left_alone_longer_each_time(state: MoveState) -> None:
    clock = Clock()
    memory = Memory(clock)
    steps = (S.REQUESTED, S.ROLLING_BACK, state)
    for count in range(12):
        memory.take(a_move(count, *steps, mechanism=Mechanism.NOTIFY, note=DID_NOT_COME))
        rest_s = memory.refused_for("gw1/alice#7")
        assert rest_s == min(FIRST_S * 2**count, LONGEST_S)
        clock.now += rest_s
        assert memory.refused_for("gw1/alice#7") == 0
        assert memory.capability("gw1/alice#7", FULL) == FULL & ~Capability.SWITCH, (
            "another one is tried next"
        )


def test_a_no_to_one_mechanism_leaves_the_others_at_once() -> None:
    clock = Clock()
    memory = Memory(clock)
    memory.take(a_move(1, S.REQUESTED, S.REFUSED, mechanism=Mechanism.REDIRECT))
    assert memory.refused_for("gw1/alice#7") == 0
    assert memory.capability("gw1/alice#7", FULL) == FULL & ~Capability.REDIRECT
    assert memory.capability("gw1/bob#8", FULL) == FULL
    clock.now += 601
    assert memory.capability("gw1/alice#7", FULL) == FULL


def test_success_forgives() -> None:
    memory = Memory(Clock())
    memory.take(a_move(1, S.REQUESTED, S.ROLLING_BACK, S.ROLLED_BACK, mechanism=Mechanism.NOTIFY))
    memory.take(a_move(2, S.REQUESTED, S.MOVED, S.VERIFIED, mechanism=Mechanism.IMPLICIT))
    assert memory.refused_for("gw1/alice#7") == 0
    assert memory.capability("gw1/alice#7", FULL) == FULL


def test_it_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 10)
    memory = Memory(Clock())
    for number in range(100):
        memory.take(a_move(number, S.REQUESTED, S.REFUSED, key=f"gw1/peer{number}#{number}"))
    assert {len(known) for known in (memory._told, memory._peers, memory._failures)} == {10}
    assert memory.redirects("peer99") == 1


@pytest.mark.parametrize(
    ("key", "peer"),
    [("gw1/alice#7", "alice"), ("gw1/C=CH, O=x/y, CN=a#b#12", "C=CH, O=x/y, CN=a#b"), ("", "")],
)
def test_the_peer_of_a_name(key: str, peer: str) -> None:
    assert peer_of(key) == peer
