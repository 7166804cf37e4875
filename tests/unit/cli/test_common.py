"""What the commands know of a sidecar before they ask it."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from mobikectl.cli.common import Settings, sidecar_listens
from mobikectl.config import Config, ControlSettings

if TYPE_CHECKING:
    from pathlib import Path


def test_the_socket_that_a_killed_sidecar_left_is_of_no_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    settings = Settings(replace(Config(), control=ControlSettings(str(path))), None)
    assert not sidecar_listens(settings)
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(str(path))
        path.chmod(0o660)
        served.listen()
        assert sidecar_listens(settings)
    assert path.exists()
    assert not sidecar_listens(settings)
