"""Shorthands of a scenario file: a fleet of clients in one charon, and what all nodes of a cluster share. Pure."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

from mobikectl.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Mapping

STORES = ("sqlite", "etcd")
FLEET_KEYS = {
    "client",
    "dev",
    "count",
    "unreachable",
    "outer",
    "inside",
    "remote",
    "gateways",
    "ping_s",
    "kernel_ping_s",
}
MAX_FLEET = 1000
TOLD = 9
"""charon tells a peer of up to 8 further addresses of its host (RFC 4555 section 3.4). All clients of a fleet are on
one host: so many addresses that nothing leads to come first, so that no client is looked for at another one's."""
PING_S = 0.2
"""Seconds between the pings through one tunnel."""
HINT = "see docs/scenarios.md for the keys"


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """What makes a scenario's gateways a cluster."""

    store: str
    """Which of `STORES` is used."""
    stores: tuple[str, ...] = STORES
    """Which ones the scenario can run with."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The table ``[cluster]`` of every node's configuration, but its name, addresses and backend of the store."""
    uplink_bytes_per_s: float | None = None
    """The capacity of each serving address; None: it is never the bottleneck."""
    kernel: tuple[str, ...] = STORES
    """With which of `stores` it is run with kernel ESP when all scenarios are: what adds nothing there costs time."""
    watched: bool = False
    """Whether the lab looks on at the steps of handovers, and can hold them (`mobikectl.lab.steps`)."""


def parse_cluster(table: object, *, store: str, where: str) -> ClusterSpec | None:
    """Given a scenario's table ``cluster``, return it; None without one. Raise LabError: it does not fit."""
    if table is None:
        if store:
            raise LabError(f"{where}: there is no cluster to have a store", hint="leave --store away")
        return None
    if not isinstance(table, dict):
        raise LabError(f"{where}: cluster: expected a table", hint=HINT)
    stores = tuple(table.get("stores", STORES))
    if not stores or set(stores) - set(STORES):
        raise LabError(f"{where}: cluster.stores: some of {', '.join(STORES)}", hint=HINT)
    kernel = tuple(table.get("kernel", stores))
    if set(kernel) - set(stores):
        raise LabError(f"{where}: cluster.kernel: some of {', '.join(stores)}", hint=HINT)
    chosen = store or stores[0]
    if chosen not in stores:
        raise LabError(f"{where}: it runs with {' and '.join(stores)}, not with {chosen!r}", hint=HINT)
    own = {"stores", "kernel", "uplink_bytes_per_s", "watched"}
    settings = {key: value for key, value in table.items() if key not in own}
    watched = bool(table.get("watched", False))
    return ClusterSpec(chosen, stores, settings, table.get("uplink_bytes_per_s"), kernel, watched)


def with_fleets(data: Mapping[str, Any], *, where: str) -> Mapping[str, Any]:
    """Given a scenario file's tables, return them with each fleet written out as tunnels and addresses.

    Client number i of a fleet ``x`` is the tunnel ``xI``, has its own outer and inside address, and knows the gateway
    address number i modulo their number. Raise LabError: a fleet does not fit.
    """
    fleets = data.get("fleets")
    if not fleets:
        return data
    if not isinstance(fleets, dict):
        raise LabError(f"{where}: fleets: expected tables [fleets.NAME]", hint=HINT)
    written: dict[str, Any] = copy.deepcopy(dict(data))
    written.setdefault("tunnels", {})
    for name, fleet in fleets.items():
        try:
            _write_out(written, name, fleet)
        except (KeyError, TypeError, ValueError) as error:
            raise LabError(
                f"{where}: fleets.{name}: {error!r} is missing or does not fit", hint=HINT
            ) from None
    return written


def _write_out(data: dict[str, Any], name: str, fleet: Mapping[str, Any]) -> None:
    if unknown := sorted(set(fleet) - FLEET_KEYS):
        raise ValueError(f"unknown {', '.join(unknown)}")
    count = int(fleet["count"])
    if not 1 <= count <= MAX_FLEET:
        raise ValueError(f"count {count}")
    client, remote = str(fleet["client"]), list(fleet["remote"])
    outer, inside = ip_address(fleet["outer"]), ip_address(fleet["inside"])
    end = next(link[client] for link in data["links"] if link.get(client, {}).get("dev") == fleet["dev"])
    addresses = end.setdefault("addresses", [])
    if count > 1 or "unreachable" in fleet:
        addresses += [f"{ip_address(fleet['unreachable']) + i}/32" for i in range(TOLD)]
    for i in range(count):
        gateway = _owner(data, remote[i % len(remote)])
        data["tunnels"][f"{name}{i + 1:0{len(str(count))}}"] = {
            "client": client,
            "gateway": gateway,
            "also": [other for other in fleet["gateways"] if other != gateway],
            "remote": [remote[i % len(remote)]],
            "local": str(outer + i),
            "client_inside": str(inside + i),
            "fleet": name,
            "ping_s": float(fleet.get("ping_s", PING_S)),
            "kernel_ping_s": float(fleet.get("kernel_ping_s", fleet.get("ping_s", PING_S))),
        }
        addresses.append(f"{outer + i}/32")
        data["nodes"][client].setdefault("inside", []).append(f"{inside + i}/32")


def _owner(data: Mapping[str, Any], address: str) -> str:
    wanted = ip_address(address)
    for link in data["links"]:
        for node, end in link.items():
            if any(ip_interface(text).ip == wanted for text in end.get("addresses", [])):
                return str(node)
    raise ValueError(f"no node has the address {address}")
