"""What the leader answers to an operator who wants an IKE_SA elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mobikectl.cluster.orders import KEEP_S, Answer, OrderBook, answers
from mobikectl.cluster.records import ClusterIntent, MoveState, Order, Pin, Versioned
from mobikectl.policy.cluster import Capability, Health, Mechanism, Reason

from .a_cluster import POLICY, Cluster, address, row


class Leader:
    """Reads the cluster with orders in it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.book = OrderBook()
        self.answer()

    def answer(self, *orders: Order, after: float = 1.0) -> list[Answer]:
        reading = self.cluster.look(after=after, wary=True)
        state = replace(reading.state, orders={one.name: Versioned(one, 7) for one in orders})
        reading = replace(reading, state=state)
        found = list(answers(reading, self.book, POLICY, at=5.0))
        self.book = self.book.looked(reading)
        return found

    def one(self, **more: Any) -> Answer:
        (answer,) = self.answer(Order(**{"name": "a", "sa": "gw1/peer-1#1", "node": "gw2"} | more))
        return answer


def two(**of_the_sa: Any) -> Cluster:
    cluster = Cluster(1, 2)
    cluster.serve(1, row(1, 1, **of_the_sa), row(1, 2))
    return cluster


def test_it_is_carried_over_where_both_nodes_can() -> None:
    cluster = two()
    for node in (1, 2):
        cluster.join(node, carries=True)
    move = Leader(cluster).one(by="eve@host").move
    assert move is not None
    assert (move.source, move.target, move.mechanism) == ("gw1", "gw2", Mechanism.NOTIFY)
    assert (move.source_address, move.target_address) == (address(1), address(2))
    assert (move.reason, move.state, move.sas) == (Reason.ORDER, MoveState.PLANNED, ("gw1/peer-1#1",))
    assert move.steps[0].note == "ordered (eve@host)"


def test_a_client_without_r_is_told_by_the_target_and_one_behind_a_nat_is_redirected() -> None:
    for nat, wanted in ((False, Mechanism.IMPLICIT), (True, Mechanism.REDIRECT)):
        cluster = two(capability=Capability.MOBIKE | Capability.REDIRECT, behind_nat=nat)
        for node in (1, 2):
            cluster.join(node, carries=True)
        move = Leader(cluster).one().move
        assert move is not None
        assert move.mechanism is wanted


def test_where_one_node_carries_nothing_it_is_redirected() -> None:
    cluster = two()
    cluster.join(1, carries=True)
    move = Leader(cluster).one().move
    assert move is not None
    assert move.mechanism is Mechanism.REDIRECT


def test_where_a_node_is_just_being_started_it_is_not_redirected_but_refused_for_the_moment() -> None:
    cluster = two()
    cluster.join(1, carries=True, transfer="198.18.1.1:4511")
    cluster.join(2, transfer="198.18.2.1:4511")
    leader = Leader(cluster)
    refused = leader.one()
    assert refused.move is None
    assert "gw2 cannot carry IKE_SAs over at this moment" in refused.refused
    assert "--mechanism redirect" in refused.refused
    ordered = leader.one(mechanism=Mechanism.REDIRECT).move
    assert ordered is not None
    assert ordered.mechanism is Mechanism.REDIRECT


def test_a_client_that_can_only_be_redirected_is_wherever_a_node_is_started() -> None:
    cluster = two(capability=Capability.REDIRECT)
    cluster.join(1, carries=True, transfer="198.18.1.1:4511")
    cluster.join(2, transfer="198.18.2.1:4511")
    move = Leader(cluster).one().move
    assert move is not None
    assert move.mechanism is Mechanism.REDIRECT


def test_an_ordered_mechanism_is_taken_or_refused_and_no_other_tried() -> None:
    leader = Leader(two())
    move = leader.one(mechanism=Mechanism.RECONNECT).move
    assert move is not None
    assert move.mechanism is Mechanism.RECONNECT
    assert "gw1 and gw2 carry no IKE_SAs over" in leader.one(mechanism=Mechanism.NOTIFY).refused


def paused(cluster: Cluster) -> None:
    cluster.cluster = ClusterIntent(paused=True)


def on_its_way(cluster: Cluster) -> None:
    cluster.move(row(1, 1), target=2)


def pinned(cluster: Cluster) -> None:
    cluster.pins["peer-1"] = Versioned(Pin("peer-1"), 3)


@pytest.mark.parametrize(
    ("arrange", "order", "said"),
    [
        (lambda _: None, {"node": "gw9"}, "no member"),
        (lambda _: None, {"node": "gw1"}, "serves it already"),
        (lambda _: None, {"sa": "gw1/peer-7#7"}, "no node tells of it"),
        (lambda cluster: cluster.intend(2, drained=True), {}, "drained"),
        (lambda cluster: cluster.report(2, health=Health.IMPAIRED), {}, "impaired"),
        (paused, {}, "paused"),
        (on_its_way, {}, "move 1 is on its way"),
        (pinned, {}, "pinned"),
    ],
    ids=["no-member", "there", "unknown", "drained", "impaired", "paused", "under-way", "pinned"],
)
def test_what_cannot_or_must_not_be_is_refused(arrange: Any, order: dict[str, str], said: str) -> None:
    cluster = two()
    arrange(cluster)
    answer = Leader(cluster).one(**order)
    assert answer.move is None
    assert said in answer.refused


def test_two_orders_for_one_ike_sa_make_one_move() -> None:
    first, second = Leader(two()).answer(Order("a", "gw1/peer-1#1", "gw2"), Order("b", "gw1/peer-1#1", "gw2"))
    assert first.move is not None
    assert "another order" in second.refused


def test_a_new_leader_does_not_carry_out_what_it_finds() -> None:
    leader = Leader(two())
    leader.book = OrderBook()
    assert "before this leader" in leader.one().refused
    assert leader.one().move is not None


def test_an_answer_stays_until_it_is_taken_or_nobody_comes_for_it() -> None:
    leader = Leader(two())
    done = Order("a", "gw1/peer-1#1", "gw2", refused="no")
    for after in (1.0, KEEP_S - 1):
        assert leader.answer(done, after=after) == []
        reading = replace(leader.cluster.look(after=0))
        state = replace(reading.state, orders={"a": Versioned(done, 7)})
        assert not list(leader.book.forgotten(replace(reading, state=state)))
    reading = leader.cluster.look(after=2)
    state = replace(reading.state, orders={"a": Versioned(done, 7)})
    assert [one.value.name for one in leader.book.forgotten(replace(reading, state=state))] == ["a"]
