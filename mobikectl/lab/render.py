"""strongSwan's configuration of each node, rendered from the templates in ``strongswan-conf/``."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from mobikectl.errors import LabError
from mobikectl.lab.topology import MANAGEMENT, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobikectl.lab.topology import Node, Topology, Tunnel

TEMPLATES = Path(__file__).parents[2] / "strongswan-conf"
ESP_PLUGINS = {"userland": "kernel-libipsec kernel-netlink", "kernel": "kernel-netlink"}


def strongswan_conf(node: Node, *, esp: str, templates: Path = TEMPLATES) -> str:
    """Given a node and the ESP in use (``userland`` or ``kernel``), return its strongswan.conf.

    A gateway with kernel ESP gets ``install_routes = no``: its packets have a route anyway, and each of
    its SAs would dump all routes at every change.
    """
    needed = esp == "userland" or node.role is Role.CLIENT
    return _render(
        templates / "strongswan.conf.in",
        {
            "node": f"{node.name}, {node.role.value}",
            "esp_plugins": ESP_PLUGINS[esp],
            "rmobike": (" ha!" if node.ha else "") + (" rmobike!" if node.plugin else ""),
            "install_routes": "yes" if needed else "no",
            "ignored": f"lo,ipsec0,{MANAGEMENT}",
            "extra": "\n".join(((templates / "ha.conf").read_text() if node.ha else "", node.strongswan)),
        },
    )


def swanctl_conf(
    topology: Topology, node: Node, secrets: Mapping[str, str], *, templates: Path = TEMPLATES
) -> str:
    """Given a node and the secret of each tunnel (pre-shared key or password), return the node's swanctl.conf."""
    mine = [t for t in topology.tunnels if node.name in {t.client, t.gateway, *t.also}]
    source = "client" if node.role is Role.CLIENT else "gateway"
    return "\n".join(
        _render(
            templates / tunnel.auth / f"{source}.swanctl.conf.in",
            _values(topology, node, tunnel, secrets[tunnel.name]),
        )
        for tunnel in mine
    )


def certified(topology: Topology) -> dict[str, dict[str, str]]:
    """Given a topology, return which certificates each node needs: identity -> role.

    A gateway has one wherever its client does not know it by a pre-shared key.
    """
    needed: dict[str, dict[str, str]] = {}
    for tunnel in topology.tunnels:
        if tunnel.auth == "psk":
            continue
        for gateway in tunnel.gateways:
            needed.setdefault(gateway, {})[tunnel.gateway_id] = "gateway"
        clients = needed.setdefault(tunnel.client, {})
        if tunnel.auth == "certificate":
            clients[tunnel.client_id] = "client"
    return needed


def _values(topology: Topology, node: Node, tunnel: Tunnel, secret: str) -> dict[str, str]:
    gateway = node.name if node.name in tunnel.also else tunnel.gateway
    anywhere = "%any" if tunnel.remote[0].version == 4 else "%any6"
    return {
        "name": tunnel.name,
        "local_addrs": str(tunnel.local or anywhere),
        "remote_addrs": ",".join(map(str, tunnel.remote)),
        "gateway_addrs": ",".join(map(str, topology.outer_addresses(gateway))),
        "client_id": tunnel.client_id,
        "gateway_id": tunnel.gateway_id,
        "client_ts": str(tunnel.client_inside),
        "gateway_ts": str(tunnel.gateway_inside),
        "psk": secret,
    }


def _render(path: Path, values: Mapping[str, str]) -> str:
    try:
        return Template(path.read_text()).substitute(values)
    except FileNotFoundError:
        raise LabError(
            f"the template {path} is missing", hint="run the lab from a clone of the repository"
        ) from None
    except (KeyError, ValueError) as error:
        raise LabError(
            f"{path}: cannot be rendered: {error}", hint="the names are in mobikectl/lab/render.py"
        ) from None
