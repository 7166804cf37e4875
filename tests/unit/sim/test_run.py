"""Whole runs of small clusters, and the goal at the size it was set for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mobikectl.policy.cluster import Mechanism
from mobikectl.policy.cluster_settings import BalanceSettings
from mobikectl.sim.cluster import Cluster
from mobikectl.sim.run import Outcome, run
from mobikectl.sim.strategies import LeastLoaded, Mobikectl, RoundRobin
from mobikectl.sim.workload import NODE_BYTES_PER_S, Clients, Scenario

SMALL: dict[str, Any] = {"nodes": 10, "sas": 2_000, "seconds": 120, "warmup_s": 20, "drain_timeout_s": 30}


def policy(**more: Any) -> Mobikectl:
    return Mobikectl(BalanceSettings(**more))


def summary(outcome: Outcome) -> dict[str, Any]:
    return outcome.summary()


def clients(rates: list[float], leaves_at: float = 1e9) -> Clients:
    count = len(rates)
    return Clients(
        np.array(rates) * NODE_BYTES_PER_S,
        np.full(count, leaves_at),
        np.full(count, 7),
        np.zeros(count, dtype=np.bool_),
        np.zeros(count, dtype=np.bool_),
    )


def test_with_100_nodes_and_100_000_ike_sas_the_peak_stays_within_5_percent_of_the_best_possible() -> None:
    """The goal: after every plan, with a failing and a drained node, and without interrupting any IKE_SA."""
    scenario = Scenario(nodes=100, sas=100_000, seconds=240, warmup_s=30, drain_timeout_s=95, failure_s=30)
    ours = summary(run(scenario, policy()))
    assert ours["above_best_after_plan_max"] <= 0.05
    assert ours["interrupted"] == 0
    assert ours["overload_seconds"] == 0
    for baseline in (LeastLoaded(), RoundRobin()):
        theirs = summary(run(scenario, baseline))
        assert theirs["above_best_after_plan_max"] > 0.2
        assert theirs["interrupted"] > 0


def test_planning_each_second_holds_the_peak_in_every_second() -> None:
    ours = summary(run(Scenario(**SMALL | {"plan_every_s": 1, "heaviest": 0.05}), policy()))
    assert ours["above_best_max"] <= 0.05
    assert ours["seconds_within_5_percent"] == 1.0


def test_the_same_seed_gives_the_same_run() -> None:
    first, again = (run(Scenario(**SMALL), policy()) for _ in range(2))
    assert first.summary() == again.summary()
    assert (first.series.peak == again.series.peak).all()


def test_every_strategy_meets_the_same_load() -> None:
    runs = [run(Scenario(**SMALL), strategy) for strategy in (policy(), LeastLoaded(), RoundRobin())]
    for other in runs[1:]:
        assert other.series.best == pytest.approx(runs[0].series.best)
        assert other.series.mean == pytest.approx(runs[0].series.mean)


def test_without_r_the_other_mechanisms_are_used() -> None:
    mixed = summary(run(Scenario(**SMALL, switch_share=0.0, nat_share=0.5), policy()))
    assert mixed["moves"]["notify"] == 0
    assert mixed["moves"]["implicit"] > 0
    assert mixed["moves"]["redirect"] > 0
    assert mixed["interrupted"] == 0


def test_peers_that_support_nothing_are_interrupted_only_by_leave() -> None:
    nothing = Scenario(**SMALL, mobike_share=0.0, redirect_share=0.0, failures=0, drains=0)
    assert summary(run(nothing, policy()))["interrupted"] == 0
    allowed = summary(run(nothing, policy(mechanisms=frozenset(Mechanism))))
    assert allowed["interrupted"] == allowed["moves"]["reconnect"] > 0


def test_peers_that_refuse_are_cut_off_by_the_drains_timeout_and_nothing_else() -> None:
    scenario = Scenario(**SMALL, refusal_share=1.0, failures=0)
    ours = summary(run(scenario, policy()))
    assert sum(ours["moves"].values()) == 0
    assert 0 < ours["interrupted"] < 300


def test_a_failed_node_loses_its_ike_sas_whatever_the_strategy() -> None:
    for strategy in (policy(), LeastLoaded(), RoundRobin()):
        assert summary(run(Scenario(**SMALL, drains=0), strategy))["lost_to_failures"] > 50


def test_progress_is_told_for_each_second() -> None:
    told: list[int] = []
    run(Scenario(**SMALL), RoundRobin(), told.append)
    assert told == list(range(1, 121))


def test_the_best_possible_is_the_even_level_or_the_heaviest_ike_sa() -> None:
    scenario = Scenario(nodes=2, sas=10, failures=0, drains=0, heaviest=0.9)
    assert Cluster(scenario, clients([0.1] * 8)).best_possible() == pytest.approx(0.4)
    assert Cluster(scenario, clients([0.7, 0.1])).best_possible() == pytest.approx(0.7)


def test_who_leaves_is_served_by_nobody_and_forgotten() -> None:
    scenario = Scenario(nodes=2, sas=10, failures=0, drains=0, heaviest=0.9)
    cluster = Cluster(scenario, clients([0.1, 0.2], leaves_at=5.0))
    cluster.add(clients([0.3]), np.array([1]))
    cluster.leave(5.0)
    assert cluster.utilisation().tolist() == pytest.approx([0.0, 0.3])
    cluster.compact()
    assert cluster.count == 1
    assert [str(cluster.view(5.0, 60.0, frozenset()).sas.keys[0])] == ["2"]
