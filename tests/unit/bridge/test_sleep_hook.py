"""The hook for systemd's sleep calls mobikectl, and never prevents the sleep."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HOOK = Path(__file__).parents[3] / "packaging" / "systemd" / "mobikectl-sleep"


def sleep(tmp_path: Path, when: str, *, exit_code: int = 0, defaults: str = "") -> tuple[int, list[str], str]:
    called, command, file = tmp_path / "called", tmp_path / "mobikectl", tmp_path / "defaults"
    command.write_text(f'#!/bin/sh\necho "$@" >> {called}\nexit {exit_code}\n')
    command.chmod(0o755)
    file.write_text(f"MOBIKECTL={command}\n{defaults}")
    done = subprocess.run(
        [HOOK, when, "suspend"],
        env={**os.environ, "MOBIKECTL_SLEEP_DEFAULTS": str(file)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, called.read_text().splitlines() if called.exists() else [], done.stderr


def test_before_sleep_the_silence_is_announced(tmp_path: Path) -> None:
    assert sleep(tmp_path, "pre") == (0, ["disconnect --for 28800 --timeout 5"], "")


def test_after_sleep_its_end_is(tmp_path: Path) -> None:
    assert sleep(tmp_path, "post") == (0, ["disconnect --end --timeout 5"], "")


def test_the_defaults_file_changes_what_is_announced(tmp_path: Path) -> None:
    defaults = 'SILENCE=60\nTIMEOUT=2\nARGUMENTS="--peer gateway.example"\n'
    _, called, _ = sleep(tmp_path, "pre", defaults=defaults)
    assert called == ["disconnect --for 60 --timeout 2 --peer gateway.example"]


@pytest.mark.parametrize("code", [4, 6, 127])
def test_a_failure_is_told_and_does_not_stop_the_sleep(tmp_path: Path, code: int) -> None:
    returned, _, told = sleep(tmp_path, "pre", exit_code=code)
    assert returned == 0
    assert "going on" in told


def test_another_word_does_nothing(tmp_path: Path) -> None:
    assert sleep(tmp_path, "hibernate?") == (0, [], "")
