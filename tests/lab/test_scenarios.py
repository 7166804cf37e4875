"""The scenarios, in this machine's namespaces with userland ESP, and on a kernel that does ESP itself."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from mobikectl.lab import uml
from mobikectl.lab.engine import run_scenario
from mobikectl.lab.requirements import CHARON
from mobikectl.lab.scenario import load_scenario, scenario_names
from mobikectl.lab.suite import run_suite

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.slow,
    pytest.mark.xdist_group("scenarios"),
    pytest.mark.skipif(os.geteuid() != 0 or not CHARON.exists(), reason="needs root and strongSwan"),
]


@pytest.mark.parametrize("name", scenario_names())
async def test_every_demand_of_the_scenario_is_met(name: str, tmp_path: Path) -> None:
    result = await run_scenario(load_scenario(name), esp="userland", out=tmp_path)
    assert result.failures == []
    assert result.passed


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


@pytest.mark.kernel_esp
@pytest.mark.timeout(300)
@pytest.mark.skipif(not uml.available(), reason="needs user-mode-linux")
def test_a_link_down_keeps_the_esp_spis_on_a_kernel_that_does_esp(tmp_path: Path) -> None:
    said: list[str] = []
    documents = asyncio.run(
        run_suite(
            [load_scenario("client-link-down")],
            esp="kernel",
            out=tmp_path,
            sidecar=False,
            tell=lambda name, line: said.append(f"{name}: {line}"),
            done=lambda _: None,
        )
    )
    metrics = documents[0]["metrics"]
    assert metrics["child_spis_kept"] == "yes", said
    assert metrics["ike_sa_init"] == 0
    assert metrics["path"] == "198.18.2.1 -> 198.18.9.1"
