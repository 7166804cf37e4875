"""Certificates of a lab's charons, made by the script that ``strongswan-conf/`` has for everybody."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mobikectl.errors import LabError
from mobikectl.lab.render import TEMPLATES, certified

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.lab.topology import Topology

MAKE = TEMPLATES / "make-certificates"
DEADLINE = 20.0


def certify(topology: Topology, swanctl_of: Callable[[str], Path]) -> None:
    """Given where each node's swanctl configuration is, put there what its tunnels authenticate with.

    Only nodes that need one get a certificate; who is to know another's gets the CA's. Raise LabError.
    """
    needed = certified(topology)
    if not needed:
        return
    with tempfile.TemporaryDirectory(prefix="mobikectl-lab-") as made:
        at = Path(made)
        for identity, role in {one for roles in needed.values() for one in roles.items()}:
            _make(at, role, identity)
        for node, roles in needed.items():
            for identity in roles:
                shutil.copytree(at / identity, swanctl_of(node), dirs_exist_ok=True)
            authority = swanctl_of(node) / "x509ca"
            authority.mkdir(exist_ok=True)
            shutil.copyfile(at / "ca" / "ca.pem", authority / "ca.pem")


def _make(at: Path, role: str, identity: str) -> None:
    try:
        done = subprocess.run(
            [MAKE, at, role, identity], capture_output=True, text=True, timeout=DEADLINE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"no certificate of {identity}: {error}", hint="is strongswan-pki there?") from None
    if done.returncode != 0:
        raise LabError(f"no certificate of {identity}: {done.stderr.strip()[-400:]}", hint=f"see {MAKE}")
