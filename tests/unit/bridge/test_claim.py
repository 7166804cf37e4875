"""A charon has one bridge that serves."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mobikectl.bridge.claim import BridgeBusyError, speaking_for

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys
from mobikectl.bridge.claim import speaking_for
with speaking_for(sys.argv[1]):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_a_second_bridge_for_the_same_charon_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with (
        speaking_for(tmp_path / "plugin"),
        pytest.raises(BridgeBusyError) as caught,
        speaking_for(tmp_path / "plugin"),
    ):
        pass
    assert "[bridge]" in caught.value.hint


def test_another_charon_of_the_host_has_its_own(tmp_path: Path) -> None:
    with speaking_for(tmp_path / "one"), speaking_for(tmp_path / "two"):
        pass


def test_the_same_socket_by_another_name_is_the_same_charon(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").symlink_to("here")
    with (
        speaking_for(tmp_path / "here" / "plugin"),
        pytest.raises(BridgeBusyError),
        speaking_for(tmp_path / "there" / "plugin"),
    ):
        pass


def test_it_is_free_again_afterwards_also_when_its_owner_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "plugin"
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"mine\n"
        with pytest.raises(BridgeBusyError), speaking_for(path):
            pass
        owner.kill()
        owner.wait(10)
    with speaking_for(path):
        pass


def test_paths_that_are_longer_than_a_socket_name_are_still_told_apart(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    with speaking_for(deep / "one"), speaking_for(deep / "two"):
        pass
