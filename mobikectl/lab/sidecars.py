"""Sidecars of a lab: their configuration, starting one and waiting until it is healthy."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from mobikectl.control.client import ControlClient
from mobikectl.errors import LabError, SidecarError
from mobikectl.lab.processes import identify
from mobikectl.lab.steps import NAME as STEPS
from mobikectl.lab.store import CONFIGURATION
from mobikectl.lab.wait import until

if TYPE_CHECKING:
    from pathlib import Path

    from mobikectl.lab.instance import Lab

DEADLINE = 20.0


def control_socket(lab: Lab, node: str) -> Path:
    """Given a node, return the path of its sidecar's control socket on this machine."""
    return lab.record.node_dir(node) / "mobikectl" / "control.sock"


async def start_sidecar(lab: Lab, node: str, folder: Path, *, patience: float = 1.0) -> None:
    """Given a node and the scenario's folder, start the node's sidecar and wait until it is healthy.

    Raise LabError when it ended or is not healthy in time.
    """
    text = (folder / lab.topology.nodes[node].sidecar).read_text()
    if lab.store is not None:
        text = lab.store.configuration(node, text)
    (lab.record.node_dir(node) / CONFIGURATION).write_text(text)
    argv = [sys.executable, "-m", "mobikectl", "run", "--config", f"/run/{CONFIGURATION}"]
    if (lab.record.node_dir(node) / STEPS).is_socket():
        argv = [sys.executable, "-m", "mobikectl.lab.watched", f"/run/{CONFIGURATION}", f"/run/{STEPS}"]
    who = lab.start(node, "sidecar", argv)
    log = lab.record.node_dir(node) / "sidecar.out"
    end = time.monotonic() + DEADLINE * patience
    reason = "it does not answer"

    async def healthy() -> bool:
        nonlocal reason
        try:
            async with ControlClient(control_socket(lab, node)) as client:
                health = await client.health()
            reason = str(health)
        except SidecarError as error:
            health, reason = {}, error.message
        if not health.get("ok") and identify(who.pid) != who:
            raise LabError(f"{node}: the sidecar ended: {_last_line(log)}", hint="see sidecar.out")
        if not health.get("ok") and time.monotonic() > end:
            raise LabError(f"{node}: the sidecar is not healthy: {reason}", hint="see sidecar.out")
        return bool(health.get("ok"))

    await until(healthy, within=DEADLINE * patience + 1, what=f"{node}: the sidecar is healthy")


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1][-300:] if lines else "it said nothing"
