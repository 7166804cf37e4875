"""Topologies as data: what `scenario.toml` says about nodes, links and tunnels, parsed and validated.

Pure: no I/O. The words are those of ``ip``: a link joins two nodes, each end is a device with addresses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

from mobikectl.errors import LabError
from mobikectl.lab.fleets import PING_S, ClusterSpec, parse_cluster, with_fleets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mobikectl.model import IpAddress, IpNetwork

NODE_NAME = re.compile(r"[a-z][a-z0-9]{0,11}")
TUNNEL_KEYS = {
    "client",
    "gateway",
    "remote",
    "client_inside",
    "gateway_inside",
    "also",
    "local",
    "fleet",
    "ping_s",
    "kernel_ping_s",
    "auth",
}
AUTHENTICATIONS = ("psk", "certificate", "eap-mschapv2")
"""How the ends of a tunnel know each other: the folders of ``strongswan-conf/``."""
DEVICE_NAME = re.compile(r"[a-z][a-z0-9.-]{0,14}")
MANAGEMENT = "mgmt"
"""A device of this name leads to the cluster's store: no charon and no path of a tunnel knows of it."""


class Role(Enum):
    """What a node is for."""

    CLIENT = "client"
    GATEWAY = "gateway"
    ROUTER = "router"
    NAT = "nat"
    STORE = "store"
    """Keeps the cluster's state, where that is not a file."""

    @property
    def runs_charon(self) -> bool:
        """Whether a node of this role has a charon."""
        return self in {Role.CLIENT, Role.GATEWAY}


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link: a device of a node and the device's addresses."""

    node: str
    dev: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    up: bool = True
    """Whether the device is up from the start."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A veth pair between two nodes."""

    ends: tuple[End, End]


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """A route that a node has from the start."""

    dst: IpNetwork
    via: IpAddress | None
    """The next hop; None: the destination is on the link."""
    dev: str
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """A network namespace."""

    name: str
    role: Role
    inside: tuple[IPv4Interface | IPv6Interface, ...] = ()
    """Addresses on ``lo`` that the tunnels protect."""
    routes: tuple[StaticRoute, ...] = ()
    masquerade: tuple[str, ...] = ()
    """Devices behind whose address a NAT hides what leaves through them."""
    sidecar: str = ""
    """The sidecar's configuration file in the scenario's folder; empty: charon alone."""
    strongswan: str = ""
    """More strongswan.conf text."""
    plugin: bool = False
    """Whether its charon loads the rmobike plugin."""
    ha: bool = False
    """Whether its charon loads strongSwan's ha plugin, with the sidecar's HA broker as its peer."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A connection of a client with a gateway, host to host between inside addresses."""

    name: str
    client: str
    gateway: str
    remote: tuple[IpAddress, ...]
    """Gateway addresses that the client knows from its configuration, first choice first."""
    client_inside: IpAddress
    gateway_inside: IpAddress
    also: tuple[str, ...] = ()
    """Further gateways that serve it, under the same identity: where a redirect can lead."""
    local: IpAddress | None = None
    """The client's outer address; None: what the kernel's routes say."""
    fleet: str = ""
    """The fleet that it belongs to: measured with all the others of it."""
    ping_s: float = PING_S
    """Of a fleet's: seconds between the pings through it."""
    kernel_ping_s: float = PING_S
    """The same with kernel ESP, which has more room for them than charon's own."""
    auth: str = AUTHENTICATIONS[0]
    """One of `AUTHENTICATIONS`."""

    @property
    def client_id(self) -> str:
        """The client's IKE identity: each tunnel of a fleet is a client of its own."""
        return f"{self.name if self.fleet else self.client}.lab.example"

    @property
    def gateway_id(self) -> str:
        """The gateways' IKE identity, the same at each one that serves it: otherwise no redirect authenticates."""
        return f"{'gateways' if self.fleet else self.gateway}.lab.example"

    @property
    def gateways(self) -> tuple[str, ...]:
        """Every gateway that serves it."""
        return (self.gateway, *self.also)


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything that `mobikectl lab up` builds."""

    nodes: Mapping[str, Node]
    wires: tuple[Wire, ...]
    tunnels: tuple[Tunnel, ...]
    cluster: ClusterSpec | None = None

    def ends_of(self, node: str) -> Iterator[End]:
        """Given a node's name, yield its ends of links in the order of the file."""
        for wire in self.wires:
            for end in wire.ends:
                if end.node == node:
                    yield end

    def outer_addresses(self, node: str) -> tuple[IpAddress, ...]:
        """Given a node's name, return its addresses but those inside and those of the management network."""
        return tuple(a.ip for end in self.ends_of(node) if end.dev != MANAGEMENT for a in end.addresses)

    def by_role(self, role: Role) -> tuple[str, ...]:
        """Return the names of the nodes with a role, in the order of the file."""
        return tuple(node.name for node in self.nodes.values() if node.role is role)

    def fleet(self, name: str) -> tuple[Tunnel, ...]:
        """Given a fleet's name, return its tunnels. Raise LabError when there is none."""
        if found := tuple(tunnel for tunnel in self.tunnels if tunnel.fleet == name):
            return found
        raise LabError(f"no fleet {name!r} in this topology", hint="a scenario has [fleets.NAME]")

    @property
    def alone(self) -> tuple[Tunnel, ...]:
        """The tunnels that belong to no fleet: each is measured for itself."""
        return tuple(tunnel for tunnel in self.tunnels if not tunnel.fleet)

    @property
    def fleets(self) -> tuple[str, ...]:
        """The names of the fleets."""
        return tuple(dict.fromkeys(tunnel.fleet for tunnel in self.tunnels if tunnel.fleet))

    @property
    def charons(self) -> tuple[str, ...]:
        """Names of the nodes that run a charon, gateways first: they must answer when clients call."""
        with_charon = [node for node in self.nodes.values() if node.role.runs_charon]
        return tuple(n.name for n in sorted(with_charon, key=lambda n: n.role is not Role.GATEWAY))

    def tunnel(self, name: str) -> Tunnel:
        """Given a tunnel's name, return it. Raise LabError when there is none."""
        for tunnel in self.tunnels:
            if tunnel.name == name:
                return tunnel
        raise LabError(f"no tunnel {name!r} in this topology", hint=f"there are: {self._tunnel_names()}")

    def _tunnel_names(self) -> str:
        return ", ".join(t.name for t in self.tunnels) or "none"


