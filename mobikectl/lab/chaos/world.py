"""Who serves what at a moment, as the charons themselves tell."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mobikectl.errors import CharonError, LabError
from mobikectl.lab.measure import sa_keys
from mobikectl.lab.topology import Role
from mobikectl.lab.vici import list_sas

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobikectl.lab.instance import Lab

Key = tuple[str, str, str]
"""Connection, initiator's SPI, responder's SPI."""
FRESH_S = 1
"""So many whole seconds ago at most: charon tells no fractions of them."""


@dataclass(frozen=True, slots=True)
class World:
    """What the charons had at about the same time. A charon that does not answer has nothing."""

    clients: Mapping[str, frozenset[Key]]
    """Tunnel -> the IKE_SAs that its client has established."""
    gateways: Mapping[str, frozenset[Key]]
    """Gateway -> the IKE_SAs that it serves."""
    copies: Mapping[str, frozenset[Key]]
    """Gateway -> the IKE_SAs that it has passive: copies of a standby, offers of a move."""
    fresh: frozenset[Key] = frozenset()
    """Those that are served, and were made or rekeyed just now, or a CHILD_SA of theirs was."""

    def owners(self, tunnel: str) -> tuple[str, ...]:
        """Return the gateways that serve an IKE_SA that the client has."""
        return tuple(node for node, keys in self.gateways.items() if keys & self.clients[tunnel])

    def strays(self) -> frozenset[tuple[str, Key]]:
        """Return (gateway, IKE_SA) of those that are served and that no client has."""
        known = frozenset().union(*self.clients.values())
        return frozenset((node, key) for node, keys in self.gateways.items() for key in keys - known)

    def settled(self, tunnel: str) -> bool:
        """Whether a client has one IKE_SA, and one gateway serves it."""
        return len(self.clients[tunnel]) == 1 and len(self.owners(tunnel)) == 1


async def look(lab: Lab) -> World:
    """Given a lab, ask its charons."""
    nodes = [*lab.topology.by_role(Role.GATEWAY), *lab.topology.by_role(Role.CLIENT)]
    listed = dict(zip(nodes, await asyncio.gather(*(_list(lab, node) for node in nodes)), strict=True))
    gateways = lab.topology.by_role(Role.GATEWAY)
    return World(
        clients={
            tunnel.name: frozenset(key for key in sa_keys(listed[tunnel.client]) if key[0] == tunnel.name)
            for tunnel in lab.topology.tunnels
        },
        gateways={node: sa_keys(listed[node]) for node in gateways},
        copies={node: _passive(listed[node]) for node in gateways},
        fresh=frozenset(key for node in gateways for key in _fresh(listed[node])),
    )


async def _list(lab: Lab, node: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        return await asyncio.to_thread(list_sas, lab.vici_socket(node))
    except (CharonError, LabError):
        return []  # it is dead, or being started


def _passive(listed: list[tuple[str, dict[str, Any]]]) -> frozenset[Key]:
    return frozenset(
        (name, sa["initiator-spi"], sa["responder-spi"])
        for name, sa in listed
        if sa.get("state") == "PASSIVE"
    )


def _fresh(listed: list[tuple[str, dict[str, Any]]]) -> frozenset[Key]:
    """Return those that are served and came just now, or have a CHILD_SA that did."""
    fresh = [
        (name, sa)
        for name, sa in listed
        if min(
            int(sa.get("established", FRESH_S + 1)),
            *(int(child.get("install-time", FRESH_S + 1)) for child in sa.get("child-sas", {}).values()),
            FRESH_S + 1,
        )
        <= FRESH_S
    ]
    return sa_keys(fresh)
