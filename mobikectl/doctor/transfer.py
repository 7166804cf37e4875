"""The certificates by which a node is known to the others."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mobikectl.doctor.findings import Finding, Level
from mobikectl.errors import ConfigError
from mobikectl.transfer import certificates
from mobikectl.transfer.credentials import Tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from mobikectl.cluster.node_settings import TransferSettings

SOON = timedelta(days=30)
SUBJECT = "node certificate"


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