def parse_topology(data: Mapping[str, Any], *, where: str, store: str = "") -> Topology:
    """Given a scenario's tables ``nodes``, ``links``, ``tunnels``, ``fleets`` and ``cluster``, return the topology.

    ``where`` names the file in messages; ``store`` is the kind of store that its cluster uses (empty: the first that
    it can use). Raise LabError for anything unknown, missing or contradictory.
    """
    data = with_fleets(data, where=where)
    reader = _Reader(where)
    links = reader.array(data, "links")
    wires = tuple(reader.wire(entry, number) for number, entry in enumerate(links, 1))
    nodes = {
        name: reader.node(name, table) for name, table in reader.table(data, "nodes", f"{where}").items()
    }
    tunnels = tuple(reader.tunnel(name, table, nodes) for name, table in (data.get("tunnels") or {}).items())
    topology = Topology(nodes, wires, tunnels, parse_cluster(data.get("cluster"), store=store, where=where))
    reader.check(topology)
    return topology


class _Reader:
    """Reads tables and raises errors that name file and key."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, message: str) -> LabError:
        return LabError(f"{self.where}: {message}", hint="see docs/scenarios.md for the keys")

    def known(self, table: Mapping[str, Any], keys: set[str], what: str) -> None:
        if unknown := sorted(set(table) - keys):
            raise self.fail(f"{what}: unknown {', '.join(unknown)}; known are {', '.join(sorted(keys))}")

    def table(self, data: Mapping[str, Any], key: str, what: str) -> Mapping[str, Any]:
        value = data.get(key)
        if not isinstance(value, dict) or not value:
            raise self.fail(f"{what}: expected a table {key!r}")
        return value

    def array(self, data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        value = data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.fail(f"expected [[{key}]], an array of tables")
        return value

    def address(self, text: object, what: str) -> IpAddress:
        try:
            return ip_address(str(text))
        except ValueError:
            raise self.fail(f"{what}: {text!r} is not an address") from None

    def interface(self, text: object, what: str) -> IPv4Interface | IPv6Interface:
        try:
            return ip_interface(str(text))
        except ValueError:
            raise self.fail(f"{what}: {text!r} is not an address with a prefix length") from None

    def wire(self, entry: Mapping[str, Any], number: int) -> Wire:
        if len(entry) != 2:
            raise self.fail(f"link {number}: expected exactly two nodes, got {sorted(entry)}")
        first, second = (self._end(node, table, number) for node, table in entry.items())
        return Wire((first, second))

    def _end(self, node: str, table: Mapping[str, Any], number: int) -> End:
        what = f"link {number}, {node}"
        self.known(table, {"dev", "addresses", "up"}, what)
        dev = str(table.get("dev", ""))
        if not DEVICE_NAME.fullmatch(dev):
            raise self.fail(f"{what}: dev {dev!r} is not a device name of at most 15 characters")
        addresses = tuple(self.interface(text, what) for text in table.get("addresses", []))
        return End(node, dev, addresses, bool(table.get("up", True)))

    def node(self, name: str, table: Mapping[str, Any]) -> Node:
        what = f"nodes.{name}"
        self.known(
            table, {"role", "inside", "routes", "masquerade", "sidecar", "strongswan", "plugin", "ha"}, what
        )
        if not NODE_NAME.fullmatch(name):
            raise self.fail(f"{what}: a node's name is 1-12 of a-z and 0-9, a letter first")
        try:
            role = Role(table.get("role"))
        except ValueError:
            raise self.fail(f"{what}: role is one of {', '.join(r.value for r in Role)}") from None
        return Node(
            name=name,
            role=role,
            inside=tuple(self.interface(text, what) for text in table.get("inside", [])),
            routes=tuple(self._route(entry, what) for entry in table.get("routes", [])),
            masquerade=tuple(str(dev) for dev in table.get("masquerade", [])),
            sidecar=str(table.get("sidecar", "")),
            strongswan=str(table.get("strongswan", "")),
            plugin=self._of_charon(table, "plugin", role, what),
            ha=self._of_charon(table, "ha", role, what),
        )

    def _of_charon(self, table: Mapping[str, Any], key: str, role: Role, what: str) -> bool:
        wanted = table.get(key, False)
        if not isinstance(wanted, bool):
            raise self.fail(f"{what}: {key} is true or false, got {wanted!r}")
        if wanted and not role.runs_charon:
            raise self.fail(f"{what}: {key} needs a charon, and a node with role {role.value} has none")
        return wanted

    def _route(self, entry: Mapping[str, Any], what: str) -> StaticRoute:
        self.known(entry, {"dst", "via", "dev", "metric"}, f"{what}.routes")
        via = self.address(entry["via"], f"{what}.routes") if "via" in entry else None
        dst = str(entry.get("dst", ""))
        everywhere = "::/0" if via is not None and via.version == 6 else "0.0.0.0/0"
        try:
            network = ip_network(everywhere if dst == "default" else dst)
        except ValueError:
            raise self.fail(f"{what}.routes: dst {dst!r} is not a network or 'default'") from None
        return StaticRoute(network, via, str(entry.get("dev", "")), int(entry.get("metric", 0)))

    def tunnel(self, name: str, table: Mapping[str, Any], nodes: Mapping[str, Node]) -> Tunnel:
        what = f"tunnels.{name}"
        self.known(table, TUNNEL_KEYS, what)
        for end, role in (("client", Role.CLIENT), ("gateway", Role.GATEWAY)):
            node = nodes.get(str(table.get(end)))
            if node is None or node.role is not role:
                raise self.fail(f"{what}: {end} = {table.get(end)!r} is not a node with role {role.value}")
        client, gateway = str(table["client"]), str(table["gateway"])
        remote = tuple(self.address(text, what) for text in table.get("remote", []))
        if not remote:
            raise self.fail(f"{what}: remote needs at least one address of the gateway")
        return Tunnel(
            name=name,
            client=client,
            gateway=gateway,
            remote=remote,
            client_inside=self._inside(table, "client_inside", nodes[client], what),
            gateway_inside=self._inside(table, "gateway_inside", nodes[gateway], what),
            also=self._also(table, nodes, what),
            local=self.address(table["local"], what) if "local" in table else None,
            fleet=str(table.get("fleet", "")),
            ping_s=float(table.get("ping_s", PING_S)),
            kernel_ping_s=float(table.get("kernel_ping_s", PING_S)),
            auth=self._authentication(table, what),
        )

    def _authentication(self, table: Mapping[str, Any], what: str) -> str:
        auth = str(table.get("auth", AUTHENTICATIONS[0]))
        if auth not in AUTHENTICATIONS:
            raise self.fail(f"{what}: auth is one of {', '.join(AUTHENTICATIONS)}, got {auth!r}")
        return auth

    def _also(self, table: Mapping[str, Any], nodes: Mapping[str, Node], what: str) -> tuple[str, ...]:
        names = tuple(str(name) for name in table.get("also", []))
        for name in names:
            if name not in nodes or nodes[name].role is not Role.GATEWAY or name == table["gateway"]:
                raise self.fail(f"{what}: also: {name!r} is not another node with role gateway")
        return names

    def _inside(self, table: Mapping[str, Any], key: str, node: Node, what: str) -> IpAddress:
        if key in table:
            return self.address(table[key], f"{what}.{key}")
        if not node.inside:
            raise self.fail(f"{what}: node {node.name} has no inside address")
        return node.inside[0].ip

    def check(self, topology: Topology) -> None:
        seen: set[tuple[str, str]] = set()
        for wire in topology.wires:
            for end in wire.ends:
                if end.node not in topology.nodes:
                    raise self.fail(f"link of {end.dev}: no node {end.node!r}")
                if (end.node, end.dev) in seen:
                    raise self.fail(f"node {end.node} has two devices {end.dev!r}")
                seen.add((end.node, end.dev))
        for node in topology.nodes.values():
            for dev in (*(r.dev for r in node.routes), *node.masquerade):
                if (node.name, dev) not in seen:
                    raise self.fail(f"nodes.{node.name}: no device {dev!r}")
        stores = [node for node in topology.nodes.values() if node.role is Role.STORE]
        if topology.cluster and not (len(stores) == 1 and stores[0].inside):
            raise self.fail("a cluster needs one node with role store and an inside address")
        outer = {a.ip for wire in topology.wires for end in wire.ends for a in end.addresses}
        for tunnel in topology.tunnels:
            if missing := [str(a) for a in tunnel.remote if a not in outer]:
                raise self.fail(f"tunnels.{tunnel.name}: no node has the address {', '.join(missing)}")
