"""What the peers can do, as the command line tells it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.cli.capabilities import can_do, peers_known
from mobikectl.cli.common import Settings
from mobikectl.config import CharonSettings, Config, ControlSettings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        (None, "?"),
        ({"mobike": False, "r": False, "redirect": False}, "-"),
        ({"mobike": True, "r": True, "redirect": None}, "MOBIKE R"),
        ({"mobike": True, "r": False, "redirect": True}, "MOBIKE redirect"),
    ],
)
def test_a_peer_is_told_by_what_it_can_do(peer: dict[str, Any] | None, words: str) -> None:
    assert can_do(peer) == words


async def test_without_sidecar_and_plugin_nothing_is_known(tmp_path: Path) -> None:
    config = replace(
        Config(),
        charon=CharonSettings(plugin_socket=str(tmp_path / "rmobike")),
        control=ControlSettings(socket=str(tmp_path / "control.sock")),
    )
    assert await peers_known(Settings(config, None)) == {}
