"""`mobikectl lab`: laboratories of real charons on this machine, and scenarios that run in them."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from mobikectl.cli.chaos import chaos
from mobikectl.cli.output import coloured, json_option, print_json, print_table
from mobikectl.errors import LabError
from mobikectl.lab import record as records
from mobikectl.lab.engine import bring_up
from mobikectl.lab.fleets import STORES
from mobikectl.lab.instance import Lab, tear_down
from mobikectl.lab.processes import identify
from mobikectl.lab.requirements import kernel_has_esp, require_lab
from mobikectl.lab.scenario import load_scenario, scenario_names, with_store
from mobikectl.lab.sidecars import start_sidecar
from mobikectl.lab.store import CONFIGURATION
from mobikectl.lab.suite import Way, choose_esp, run_suite
from mobikectl.lab.topology import Role, Topology

if TYPE_CHECKING:
    from collections.abc import Sequence

errors = Console(stderr=True, highlight=False)
ESP = click.option(
    "--esp",
    type=click.Choice(["auto", "userland", "kernel"]),
    default="auto",
    show_default=True,
    help="Who does ESP: charon itself, or the kernel (in user-mode-linux when this kernel cannot).",
)


@click.group()
def lab() -> None:
    """Real charons in network namespaces on this machine."""


lab.add_command(chaos)


@lab.command("list")
@json_option
def list_scenarios(as_json: bool) -> None:
    """List the scenarios."""
    scenarios = [load_scenario(name) for name in scenario_names()]
    if as_json:
        print_json([{"name": s.name, "description": s.description} for s in scenarios])
        return
    print_table(["scenario", "what happens"], [[s.name, s.description] for s in scenarios])


STORE = click.option(
    "--store",
    type=click.Choice(STORES),
    help="Where a cluster keeps its state (default: the first that the scenario runs with).",
)


@lab.command()
@click.argument("scenario")
@click.option("--name", help="The lab's name (default: one is made up).")
@ESP
@click.option("--sidecar/--no-sidecar", default=None, help="Start sidecars (default: a cluster's are).")
@STORE
def up(scenario: str, name: str | None, esp: str, sidecar: bool | None, store: str | None) -> None:
    """Build a scenario's lab, bring its tunnels up and leave it running."""
    require_lab()
    loaded = load_scenario(with_store(scenario, store) if store else scenario)
    chosen, guest = choose_esp(esp)
    if guest:
        raise LabError(
            "this kernel has no ESP", hint="`lab run --esp kernel` boots one; here use --esp userland"
        )
    built = Lab.new(
        name or f"{loaded.lab_name}-{secrets.token_hex(2)}", loaded.name, loaded.topology, esp=chosen
    )
    with_sidecars = built.store is not None if sidecar is None else sidecar
    asyncio.run(_up(built, loaded.folder if with_sidecars else None))
    nodes = ", ".join(built.record.namespaces)
    click.echo(f"{built.record.name} is up with {nodes} ({chosen} ESP)")
    gateway = built.topology.by_role(Role.GATEWAY)[0]
    example = f"mobikectl nodes --config /run/{CONFIGURATION}" if built.store else "swanctl --list-sas"
    click.echo(f"try: mobikectl lab exec --lab {built.record.name} {gateway} -- {example}")


async def _up(built: Lab, folder: Path | None) -> None:
    """Bring a lab up; ``folder``: the scenario's, to start its sidecars too."""
    try:
        await built.up()
        await bring_up(built)
        if folder is not None:
            nodes = [node.name for node in built.topology.nodes.values() if node.sidecar]
            await asyncio.gather(*(start_sidecar(built, node, folder) for node in nodes))
    except BaseException:
        await built.down()
        raise


