"""Alerts and dashboard speak of metrics that there are, and Prometheus understands them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mobikectl.observe.measures import MEASURES, Kind

PACKAGING = Path(__file__).parents[3] / "packaging"
RULES = PACKAGING / "prometheus"
ALERTS = (RULES / "alerts.yml").read_text()
DASHBOARD: dict[str, Any] = json.loads((PACKAGING / "grafana" / "dashboard.json").read_text())
PROMTOOL = shutil.which("promtool", path=f"{PACKAGING.parent / 'build' / 'tools'}:{os.environ['PATH']}")
SCRAPED = {"instance", "job", "le"}
"""Labels that Prometheus adds."""

KNOWN = {measure.name: measure for measure in MEASURES} | {
    f"{measure.name}_{part}": measure
    for measure in MEASURES
    if measure.kind is Kind.HISTOGRAM
    for part in ("bucket", "sum", "count")
}


def exprs_of_alerts() -> list[str]:
    """The expressions: what follows ``expr:``, up to the next key of the rule."""
    found = re.findall(r"^ +expr: (?:\|\n)?((?:.*\n)+?)(?= +(?:for|labels):)", ALERTS, re.MULTILINE)
    assert len(found) == ALERTS.count("- alert:")
    return [" ".join(one.split()) for one in found]


def exprs_of_dashboard() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


@pytest.mark.parametrize("expr", [*exprs_of_alerts(), *exprs_of_dashboard()])
def test_what_is_asked_for_is_measured_with_these_labels(expr: str) -> None:
    used = re.findall(r"\b(mobikectl_\w+)(?:\{([^}]*)\})?", expr)
    assert used or "up{" in expr
    for name, matchers in used:
        labels = set(re.findall(r"(\w+) *(?:=~|!=|!~|=)", matchers))
        assert labels <= {*KNOWN[name].labels} | SCRAPED, name
    grouped = {word for group in re.findall(r"by \(([^)]*)\)", expr) for word in group.split(", ")}
    measured = {label for name, _ in used for label in KNOWN[name].labels}
    assert grouped <= measured | SCRAPED


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    for word in ("summary:", "description:", "severity:"):
        assert ALERTS.count(word) == ALERTS.count("- alert:")


def test_the_dashboard_is_what_its_table_says() -> None:
    made = subprocess.run(
        [sys.executable, PACKAGING / "grafana" / "make_dashboard.py"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert json.loads(made.stdout) == DASHBOARD, "run packaging/grafana/make_dashboard.py"


def test_no_two_panels_of_the_dashboard_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


REQUIRED = {
    "timeseries": {"legend", "tooltip"},
    "stat": {
        *("colorMode", "graphMode", "justifyMode", "orientation", "percentChangeColorMode", "reduceOptions"),
        *("showPercentChange", "textMode", "wideLayout"),
    },
}
"""What Grafana's JSON schemas (12) require among the options of a panel, by its type."""


@pytest.mark.parametrize("panel", [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"])
def test_every_panel_has_the_options_that_grafanas_schema_requires(panel: dict[str, Any]) -> None:
    assert set(panel["options"]) == REQUIRED[panel["type"]]


def promtool(*args: str | Path) -> None:
    if PROMTOOL is None:
        pytest.skip("needs promtool: make promtool")
    done = subprocess.run([PROMTOOL, *args], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_alerts_and_they_fire_when_they_should() -> None:
    promtool("check", "rules", RULES / "alerts.yml")
    promtool("test", "rules", RULES / "alerts_test.yml")


def test_prometheus_understands_what_the_dashboard_asks(tmp_path: Path) -> None:
    rules = [
        {
            "record": f"panel:{number}",
            "expr": expr.replace("$__rate_interval", "5m").replace("$instance", ".*"),
        }
        for number, expr in enumerate(exprs_of_dashboard())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)
