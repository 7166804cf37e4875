"""What the synthetic clients are like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mobikectl.errors import ConfigError
from mobikectl.policy.cluster import Capability
from mobikectl.sim.workload import NODE_BYTES_PER_S, Scenario, Workload


def test_rates_are_heavy_tailed_cut_off_at_the_heaviest_and_have_the_wanted_mean() -> None:
    scenario = Scenario(nodes=100, sas=200_000, heaviest=0.05)
    rates = Workload(scenario).first().bytes_per_s
    assert rates.max() <= 0.05 * NODE_BYTES_PER_S
    assert rates.mean() == pytest.approx(scenario.mean_rate, rel=0.05)
    heavy_tenth = np.sort(rates)[-len(rates) // 10 :].sum()
    assert heavy_tenth > 0.4 * rates.sum()


def test_arrivals_keep_the_number_of_ike_sas_level() -> None:
    scenario = Scenario(nodes=10, sas=10_000, lifetime_s=100.0)
    workload = Workload(scenario)
    arrivals = sum(len(workload.second(at, 10_000).arrivals) for at in range(100))
    assert arrivals == pytest.approx(10_000, rel=0.05)
    assert workload.first().leaves_at.mean() == pytest.approx(100.0, rel=0.05)


def test_peers_support_what_the_shares_say() -> None:
    peers = Workload(Scenario(sas=50_000, switch_share=0.5, mobike_share=0.8, redirect_share=0.25)).first()
    for capability, share in (
        (Capability.MOBIKE, 0.8),
        (Capability.SWITCH, 0.4),
        (Capability.REDIRECT, 0.25),
    ):
        assert ((peers.capability & int(capability)) > 0).mean() == pytest.approx(share, abs=0.02)
    assert not ((peers.capability & int(Capability.SWITCH) > 0) & (peers.capability & 1 == 0)).any()


def test_the_same_seed_gives_the_same_clients_and_another_seed_others() -> None:
    first, again, other = (Workload(Scenario(seed=seed)).first().bytes_per_s for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    "bad",
    [
        {"nodes": 1001},
        {"sas": 1_000_001},
        {"nodes": 2, "failures": 1, "drains": 1},
        {"utilisation": 1.0},
        {"tail": 1.0},
        {"heaviest": 0.00001},
        {"nat_share": 2.0},
        {"seconds": 10, "warmup_s": 10},
        {"plan_every_s": 0},
    ],
)
def test_a_scenario_that_cannot_be_is_refused_with_a_hint(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Scenario(**bad)
    assert caught.value.hint
