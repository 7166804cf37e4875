"""The certificates by which a node is known to the others."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mobikectl.charon.ha_port_holder import HA_PORT
from mobikectl.doctor.findings import Finding, Level
from mobikectl.errors import INSTALL_PLUGIN, ConfigError
from mobikectl.transfer import certificates
from mobikectl.transfer.credentials import Tls

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime

    from mobikectl.charon.ha_port_holder import Holder
    from mobikectl.cluster.node_settings import TransferSettings

SOON = timedelta(days=30)
SUBJECT = "node certificate"
OVER = "carrying over"
COMMAND_MAX = 80
"""Characters of a command line that are shown."""


CARRYING = {
    "ha": "load strongSwan's ha plugin as docs/moves.md shows (local = 127.0.0.2, remote = 127.0.0.1), restart charon",
    "rmobike": INSTALL_PLUGIN,
}
"""charon's plugins without which no IKE_SA is carried over -> what to do."""


def carrying(plugins: Collection[str], *, port: Finding | None = None, says: str = "") -> Iterator[Finding]:
    """Given what is known of carrying IKE_SAs over to and from this node, yield whether it can be done.

    ``plugins``: charon's. ``port``: what is wrong with the HA port. ``says``: why the sidecar that runs carries nothing
    over. One cause is told once.
    """
    missing = [name for name in CARRYING if name not in plugins]
    for name in missing:
        text = f"charon has no {name} plugin: no IKE_SA is carried over, clients are redirected"
        yield Finding(Level.PROBLEM, OVER, text, CARRYING[name])
    if port is not None:
        yield port
    if missing or port is not None:
        return
    if says:
        mend = "mend that; where `doctor` says it still after 30 s, restart the sidecar"
        yield Finding(Level.PROBLEM, OVER, f"the sidecar carries nothing over: {says}", mend)
    else:
        yield Finding(Level.GOOD, OVER, "charon has the ha and the rmobike plugin")


def ha_port(found: Holder | None) -> Finding | None:
    """Given who has the HA port, return a finding when that is neither a sidecar nor what keeps it for one."""
    if found is None or found.ours:
        return None
    who = ", ".join(f"{command[:COMMAND_MAX] or 'process'} ({pid})" for pid, command in found.processes)
    text = f"another process has {HA_PORT}" + (f": {who}" if who else "")
    mend = "stop charon, which sends it keys; end that process: the sidecar takes the port in 30 s; then start charon"
    return Finding(Level.PROBLEM, OVER, f"{text}. Nothing is carried over", mend)


def transfer(settings: TransferSettings, node: str, now: datetime) -> Iterator[Finding]:
    """Given the settings, this node's name and the time, yield findings about its certificate."""
    try:
        facts = certificates.inspect(settings.certificate, settings.key, settings.ca)
        Tls(settings).server()
    except ConfigError as error:
        yield Finding(Level.PROBLEM, SUBJECT, error.message, error.hint)
        return
    renew = f"mobikectl cluster join {node} --renew"
    if node not in facts.names:
        names = ", ".join(sorted(facts.names)) or "nobody"
        yield Finding(Level.PROBLEM, SUBJECT, f"it is of {names}, and this node is {node}", renew)
    if now >= facts.not_after:
        yield Finding(
            Level.PROBLEM, SUBJECT, f"it ended on {facts.not_after:%Y-%m-%d}: no node believes us", renew
        )
    elif now < facts.not_before:
        text = f"it begins on {facts.not_before:%Y-%m-%d}, and here it is {now:%Y-%m-%d}"
        yield Finding(Level.PROBLEM, SUBJECT, text, "set the clock")
    elif now >= facts.not_after - SOON:
        yield Finding(Level.WARNING, SUBJECT, f"it ends on {facts.not_after:%Y-%m-%d}", renew)
    elif node in facts.names:
        yield Finding(Level.GOOD, SUBJECT, f"of {node}, until {facts.not_after:%Y-%m-%d}")
