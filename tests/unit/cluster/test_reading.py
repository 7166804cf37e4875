"""From the store to the view that the policy looks at."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from mobikectl.cluster.reading import RETRY_S, STUCK_S, Observed, Reading, served
from mobikectl.cluster.records import ClusterIntent, MoveState
from mobikectl.policy.cluster import Capability, Health, Mechanism, Node, ServingAddress

from .a_cluster import FULL, POLICY, Cluster, address, row


def the_node(reading: Reading, name: str = "gw1") -> Node:
    return next(node for node in reading.view.nodes if node.name == name)


def the_sa(reading: Reading, key: str) -> dict[str, object]:
    sas = reading.view.sas
    i = list(sas.keys).index(key)
    return {
        "owner": reading.view.nodes[int(sas.owner[i])].name,
        "address": int(sas.address[i]),
        "pinned": bool(sas.pinned[i]),
        "refused_until": float(sas.refused_until[i]),
        "last_moved_at": float(sas.last_moved_at[i]),
        "capability": Capability(int(sas.capability[i])),
    }


def test_what_nodes_tell_of_their_ike_sas_is_the_view() -> None:
    cluster = Cluster(1, 2)
    cluster.serve(1, row(1, 1), row(1, 2, address=address(1, 2), moved_ago_s=3.0, refused_for_s=9.0))
    cluster.serve(1, row(1, 3), part=1)
    reading = cluster.look()
    assert {node.name: count for node, count in served(reading.view)} == {"gw1": 3, "gw2": 0}
    second = the_sa(reading, "gw1/peer-2#2")
    assert second["address"] == 1
    assert second["last_moved_at"] == cluster.now - 3
    assert second["refused_until"] == cluster.now + 9
    assert the_sa(reading, "gw1/peer-1#1")["last_moved_at"] == -inf
    assert reading.find("peer-3") == reading.find("gw1/peer-3#3") == ("gw1/peer-3#3",)
    assert reading.find("nobody") == ()


def test_times_in_a_part_count_from_when_it_was_new_not_from_when_it_was_read_again() -> None:
    cluster = Cluster(1)
    cluster.serve(1, row(1, 1, moved_ago_s=3.0))
    first = the_sa(cluster.look(), "gw1/peer-1#1")
    assert the_sa(cluster.look(after=10), "gw1/peer-1#1") == first


def test_ike_sas_of_a_node_that_left_or_of_its_predecessor_are_not_there() -> None:
    cluster = Cluster(1, 2)
    cluster.serve(1, row(1, 1))
    cluster.serve(2, row(2, 2))
    cluster.members["gw1"] = replace(
        cluster.members["gw1"], value=replace(cluster.members["gw1"].value, instance="two")
    )
    del cluster.members["gw2"]
    assert not cluster.look().rows


def test_an_ike_sa_at_an_address_that_nobody_configured_counts_as_at_the_first_of_its_family() -> None:
    cluster = Cluster(1)
    cluster.serve(1, row(1, 1, address=address(9, 9)))
    assert the_sa(cluster.look(), "gw1/peer-1#1")["address"] == 0


def test_a_pin_names_a_key_or_a_peer() -> None:
    cluster = Cluster(1)
    cluster.serve(1, row(1, 1), row(1, 2), row(1, 3))
    cluster.pin("gw1/peer-1#1")
    cluster.pin("peer-2")
    reading = cluster.look()
    assert [the_sa(reading, f"gw1/peer-{n}#{n}")["pinned"] for n in (1, 2, 3)] == [True, True, False]


def test_what_is_on_its_way_counts_as_arrived_and_is_left_alone() -> None:
    cluster = Cluster(1, 2)
    there = row(1, 1)
    cluster.serve(1, there)
    cluster.move(there, target=2)
    sa = the_sa(cluster.look(), there.key)
    assert (sa["owner"], sa["address"], sa["pinned"]) == ("gw2", 0, True)
    assert [move.value.number for move in cluster.look().pending] == [1]


def test_a_move_within_a_node_counts_at_its_new_address() -> None:
    cluster = Cluster(1)
    there = row(1, 1)
    cluster.serve(1, there)
    cluster.move(there, target=1, target_address=address(1, 2), mechanism=Mechanism.NOTIFY)
    sa = the_sa(cluster.look(), there.key)
    assert (sa["owner"], sa["address"], sa["pinned"]) == ("gw1", 1, True)


def test_what_left_its_node_and_is_not_told_of_by_its_target_yet_is_not_lost() -> None:
    cluster = Cluster(1, 2)
    there = row(1, 1, rate=40.0)
    cluster.serve(1, there)
    move = cluster.move(there, target=2)
    cluster.look()
    cluster.serve(1)
    cluster.step(move, MoveState.REQUESTED, MoveState.MOVED, MoveState.VERIFIED)
    reading = cluster.look()
    assert the_sa(reading, there.key)["owner"] == "gw2"
    assert reading.view.sas.bytes_per_s.tolist() == [40.0]
    cluster.serve(2, row(2, 9, peer_id="peer-1"))
    assert list(cluster.look().view.sas.keys) == ["gw2/peer-9#9"]


def test_a_moved_one_that_never_shows_at_its_target_is_forgotten() -> None:
    cluster = Cluster(1, 2)
    there = row(1, 1)
    cluster.serve(1, there)
    move = cluster.move(there, target=2)
    cluster.look()
    cluster.serve(1)
    cluster.step(move, MoveState.REQUESTED, MoveState.MOVED, MoveState.VERIFIED)
    assert len(cluster.look().view.sas) == 1
    assert len(cluster.look(after=POLICY.settle_s).view.sas) == 0


def test_a_move_in_which_nothing_happens_is_not_waited_for() -> None:
    cluster = Cluster(1, 2)
    there = row(1, 1)
    cluster.serve(1, there)
    move = cluster.move(there, target=2)
    cluster.step(move, MoveState.REQUESTED)
    assert cluster.look().pending
    reading = cluster.look(after=STUCK_S)
    assert not reading.pending
    assert the_sa(reading, there.key)["owner"] == "gw1"


def test_after_a_failed_move_an_ike_sa_is_left_alone_for_a_while() -> None:
    cluster = Cluster(1, 2)
    there = row(1, 1)
    cluster.serve(1, there)
    move = cluster.move(there, target=2)
    cluster.step(move, MoveState.REQUESTED, MoveState.TIMED_OUT)
    sa = the_sa(cluster.look(), there.key)
    assert (sa["owner"], sa["pinned"], sa["refused_until"]) == ("gw1", False, cluster.now + RETRY_S)
    assert the_sa(cluster.look(after=RETRY_S), there.key)["refused_until"] == -inf


def test_moves_count_in_the_budgets_of_their_window_also_when_the_journal_no_longer_tells() -> None:
    cluster = Cluster(1, 2, 3)
    rows = [row(1, n) for n in range(1, 5)]
    cluster.serve(1, *rows)
    cluster.look()
    done = cluster.move(rows[0], rows[1], target=2)
    cluster.step(done, MoveState.REQUESTED, MoveState.MOVED, MoveState.VERIFIED)
    cancelled = cluster.move(rows[2], target=3)
    cluster.step(cancelled, MoveState.CANCELLED)
    reading = cluster.look()
    assert reading.view.recent_moves == 2
    assert {node.name: node.recent_moves for node in reading.view.nodes} == {"gw1": 2, "gw2": 2, "gw3": 0}
    assert the_node(reading).last_move_at == cluster.now
    cluster.moves.clear()
    assert cluster.look().view.recent_moves == 2
    assert cluster.look(after=POLICY.window_s).view.recent_moves == 0


def test_moves_that_had_ended_before_the_first_look_use_up_nothing() -> None:
    cluster = Cluster(1, 2)
    there = row(1, 1)
    cluster.serve(1, there)
    done = cluster.move(there, target=2)
    cluster.step(done, MoveState.REQUESTED, MoveState.MOVED, MoveState.VERIFIED)
    assert cluster.look().view.recent_moves == 0


def test_what_its_node_tells_of_an_ike_sa_since_a_move_of_that_name_ended_holds_for_who_looks_first() -> None:
    cluster = Cluster(1, 2)
    left, tried, within = row(1, 1), row(1, 2), row(1, 3)
    verified = (MoveState.REQUESTED, MoveState.MOVED, MoveState.VERIFIED)
    cluster.serve(1, left, tried, within)
    cluster.step(cluster.move(left, target=2), *verified)
    cluster.step(cluster.move(tried, target=2), MoveState.REQUESTED, MoveState.TIMED_OUT)
    cluster.step(cluster.move(within, target=1, target_address=address(1, 2)), *verified)
    before = cluster.look()
    assert the_sa(before, left.key)["owner"] == "gw2", "that part may be older than the move"
    # charon was started anew since, and counts its IKE_SAs from one again.
    cluster.serve(1, left, tried, replace(within, address=address(1, 2)))
    cluster.observed = Observed()
    reading = cluster.look()
    found = [the_sa(reading, one.key) for one in (left, tried, within)]
    assert [(sa["owner"], sa["pinned"], sa["refused_until"]) for sa in found] == [("gw1", False, -inf)] * 3
    assert found[2]["address"] == 1


def test_a_wary_reader_believes_a_report_when_it_saw_it_change() -> None:
    cluster = Cluster(1, 2)
    assert the_node(cluster.look()).health is Health.HEALTHY
    cluster = Cluster(1, 2)
    assert the_node(cluster.look(wary=True)).health is Health.UNKNOWN
    reading = cluster.look(wary=True, silent=("gw2",))
    assert the_node(reading).health is Health.HEALTHY
    assert the_node(reading, "gw2").health is Health.UNKNOWN
    cluster.join(3)
    cluster.report(3)
    assert the_node(cluster.look(wary=True), "gw3").health is Health.HEALTHY


def test_a_report_that_stays_the_same_grows_old() -> None:
    cluster = Cluster(1)
    assert the_node(cluster.look(silent=("gw1",))).health is Health.HEALTHY
    assert the_node(cluster.look(silent=("gw1",), after=POLICY.stale_after_s)).health is Health.HEALTHY
    assert the_node(cluster.look(silent=("gw1",))).health is Health.UNKNOWN


def test_a_drain_uses_only_what_its_operator_named() -> None:
    cluster = Cluster(1)
    cluster.serve(1, row(1, 1))
    cluster.intend(1, drained=True, mechanisms=frozenset({Mechanism.REDIRECT, Mechanism.RECONNECT}))
    assert the_sa(cluster.look(), "gw1/peer-1#1")["capability"] is Capability.REDIRECT
    cluster.intend(1, drained=False, mechanisms=frozenset({Mechanism.REDIRECT}))
    assert the_sa(cluster.look(), "gw1/peer-1#1")["capability"] == FULL


def test_an_ike_sa_that_two_parts_tell_of_counts_once() -> None:
    cluster = Cluster(1)
    cluster.serve(1, row(1, 1))
    cluster.serve(1, row(1, 1), part=1)
    reading = cluster.look()
    assert len(reading.view.sas) == 1
    assert "told of twice" in reading.notes[0]


def test_pause_and_relief_are_handed_on() -> None:
    cluster = Cluster(1)
    cluster.cluster = ClusterIntent(paused=True)
    view = cluster.look(relieving=frozenset({"gw1", "gone"})).view
    assert view.paused
    assert view.relieving == {"gw1"}


def test_addresses_that_a_node_reports_as_down_are_not_usable() -> None:
    cluster = Cluster(1)
    cluster.report(1, down=(address(1, 2),))
    assert the_node(cluster.look()).addresses == (
        ServingAddress(address(1)),
        ServingAddress(address(1, 2), usable=False),
    )
