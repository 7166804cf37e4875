#!/usr/bin/env python3
"""Draws dashboard.json from a Prometheus: `packaging/grafana/draw_dashboard.py http://HOST:9090 OUT.png [MINUTES]`.

It is no Grafana: it asks the dashboard's own queries with its own legends and draws what comes, so that a panel whose
query returns nothing is seen. Such panels are named, and the exit code is 1 when there are other ones than were named
after ``--may-be-empty``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt  # (the backend comes first)
from matplotlib.dates import DateFormatter
from matplotlib.ticker import FuncFormatter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHBOARD = json.loads((Path(__file__).parent / "dashboard.json").read_text())
SCRAPE_S = 2
RATE_INTERVAL = "20s"
STEP_S = 5
COLUMNS = 24
ROW_INCHES = 0.42
DEADLINE_S = 20.0
LEGENDS = 8


@dataclass(frozen=True)
class Series:
    """One line: its legend and its points (time, value)."""

    legend: str
    points: tuple[tuple[datetime, float], ...]


def ask(prometheus: str, path: str, **params: str | float) -> list[dict[str, Any]]:
    """Given an API call of Prometheus, return its result. Raise OSError when there is none."""
    url = f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(params)}"
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:  # noqa: S310 - the operator's own address
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return result


def legend(pattern: str, labels: dict[str, str]) -> str:
    """Given a legend as Grafana has it and a series' labels, return the legend of that series."""
    return re.sub(r"{{(\w+)}}", lambda name: labels.get(name[1], ""), pattern)


def series_of(prometheus: str, target: dict[str, Any], span: tuple[float, float]) -> list[Series]:
    """Given a query of a panel and a span of time, return its lines."""
    expr = target["expr"].replace("$__rate_interval", RATE_INTERVAL).replace("$instance", ".*")
    found = ask(prometheus, "query_range", query=expr, start=span[0], end=span[1], step=STEP_S)
    return [
        Series(
            legend(target["legendFormat"], one["metric"]),
            tuple(_with_gaps([(at, float(value)) for at, value in one["values"]])),
        )
        for one in found
    ]


def _with_gaps(points: list[tuple[float, float]]) -> Iterator[tuple[datetime, float]]:
    """Given points, yield them with one that is no number wherever some are missing: no line is drawn there."""
    before = points[0][0]
    for at, value in points:
        if at - before > 1.5 * STEP_S:
            yield datetime.fromtimestamp(before + STEP_S, UTC), math.nan
        yield datetime.fromtimestamp(at, UTC), value
        before = at


def shown(value: float, unit: str) -> str:
    """Given a value and Grafana's name of its unit, return it as a person reads it."""
    if unit == "bool_on_off":
        return "On" if value else "Off"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    suffix = {"Bps": " B/s", "pps": " p/s", "cps": " /s"}.get(unit, "")
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {letter}{suffix.strip()}"
    return f"{value:.3g}{suffix}"


def draw(
    figure: Figure, panel: dict[str, Any], lines: list[Series], height: int, span: tuple[float, float]
) -> None:
    """Draw a panel at its place of the grid."""
    place = panel["gridPos"]
    title = panel["title"]
    bottom = 1 - (place["y"] + place["h"]) / height
    if panel["type"] == "row":
        figure.text(0.01, bottom + 0.3 / height, title, weight="bold", size=11)
        return
    left, width, tall = place["x"] / COLUMNS, place["w"] / COLUMNS, place["h"] / height
    axes = figure.add_axes((left + 0.032, bottom + 0.9 / height, width - 0.042, tall - 1.9 / height))
    axes.set_title(title, size=9, loc="left")
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    if panel["type"] == "stat":
        _stat(axes, lines, unit)
        return
    stacked = panel["fieldConfig"]["defaults"].get("custom", {}).get("stacking", {}).get("mode") == "normal"
    below: dict[datetime, float] = {}
    for line in lines:
        values = [value + (below.get(at, 0.0) if stacked else 0.0) for at, value in line.points]
        at = [moment for moment, _ in line.points]
        # Where there are many lines those that are never but zero are not named.
        named = len(lines) <= LEGENDS or any(value for _, value in line.points)
        axes.plot(
            at, values, label=line.legend if named else None, lw=1.2, marker="." if len(at) < 4 else None
        )
        if stacked:
            axes.fill_between(at, [below.get(moment, 0.0) for moment in at], values, alpha=0.25)
            below |= dict(zip(at, values, strict=True))
    if lines:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=5.5, loc="upper left", framealpha=0.6)
    else:
        axes.text(0.5, 0.5, "No data", transform=axes.transAxes, ha="center", color="grey")
    axes.set_xlim(*(datetime.fromtimestamp(at, UTC) for at in span))
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=6)
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.grid(alpha=0.3)


def _stat(axes: Axes, lines: list[Series], unit: str) -> None:
    axes.axis("off")
    fresh = max((line.points[-1][0] for line in lines), default=None)
    last = [line for line in lines if line.points[-1][0] == fresh]
    text = "\n".join(f"{line.legend}: {shown(line.points[-1][1], unit)}" for line in last) or "No data"
    axes.text(0, 0.98, text, transform=axes.transAxes, va="top", size=6.5, family="monospace")


def main() -> int:
    """Draw, and return the exit code."""
    parser = argparse.ArgumentParser(description="Draw the dashboard's panels from a Prometheus.")
    parser.add_argument("prometheus")
    parser.add_argument("out", type=Path)
    parser.add_argument("minutes", type=float, nargs="?", default=10.0)
    parser.add_argument("--may-be-empty", action="append", default=[], metavar="TITLE")
    args = parser.parse_args()
    now = time.time()
    span = (now - args.minutes * 60, now)
    panels = DASHBOARD["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(15, height * ROW_INCHES))
    empty = []
    for panel in panels:
        lines = [line for one in panel.get("targets", ()) for line in series_of(args.prometheus, one, span)]
        if not lines and panel["type"] != "row":
            empty.append(panel["title"])
        draw(figure, panel, lines, height, span)
    figure.savefig(args.out, dpi=80)
    sys.stdout.write(f"{args.out}; without data: {', '.join(empty) or 'none'}\n")
    return 1 if set(empty) - set(args.may_be_empty) else 0


if __name__ == "__main__":
    sys.exit(main())
