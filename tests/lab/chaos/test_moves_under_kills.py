"""The short form of `make chaos`: a few moves around three gateways whose processes are killed meanwhile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mobikectl.lab.chaos.scenario import chaos_scenario
from mobikectl.lab.engine import run_scenario
from mobikectl.lab.requirements import CHARON

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.slow,
    pytest.mark.xdist_group("scenarios"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0 or not CHARON.exists(), reason="needs root and strongSwan"),
]

SEED = 28
"""Two sidecars, a keeper, a way between gateways, the store: test_failover.py knows of charons that die."""


async def test_each_ike_sa_is_served_by_one_gateway_after_moves_that_kills_disturbed(tmp_path: Path) -> None:
    scenario = chaos_scenario(moves=14, seed=SEED, patience=2.0)
    result = await run_scenario(scenario, esp="userland", out=tmp_path, patience=2.0)
    assert result.passed, [*result.failures, f"the same again: mobikectl lab chaos --moves 14 --seed {SEED}"]
