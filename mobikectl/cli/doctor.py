"""`mobikectl doctor`: what would keep moves from working, each finding with its mend. Changes nothing."""

from __future__ import annotations

import platform
import socket
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobikectl.charon import daemon as charon_daemon
from mobikectl.cli.charon import charon_session
from mobikectl.cli.common import Settings, run_async, settings_options, sidecar_listens
from mobikectl.cli.output import coloured, json_option, print_json, print_table
from mobikectl.doctor import Finding, Level, daemon, host
from mobikectl.errors import CharonError, ConfigError, NetlinkError, PrivilegeError, SidecarError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobikectl.charon.daemon import Daemon

STYLE = {Level.GOOD: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.PROBLEM: "red"}
FAILED = 1
"""Exit code when there is a problem."""


@click.command()
@settings_options
@json_option
@run_async
async def doctor(settings: Settings, as_json: bool) -> None:
    """Look at charon, kernel and host for what would keep moves from working. Changes nothing.

    Exit code 1 when there is a problem; warnings and notes are no problem.
    """
    known, found = await _charon(settings)
    found += await _host(settings, known)
    order = list(Level)
    found.sort(key=lambda finding: -order.index(finding.level))
    if as_json:
        print_json(found)
    else:
        print_table(
            ["", "what", "how it is", "what to do"],
            [[coloured(f.level.value, STYLE[f.level]), f.subject, f.text, f.mend] for f in found],
        )
    if any(finding.level is Level.PROBLEM for finding in found):
        raise click.exceptions.Exit(FAILED)


async def _charon(settings: Settings) -> tuple[Daemon | None, list[Finding]]:
    path = settings.config.charon.socket
    try:
        async with charon_session(settings) as session:
            known = await charon_daemon.inspect(session)
    except CharonError as error:
        return None, [Finding(Level.PROBLEM, "charon", error.message, error.hint)]
    file = daemon.settings_file(_pid_of(path))
    found = [*daemon.version(known), *daemon.plugins(known), *_settings(settings, known, file)]
    cluster = settings.config.cluster
    if cluster is not None and cluster.transfer is not None:
        from mobikectl.charon.ha_port_holder import holder
        from mobikectl.doctor import transfer

        port = transfer.ha_port(holder())
        found += transfer.carrying(known.stats.plugins, port=port, says=await _carries_not(settings))
    return known, found


async def _carries_not(settings: Settings) -> str:
    """Return why the sidecar that runs carries no IKE_SAs over; nothing where it does, or none runs."""
    from mobikectl.control import ControlClient

    if not sidecar_listens(settings):
        return ""
    try:
        async with ControlClient(settings.control) as sidecar:
            cluster = (await sidecar.state()).get("cluster") or {}
    except SidecarError:
        return ""  # of another version, or busy: what can be seen from outside was said
    return str(cluster.get("carries_not", ""))


def _settings(settings: Settings, known: Daemon, file: Path) -> Iterator[Finding]:
    from mobikectl.doctor import cluster

    node, named = settings.config.cluster, daemon.as_named(file)
    try:
        found = charon_daemon.settings(file)
        of_charon = list(daemon.settings(found, known, named))
        of_cluster = list(cluster.charon(node, found, known, named)) if node is not None else []
        said = {finding.subject for finding in of_cluster}
        yield from of_cluster
        yield from (finding for finding in of_charon if finding.subject not in said)
    except ConfigError as error:
        yield Finding(Level.WARNING, "strongswan.conf", error.message, error.hint)


async def _host(settings: Settings, known: Daemon | None) -> list[Finding]:
    from mobikectl.netlink import SteeringRoutes, Watcher

    found = list(host.capabilities(Path("/proc/self/status").read_text()))
    try:
        async with Watcher() as watcher:
            net = watcher.state
        async with SteeringRoutes() as routes:
            own = await routes.list_own()
    except (NetlinkError, PrivilegeError) as error:
        return [*found, Finding(Level.PROBLEM, "netlink", error.message, error.hint)]
    paths = settings.config.paths
    found += _transfer(settings)
    if settings.config.cluster is not None:
        from mobikectl.doctor import cluster

        found += cluster.addresses(settings.config.cluster, net)
        found += await cluster.store(settings.config.cluster, runs=sidecar_listens(settings))
    found += host.uplinks(net, paths)
    found += host.sysctls(net, paths, Path("/proc/sys"))
    found += host.leftovers(own, sidecar_listens(settings))
    userland = None if known is None else known.esp is charon_daemon.EspPath.USERLAND
    found += host.kernel_esp(
        host.kernel_has_esp(Path("/proc"), Path("/lib/modules", platform.release())), userland
    )
    return found


def _transfer(settings: Settings) -> Iterator[Finding]:
    """Yield what is to be said of the node's certificate, where it is in a cluster that carries IKE_SAs over."""
    from mobikectl.doctor import transfer

    cluster = settings.config.cluster
    if cluster is not None and cluster.transfer is not None:
        yield from transfer.transfer(cluster.transfer, cluster.node, datetime.now(UTC))


def _pid_of(path: str) -> int | None:
    """Given a unix socket's path, return the process that listens there (SO_PEERCRED), or None."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(1.0)
        try:
            sock.connect(path)
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    pid: int = struct.unpack("3i", credentials)[0]
    return pid or None
