"""What the leader does with a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mobikectl.cluster import decisions
from mobikectl.cluster.decisions import BEGIN_WITHIN_S, Decision, Memory, decide, plan_for, record_of
from mobikectl.cluster.node_settings import Balance
from mobikectl.cluster.records import ClusterIntent, MoveState
from mobikectl.errors import StoreValueError
from mobikectl.policy.cluster import Capability, Capacity, Health, Mechanism, Reason

from .a_cluster import POLICY, TOKEN, Cluster, row

if TYPE_CHECKING:
    import pytest


class Leader:
    """A leader in its rounds; what it plans is appended to the journal of its cluster."""

    def __init__(self, cluster: Cluster, balance: Balance = Balance.AUTO) -> None:
        self.cluster = cluster
        self.balance = balance
        self.memory = Memory()

    def round(self, after: float = 1.0, *, append: bool = False, silent: tuple[str, ...] = ()) -> Decision:
        reading = self.cluster.look(after=after, relieving=self.memory.relieving, wary=True, silent=silent)
        decision = decide(reading, self.memory, POLICY, self.balance, token=TOKEN)
        self.memory = decision.memory
        if append:
            for move in decision.moves:
                record = record_of(move, reading, at=5.0)
                number = len(self.cluster.moves) + 1
                record = replace(record, number=number, token=TOKEN)
                self.cluster.moves.append(self.cluster._versioned(record))
        return decision

    def warm(self) -> Leader:
        """Look once: reports count from the second look on."""
        self.round()
        return self


def lopsided(count: int = 8) -> Cluster:
    cluster = Cluster(1, 2, sas=1000.0)
    cluster.serve(1, *(row(1, n, rate=10.0) for n in range(1, count + 1)))
    return cluster


def test_a_new_leader_plans_when_it_has_heard_from_the_nodes_itself() -> None:
    leader = Leader(lopsided())
    assert not leader.round().moves
    moves = leader.round().moves
    assert {(move.source, move.target, move.reason) for move in moves} == {("gw1", "gw2", Reason.SPREAD)}
    assert len(moves) == 4


ROOM = Capacity(bytes_per_s=100.0, sas=1000.0)


def test_nobody_is_redirected_to_a_node_that_is_just_being_started_and_will_carry_his_ike_sa() -> None:
    cluster = lopsided()
    cluster.join(1, carries=True, transfer="198.18.1.1:4511", capacity=ROOM)
    cluster.join(2, transfer="198.18.2.1:4511", capacity=ROOM)
    leader = Leader(cluster).warm()
    decision = leader.round()
    assert not decision.moves
    assert any("is being started" in note for note in decision.notes)
    cluster.join(2, carries=True, transfer="198.18.2.1:4511", capacity=ROOM)
    assert {move.mechanism for move in leader.round().moves} == {Mechanism.NOTIFY}


def test_a_node_that_does_not_come_to_carry_anything_is_not_waited_for_for_ever() -> None:
    cluster = lopsided()
    cluster.join(1, transfer="198.18.1.1:4511")
    cluster.join(2, carries=True, transfer="198.18.2.1:4511")
    cluster.intend(1, drained=True)
    leader = Leader(cluster).warm()
    decision = leader.round()
    assert not decision.moves
    assert decision.next_at <= cluster.now + decisions.CARRY_WITHIN_S
    for _ in range(int(decisions.CARRY_WITHIN_S)):
        decision = leader.round()
    assert {move.mechanism for move in decision.moves} == {Mechanism.REDIRECT}


def test_clients_that_can_only_be_redirected_do_not_wait() -> None:
    cluster = Cluster(1, 2, sas=1000.0)
    cluster.serve(1, *(row(1, n, rate=10.0, capability=Capability.REDIRECT) for n in range(1, 9)))
    cluster.join(1, transfer="198.18.1.1:4511")
    cluster.join(2, carries=True, transfer="198.18.2.1:4511")
    cluster.intend(1, drained=True)
    assert {move.mechanism for move in Leader(cluster).warm().round().moves} == {Mechanism.REDIRECT}


def test_after_a_silence_of_the_store_old_reports_do_not_count() -> None:
    leader = Leader(lopsided()).warm()
    assert not leader.round(after=POLICY.stale_after_s + 1, silent=("gw1", "gw2")).moves
    assert leader.round().moves


def test_the_rest_waits_until_the_moves_are_through_and_show_in_the_loads() -> None:
    cluster = lopsided()
    leader = Leader(cluster).warm()
    assert len(leader.round(append=True).moves) == 4
    assert not leader.round().moves
    cluster.report(2, cpu=0.1)
    for versioned in list(cluster.moves):
        cluster.step(versioned.value, MoveState.REQUESTED, MoveState.MOVED, MoveState.VERIFIED)
    cluster.serve(1, *(row(1, n, rate=10.0) for n in range(9, 17)))  # as bad as before
    decision = leader.round(after=0.5)
    assert not decision.moves
    assert "waiting for the last moves" in " ".join(decision.notes)
    assert cluster.now < decision.next_at <= cluster.now + POLICY.settle_s
    assert leader.round(after=POLICY.settle_s).moves


def test_the_moves_of_a_former_leader_that_were_not_begun_are_cancelled() -> None:
    cluster = lopsided()
    old = cluster.move(row(1, 1), target=2, token=TOKEN - 1)
    begun = cluster.move(row(1, 2), target=2, token=TOKEN - 1)
    cluster.step(begun, MoveState.REQUESTED)
    leader = Leader(cluster).warm()
    cluster.move(row(1, 3), target=2)  # of this leader
    cancel = leader.round().cancel
    assert [(one.move.value.number, one.why) for one in cancel] == [(1, "its leader was replaced")]
    assert old.number == 1


def test_a_move_that_its_node_does_not_begin_is_cancelled() -> None:
    cluster = lopsided()
    leader = Leader(cluster).warm()
    cluster.move(row(1, 1), target=2)
    assert not leader.round().cancel
    assert "not begun within" in leader.round(after=BEGIN_WITHIN_S + 1).cancel[0].why


def test_a_move_to_or_from_what_is_no_longer_there_is_cancelled() -> None:
    cluster = Cluster(1, 2, 3, 4)
    leader = Leader(cluster).warm()
    cluster.move(row(1, 1), target=2)
    cluster.move(row(1, 2), target=3)
    cluster.move(row(4, 3), target=1)
    assert not leader.round().cancel
    cluster.intend(2, drained=True)
    cluster.report(3, health=Health.IMPAIRED)
    del cluster.members["gw4"]
    assert [one.why for one in leader.round().cancel] == [
        "gw2 takes nothing any more",
        "gw3 takes nothing any more",
        "gw4 has left the cluster",
    ]


def test_a_pause_plans_nothing_and_takes_back_what_was_not_begun() -> None:
    cluster = lopsided()
    leader = Leader(cluster).warm()
    cluster.move(row(1, 1), target=2)
    cluster.cluster = ClusterIntent(paused=True)
    decision = leader.round()
    assert not decision.moves
    assert [one.why for one in decision.cancel] == ["the cluster is paused"]
    assert decision.notes == ("paused",)


def test_a_value_that_cannot_be_read_may_have_said_drain_so_nothing_is_planned() -> None:
    cluster = lopsided()
    leader = Leader(cluster).warm()
    cluster.broken = (StoreValueError("intents/gw2 is nonsense"),)
    decision = leader.round()
    assert not decision.moves
    assert "intents/gw2 is nonsense" in decision.notes[0]
    cluster.broken = ()
    assert leader.round().moves


def test_manual_balance_waits_for_an_order_and_carries_out_that_one_only() -> None:
    cluster = lopsided()
    cluster.cluster = ClusterIntent(apply=4)
    leader = Leader(cluster, Balance.MANUAL).warm()
    decision = leader.round()
    assert not decision.moves
    assert decision.plan.sa_count == 4
    assert "4 IKE_SAs would be moved" in decision.notes[-1]
    cluster.cluster = ClusterIntent(apply=5)
    assert len(leader.round().moves) == 4
    cluster.serve(1, *(row(1, n, rate=10.0) for n in range(20, 30)))
    assert not leader.round().moves, "the order has been carried out"


def test_an_order_with_nothing_to_do_is_over() -> None:
    cluster = Cluster(1, 2, sas=1000.0)
    leader = Leader(cluster, Balance.MANUAL).warm()
    cluster.cluster = ClusterIntent(apply=1)
    assert not leader.round().moves
    cluster.serve(1, *(row(1, n, rate=10.0) for n in range(1, 9)))
    assert not leader.round().moves


def test_an_order_that_has_to_wait_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MAX_PENDING", 3)
    cluster = lopsided()
    leader = Leader(cluster, Balance.MANUAL).warm()
    cluster.cluster = ClusterIntent(apply=1)
    assert len(leader.round(append=True).moves) == 3
    assert leader.memory.ordered == 1
    assert not leader.round().moves
    for versioned in list(cluster.moves):
        cluster.step(versioned.value, MoveState.REQUESTED, MoveState.MOVED, MoveState.VERIFIED)
    cluster.serve(1, *(row(1, n, rate=10.0) for n in range(4, 9)))
    cluster.serve(2, *(row(2, n, rate=10.0) for n in range(1, 4)))
    assert not leader.round().moves
    assert len(leader.round(after=POLICY.settle_s).moves) == 1
    assert not leader.round().moves


def test_drains_need_no_order_and_do_not_wait_for_the_loads_to_settle() -> None:
    cluster = lopsided(3)
    leader = Leader(cluster, Balance.MANUAL).warm()
    cluster.intend(1, drained=True)
    first = leader.round(append=True)
    assert {move.reason for move in first.moves} == {Reason.DRAIN}
    assert len(first.moves) == 3
    assert not leader.round().moves
    cluster.serve(1, *(row(1, n, rate=10.0) for n in range(1, 5)))
    assert len(leader.round().moves) == 1


def test_a_drain_goes_no_faster_than_its_operator_said() -> None:
    cluster = lopsided()
    leader = Leader(cluster).warm()
    cluster.intend(1, drained=True, rate_per_s=2.0)
    moved = [len(leader.round(after=0.25, append=True).moves) for _ in range(13)]
    assert sum(moved) == 7  # one at once, then two in each of three seconds
    assert max(moved) == 1
    assert leader.round(after=0.25).next_at <= cluster.now + 0.5


def test_a_drain_that_may_reconnect_reconnects_nobody_elses_clients() -> None:
    cluster = Cluster(1, 2, 3, sas=1000.0)
    nothing = Capability.NONE
    cluster.serve(1, *(row(1, n, rate=10.0, capability=nothing) for n in range(1, 4)))
    cluster.serve(2, *(row(2, n, rate=10.0, capability=nothing) for n in range(4, 12)))
    leader = Leader(cluster).warm()
    cluster.intend(1, drained=True)
    assert not leader.round().moves
    cluster.intend(1, drained=True, mechanisms=frozenset({Mechanism.RECONNECT}))
    moves = leader.round().moves
    assert [(move.source, move.mechanism) for move in moves] == [("gw1", Mechanism.RECONNECT)] * 3


def test_no_more_moves_are_under_way_than_the_journal_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MAX_PENDING", 5)
    cluster = lopsided()
    leader = Leader(cluster).warm()
    cluster.intend(1, drained=True)
    assert len(leader.round(append=True).moves) == 5
    decision = leader.round()
    assert not decision.moves
    assert "5 moves are under way" in decision.notes[-1]


def test_a_planned_move_is_recorded_with_its_reason_and_where_it_really_is() -> None:
    cluster = lopsided()
    leader = Leader(cluster).warm()
    cluster.look()
    decision = leader.round()
    reading = cluster.look()
    record = record_of(decision.moves[0], reading, at=5.0)
    assert record.state is MoveState.PLANNED
    assert record.steps[0].note.startswith("redirect: gw1 has more than its share")
    assert record.source_address == reading.rows[record.sas[0]][1].address
    assert plan_for(reading, POLICY).sa_count == 4


def test_the_same_look_decides_the_same() -> None:
    cluster = lopsided()
    leader = Leader(cluster).warm()
    reading = cluster.look()
    decided = [decide(reading, leader.memory, POLICY, Balance.AUTO, token=TOKEN) for _ in range(2)]
    assert decided[0] == decided[1]
    assert decided[0].moves


def test_a_quiet_cluster_has_no_deadline() -> None:
    cluster = Cluster(1, 2)
    assert Leader(cluster).warm().round().next_at == float("inf")
