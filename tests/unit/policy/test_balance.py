"""What the balance policy does, case by case."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from mobikectl.errors import ConfigError
from mobikectl.policy.balance import plan
from mobikectl.policy.cluster import Capability, Capacity, Health, Load, Mechanism, Reason, ServingAddress

from .balance_clusters import NOW, levels, node, sas, settings, view

EVEN = [10.0] * 30


def test_an_even_cluster_is_left_alone() -> None:
    nodes = [node(1), node(2)]
    decided = plan(view(nodes, sas("g1", EVEN) + sas("g2", EVEN)), settings(), NOW)
    assert decided.moves == ()
    assert decided.notes == ()
    assert decided.next_deadline is None


def test_an_empty_cluster_needs_no_plan() -> None:
    assert plan(view([], []), settings(), NOW).moves == ()
    assert plan(view([node(1)], []), settings(), NOW).moves == ()


def test_a_lopsided_cluster_is_brought_inside_the_band() -> None:
    nodes, rows = [node(1), node(2)], sas("g1", [10.0] * 40)
    decided = plan(view(nodes, rows), settings(), NOW)
    after = levels(nodes, rows, decided)
    assert max(after.values()) <= 0.2 * 1.04
    assert {move.reason for move in decided.moves} == {Reason.SPREAD}


def test_a_node_inside_the_gap_between_the_watermarks_is_not_touched_unless_its_relief_is_unfinished() -> (
    None
):
    nodes = [node(1), node(2)]
    rows = sas("g1", [1.0] * 308) + sas("g2", [1.0] * 300)  # 1.3 % above the even level of 0.304
    marks = settings(low=0.005, high=0.02)
    assert plan(view(nodes, rows), marks, NOW).moves == ()
    assert plan(view(nodes, rows, relieving=frozenset({"g1"})), marks, NOW).moves != ()


def test_heavy_ike_sas_are_moved_first_so_that_few_move() -> None:
    nodes, rows = [node(1), node(2)], sas("g1", [100.0] * 4 + [1.0] * 10)
    decided = plan(view(nodes, rows), settings(), NOW)
    assert len(decided.moves) <= 5
    assert {key for move in decided.moves[:2] for key in move.sas} < {f"g1-00{i}" for i in range(4)}


def test_a_drained_node_empties_and_its_load_is_spread_over_the_others() -> None:
    nodes = [node(1, drained=True), node(2), node(3)]
    rows = sas("g1", EVEN) + sas("g2", EVEN) + sas("g3", EVEN)
    decided = plan(view(nodes, rows), settings(), NOW)
    after = levels(nodes, rows, decided)
    assert after["g1"] == 0
    assert after["g2"] == pytest.approx(after["g3"])
    assert {move.reason for move in decided.moves} == {Reason.DRAIN}


def test_an_impaired_node_empties_before_a_drained_one_when_the_budget_is_short() -> None:
    nodes = [node(1, drained=True), node(2, health=Health.IMPAIRED), node(3)]
    rows = sas("g1", EVEN) + sas("g2", EVEN)
    decided = plan(view(nodes, rows), settings(plan_moves=30), NOW)
    assert {move.source for move in decided.moves} == {"g2"}
    assert decided.next_deadline == NOW + settings().interval_s
    assert "g1" in decided.relieving
    assert any("g1: still has 30" in note and "budget" in note for note in decided.notes)


@pytest.mark.parametrize("health", [Health.DEAD, Health.UNKNOWN])
def test_a_node_that_cannot_speak_is_neither_emptied_nor_filled(health: Health) -> None:
    nodes = [node(1, health=health), node(2), node(3)]
    rows = sas("g1", EVEN) + sas("g2", [10.0] * 40)
    decided = plan(view(nodes, rows), settings(), NOW)
    assert decided.moves
    assert all(move.source == "g2" and move.target == "g3" for move in decided.moves)
    assert any(note.startswith("g1: ") for note in decided.notes)


def test_a_stale_report_makes_a_node_unknown() -> None:
    nodes, rows = [node(1), node(2, load=Load(at=NOW - 31))], sas("g1", EVEN)
    assert plan(view(nodes, rows), settings(), NOW).moves == ()


def test_an_overloaded_node_is_relieved_even_where_the_band_would_allow_it() -> None:
    nodes = [node(1, overload_limit=0.5), node(2)]
    rows = [row for name in ("g1", "g2") for row in sas(name, [50.0] * 5 + [10.0] * 30)]
    decided = plan(view(nodes, rows), settings(high=0.5), NOW)
    assert {move.reason for move in decided.moves} == {Reason.OVERLOAD}
    assert levels(nodes, rows, decided)["g1"] <= 0.5
    assert decided.sa_count <= 4


def test_processors_that_are_fuller_than_the_rates_explain_count_as_overload() -> None:
    hot = node(1, load=Load(at=NOW, cpu=0.99))
    rows = sas("g1", EVEN, packets_per_s=10.0) + sas("g2", EVEN, packets_per_s=10.0)
    assert plan(view([hot, node(2)], rows), settings(), NOW).moves != ()


def test_a_processor_reading_from_before_the_last_move_settled_is_not_answered_again() -> None:
    hot = node(1, load=Load(at=NOW, cpu=0.99), last_move_at=NOW - 1)
    rows = sas("g1", EVEN, packets_per_s=10.0) + sas("g2", EVEN, packets_per_s=10.0)
    assert plan(view([hot, node(2)], rows), settings(), NOW).moves == ()


def test_a_node_short_of_memory_takes_nothing() -> None:
    nodes = [node(1), node(2, load=Load(at=NOW, memory=0.95)), node(3)]
    decided = plan(view(nodes, sas("g1", EVEN)), settings(), NOW)
    assert {move.target for move in decided.moves} == {"g3"}


def test_weight_is_the_share_that_a_node_should_have() -> None:
    nodes, rows = [node(1), node(2, weight=0.5)], sas("g1", [1.0] * 300)
    after = levels(nodes, rows, plan(view(nodes, rows), settings(), NOW))
    assert after["g2"] / after["g1"] == pytest.approx(0.5, abs=0.05)


def test_capacity_is_what_a_node_is_measured_by() -> None:
    big = Capacity(bytes_per_s=3000.0, sas=1000.0)
    nodes, rows = [node(1), node(2, capacity=big)], sas("g1", [3.0] * 150)
    after = levels(nodes, rows, plan(view(nodes, rows), settings(), NOW))
    assert after["g1"] == pytest.approx(after["g2"], rel=0.06)


def test_a_number_of_ike_sas_can_be_what_fills_a_node() -> None:
    small = Capacity(sas=100.0)
    nodes, rows = [node(1, capacity=small), node(2, capacity=small)], sas("g1", [0.0] * 80)
    assert levels(nodes, rows, plan(view(nodes, rows), settings(), NOW))["g1"] <= 0.42


def test_one_ike_sa_heavier_than_all_else_gets_a_node_to_itself_but_is_not_thrown_about() -> None:
    nodes, rows = [node(1), node(2)], sas("g1", [600.0] + [10.0] * 20) + sas("g2", [10.0] * 2)
    decided = plan(view(nodes, rows), settings(), NOW)
    after = levels(nodes, rows, decided)
    assert max(after.values()) <= 0.6 * 1.04
    assert len([key for move in decided.moves for key in move.sas if key == "g1-000"]) <= 1
    assert sum(len(move.sas) for move in decided.moves) <= 20


def test_where_no_move_ends_inside_the_band_the_peak_is_still_lowered() -> None:
    nodes, rows = [node(1), node(2)], sas("g1", [200.0, 200.0]) + sas("g2", [100.0])
    decided = plan(view(nodes, rows), settings(), NOW)
    assert decided.sa_count == 1
    assert max(levels(nodes, rows, decided).values()) == pytest.approx(0.3)


def test_a_move_that_would_only_swap_the_roles_of_two_nodes_is_not_made() -> None:
    nodes, rows = [node(1), node(2)], sas("g1", [200.0, 200.0]) + sas("g2", [200.0])
    assert plan(view(nodes, rows), settings(), NOW).moves == ()


def test_a_pinned_ike_sa_stays_even_on_a_drained_node_and_the_plan_says_so() -> None:
    nodes = [node(1, drained=True), node(2)]
    rows = [replace(row, pinned=row.key == "g1-003") for row in sas("g1", EVEN)]
    decided = plan(view(nodes, rows), settings(), NOW)
    assert decided.sa_count == 29
    assert "g1-003" not in {key for move in decided.moves for key in move.sas}
    assert any("still has 1" in note and "1 pinned" in note for note in decided.notes)


def test_what_moved_lately_rests_unless_its_node_is_drained() -> None:
    rows = sas("g1", EVEN, last_moved_at=NOW - 20)
    calm = plan(view([node(1), node(2)], rows), settings(), NOW)
    assert calm.moves == ()
    assert calm.next_deadline == NOW + 40
    assert plan(view([node(1, drained=True), node(2)], rows), settings(), NOW).sa_count == 30


def test_a_peer_that_refused_is_left_alone_for_as_long_as_was_set() -> None:
    rows = sas("g1", EVEN, refused_until=NOW + 7)
    decided = plan(view([node(1, drained=True), node(2)], rows), settings(), NOW)
    assert decided.moves == ()
    assert decided.next_deadline == NOW + 7
    assert plan(view([node(1, drained=True), node(2)], rows), settings(), NOW + 7).sa_count == 30


@pytest.mark.parametrize(
    ("view_moves", "node_moves", "budget", "moved"),
    [
        (0, 0, {}, 30),
        (0, 0, {"plan_moves": 5}, 5),
        (90, 0, {"cluster_moves": 100}, 10),
        (0, 15, {"node_moves": 20}, 5),
    ],
)
def test_every_move_budget_is_kept(
    view_moves: int, node_moves: int, budget: dict[str, int], moved: int
) -> None:
    nodes = [node(1, drained=True, recent_moves=node_moves), node(2), node(3)]
    decided = plan(view(nodes, sas("g1", EVEN), recent_moves=view_moves), settings(**budget), NOW)
    assert decided.sa_count == moved


def test_a_target_out_of_budget_is_passed_over() -> None:
    nodes = [node(1, drained=True), node(2, recent_moves=595), node(3)]
    decided = plan(view(nodes, sas("g1", EVEN) + sas("g3", EVEN)), settings(), NOW)
    assert [move.target for move in decided.moves].count("g2") == 5
    assert decided.sa_count == 30


def test_a_paused_cluster_plans_nothing() -> None:
    nodes = [node(1, drained=True), node(2)]
    decided = plan(view(nodes, sas("g1", EVEN), paused=True), settings(), NOW)
    assert decided.moves == ()
    assert "paused" in decided.notes[0]


def test_an_ike_sa_goes_only_where_its_pool_is_served() -> None:
    nodes = [node(1, drained=True), node(2, pools=frozenset({"red"})), node(3, pools=frozenset({"blue"}))]
    decided = plan(view(nodes, sas("g1", EVEN, pool="blue")), settings(), NOW)
    assert {move.target for move in decided.moves} == {"g3"}


def test_an_ike_sa_stays_in_its_site_until_the_site_is_full() -> None:
    nodes = [node(1, drained=True, site="east"), node(2, site="east"), node(3, site="west")]
    rows = sas("g1", EVEN, site="east")
    assert {move.target for move in plan(view(nodes, rows), settings(), NOW).moves} == {"g2"}
    full = sas("g2", [10.0] * 80, site="east")
    assert {move.target for move in plan(view(nodes, rows + full), settings(), NOW).moves} == {"g2", "g3"}


def test_the_spread_alone_never_takes_an_ike_sa_out_of_its_site() -> None:
    nodes = [node(1, site="east"), node(2, site="west")]
    rows = sas("g1", EVEN, site="east")
    assert plan(view(nodes, rows), settings(), NOW).moves == ()
    assert plan(view(nodes, rows), settings(stay_in_site=False), NOW).moves != ()


def test_an_ike_sa_goes_only_where_an_address_of_its_family_works() -> None:
    v6 = (ServingAddress(ip_address("2001:db8::1")),)
    nodes = [node(1, drained=True), node(2, addresses=v6), node(3)]
    decided = plan(view(nodes, sas("g1", EVEN)), settings(), NOW)
    assert {str(move.target_address) for move in decided.moves} == {"198.18.0.3"}


def test_a_full_cluster_says_that_there_is_no_room() -> None:
    nodes = [node(1, drained=True), node(2)]
    decided = plan(view(nodes, sas("g1", EVEN) + sas("g2", [10.0] * 90)), settings(), NOW)
    assert decided.moves == ()
    assert any("nothing else fits" in note for note in decided.notes)


# Mechanisms.


@pytest.mark.parametrize(
    ("capability", "nat", "mechanism"),
    [
        (Capability.MOBIKE | Capability.SWITCH | Capability.REDIRECT, True, Mechanism.NOTIFY),
        (Capability.MOBIKE | Capability.REDIRECT, False, Mechanism.IMPLICIT),
        (Capability.MOBIKE | Capability.REDIRECT, True, Mechanism.REDIRECT),
        (Capability.REDIRECT, False, Mechanism.REDIRECT),
        (Capability.NONE, False, None),
    ],
)
def test_the_best_mechanism_that_the_peer_supports_is_used(
    capability: Capability, nat: bool, mechanism: Mechanism | None
) -> None:
    rows = sas("g1", EVEN, capability=capability, behind_nat=nat)
    decided = plan(view([node(1, drained=True), node(2)], rows), settings(), NOW)
    assert {move.mechanism for move in decided.moves} == ({mechanism} if mechanism else set())


def test_a_reconnect_happens_only_where_the_operator_allows_it() -> None:
    nodes, rows = [node(1, drained=True), node(2)], sas("g1", EVEN, capability=Capability.NONE)
    assert plan(view(nodes, rows), settings(), NOW).moves == ()
    allowed = settings(mechanisms=frozenset(Mechanism))
    assert {move.mechanism for move in plan(view(nodes, rows), allowed, NOW).moves} == {Mechanism.RECONNECT}


def test_without_carrying_state_a_move_to_another_node_is_a_redirect() -> None:
    nodes = [node(1, drained=True, carries=False), node(2)]
    assert {m.mechanism for m in plan(view(nodes, sas("g1", EVEN)), settings(), NOW).moves} == {
        Mechanism.REDIRECT
    }
    nodes = [node(1, drained=True), node(2, carries=False)]
    assert {m.mechanism for m in plan(view(nodes, sas("g1", EVEN)), settings(), NOW).moves} == {
        Mechanism.REDIRECT
    }


def test_a_client_is_not_redirected_a_fifth_time_in_300_seconds() -> None:
    nodes = [node(1, drained=True), node(2)]
    four = sas("g1", EVEN, capability=Capability.REDIRECT, recent_redirects=4)
    three = sas("g1", EVEN, capability=Capability.REDIRECT, recent_redirects=3)
    assert plan(view(nodes, four), settings(), NOW).moves == ()
    assert plan(view(nodes, three), settings(), NOW).sa_count == 30


def test_cheap_mechanisms_are_spent_before_dear_ones() -> None:
    dear = sas("g1", [12.0] * 20, capability=Capability.REDIRECT)
    cheap = [replace(row, key=f"r-{row.key}", peer=f"r{row.peer}") for row in sas("g1", [10.0] * 30)]
    decided = plan(view([node(1), node(2)], dear + cheap), settings(), NOW)
    assert {move.mechanism for move in decided.moves} == {Mechanism.NOTIFY}


def test_an_implicit_switch_takes_all_behind_the_peers_address_along() -> None:
    rows = sas("g1", EVEN, capability=Capability.MOBIKE, peer="shared") + sas("g1x", [])
    decided = plan(view([node(1, drained=True), node(2)], rows), settings(), NOW)
    assert [len(move.sas) for move in decided.moves] == [30]


@pytest.mark.parametrize("what", [{"pinned": True}, {"behind_nat": True}, {"capability": Capability.NONE}])
def test_an_address_with_one_ike_sa_that_must_not_be_steered_is_not_steered(what: dict[str, Any]) -> None:
    rows = sas("g1", EVEN, capability=Capability.MOBIKE, peer="shared")
    rows[7] = replace(rows[7], **what)
    decided = plan(view([node(1, drained=True), node(2)], rows), settings(), NOW)
    assert decided.moves == ()


# Within a node.


def two_uplinks(**more: Any) -> tuple[ServingAddress, ServingAddress]:
    first = ServingAddress(ip_address("198.18.1.1"), bytes_per_s=500.0)
    second = ServingAddress(ip_address("198.18.2.1"), bytes_per_s=500.0)
    return replace(first, **more), second


def test_what_is_served_over_a_dead_uplink_is_steered_to_the_other_one_by_the_new_address() -> None:
    nodes = [node(1, addresses=two_uplinks(usable=False))]
    decided = plan(view(nodes, sas("g1", EVEN)), settings(), NOW)
    assert {(m.reason, m.mechanism, str(m.target_address)) for m in decided.moves} == {
        (Reason.UPLINK, Mechanism.IMPLICIT, "198.18.2.1")
    }
    assert decided.sa_count == 30
    assert all(move.within_node for move in decided.moves)


def test_two_uplinks_of_one_node_are_evened_out() -> None:
    nodes = [node(1, addresses=two_uplinks(), carries=False)]
    decided = plan(view(nodes, sas("g1", EVEN)), settings(), NOW)
    assert 14 <= decided.sa_count <= 16
    assert {(m.reason, m.mechanism) for m in decided.moves} == {(Reason.UPLINK_SPREAD, Mechanism.NOTIFY)}


def test_what_comes_to_a_node_is_spread_over_its_uplinks() -> None:
    nodes = [node(1, drained=True), node(2, addresses=two_uplinks())]
    decided = plan(view(nodes, sas("g1", EVEN)), settings(), NOW)
    targets = [str(move.target_address) for move in decided.moves]
    assert (targets.count("198.18.1.1"), targets.count("198.18.2.1")) == (15, 15)


# What is said.


def test_a_move_explains_itself() -> None:
    nodes = [node(1, drained=True), node(2)]
    text = plan(view(nodes, sas("g1", [100.0])), settings(), NOW).moves[0].explain()
    assert text == (
        "g1-000: g1 (198.18.0.1) -> g2 (198.18.0.2) by notify: g1 is drained; "
        "10.0% -> 0.0%, target 0.0% -> 10.0%"
    )


@pytest.mark.parametrize(
    "bad",
    [{"low": 0.1, "high": 0.1}, {"redirects": 5}, {"relief": 0.0}, {"plan_moves": -1}, {"interval_s": 0.0}],
)
def test_settings_that_make_no_sense_are_refused_with_a_hint(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**bad)
    assert caught.value.hint


@pytest.mark.parametrize("bad", [{"weight": 0.0}, {"overload_limit": 1.5}])
def test_nodes_that_make_no_sense_are_refused_with_a_hint(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError) as caught:
        node(1, **bad)
    assert caught.value.hint


def test_a_view_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        view([node(1), node(1)], [])
    with pytest.raises(ValueError, match="address that its node does not have"):
        view([node(1)], sas("g1", EVEN, address=1))
    with pytest.raises(KeyError):
        view([node(1)], sas("g2", EVEN))


def test_a_target_with_room_in_one_dimension_and_none_in_another_takes_nothing() -> None:
    small = Capacity(bytes_per_s=1000.0, sas=100.0)
    nodes = [node(1, capacity=small), node(2, capacity=small)]
    decided = plan(view(nodes, sas("g1", [50.0] * 19) + sas("g2", [0.0] * 85)), settings(), NOW)
    assert decided.moves == ()
    assert any(note.startswith("g1: stays over its limit") for note in decided.notes)


def test_a_group_that_is_larger_than_a_budget_waits_as_a_whole() -> None:
    rows = [row for i in range(10) for row in sas(f"g1-{i}", [10.0] * 3, peer=f"p{i}")]
    rows = [replace(row, owner="g1", capability=Capability.MOBIKE) for row in rows]
    assert plan(view([node(1), node(2)], rows), settings(node_moves=2), NOW).moves == ()
    assert plan(view([node(1), node(2)], rows), settings(node_moves=4), NOW).sa_count == 3
    assert plan(view([node(1), node(2, recent_moves=2)], rows), settings(node_moves=4), NOW).moves == ()


def test_one_heavy_ike_sa_is_not_taken_where_a_few_light_ones_fit_the_need() -> None:
    nodes = [node(i) for i in range(1, 6)]
    rows = sas("g1", [120.0] + [10.0] * 18)
    rows += [row for i in (2, 3, 4) for row in sas(f"g{i}", [10.0] * 28, pinned=True)]
    decided = plan(view(nodes, rows), settings(), NOW)
    assert "g1-000" not in {key for move in decided.moves for key in move.sas}
    assert 0.2 < levels(nodes, rows, decided)["g1"] < 0.24


def test_state_is_carried_only_to_a_node_that_can_take_it() -> None:
    nodes = [node(1, drained=True), node(2, carries=False), node(3)]
    decided = plan(view(nodes, sas("g1", EVEN)), settings(), NOW)
    assert {(move.target, move.mechanism) for move in decided.moves} == {("g3", Mechanism.NOTIFY)}


def test_an_address_whose_ike_sas_may_not_all_go_to_the_same_nodes_is_not_steered() -> None:
    rows = sas("g1", EVEN, capability=Capability.MOBIKE, peer="shared")
    rows[0] = replace(rows[0], pool="blue")
    assert plan(view([node(1, drained=True), node(2)], rows), settings(), NOW).moves == ()


def test_an_address_that_is_served_at_both_uplinks_is_not_steered_from_one_to_the_other() -> None:
    rows = sas("g1", EVEN, capability=Capability.MOBIKE, peer="shared")
    rows[0] = replace(rows[0], address=1)
    decided = plan(view([node(1, addresses=two_uplinks(usable=False))], rows), settings(), NOW)
    assert decided.moves == ()
    assert any("29 IKE_SAs stay" in note for note in decided.notes)


def test_nearly_idle_nodes_are_left_alone_however_uneven_they_are() -> None:
    nodes = [node(1), node(2)]
    nearly_idle = view(nodes, sas("g1", [1.0] * 20))
    assert not plan(nearly_idle, settings(), NOW).moves
    assert plan(nearly_idle, settings(idle=0.0), NOW).moves
    assert plan(view(nodes, sas("g1", [4.0] * 20)), settings(), NOW).moves
    with pytest.raises(ConfigError):
        settings(idle=1.0)


def test_nearly_idle_uplinks_are_left_alone_however_uneven_they_are() -> None:
    uplinks = tuple(ServingAddress(ip_address(f"198.18.0.{n}"), bytes_per_s=1000.0) for n in (1, 2))
    one = [node(1, addresses=uplinks)]
    assert not plan(view(one, sas("g1", [1.0] * 20)), settings(), NOW).moves
    assert plan(view(one, sas("g1", [1.0] * 20)), settings(idle=0.0), NOW).moves
    assert plan(view(one, sas("g1", [4.0] * 20)), settings(), NOW).moves
