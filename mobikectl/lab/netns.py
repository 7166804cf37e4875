"""From a topology to the commands that build it: pure text for ``ip -batch``, sysctl and ``nft``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobikectl.lab.topology import Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mobikectl.lab.topology import Node, Topology

SYSCTLS = {
    "net/ipv4/conf/all/rp_filter": "0",  # replies may come in by the other uplink while a path changes
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/all/accept_ra": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/all/accept_dad": "0",
}
FORWARDING = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}


def wires(topology: Topology, namespaces: Mapping[str, str]) -> str:
    """Return the ``ip -batch`` lines that make the veth pairs, each end born in its namespace."""
    lines = []
    for wire in topology.wires:
        one, two = wire.ends
        lines.append(
            f"link add {one.dev} netns {namespaces[one.node]} type veth"
            f" peer name {two.dev} netns {namespaces[two.node]}"
        )
    return "\n".join(lines) + "\n"


def node_setup(topology: Topology, node: Node) -> str:
    """Return the ``ip -batch`` lines, to run in the node's namespace, for addresses and routes."""
    return "\n".join(_node_lines(topology, node)) + "\n"


def _node_lines(topology: Topology, node: Node) -> Iterator[str]:
    yield "link set lo up"
    for inside in node.inside:
        yield f"addr add {inside} dev lo"
    for end in topology.ends_of(node.name):
        for address in end.addresses:
            yield f"addr add {address} dev {end.dev}{' nodad' if address.version == 6 else ''}"
        if end.up:
            yield f"link set {end.dev} up"
    for route in node.routes:
        metric = f" metric {route.metric}" if route.metric else ""
        via = f" via {route.via}" if route.via else ""
        yield f"route add {route.dst}{via} dev {route.dev}{metric}"


def sysctls(node: Node) -> dict[str, str]:
    """Return path below /proc/sys -> value for the node's namespace."""
    forwards = node.role in {Role.ROUTER, Role.NAT, Role.GATEWAY}
    return SYSCTLS | (FORWARDING if forwards else {})


def ruleset(dev: str) -> str:
    """Given a device, return the nft ruleset that masquerades what leaves through it."""
    return f"""
table ip nat {{
  chain postrouting {{
    type nat hook postrouting priority 100;
    oifname "{dev}" masquerade
  }}
}}
"""


def iptables(dev: str) -> tuple[str, ...]:
    """Given a device, return the command that masquerades what leaves through it, on kernels without nf_tables."""
    return ("iptables-legacy", "-w", "-t", "nat", "-A", "POSTROUTING", "-o", dev, "-j", "MASQUERADE")


DROP_PREFERENCE = "9"
"""Of the policy rules that make a router drop packets without a word: behind the local table's rule (0), so
that the router itself still answers. Unlike nft rules they work on every kernel, user-mode-linux included."""
