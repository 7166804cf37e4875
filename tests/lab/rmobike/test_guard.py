"""The plugin refuses to load where charon's objects are not laid out as it was built for."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import CharonUnreachableError

from .lab import ROOT, missing

if TYPE_CHECKING:
    from pathlib import Path

    from .lab import Lab

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.xdist_group("rmobike"),
    pytest.mark.timeout(180),
]


def make(*arguments: str) -> None:
    done = subprocess.run(
        ["make", "-s", "-f", "packaging/plugin.mk", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def built_without_mediation(tmp_path: Path) -> Path:
    """The plugin as it comes out against a strongSwan without --enable-mediation, which Debian's has."""
    if reason := missing():
        pytest.skip(reason)
    header = tmp_path / "without.h"
    header.write_text("#undef ME\n")
    target = tmp_path / "libstrongswan-rmobike.so"
    flags = f"-std=gnu11 -O1 -fPIC -w -fno-strict-aliasing -include {header}"
    make(f"PLUGIN_CFLAGS={flags}", f"PLUGIN_SO={target}", "plugin")
    return target


async def test_a_plugin_built_for_another_layout_is_refused_and_charon_runs_on(
    lab: Lab, built_without_mediation: Path
) -> None:
    lab.gateway.plugin_file = built_without_mediation
    lab.gateway.follow_plugin = False
    await lab.gateway.start()
    assert "rmobike: task type" in lab.gateway.log
    assert "not what runs here: not loaded" in lab.gateway.log
    with pytest.raises(CharonUnreachableError):
        await lab.gateway.command("status")


async def test_a_setting_that_is_not_valid_keeps_the_plugin_from_loading(lab: Lab) -> None:
    lab.gateway.settings = "accept = everything"
    lab.gateway.follow_plugin = False
    await lab.gateway.start()
    assert "rmobike: the value of 'accept' in strongswan.conf is not valid" in lab.gateway.log


async def test_no_build_is_needed_twice() -> None:
    if reason := missing():
        pytest.skip(reason)
    target = ROOT / "build" / "plugin" / "libstrongswan-rmobike.so"
    make("plugin")
    before = target.stat().st_mtime_ns
    make("plugin")
    assert target.stat().st_mtime_ns == before
