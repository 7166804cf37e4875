"""The command line as its users meet it: exit codes, one clear line, tables and JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mobikectl.cli import COMMANDS

if TYPE_CHECKING:
    from pathlib import Path


def mobikectl(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mobikectl", *args], capture_output=True, text=True, timeout=30, check=False
    )


def test_version_and_help_need_no_root_and_no_charon() -> None:
    assert mobikectl("--version").returncode == 0
    help_text = mobikectl("--help")
    assert help_text.returncode == 0
    for name in COMMANDS:
        assert name in help_text.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str) -> None:
    got = mobikectl(name, "--help")
    assert got.returncode == 0, got.stderr
    assert "Usage:" in got.stdout


def test_a_wrong_command_line_exits_with_2() -> None:
    got = mobikectl("nonsense")
    assert got.returncode == 2
    assert "No such command 'nonsense'" in got.stderr


def test_a_bad_configuration_is_one_clear_complaint_and_exit_code_3(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text("[charon]\nsockte = '/x'\n")
    got = mobikectl("config", "check", "--config", str(file))
    assert got.returncode == 3
    assert got.stderr.splitlines() == [
        f"mobikectl: {file}: charon: unknown key 'sockte', did you mean 'socket'?",
        "  what to do: `mobikectl config show` prints every key with its value",
    ]


def test_config_show_prints_every_key_as_table_and_as_json() -> None:
    assert "paths.hold_down_s" in mobikectl("config", "show").stdout
    assert json.loads(mobikectl("config", "show", "--json").stdout)["charon"]["timeout_s"] == 5.0


def test_options_override_the_file() -> None:
    got = json.loads(mobikectl("config", "show", "--json", "--charon", "unix:///tmp/x").stdout)
    assert got["charon"]["socket"] == "/tmp/x"


def test_a_reader_that_goes_away_is_no_error() -> None:
    shell = f"{sys.executable} -m mobikectl config show | head -1"
    got = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=30, check=False)
    assert got.stderr == ""
