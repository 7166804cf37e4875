"""The host's side: capabilities, sysctls known to break MOBIKE, uplinks, leftovers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mobikectl.doctor.findings import Finding, Level
from mobikectl.model import Family, family_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mobikectl.model import Link, NetState, Route
    from mobikectl.policy.settings import PathSettings

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
"""The capabilities that the sidecar needs, with their numbers (capabilities(7))."""

WHAT_FOR = {
    "CAP_NET_ADMIN": "steering routes cannot be installed",
    "CAP_NET_RAW": "paths cannot be probed by ICMP or bound to their link",
}


def capabilities(status: str) -> Iterator[Finding]:
    """Given /proc/self/status, yield a finding for each capability that the sidecar needs."""
    mask = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    for name, number in CAPABILITIES.items():
        if mask >> number & 1:
            yield Finding(Level.GOOD, name, "there")
        else:
            yield Finding(
                Level.PROBLEM,
                name,
                f"missing: {WHAT_FOR[name]}",
                f"run as root, or give the service AmbientCapabilities={name}",
            )


def uplinks(net: NetState, paths: PathSettings) -> Iterator[Finding]:
    """Given the network and the settings, yield whether there is more than one uplink to choose from."""
    usable = _uplinks(net, paths)
    names = ", ".join(link.name for link in usable)
    if not usable:
        yield Finding(
            Level.PROBLEM,
            "uplinks",
            "no link with an address may be used",
            "bring one up, or name it in [[paths.interfaces]] with use = true (`mobikectl links` shows why not)",
        )
    elif len(usable) == 1:
        yield Finding(
            Level.NOTE, "uplinks", f"only {names}: there is nothing to move to", "connect a second uplink"
        )
    else:
        yield Finding(Level.GOOD, "uplinks", names)


def _uplinks(net: NetState, paths: PathSettings) -> list[Link]:
    with_address = {a.index for a in net.addresses if not (a.ip.is_link_local or a.ip.is_loopback)}
    return [
        link
        for link in sorted(net.links.values(), key=lambda one: one.index)
        if link.usable and link.index in with_address and paths.why_ignored(link) is None
    ]


def sysctls(net: NetState, paths: PathSettings, proc: Path) -> Iterator[Finding]:
    """Given the network and the directory /proc/sys, yield findings about settings known to break MOBIKE."""
    names = [link.name for link in _uplinks(net, paths)]
    read = _reader(proc)
    yield from _reverse_path(names, read)
    yield from _linkdown(names, read)
    yield from _ipv6(net, names, read)


def _reader(proc: Path) -> Callable[[str], int | None]:
    def read(key: str) -> int | None:
        try:
            return int((proc / key.replace(".", "/")).read_text())
        except (OSError, ValueError):
            return None

    return read


def _reverse_path(names: Sequence[str], read: Callable[[str], int | None]) -> Iterator[Finding]:
    general = read("net.ipv4.conf.all.rp_filter") or 0
    strict = [name for name in names if max(general, read(f"net.ipv4.conf.{name}.rp_filter") or 0) == 1]
    if strict and len(names) > 1:
        keys = " ".join(f"net.ipv4.conf.{name}.rp_filter=2" for name in ("all", *strict))
        yield Finding(
            Level.WARNING,
            "rp_filter",
            f"strict on {', '.join(strict)}: packets that come in by another uplink than the best route are dropped",
            f"sysctl -w {keys} (loose), and keep it in /etc/sysctl.d/",
        )
    elif names:
        yield Finding(Level.GOOD, "rp_filter", "not strict")


def _linkdown(names: Sequence[str], read: Callable[[str], int | None]) -> Iterator[Finding]:
    general = read("net.ipv4.conf.all.ignore_routes_with_linkdown") or 0
    off = [n for n in names if not (general or read(f"net.ipv4.conf.{n}.ignore_routes_with_linkdown"))]
    if off and len(names) > 1:
        yield Finding(
            Level.NOTE,
            "linkdown routes",
            f"the kernel keeps using routes of {', '.join(off)} when the cable is pulled; mobikectl moves SAs away,"
            " other traffic stays",
            "sysctl -w net.ipv4.conf.all.ignore_routes_with_linkdown=1",
        )


def _ipv6(net: NetState, names: Sequence[str], read: Callable[[str], int | None]) -> Iterator[Finding]:
    if not any(family_of(a.ip) is Family.INET6 for a in net.addresses):
        return
    random = [name for name in names if (read(f"net.ipv6.conf.{name}.use_tempaddr") or 0) > 1]
    if random:
        yield Finding(
            Level.NOTE,
            "use_tempaddr",
            f"{', '.join(random)}: the kernel prefers temporary addresses, which go away and move SAs with them",
            "sysctl -w net.ipv6.conf.all.use_tempaddr=0 where privacy addresses are not wanted",
        )


def leftovers(own: Sequence[Route], sidecar_runs: bool) -> Iterator[Finding]:
    """Given the routes with our protocol number and whether a sidecar runs, yield whether any was left behind."""
    if sidecar_runs or not own:
        yield Finding(Level.GOOD, "steering routes", f"{len(own)} in force" if own else "none")
        return
    yield Finding(
        Level.WARNING,
        "steering routes",
        f"{len(own)} are there and no sidecar runs: " + ", ".join(str(route.dst) for route in own[:5]),
        "start the sidecar (`mobikectl run` takes them over), or `ip route flush table 109 proto 109`",
    )


def kernel_has_esp(proc: Path, modules: Path) -> bool | None:
    """Given /proc and /lib/modules/RELEASE, return whether this kernel can do ESP; None: it cannot be told."""
    lists = [proc / "modules", modules / "modules.builtin", modules / "modules.dep"]
    known = [path.read_text(errors="replace") for path in lists if path.exists()]
    if any(re.search(r"\besp4\b", text) for text in known):
        return True
    return False if (modules / "modules.dep").exists() else None


def kernel_esp(kernel: bool | None, userland: bool | None) -> Iterator[Finding]:
    """Given whether the kernel and whether charon itself can do ESP (None: unknown), yield findings."""
    if userland:
        yield Finding(
            Level.NOTE,
            "ESP",
            "charon's kernel-libipsec does ESP in userland: every address change also rekeys the CHILD_SAs",
            "this kernel has ESP: unload kernel-libipsec for speed" if kernel else "",
        )
    elif kernel is False:
        yield Finding(
            Level.PROBLEM,
            "ESP",
            "this kernel has no ESP, and charon has no userland ESP loaded",
            "load esp4, esp6 and xfrm_user, or have charon load kernel-libipsec",
        )
    elif kernel or userland is False:
        yield Finding(Level.GOOD, "ESP", "in the kernel")
