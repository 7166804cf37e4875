#!/usr/bin/env python3
"""Writes dashboard.json: `packaging/grafana/make_dashboard.py > packaging/grafana/dashboard.json`.

Panels are lines in a table here; by hand the file would be a thousand lines that nobody reviews.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

WIDTH = 24
GRAPH_OPTIONS = {
    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
    "tooltip": {"mode": "multi", "sort": "desc"},
}
HERE = 'instance=~"$instance"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One panel: what it shows (PromQL and the legend of its lines), in which unit, how wide."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    width: int = 8
    kind: str = "timeseries"
    text: str = ""
    stacked: bool = False
    bars: bool = False
    """Counts: a stacked bar for each stretch of time, and none where nothing was."""

    value: bool = False
    """Of a stat: the number itself is shown, not what it belongs to."""


def quantile(share: str, metric: str, by: str = "") -> str:
    """Return the PromQL of a quantile of a histogram, for each instance (and ``by``)."""
    labels = f"instance, le{', ' + by if by else ''}"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{{HERE}}}[5m])))"


def lately(share: str, metric: str, by: str) -> str:
    """Return the PromQL of a quantile of the last five minutes, where rate() would miss the first of few."""
    labels = f"instance, le, {by}"
    now = f"{metric}_bucket{{{HERE}}}"
    return (
        f"histogram_quantile({share},"
        f" sum by ({labels}) (clamp_min({now} - ({now} offset 5m or {now} * 0), 0)))"
    )


def grown(labels: str, metric: str, only: str = "") -> str:
    """Return the PromQL of how much a counter (``only`` some of its series) grew between two points, by labels.

    A series that was not there before grew by all that it has: to increase() the first move is none.
    """
    now = f"{metric}{{{only}{HERE}}}"
    born = f"{now} unless {now} offset $__rate_interval"
    return f"sum by ({labels}) ((increase({now}[$__rate_interval]) > 0) or ({born}))"


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Is all well",
        (
            Panel("charon", ((f"mobikectl_charon_up{{{HERE}}}", "{{instance}}"),), "bool_on_off", 5, "stat"),
            Panel(
                "Nodes",
                ((f"sum by (cluster) (mobikectl_cluster_member{{{HERE}}})", "{{cluster}}"),),
                width=4,
                kind="stat",
                text="Those that are members of their cluster.",
                value=True,
            ),
            Panel(
                "Leader",
                ((f"mobikectl_cluster_leader{{{HERE}}} == 1", "{{node}}"),),
                width=5,
                kind="stat",
                text="Exactly one per cluster; for some seconds none, when it was killed.",
            ),
            Panel(
                "Health",
                ((f"mobikectl_cluster_node_health{{{HERE}}} == 1", "{{instance}} {{health}}"),),
                width=5,
                kind="stat",
            ),
            Panel(
                "Connections that are down",
                ((f"mobikectl_connection_up{{{HERE}}} == 0", "{{instance}} {{connection}}"),),
                width=5,
                kind="stat",
            ),
        ),
    ),
    (
        "Load",
        (
            Panel(
                "IKE_SAs",
                ((f'sum by (instance) (mobikectl_ike_sas{{state="ESTABLISHED",{HERE}}})', "{{instance}}"),),
                stacked=True,
            ),
            Panel(
                "Used of the capacity",
                ((f"mobikectl_cluster_node_used_ratio{{{HERE}}}", "{{instance}}"),),
                "percentunit",
            ),
            Panel(
                "Traffic",
                ((f"mobikectl_cluster_node_bytes_per_second{{{HERE}}}", "{{instance}}"),),
                "Bps",
                stacked=True,
            ),
            Panel(
                "What peers support",
                ((f"sum by (capability) (mobikectl_capable_ike_sas{{{HERE}}})", "{{capability}}"),),
                text="switch: the 'R' of r-mobike. Needs the charon plugin.",
            ),
            Panel(
                "Packets", ((f"mobikectl_cluster_node_packets_per_second{{{HERE}}}", "{{instance}}"),), "pps"
            ),
            Panel(
                "Half-open and other states",
                ((f'sum by (state) (mobikectl_ike_sas{{state!="ESTABLISHED",{HERE}}})', "{{state}}"),),
            ),
        ),
    ),
    (
        "Moves",
        (
            Panel(
                "Moves of the cluster",
                (
                    (
                        grown("mechanism, outcome", "mobikectl_cluster_moves_total"),
                        "{{mechanism}} {{outcome}}",
                    ),
                ),
                bars=True,
            ),
            Panel(
                "How long they took (99th percentile)",
                (
                    (
                        lately("0.99", "mobikectl_cluster_move_duration_seconds", "mechanism"),
                        "{{instance}} {{mechanism}}",
                    ),
                ),
                "s",
            ),
            Panel("Under way", ((f"mobikectl_cluster_moves_under_way{{{HERE}}}", "{{instance}}"),)),
            Panel(
                "Moves within a host by cause",
                (
                    (
                        grown("cause, mechanism, outcome", "mobikectl_moves_total"),
                        "{{cause}} {{mechanism}} {{outcome}}",
                    ),
                ),
                bars=True,
            ),
            Panel(
                "How long they took within a host (99th percentile)",
                (
                    (
                        lately("0.99", "mobikectl_move_duration_seconds", "mechanism"),
                        "{{instance}} {{mechanism}}",
                    ),
                ),
                "s",
            ),
            Panel(
                "Packets lost around them",
                (
                    (
                        grown("instance, mechanism", "mobikectl_move_lost_packets_sum"),
                        "{{instance}} {{mechanism}}",
                    ),
                ),
                text="Packets of the peer, by ESP's sequence numbers; where the kernel does ESP.",
                bars=True,
            ),
            Panel(
                "What the data plane said of verified moves",
                ((grown("data_plane", "mobikectl_verified_moves_data_plane_total"), "{{data_plane}}"),),
                bars=True,
            ),
            Panel(
                "Clients redirected",
                (
                    (grown("instance", "mobikectl_redirected_clients_total"), "{{instance}} as they connect"),
                    (
                        grown("instance", "mobikectl_moves_total", 'mechanism="redirect",'),
                        "{{instance}} established",
                    ),
                ),
                bars=True,
            ),
            Panel("Steering routes", ((f"mobikectl_steering_routes{{{HERE}}}", "{{instance}}"),)),
        ),
    ),
    (
        "Paths of clients",
        (
            Panel(
                "Latency",
                ((f"mobikectl_path_latency_seconds{{{HERE}}}", "{{instance}} {{link}} {{remote}}"),),
                "s",
            ),
            Panel(
                "Loss",
                ((f"mobikectl_path_loss_ratio{{{HERE}}}", "{{instance}} {{link}} {{remote}}"),),
                "percentunit",
            ),
            Panel("Flaps", ((f"mobikectl_path_flaps{{{HERE}}}", "{{instance}} {{link}} {{remote}}"),)),
        ),
    ),
    (
        "What it stands on",
        (
            Panel(
                "charon's answers (99th percentile)",
                ((quantile("0.99", "mobikectl_vici_request_duration_seconds"), "{{instance}}"),),
                "s",
                6,
            ),
            Panel(
                "The store's answers (99th percentile)",
                ((quantile("0.99", "mobikectl_store_request_duration_seconds"), "{{instance}}"),),
                "s",
                6,
            ),
            Panel(
                "Since the store answered",
                ((f"mobikectl_store_age_seconds{{{HERE}}}", "{{instance}}"),),
                "s",
                6,
            ),
            Panel(
                "Retransmits and netlink overruns",
                (
                    (
                        f"rate(mobikectl_retransmits_total{{{HERE}}}[$__rate_interval])",
                        "{{instance}} retransmits",
                    ),
                    (
                        f"rate(mobikectl_netlink_overruns_total{{{HERE}}}[$__rate_interval])",
                        "{{instance}} overruns of {{subscription}}",
                    ),
                ),
                "cps",
                6,
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
            }
        )
        y += 1
        x = 0
        height = 4 if all(panel.kind == "stat" for panel in row) else 8
        for panel in row:
            if x + panel.width > WIDTH:
                x, y = 0, y + height
            panels.append(_panel(panel, len(panels) + 1, {"x": x, "y": y, "w": panel.width, "h": height}))
            x += panel.width
        y += height
    return {
        "uid": "mobikectl",
        "title": "mobikectl",
        "tags": ["ipsec", "vpn"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "templating": {"list": [_datasource(), _instances()]},
        "annotations": {"list": []},
        "panels": panels,
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    stacked = panel.stacked or panel.bars
    custom: dict[str, Any] = {
        "stacking": {"mode": "normal" if stacked else "none"},
        "fillOpacity": 80 if panel.bars else 20 if stacked else 0,
    }
    if panel.bars:
        custom |= {"drawStyle": "bars", "lineWidth": 0}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": custom if panel.kind == "timeseries" else {},
            },
            "overrides": [],
        },
        "options": _stat_options(panel) if panel.kind == "stat" else GRAPH_OPTIONS,
        "targets": [
            {"refId": chr(ord("A") + i), "expr": expr, "legendFormat": legend, "datasource": SOURCE}
            for i, (expr, legend) in enumerate(panel.queries)
        ],
    }


def _stat_options(panel: Panel) -> dict[str, Any]:
    return {
        "textMode": "name" if panel.unit == "short" and not panel.value else "auto",
        "reduceOptions": {"calcs": ["lastNotNull"]},
        "orientation": "auto",
        "graphMode": "none",
        "colorMode": "value",
        "justifyMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}


def _instances() -> dict[str, Any]:
    return {
        "name": "instance",
        "type": "query",
        "label": "Host",
        "datasource": SOURCE,
        "query": {"query": "label_values(mobikectl_build_info, instance)", "refId": "instances"},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=2) + "\n")
