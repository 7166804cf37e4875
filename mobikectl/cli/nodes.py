"""`mobikectl nodes`: the gateways of the cluster, how loaded, how healthy, and what is wanted of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mobikectl.cli.cluster import open_cluster, warn
from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.outlook import Advisor
from mobikectl.cli.output import coloured, console, counted, human_bytes, json_option, print_json, print_table
from mobikectl.cli.top_draw import HEALTH_STYLE, bar
from mobikectl.cluster.caveats import caveats
from mobikectl.observe.plain import plain
from mobikectl.policy.balance_places import Places
from mobikectl.watch.cluster import node_rows
from mobikectl.watch.rows import AWAY

if TYPE_CHECKING:
    from rich.text import Text

    from mobikectl.cluster.reading import Reading
    from mobikectl.policy.cluster_settings import BalanceSettings
    from mobikectl.watch.rows import NodeRow

BAR = 10
"""Characters of a full bar."""
OF_ABSENT = ("node", "there", "leader", "health", "drained", "weight", "by", "note")
"""What is known of a node that is no member."""


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
    return {
        "leader": leader.node if leader else None,
        "paused": state.cluster.value.paused,
        "even_level": round(places.even_level(places.load), 6),
        "moves_under_way": sum(len(move.value.sas) for move in reading.pending),
        "nodes": [_node(node) for node in node_rows(reading, policy, places)],
        "notes": [*caveats(state), *places.notes, *reading.notes],
    }


def _node(node: NodeRow) -> dict[str, Any]:
    found: dict[str, Any] = plain(node)
    return found if node.there else {key: found[key] for key in OF_ABSENT}


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
        bar(node["used"], node["overload_limit"], BAR),
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
    return coloured(node["health"] + note, HEALTH_STYLE[node["health"]])


def _wanted(node: dict[str, Any]) -> str:
    said = ", ".join(part for part in (node["by"] and f"by {node['by']}", node["note"]) if part)
    behind = f" ({said})" if said else ""
    if node["drained"]:
        return f"drained{behind}"
    return "maintenance" if node.get("maintenance") else "-"
