"""``mobikectl simulate``: the balance policy on a synthetic cluster, beside what products do today."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mobikectl.cli.output import Command, json_option, print_json, print_table
from mobikectl.errors import ConfigError
from mobikectl.policy.cluster import Mechanism
from mobikectl.policy.cluster_settings import BalanceSettings
from mobikectl.sim.picture import FORMATS, picture
from mobikectl.sim.run import Outcome, run
from mobikectl.sim.strategies import LeastLoaded, Mobikectl, RoundRobin
from mobikectl.sim.workload import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.sim.strategies import Strategy

_DEFAULT = {field.name: field.default for field in fields(Scenario)}


def _option(flag: str, name: str, text: str) -> Callable[[Command], Command]:
    """Return the option of a scenario's field, with the field's type and default."""
    default = _DEFAULT[name]
    return click.option(flag, name, type=type(default), default=default, show_default=True, help=text)


@click.command()
@_option("--nodes", "nodes", "Gateways, up to 1,000.")
@_option("--sas", "sas", "IKE_SAs, up to 1,000,000.")
@_option("--seconds", "seconds", "Virtual seconds.")
@_option("--warmup", "warmup_s", "Seconds at the start that are not measured.")
@_option("--seed", "seed", "The same seed gives the same run.")
@_option("--utilisation", "utilisation", "The cluster's mean utilisation.")
@_option("--lifetime", "lifetime_s", "Mean lifetime of an IKE_SA in seconds.")
@_option("--rate-change", "rate_change_s", "Mean seconds between two changes of an IKE_SA's rate.")
@_option("--tail", "tail", "Pareto shape of the rates; smaller is heavier.")
@_option("--heaviest", "heaviest", "The fastest client, in units of a node's capacity.")
@_option("--failures", "failures", "Nodes that fail a quarter into the run.")
@_option("--failure-time", "failure_s", "Seconds until they are back.")
@_option("--drains", "drains", "Nodes that are drained half-way.")
@_option("--drain-timeout", "drain_timeout_s", "Seconds after which a drained node's rest is cut off.")
@_option("--switch-peers", "switch_share", "Share of peers that support 'R' (SWITCH_TO_IP_ADDRESS).")
@_option("--mobike-peers", "mobike_share", "Share of peers that support MOBIKE.")
@_option("--redirect-peers", "redirect_share", "Share of peers that support redirects.")
@_option("--nat", "nat_share", "Share of peers behind a NAT.")
@_option("--refusals", "refusal_share", "Share of peers that refuse every move.")
@_option("--plan-every", "plan_every_s", "Seconds between two plans.")
@_option("--overload-limit", "overload_limit", "Utilisation above which a node is overloaded.")
@click.option(
    "--allow-reconnect", is_flag=True, help="Let the policy interrupt peers that support nothing else."
)
@click.option(
    "--picture",
    "picture_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a picture (.svg or .png).",
)
@json_option
def simulate(
    as_json: bool, allow_reconnect: bool, picture_file: Path | None, **scenario_options: Any
) -> None:
    """Try the balance policy on a synthetic cluster in virtual time.

    Clients arrive (Poisson), leave, and send at heavy-tailed rates; nodes fail and are drained. The same
    clients are put through two baselines: redirecting new clients to the least loaded gateway, and round-robin.
    """
    form = picture_file.suffix.removeprefix(".") if picture_file else ""
    if picture_file and form not in FORMATS:
        raise ConfigError(f"{picture_file}: not a picture's name", hint="end it in .svg or .png")
    scenario = Scenario(**scenario_options)
    mechanisms = frozenset(Mechanism) if allow_reconnect else BalanceSettings().mechanisms
    settings = BalanceSettings(mechanisms=mechanisms, interval_s=float(scenario.plan_every_s))
    outcomes = _run_all(scenario, [Mobikectl(settings), LeastLoaded(), RoundRobin()])
    if picture_file:
        picture_file.write_bytes(picture(scenario, outcomes, form))
    if as_json:
        print_json({"scenario": scenario, "outcomes": [outcome.summary() for outcome in outcomes]})
    else:
        _report(scenario, outcomes)


def _run_all(scenario: Scenario, strategies: list[Strategy]) -> list[Outcome]:
    outcomes = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        for strategy in strategies:
            task = progress.add_task(strategy.name, total=scenario.seconds)
            outcomes.append(run(scenario, strategy, partial(_advance, progress, task)))
    return outcomes


def _advance(progress: Progress, task: TaskID, at: int) -> None:
    progress.update(task, completed=at)


def _report(scenario: Scenario, outcomes: list[Outcome]) -> None:
    percent = "{:.1%}".format
    rows: list[tuple[str, list[str]]] = []
    summaries: list[dict[str, Any]] = [outcome.summary() for outcome in outcomes]

    def row(label: str, key: str, show: Any = str) -> None:
        rows.append((label, [show(summary[key]) for summary in summaries]))

    row("peak utilisation", "peak_utilisation", percent)
    row("spread (max/mean), mean", "spread_mean", "{:.3f}".format)
    row("spread (max/mean), worst", "spread_max", "{:.3f}".format)
    row("above the best, worst after a plan", "above_best_after_plan_max", percent)
    row("above the best, 95th percentile", "above_best_p95", percent)
    row("above the best, worst second", "above_best_max", percent)
    row("seconds within 5 % of the best", "seconds_within_5_percent", percent)
    row("overload (node seconds)", "overload_seconds", "{:,}".format)
    row("IKE_SAs interrupted by the strategy", "interrupted", "{:,}".format)
    row("IKE_SAs lost to node failures", "lost_to_failures", "{:,}".format)
    for mechanism in Mechanism:
        counts = [f"{summary['moves'][mechanism.word]:,}" for summary in summaries]
        rows.append((f"IKE_SAs moved by {mechanism.word}", counts))
    print_table(
        ["", *(outcome.strategy for outcome in outcomes)],
        [(label, *values) for label, values in rows],
        title=(
            f"{scenario.nodes} nodes, {scenario.sas:,} IKE_SAs, {scenario.seconds} s "
            f"({scenario.warmup_s} s of warm-up), seed {scenario.seed}"
        ),
    )