@lab.command()
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Every lab on this machine.")
def down(name: str | None, everything: bool) -> None:
    """End a lab and remove everything that it made, also after a crash."""
    require_lab()
    names = records.all_names() if everything else [name or _only_lab()]
    for each in names:
        tear_down(records.load(each))
        click.echo(f"{each} is gone")
    if not names:
        click.echo("there is no lab")


@lab.command()
@json_option
def status(as_json: bool) -> None:
    """Show the labs on this machine and what runs in them."""
    found = [_describe(records.load(name)) for name in records.all_names()]
    if as_json:
        print_json(found)
        return
    rows = [
        [
            entry["name"],
            entry["scenario"],
            entry["esp"],
            node["name"],
            node["namespace"],
            ", ".join(node["running"]),
        ]
        for entry in found
        for node in entry["nodes"]
    ]
    print_table(["lab", "scenario", "esp", "node", "namespace", "running"], rows, empty="there is no lab")


def _describe(record: records.Record) -> dict[str, Any]:
    running = [(node, what, who.pid) for node, what, who in record.processes() if identify(who.pid) == who]
    return {
        "name": record.name,
        "scenario": record.scenario,
        "esp": record.esp,
        "directory": str(record.directory),
        "nodes": [
            {
                "name": node,
                "namespace": namespace,
                "running": [f"{what} ({pid})" for where, what, pid in running if where == node],
            }
            for node, namespace in record.namespaces.items()
        ],
    }


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@click.option("--lab", "name", help="The lab (default: the only one).")
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str | None, node: str, command: Sequence[str]) -> None:
    """Run a command on a node of a lab: `mobikectl lab exec client -- ping 198.18.200.1`."""
    require_lab()
    record = records.load(name or _only_lab())
    running = Lab(record, Topology({}, (), ()))
    argv = running.command(node, command)
    os.execvpe(argv[0], argv, running.environment(node))  # noqa: S606 (the command is the user's own)


def _only_lab() -> str:
    names = records.all_names()
    if len(names) != 1:
        known = ", ".join(names) or "none"
        raise LabError(
            f"which lab? There are: {known}", hint="name one, or start one with `mobikectl lab up`"
        )
    return names[0]


@lab.command()
@click.argument("scenarios", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every scenario.")
@ESP
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/lab"),
    show_default=True,
    help="Folder of the results.",
)
@STORE
@click.option("--sidecar/--no-sidecar", default=True, help="Without: charon alone, to compare.")
@click.option("--plain", is_flag=True, hidden=True, help="Progress for the machine outside of the guest.")
@click.option("--patience", type=float, default=1.0, help="Stretch deadlines on a slow machine.")
@click.option(
    "--tries",
    type=click.IntRange(1, 10),
    default=1,
    show_default=True,
    help="Run a scenario that missed a limit or its end so often; the result tells.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="How many run at a time. Times are truest with one.",
)
@json_option
def run(
    scenarios: tuple[str, ...],
    everything: bool,
    esp: str,
    out: Path,
    store: str | None,
    sidecar: bool,
    plain: bool,
    patience: float,
    tries: int,
    jobs: int,
    as_json: bool,
) -> None:
    """Run scenarios and judge what was measured.

    Logs, captures and results are kept below --out. The exit code says whether every check was met.
    """
    require_lab()
    names = tuple(scenario_names(esp=choose_esp(esp)[0])) if everything else scenarios
    if store and not everything:
        names = tuple(with_store(name, store) for name in names)
    if not names:
        raise LabError("no scenario was named", hint="name some (`mobikectl lab list`), or use --all")
    chosen = [load_scenario(name) for name in names]
    way = Way(esp, out, sidecar=sidecar, patience=patience, tries=tries)
    progress = PlainProgress() if plain else ColouredProgress()
    documents = asyncio.run(run_suite(chosen, way, progress, jobs=jobs))
    if as_json:
        print_json(documents)
    elif not plain:
        _show(documents)
    if failed := [d for d in documents if not d["passed"]]:
        if plain:
            raise click.exceptions.Exit(LabError.exit_code)
        _explain(failed)
        raise LabError(
            f"{len(failed)} of {len(documents)} scenarios failed: {', '.join(d['scenario'] for d in failed)}",
            hint=f"logs and captures are in {out}",
        )


