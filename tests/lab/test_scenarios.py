"""What the scenarios prove when something is missing. `make lab` and `make lab-kernel` run them all, one by one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mobikectl.lab.engine import run_scenario
from mobikectl.lab.requirements import CHARON
from mobikectl.lab.scenario import load_scenario

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.slow,
    pytest.mark.xdist_group("scenarios"),
    pytest.mark.skipif(os.geteuid() != 0 or not CHARON.exists(), reason="needs root and strongSwan"),
]


async def test_charon_alone_does_not_notice_a_silent_path(tmp_path: Path) -> None:
    scenario = load_scenario("client-silent-path")
    result = await run_scenario(scenario, esp="userland", out=tmp_path, sidecar=False)
    assert result.passed, result.failures


async def test_a_scenario_that_is_not_met_says_what_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "never"
    folder.mkdir()
    text = (load_scenario("client-link-down").folder / "scenario.toml").read_text()
    (folder / "scenario.toml").write_text(text.replace('sidecar = "client.toml"\n', ""))
    (folder / "steps.py").write_text("async def steps(run):\n    await run.traffic(0.1)\n")
    result = await run_scenario(load_scenario(str(folder)), esp="userland", out=tmp_path / "out")
    assert not result.passed
    assert any("recovery_ms" in line and "not measured" in line for line in result.failures)
    assert (tmp_path / "out" / "never" / "client" / "charon.log").exists()
