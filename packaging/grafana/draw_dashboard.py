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
import textwrap
import time
import urllib.parse
import urllib.request
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt  # (the backend comes first)
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHBOARD = json.loads((Path(__file__).parent / "dashboard.json").read_text())
SCRAPE_S = 2
RATE_INTERVAL = "20s"
STEP_S = 5
COLUMNS = 24
ROW_INCHES = 0.42
DEADLINE_S = 20.0
ROWS_OF_LEGEND = 3
MOST_BIG = 3
"""Single values of a panel that are written one below the other."""

INK, GOOD, BAD = "#1f2430", "#1a7f4b", "#c4162a"
COLOURS = ("#3274d9", "#e8871e", "#2f9e58", "#b5478f", "#8f6ad8", "#c9a227", "#1c9eb0", "#d64550")
DASHES = ("-", (0, (4, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))


@dataclass(frozen=True)
class Frame:
    """What all panels share: the height of the grid (rows), and the span of time (Unix times)."""

    height: int
    span: tuple[float, float]


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


class Palette:
    """Colours: a host has the same one in every panel; anything else has the next one of its panel."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = dict(zip(sorted(hosts), cycle(COLOURS), strict=False))

    def lines(self, legends: Sequence[str]) -> list[tuple[str, str]]:
        """Given the legends of a panel, return the colour and the dashes of each of its lines."""
        seen: Counter[str] = Counter()
        others = cycle(COLOURS)
        found = []
        for legend_ in legends:
            host = legend_.partition(" ")[0]
            colour = self._hosts.get(host)
            found.append((colour or next(others), DASHES[seen[host] % len(DASHES)] if colour else "-"))
            seen[host] += 1
        return found


def draw(figure: Figure, panel: dict[str, Any], lines: list[Series], frame: Frame, palette: Palette) -> None:
    """Draw a panel at its place of the grid."""
    place = panel["gridPos"]
    left, width = place["x"] / COLUMNS, place["w"] / COLUMNS
    bottom, tall = 1 - (place["y"] + place["h"]) / frame.height, place["h"] / frame.height
    inch_x, inch_y = 1 / figure.get_figwidth(), 1 / figure.get_figheight()
    if panel["type"] == "row":
        at = bottom + tall / 2
        figure.text(left + 0.08 * inch_x, at, panel["title"], weight="bold", size=13, va="center", color=INK)
        return
    card = FancyBboxPatch(
        (left + 0.05 * inch_x, bottom + 0.05 * inch_y),
        width - 0.1 * inch_x,
        tall - 0.1 * inch_y,
        boxstyle="square,pad=0",
        fc="white",
        ec="#d5d9e0",
        lw=0.8,
        transform=figure.transFigure,
        figure=figure,
        zorder=-1,
    )
    figure.add_artist(card)
    title = left + 0.16 * inch_x, bottom + tall - 0.24 * inch_y
    figure.text(*title, panel["title"], weight="bold", size=9.5, va="center", color=INK)
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    if panel["type"] == "stat":
        where = left + 0.16 * inch_x, bottom, width - 0.3 * inch_x, tall - 0.42 * inch_y
        _stat(figure.add_axes(where), panel, lines, unit)
        return
    named = [line for line in lines if any(value > 0 for _, value in line.points)] or lines
    rows = min(ROWS_OF_LEGEND, _rows(named, width * figure.get_figwidth()))
    below = (0.42 + 0.17 * rows) * inch_y
    axes = figure.add_axes(
        (left + 0.62 * inch_x, bottom + below, width - 0.82 * inch_x, tall - below - 0.46 * inch_y)
    )
    _graph(axes, panel, lines, palette)
    _dress(axes, unit, frame)
    if named:
        handles = {handle.get_label(): handle for handle in axes.get_legend_handles_labels()[0]}
        columns = _columns(named, width * figure.get_figwidth())
        kept = [one.legend for one in named if one.legend in handles][: rows * columns]
        figure.legend(
            [handles[one] for one in kept],
            kept,
            loc="lower left",
            bbox_to_anchor=(left + 0.1 * inch_x, bottom + 0.05 * inch_y),
            ncols=columns,
            fontsize=7,
            frameon=False,
            handlelength=1.4,
            columnspacing=1.2,
            labelspacing=0.25,
            labelcolor=INK,
        )
    else:
        why = textwrap.fill(panel["description"], 44)
        text = f"No data\n{why}" if why else "No data"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="grey", size=8)


def _columns(lines: list[Series], inches: float) -> int:
    longest = max((len(line.legend) for line in lines), default=1)
    return max(1, int(inches / (0.38 + 0.062 * longest)))


def _rows(lines: list[Series], inches: float) -> int:
    return math.ceil(len(lines) / _columns(lines, inches))


def _graph(axes: Axes, panel: dict[str, Any], lines: list[Series], palette: Palette) -> None:
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    bars = custom.get("drawStyle") == "bars"
    below: dict[datetime, float] = {}
    for line, (colour, dashes) in zip(lines, palette.lines([one.legend for one in lines]), strict=True):
        at = [moment for moment, _ in line.points]
        under = [below.get(moment, 0.0) if stacked else 0.0 for moment in at]
        values = [value for _, value in line.points]
        top = [low + value for low, value in zip(under, values, strict=True)]
        if bars:
            width = timedelta(seconds=STEP_S)
            axes.bar(at, values, width, under, label=line.legend, color=colour, lw=0)  # type: ignore[arg-type]
        else:
            axes.plot(at, top, label=line.legend, lw=1.3, color=colour, ls=dashes)
            if stacked:
                axes.fill_between(at, under, top, alpha=0.25, color=colour, lw=0)  # type: ignore[arg-type]
        if stacked:
            below |= {moment: high for moment, high in zip(at, top, strict=True) if not math.isnan(high)}


def _dress(axes: Axes, unit: str, frame: Frame) -> None:
    axes.set_xlim(datetime.fromtimestamp(frame.span[0], UTC), datetime.fromtimestamp(frame.span[1], UTC))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
    if axes.get_ylim()[1] < 1 and unit == "short":
        axes.set_ylim(top=1)
    axes.tick_params(labelsize=7, colors="#5b6270", length=0)
    axes.xaxis.set_major_locator(AutoDateLocator(minticks=4, maxticks=8))
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=unit == "short"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.grid(alpha=0.35, lw=0.6)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def _stat(axes: Axes, panel: dict[str, Any], lines: list[Series], unit: str) -> None:
    """Draw what a panel of single values shows now: the names, where only those matter, or the values beside them."""
    axes.axis("off")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    fresh = max((line.points[-1][0] for line in lines), default=None)
    last = [line for line in lines if line.points[-1][0] == fresh]
    if not last:
        axes.text(0, 0.6, "none", size=13, color=GOOD, va="center")
        return
    columns = 1 if len(last) <= MOST_BIG else 3
    size = 15 if len(last) == 1 else 9
    rows = math.ceil(len(last) / columns)
    for number, line in enumerate(sorted(last, key=lambda one: one.legend)):
        x, y = number // rows / columns, 1 - (number % rows + 0.5) / max(rows, 2)
        value = shown(line.points[-1][1], unit)
        text = line.legend if panel["options"]["textMode"] == "name" else f"{line.legend}  {value}"
        axes.text(x, y, text, size=size, va="center", color=BAD if value == "Off" else GOOD)


def main() -> int:
    """Draw, and return the exit code."""
    parser = argparse.ArgumentParser(description="Draw the dashboard's panels from a Prometheus.")
    parser.add_argument("prometheus")
    parser.add_argument("out", type=Path)
    parser.add_argument("minutes", type=float, nargs="?", default=10.0)
    parser.add_argument(
        "--until", type=float, metavar="TIME", help="Unix time of the right edge (default: now)."
    )
    parser.add_argument("--may-be-empty", action="append", default=[], metavar="TITLE")
    args = parser.parse_args()
    now = args.until or time.time()
    panels = DASHBOARD["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    frame = Frame(height, (now - args.minutes * 60, now))
    figure = plt.figure(figsize=(15, height * ROW_INCHES), facecolor="#f4f5f8")
    hosts = ask(args.prometheus, "query", query="group by (instance) (mobikectl_build_info)", time=now)
    palette = Palette(one["metric"]["instance"] for one in hosts)
    empty = []
    for panel in panels:
        targets = panel.get("targets", ())
        lines = [line for one in targets for line in series_of(args.prometheus, one, frame.span)]
        if not lines and panel["type"] != "row":
            empty.append(panel["title"])
        draw(figure, panel, lines, frame, palette)
    figure.savefig(args.out, dpi=84)
    sys.stdout.write(f"{args.out}; without data: {', '.join(empty) or 'none'}\n")
    return 1 if set(empty) - set(args.may_be_empty) else 0


if __name__ == "__main__":
    sys.exit(main())
