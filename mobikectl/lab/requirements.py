"""Can this machine run a lab? One clear line when it cannot."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from mobikectl.errors import LabError, PrivilegeError

CHARON = Path("/usr/lib/ipsec/charon")
UML = "linux.uml"
UML_MODULES = Path("/usr/lib/uml/modules")
PROGRAMS = {"ip": "iproute2", "nft": "nftables", "mount": "mount", "swanctl": "strongswan-swanctl"}
"""Program -> Debian package."""
NETLINK_XFRM = 6
REPOSITORY = Path(__file__).parents[2]
PLUGIN = REPOSITORY / "build" / "plugin" / "libstrongswan-rmobike.so"
WITH_PLUGIN = REPOSITORY / "charon-plugin" / "with-plugin"
"""Runs a charon with a plugin that is not installed, in a mount namespace."""


def require_lab() -> None:
    """Raise PrivilegeError without root, LabError when a program of the lab is missing."""
    if os.geteuid() != 0:
        raise PrivilegeError("the lab needs root: it makes network namespaces", hint="run it with sudo")
    missing = [package for program, package in PROGRAMS.items() if not _find(program)]
    if not CHARON.exists():
        missing.append("strongswan-charon")
    if not Path("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so").exists():
        missing.append("libcharon-extra-plugins")
    if missing:
        raise LabError(
            f"the lab needs packages that are missing: {', '.join(missing)}",
            hint=f"apt-get install {' '.join(missing)}",
        )
    if not Path("/dev/net/tun").exists():
        raise LabError(
            "/dev/net/tun is missing", hint="modprobe tun, or give the container --device /dev/net/tun"
        )


def require_plugin() -> Path:
    """Return the rmobike plugin of this tree. Raise LabError when it was not built."""
    if not PLUGIN.exists():
        raise LabError(f"the charon plugin is not built: {PLUGIN} is missing", hint="make plugin")
    return PLUGIN


def require_uml() -> Path:
    """Return the modules directory of the installed user-mode-linux. Raise LabError when it is missing."""
    versions = sorted(UML_MODULES.iterdir()) if UML_MODULES.is_dir() else []
    if not versions or not _find(UML):
        raise LabError(
            "kernel ESP: this kernel has none, and user-mode-linux is not installed",
            hint="apt-get install user-mode-linux, or use --esp userland",
        )
    return versions[-1]


def _find(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def kernel_has_esp() -> bool:
    """Whether the running kernel does ESP: it has XFRM netlink and an ESP protocol handler."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM).close()
    except OSError:
        return False
    release = os.uname().release
    builtin = Path(f"/lib/modules/{release}/modules.builtin")
    if builtin.exists() and "/esp4.ko" in builtin.read_text():
        return True
    loaded = Path("/proc/modules").read_text() if Path("/proc/modules").exists() else ""
    if any(line.startswith("esp4 ") for line in loaded.splitlines()):
        return True
    return any(Path(f"/lib/modules/{release}").rglob("esp4.ko*"))
