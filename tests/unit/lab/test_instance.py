"""What processes of a lab are given."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mobikectl.lab.instance import Lab
from mobikectl.lab.record import Record
from mobikectl.lab.scenario import load_scenario

if TYPE_CHECKING:
    import pytest


def test_a_command_on_a_node_finds_the_mobikectl_of_the_lab_also_out_of_a_virtual_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    lab = Lab(Record("one", "client-link-down", "userland", {}), load_scenario("client-link-down").topology)
    path = lab.environment("client")["PATH"]
    found = shutil.which("mobikectl", path=path)
    assert found is not None
    assert Path(found).parent == Path(sys.executable).parent
    assert path.endswith("/usr/bin:/bin")
