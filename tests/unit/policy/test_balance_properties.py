"""What holds for every cluster."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mobikectl.policy.balance import plan
from mobikectl.policy.cluster import Capability, ClusterSa, Health, Mechanism, Node, Reason

from .balance_clusters import NOW, carried_out, clusters, levels, node, sas, settings, view

Cluster = tuple[list[Node], list[ClusterSa]]
EVERYTHING = frozenset(Mechanism)


@given(clusters(), st.booleans())
@hypothesis_settings(max_examples=150, deadline=None)
def test_a_plan_respects_every_rule_about_single_ike_sas(cluster: Cluster, reconnect: bool) -> None:
    nodes, rows = cluster
    by_key, by_name = {row.key: row for row in rows}, {each.name: each for each in nodes}
    chosen = settings(mechanisms=EVERYTHING) if reconnect else settings()
    decided = plan(view(nodes, rows), chosen, NOW)
    moved = [key for move in decided.moves for key in move.sas]
    assert len(moved) == len(set(moved))
    for move in decided.moves:
        target = by_name[move.target]
        assert target.health is Health.HEALTHY
        assert not target.drained
        assert move.source != move.target
        assert move.mechanism in chosen.mechanisms
        urgent = move.reason in {Reason.DRAIN, Reason.IMPAIRED}
        for row in (by_key[key] for key in move.sas):
            assert row.owner == move.source
            assert not row.pinned
            assert row.refused_until <= NOW
            assert urgent or row.last_moved_at + chosen.cooldown_s <= NOW
            assert not row.pool or target.pools is None or row.pool in target.pools
            assert move.reason is not Reason.SPREAD or not row.site or row.site == target.site
            if move.mechanism is Mechanism.NOTIFY:
                assert row.capability & Capability.SWITCH
            if move.mechanism is Mechanism.IMPLICIT:
                assert row.capability & Capability.MOBIKE
                assert not row.behind_nat
            if move.mechanism is Mechanism.REDIRECT:
                assert row.capability & Capability.REDIRECT
                assert row.recent_redirects < 5 - 1
        if move.mechanism in {Mechanism.NOTIFY, Mechanism.IMPLICIT}:
            assert target.carries
            assert by_name[move.source].carries
        if move.mechanism is Mechanism.IMPLICIT:
            peers = {by_key[key].peer for key in move.sas}
            behind = {row.key for row in rows if row.owner == move.source and row.peer in peers}
            assert behind == set(move.sas)


@given(clusters())
@hypothesis_settings(max_examples=150, deadline=None)
def test_a_plan_never_makes_an_overloaded_target(cluster: Cluster) -> None:
    nodes, rows = cluster
    decided = plan(view(nodes, rows), settings(mechanisms=EVERYTHING), NOW)
    after = levels(nodes, rows, decided)
    for name in {move.target for move in decided.moves}:
        limit = next(each.overload_limit for each in nodes if each.name == name)
        assert after[name] <= limit + 1e-6


@given(clusters(), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 12))
@hypothesis_settings(max_examples=150, deadline=None)
def test_a_plan_never_exceeds_a_budget(
    cluster: Cluster, whole: int, window: int, each: int, used: int
) -> None:
    nodes, rows = cluster
    limits = settings(plan_moves=whole, cluster_moves=window, node_moves=each, mechanisms=EVERYTHING)
    decided = plan(view(nodes, rows, recent_moves=used), limits, NOW)
    assert decided.sa_count <= min(whole, max(window - used, 0))
    counts: Counter[str] = Counter()
    for move in decided.moves:
        counts[move.source] += len(move.sas)
        counts[move.target] += len(move.sas)
    recent = {node.name: node.recent_moves for node in nodes}
    assert all(count + recent[name] <= max(each, recent[name]) for name, count in counts.items())


@given(clusters(), st.randoms(use_true_random=False))
@hypothesis_settings(max_examples=60, deadline=None)
def test_the_same_cluster_in_any_order_of_its_ike_sas_gives_the_same_plan(
    cluster: Cluster, shuffler: random.Random
) -> None:
    nodes, rows = cluster
    first = plan(view(nodes, rows), settings(), NOW)
    shuffler.shuffle(rows)
    again = plan(view(nodes, rows), settings(), NOW)
    assert (first.moves, first.notes, first.next_deadline) == (again.moves, again.notes, again.next_deadline)


@given(
    st.integers(3, 8),
    st.lists(st.floats(0.0, 20.0), min_size=1, max_size=40),
    st.sampled_from(["drained", "impaired"]),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_drain_empties_where_there_is_room(count: int, rates: list[float], how: str) -> None:
    leaving = node(1, drained=True) if how == "drained" else node(1, health=Health.IMPAIRED)
    nodes = [leaving, *(node(i) for i in range(2, count + 1))]
    rows = sas("g1", rates)
    assert levels(nodes, rows, plan(view(nodes, rows), settings(), NOW))["g1"] == 0.0


@given(clusters())
@hypothesis_settings(max_examples=80, deadline=None)
def test_expected_effects_are_what_happens(cluster: Cluster) -> None:
    nodes, rows = cluster
    decided = plan(view(nodes, rows), settings(), NOW)
    after = levels(nodes, rows, decided)
    last = {}
    for move in decided.moves:
        last[move.source], last[move.target] = move.effect.source_after, move.effect.target_after
    assert all(abs(after[name] - expected) < 1e-6 for name, expected in last.items())


@given(clusters())
@hypothesis_settings(max_examples=100, deadline=None)
def test_under_constant_load_plans_come_to_an_end(cluster: Cluster) -> None:
    """Without any cooldown, so that nothing but the policy itself keeps it from oscillating."""
    nodes, rows = cluster
    restless = settings(cooldown_s=0.0, mechanisms=EVERYTHING)
    nodes = [replace(each, recent_moves=0) for each in nodes]
    relieving: frozenset[str] = frozenset()
    for turn in range(12):
        now = NOW + 60 + turn
        fresh = [replace(each, load=replace(each.load, at=now)) for each in nodes]
        decided = plan(view(fresh, rows, relieving=relieving), restless, now)
        if not decided.moves:
            return
        rows, relieving = carried_out(rows, decided, now), decided.relieving
    raise AssertionError("it still moves IKE_SAs after twelve plans")


@given(st.integers(2, 6), st.integers(0, 2**32 - 1), st.floats(0.05, 0.3))
@hypothesis_settings(max_examples=25, deadline=None)
def test_load_that_is_set_against_the_last_plan_does_not_make_it_oscillate(
    count: int, seed: int, swing: float
) -> None:
    """The adversary makes what was just moved heavier, and what was left behind lighter, at each turn."""
    draw = random.Random(seed)
    nodes = [node(i) for i in range(1, count + 1)]
    rows = [row for each in nodes for row in sas(each.name, [draw.uniform(1, 20) for _ in range(40)])]
    chosen = settings()
    assume(sum(row.bytes_per_s for row in rows) < 600 * count)
    moves: Counter[str] = Counter()
    turns, relieving = 60, frozenset[str]()
    for turn in range(turns):
        now = NOW + turn * chosen.interval_s
        fresh = [replace(each, load=replace(each.load, at=now)) for each in nodes]
        decided = plan(view(fresh, rows, relieving=relieving), chosen, now)
        relieving = decided.relieving
        moved = {key for move in decided.moves for key in move.sas}
        moves.update(moved)
        rows = carried_out(rows, decided, now)
        rows = [
            replace(
                row,
                bytes_per_s=min(
                    max(row.bytes_per_s * (1 + swing if row.key in moved else 1 - swing / 10), 1), 20
                ),
            )
            for row in rows
        ]
    # The cooldown bounds it for each IKE_SA, whatever the adversary does...
    span = turns * chosen.interval_s
    assert all(times <= span // chosen.cooldown_s + 1 for times in moves.values())
    # ...and when the adversary stops, so do the moves, in an even cluster.
    for turn in range(40):
        now = NOW + span + turn * chosen.cooldown_s
        fresh = [replace(each, load=replace(each.load, at=now)) for each in nodes]
        decided = plan(view(fresh, rows, relieving=relieving), chosen, now)
        relieving = decided.relieving
        if not decided.moves:
            break
        rows = carried_out(rows, decided, now)
    else:
        raise AssertionError("it does not settle")
    after = levels(nodes, rows)
    even, heaviest = sum(after.values()) / count, max(row.bytes_per_s for row in rows) / 1000
    assert max(after.values()) <= max(even * (1 + chosen.high), even + heaviest) + 1e-6
