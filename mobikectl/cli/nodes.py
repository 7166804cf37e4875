"""`mobikectl nodes`: the gateways of the cluster, how loaded, how healthy, and what is wanted of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mobikectl.cli.cluster import open_cluster, warn
from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.outlook import Advisor
from mobikectl.cli.output import coloured, console, counted, human_bytes, json_option, print_json, print_table
from mobikectl.cluster.caveats import caveats
from mobikectl.policy.balance_places import Places, health_now
from mobikectl.policy.cluster import Health

if TYPE_CHECKING:
    from rich.text import Text

    from mobikectl.cluster.reading import Reading
    from mobikectl.policy.cluster import Node
    from mobikectl.policy.cluster_settings import BalanceSettings

BAR = 10
"""Characters of a full bar."""
STYLE = {
    Health.HEALTHY.value: "green",
    Health.IMPAIRED.value: "red",
    Health.DEAD.value: "red",
    Health.UNKNOWN.value: "yellow",
}
AWAY = "away"


@click.command()
@settings_options
@json_option
@run_async
async def nodes(settings: Settings, as_json: bool) -> None:
    """List the nodes of the cluster: load, health, drains and weights, and who leads. Changes nothing.

    `used` is the fullest of IKE_SAs, bytes/s and packets/s against the node's capacity; what is on its way to a node
    counts there already. `standby`: copies of other nodes' IKE_SAs, served if those die; - where it carries none.
    """
    async with open_cluster(settings) as cluster:
        reading = await Advisor(cluster).read()
    report = _report(reading, cluster.settings.policy)
    if as_json:
        print_json(report)
        return
    if not report["nodes"]:
        store = cluster.settings.store
        console.print(f"no node is there (store {store.kind.value}, cluster {store.cluster!r})", markup=False)
    else:
        _show(report)
    warn(report["notes"])


def _report(reading: Reading, policy: BalanceSettings) -> dict[str, Any]:
    state, places = reading.state, Places(reading.view, policy, reading.at)
    leader = state.leader
    used = (places.load / places.capacity).max(axis=1) if len(reading.view.nodes) else []
    found = [_node(node, float(used[i]), reading, policy) for i, node in enumerate(reading.view.nodes)]
    found += [_absent(name, reading) for name in sorted(state.intents) if name not in state.members]
    return {
        "leader": leader.node if leader else None,
        "paused": state.cluster.value.paused,
        "even_level": round(places.even_level(places.load), 6),
        "moves_under_way": sum(len(move.value.sas) for move in reading.pending),
        "nodes": found,
        "notes": [*caveats(state), *places.notes, *reading.notes],
    }


def _node(node: Node, used: float, reading: Reading, policy: BalanceSettings) -> dict[str, Any]:
    state = reading.state
    intent = state.intent(node.name).value
    said = state.reports.get(node.name)
    report = said.value if said else None
    return {
        "node": node.name,
        "there": True,
        "leader": state.leader is not None and state.leader.node == node.name,
        "health": health_now(node, policy, reading.at).value,
        "health_note": report.note if report else "it did not report yet",
        "drained": intent.drained,
        "maintenance": bool(report and report.maintenance),
        "by": intent.by,
        "note": intent.note,
        "used": round(used, 6),
        "overload_limit": node.overload_limit,
        "weight": node.weight,
        "ike_sas": node.load.ike_sas,
        "standby": report.copies if report else 0,
        "carries": node.carries,
        "half_open": node.load.half_open,
        "child_sas": node.load.child_sas,
        "bytes_per_s": node.load.bytes_per_s,
        "packets_per_s": node.load.packets_per_s,
        "cpu": node.load.cpu,
        "memory": node.load.memory,
        "addresses": [{"ip": str(address.ip), "up": address.usable} for address in node.addresses],
        "site": node.site,
        "pools": sorted(node.pools) if node.pools is not None else None,
        "version": state.members[node.name].value.version,
    }


def _absent(name: str, reading: Reading) -> dict[str, Any]:
    intent = reading.state.intent(name).value
    return {
        "node": name,
        "there": False,
        "leader": False,
        "health": AWAY,
        "drained": intent.drained,
        "weight": intent.weight,
        "by": intent.by,
        "note": intent.note,
    }


def _show(report: dict[str, Any]) -> None:
    columns = [
        "node",
        "health",
        "wanted",
        "used",
        "",
        "IKE_SAs",
        "standby",
        "out and in",
        "packets",
        "CPU",
        "mem",
        "weight",
    ]
    print_table(
        [*columns, "addresses", "site"],
        [_row(node) if node["there"] else _absent_row(node) for node in report["nodes"]],
    )
    leader = f"{report['leader']} leads" if report["leader"] else "nobody leads"
    moving = f", {counted(report['moves_under_way'])} on the way" if report["moves_under_way"] else ""
    console.print(f"{leader}; the even level is {report['even_level']:.1%}{moving}", markup=False)


def _row(node: dict[str, Any]) -> list[object]:
    half_open = f" +{node['half_open']}" if node["half_open"] else ""
    return [
        node["node"] + (" *" if node["leader"] else ""),
        _health(node),
        _wanted(node),
        f"{node['used']:.1%}",
        _bar(node["used"], node["overload_limit"]),
        f"{node['ike_sas']}{half_open}",
        node["standby"] if node["carries"] else "-",
        f"{human_bytes(node['bytes_per_s'])}/s",
        f"{node['packets_per_s']:.0f}/s",
        f"{node['cpu']:.0%}",
        f"{node['memory']:.0%}",
        f"{node['weight']:g}",
        ", ".join(one["ip"] + ("" if one["up"] else " (down)") for one in node["addresses"]),
        node["site"] or "-",
    ]


def _absent_row(node: dict[str, Any]) -> list[object]:
    weight = "-" if node["weight"] is None else f"{node['weight']:g}"
    return [node["node"], coloured(AWAY, "yellow"), _wanted(node), *["-"] * 8, weight, "-", "-"]


def _health(node: dict[str, Any]) -> Text:
    note = f": {node['health_note']}" if node["health_note"] else ""
    return coloured(node["health"] + note, STYLE[node["health"]])


def _wanted(node: dict[str, Any]) -> str:
    said = ", ".join(part for part in (node["by"] and f"by {node['by']}", node["note"]) if part)
    behind = f" ({said})" if said else ""
    if node["drained"]:
        return f"drained{behind}"
    return "maintenance" if node.get("maintenance") else "-"


def _bar(used: float, limit: float) -> Text:
    full = min(round(used * BAR), BAR)
    style = "red" if used > limit else "green" if used <= 0.75 * limit else "yellow"
    return coloured("█" * full + "░" * (BAR - full), style)
