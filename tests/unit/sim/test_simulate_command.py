"""`mobikectl simulate` as people and programs see it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from mobikectl.cli.simulate import simulate
from mobikectl.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SMALL = ["--nodes", "5", "--sas", "200", "--seconds", "60", "--warmup", "5", "--drain-timeout", "10"]


def test_the_report_shows_the_policy_beside_both_baselines() -> None:
    result = CliRunner().invoke(simulate, SMALL, catch_exceptions=False)
    assert result.exit_code == 0
    for word in ("mobikectl", "least-loaded", "round-robin", "overload", "interrupted", "moved by notify"):
        assert word in result.stdout


def test_json_holds_the_scenario_and_every_outcome() -> None:
    result = CliRunner().invoke(simulate, [*SMALL, "--json"], catch_exceptions=False)
    told = json.loads(result.stdout)
    assert told["scenario"]["nodes"] == 5
    assert [outcome["strategy"] for outcome in told["outcomes"]] == [
        "mobikectl",
        "least-loaded",
        "round-robin",
    ]


@pytest.mark.parametrize(("name", "start"), [("run.svg", b"<?xml"), ("run.png", b"\x89PNG")])
def test_a_picture_is_written(tmp_path: Path, name: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / name
    CliRunner().invoke(simulate, [*SMALL, "--picture", str(file)], catch_exceptions=False)
    assert file.read_bytes().startswith(start)


def test_a_picture_of_another_form_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a picture"):
        CliRunner().invoke(simulate, ["--picture", str(tmp_path / "run.gif")], catch_exceptions=False)
