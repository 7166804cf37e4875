"""charon's side: version, ESP, and the settings that decide whether moves work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mobikectl.charon.daemon import enabled
from mobikectl.doctor.findings import Finding, Level
from mobikectl.errors import INSTALL_PLUGIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mobikectl.charon.daemon import Daemon

OLDEST = (5, 9, 8)
"""The oldest strongSwan that mobikectl was tested with."""

MANY_SAS = 200
"""From so many IKE_SAs on, what costs something for each of them is worth a finding."""


def version(daemon: Daemon) -> Iterator[Finding]:
    """Given a charon, yield whether its version is one that was tested."""
    text = f"{daemon.version.daemon} {daemon.version.version}, {daemon.stats.ike_sas} IKE_SAs"
    if daemon.version.numbers >= OLDEST:
        yield Finding(Level.GOOD, "charon", text)
        return
    oldest = ".".join(map(str, OLDEST))
    yield Finding(
        Level.WARNING,
        "charon",
        f"{text}: older than {oldest}, the oldest tested; without ike-update events moves are seen late",
        f"upgrade strongSwan to {oldest} or newer",
    )


def plugins(daemon: Daemon) -> Iterator[Finding]:
    """Given a charon, yield which plugins it has, and whether the one for responder-initiated switches is there."""
    loaded = daemon.stats.plugins
    yield Finding(Level.GOOD, "plugins", f"{len(loaded)} loaded: {' '.join(loaded)}")
    if not daemon.has_plugin("rmobike"):
        yield Finding(
            Level.NOTE,
            "rmobike",
            "not loaded: charon is steered by routes, which peers behind a NAT cannot follow on a gateway",
            INSTALL_PLUGIN,
        )


def settings(found: Mapping[str, str], daemon: Daemon, file: Path) -> Iterator[Finding]:
    """Given strongswan.conf's settings, yield findings about those that decide whether moves work."""
    known = dict(found)
    yield _wanted(
        known,
        file,
        "prefer_best_path",
        "charon does not follow steering routes while the old path works: planned moves fail",
    )
    if not enabled(known, "charon.check_current_path", default=False):
        yield Finding(
            Level.NOTE,
            "check_current_path",
            "off: after a change of routes charon does not check by itself whether the path it is on still works",
            f"set charon.check_current_path = yes in {file}, where mobikectl's probes are not used",
        )
    if enabled(known, "charon.install_routes", default=True) and daemon.stats.ike_sas >= MANY_SAS:
        yield Finding(
            Level.WARNING,
            "install_routes",
            f"on, with {daemon.stats.ike_sas} IKE_SAs: each change of a route makes charon dump all routes for each SA",
            f"set charon.install_routes = no in {file} (or kernel-netlink's fwmark = !MARK) and restart charon",
        )


def _wanted(found: dict[str, str], file: Path, name: str, without: str) -> Finding:
    if enabled(found, f"charon.{name}", default=False):
        return Finding(Level.GOOD, name, "yes")
    return Finding(
        Level.PROBLEM,
        name,
        f"off: {without}",
        f"set charon.{name} = yes in {file}, then `swanctl --reload-settings`",
    )


def settings_file(pid: int | None, proc: Path = Path("/proc")) -> Path:
    """Given charon's process (None: unknown), return its strongswan.conf, seen through its own root.

    charon takes the file from STRONGSWAN_CONF, else /etc/strongswan.conf.
    """
    default = Path("/etc/strongswan.conf")
    if pid is None:
        return default
    process = proc / str(pid)
    try:
        environment = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return default
    named = [entry.partition(b"=")[2] for entry in environment if entry.startswith(b"STRONGSWAN_CONF=")]
    path = Path(named[0].decode(errors="surrogateescape")) if named and named[0] else default
    inside = process / "root" / path.relative_to("/") if path.is_absolute() else path
    return inside if inside.exists() else path


def as_named(file: Path) -> Path:
    """Given what `settings_file` returned, return the name that the file has for charon itself."""
    parts = file.parts
    return Path("/", *parts[4:]) if parts[1:2] == ("proc",) and parts[3:4] == ("root",) else file
