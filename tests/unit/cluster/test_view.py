"""From the store's state to the policy's nodes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from math import inf

from mobikectl.cluster.records import Member, NodeIntent, NodeReport, Versioned
from mobikectl.cluster.state import ClusterState
from mobikectl.cluster.view import RecentMoves, Seen, look, nodes
from mobikectl.policy.balance import plan
from mobikectl.policy.cluster import ClusterView, Health, ServingAddress
from mobikectl.policy.cluster_settings import BalanceSettings

HERE = ip_address("198.18.0.1")
MEMBER = Member("gw1", "one", (ServingAddress(HERE),), weight=2.0)
REPORT = NodeReport("gw1", "one", 1, age_s=2.0, ike_sas=5, cpu=0.25)


def state(
    *, member: Member = MEMBER, report: NodeReport | None = REPORT, intent: NodeIntent | None = None
) -> ClusterState:
    return ClusterState(
        9,
        members={"gw1": Versioned(member, 1)},
        reports={} if report is None else {"gw1": Versioned(report, 2)},
        intents={} if intent is None else {"gw1": Versioned(intent, 3)},
    )


def test_a_report_counts_from_when_it_was_first_seen_minus_its_age() -> None:
    seen = look({}, state(), 100.0)
    assert seen == {"gw1": Seen("one", 1, 98.0)}
    assert look(seen, state(), 150.0) == seen
    assert look(seen, state(report=replace(REPORT, sequence=2)), 150.0)["gw1"].at == 148.0
    assert look(seen, state(report=replace(REPORT, instance="two")), 150.0)["gw1"].at == 148.0
    assert look(seen, state(report=None), 150.0) == {}


def test_a_node_is_what_it_says_and_what_operators_want() -> None:
    seen = {"gw1": Seen("one", 1, 98.0)}
    (plain,) = nodes(state(), seen, {"gw1": RecentMoves(3, 90.0)}, now=100.0, stale_after_s=30.0)
    assert (plain.weight, plain.drained, plain.health) == (2.0, False, Health.HEALTHY)
    assert (plain.load.at, plain.load.ike_sas, plain.load.cpu) == (98.0, 5, 0.25)
    assert (plain.recent_moves, plain.last_move_at) == (3, 90.0)
    wanted = state(intent=NodeIntent(drained=True, weight=0.5))
    (drained,) = nodes(wanted, seen, {}, now=100.0, stale_after_s=30.0)
    assert (drained.weight, drained.drained) == (0.5, True)


def test_a_node_in_maintenance_is_drained_and_a_dead_uplink_unusable() -> None:
    report = replace(REPORT, maintenance=True, down=(HERE,), health=Health.IMPAIRED)
    (node,) = nodes(state(report=report), {"gw1": Seen("one", 1, 98.0)}, {}, now=100.0, stale_after_s=30.0)
    assert node.drained
    assert node.health is Health.IMPAIRED
    assert not node.addresses[0].usable


def test_what_is_old_missing_or_of_another_instance_is_unknown() -> None:
    seen = {"gw1": Seen("one", 1, 98.0)}
    for what, now in (
        (state(), 128.1),
        (state(report=None), 100.0),
        (state(member=replace(MEMBER, instance="two")), 100.0),
    ):
        (node,) = nodes(what, seen, {}, now=now, stale_after_s=30.0)
        assert node.health is Health.UNKNOWN
    assert node.load.at == -inf
    (fresh,) = nodes(state(), seen, {}, now=128.0, stale_after_s=30.0)
    assert fresh.health is Health.HEALTHY


def test_the_policy_can_plan_on_members_that_said_next_to_nothing() -> None:
    bare = ClusterState(1, members={n: Versioned(Member(n, "x"), 1) for n in ("gw1", "gw2")})
    found = nodes(bare, look({}, bare, 5.0), {}, now=5.0, stale_after_s=30.0)
    assert plan(ClusterView.of(found, []), BalanceSettings(), now=5.0).moves == ()
