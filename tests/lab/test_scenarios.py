"""What the scenarios prove when something is missing. `make lab` and `make lab-kernel` run them all, one by one."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mobikectl.lab import record
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
    folder = never_met(tmp_path / "never", 0.1)
    result = await run_scenario(load_scenario(str(folder)), esp="userland", out=tmp_path / "out")
    assert not result.passed
    assert any("recovery_ms" in line and "not measured" in line for line in result.failures)
    assert (tmp_path / "out" / "never" / "client" / "charon.log").exists()


def never_met(folder: Path, seconds: float) -> Path:
    """Make a scenario that has traffic for some seconds and never measures what it demands."""
    folder.mkdir()
    text = (load_scenario("client-link-down").folder / "scenario.toml").read_text()
    (folder / "scenario.toml").write_text(text.replace('sidecar = "client.toml"\n', ""))
    (folder / "steps.py").write_text(f"async def steps(run):\n    await run.traffic({seconds})\n")
    return folder


def side_by_side(out: Path, *scenarios: Path) -> subprocess.Popen[str]:
    # Whoever runs the tests in the background of a shell ignores SIGINT, and so would the command.
    argv = ["env", "--default-signal=INT", sys.executable, "-m", "mobikectl", "lab", "run", "--jobs", "2"]
    argv += ["--esp", "userland", "--out", str(out), *map(str, scenarios)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_scenarios_run_side_by_side_and_each_says_what_it_missed(tmp_path: Path) -> None:
    made = [never_met(tmp_path / f"n{i}-{secrets.token_hex(2)}", 0.1) for i in range(2)]
    run = side_by_side(tmp_path / "out", *made)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 8, said
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [result["scenario"] for result in results] == [folder.name for folder in made]
    assert said.count("scenarios failed") == 1, "what the children sum up is not repeated"
    assert "2 of 2 scenarios failed" in said


def test_an_interrupted_run_side_by_side_leaves_no_lab(tmp_path: Path) -> None:
    made = [never_met(tmp_path / f"i{i}-{secrets.token_hex(2)}", 60) for i in range(2)]
    run = side_by_side(tmp_path / "out", *made)
    assert run.stdout is not None
    up = 0
    for line in run.stdout:
        up += "tunnels are up" in line
        if up == 2:
            break
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode != 0
    assert not [name for name in record.all_names() if any(name.startswith(folder.name) for folder in made)]