class PlainProgress:
    """Lines for a mobikectl outside of this guest or process."""

    def tell(self, scenario: str, line: str) -> None:
        """Print a line about a scenario."""
        click.echo(f"{scenario}\t{line}")

    def done(self, document: dict[str, Any]) -> None:
        """Say that a scenario's result is written."""
        click.echo(f"{document['scenario']}\tdone")


class ColouredProgress:
    """Lines for people."""

    def tell(self, scenario: str, line: str) -> None:
        """Print a line about a scenario."""
        errors.print(f"[dim]{scenario:24}[/dim] ", end="")
        errors.print(line, markup=False)

    def done(self, document: dict[str, Any]) -> None:
        """Print a scenario's result."""
        word = "[green]passed[/green]" if document["passed"] else "[red]failed[/red]"
        errors.print(f"{document['scenario']:24} {word} in {document['seconds']:.1f} s")


def _show(documents: Sequence[dict[str, Any]]) -> None:
    rows = [_row(document) for document in documents]
    kernel = "this kernel's own" if kernel_has_esp() else "user-mode-linux's"
    where = {"kernel": f"{kernel} ESP", "userland": "charon's userland ESP"}[documents[0]["esp"]]
    click.echo(f"Measured through the tunnels by a ping each 10 ms (200 ms with many clients), {where}.")
    click.echo("IKE: messages on the wire after the tunnel was up; INIT: IKE_SA_INIT among them.\n")
    print_table(["scenario", "result", "lost", "gap", "to new path", "IKE", "INIT"], rows)
    for document in documents:
        for title, messages in document.get("exchanges", {}).items():
            click.echo(f"\n{document['scenario']}: {title}")
            click.echo("".join(f"  {message}\n" for message in messages), nl=False)


def _row(document: dict[str, Any]) -> list[Any]:
    metrics = document["metrics"]

    def total(name: str) -> str:
        values = [v for k, v in metrics.items() if k == name or k.endswith(f".{name}")]
        return f"{sum(values):g}" if values else "-"

    gaps = [v for k, v in metrics.items() if k == "longest_gap_ms" or k.endswith(".longest_gap_ms")]
    times = [f"{v:.0f} ms" for k, v in metrics.items() if k.endswith("_ms") and _is_reaction(k)]
    return [
        document["scenario"],
        _outcome(document),
        f"{total('lost')} of {total('sent')}",
        f"{max(gaps):.0f} ms" if gaps else "-",
        ", ".join(times) or "-",
        total("ike_messages"),
        total("ike_sa_init"),
    ]


def _outcome(document: dict[str, Any]) -> Any:
    if not document["passed"]:
        return coloured("FAILED", "bold red")
    tries = document.get("tries", 1)
    return coloured("passed", "green") if tries == 1 else coloured(f"passed, try {tries}", "yellow")


def _is_reaction(metric: str) -> bool:
    """Whether a metric is one that a scenario's steps measured: a time from a cause to the new path."""
    general = ("gap_ms", "spacing_median_ms", "spacing_p99_ms", "rtt_median_ms", "interval_ms")
    return not metric.endswith(general)


def _explain(failed: Sequence[dict[str, Any]]) -> None:
    for document in failed:
        errors.print(f"[bold red]{document['scenario']}[/bold red]: logs in {document['logs']}")
        lines = [document["error"]] if document["error"] else []
        for check in document["checks"]:
            if not check["passed"]:
                why = f" ({check['why']})" if check["why"] else ""
                lines.append(
                    f"{check['metric']} {check['operator']} {check['limit']}: got {check['value']}{why}"
                )
        for line in lines:
            errors.print(f"  {line}", markup=False)
