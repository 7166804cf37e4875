"""`mobikectl paths`: each candidate path of each IKE_SA, and why it is or is not chosen."""

from __future__ import annotations

from typing import Any

import click

from mobikectl.cli.common import Settings, run_async, settings_options, sidecar_runs
from mobikectl.cli.output import (
    coloured,
    console,
    human_seconds,
    json_option,
    print_json,
    print_table,
)
from mobikectl.control import ControlClient
from mobikectl.observe.plain import plain
from mobikectl.sidecar.once import look_once
from mobikectl.watch.local import loss_of


@click.command()
@settings_options
@click.option("--sa", "uniqueid", type=int, help="Only this IKE_SA.")
@json_option
@run_async
async def paths(settings: Settings, uniqueid: int | None, as_json: bool) -> None:
    """Show candidate paths with rank, probe results and reasons.

    As the running sidecar sees them; without a sidecar each path is probed once now, and nothing is moved.
    """
    if sidecar_runs(settings):
        async with ControlClient(settings.control) as client:
            state = await client.state()
        found, names = state["paths"], {sa["uniqueid"]: sa["name"] for sa in state["sas"]}
    else:
        explanations, names = await look_once(settings.config)
        found = plain(explanations)
    found = [one for one in found if uniqueid is None or one["sa_uniqueid"] == uniqueid]
    if as_json:
        print_json(found)
        return
    if not found:
        console.print("no IKE_SA whose path is to be chosen here")
    for one in found:
        _show(one, names.get(one["sa_uniqueid"], "?"))


def _show(one: dict[str, Any], name: str) -> None:
    print_table(
        ["", "path", "link", "priority", "metric", "probes", "answer time", "loss", "why"],
        [_row(candidate, one) for candidate in one["candidates"]],
        title=f"{name}[{one['sa_uniqueid']}]: {one['verdict']}",
    )


def _row(candidate: dict[str, Any], one: dict[str, Any]) -> list[object]:
    path = candidate["path"]
    track = candidate["track"] or {}
    chosen = candidate["in_use"]
    mark = "*" if chosen else ">" if path == one["target"] else ""
    objections = "; ".join(objection["text"] for objection in candidate["objections"])
    state = track.get("state", "-")
    colours = {"up": "green", "down": "red", "failing": "yellow", "recovering": "yellow"}
    latency, loss = track.get("srtt_s"), loss_of(track.get("window") or [])
    return [
        mark,
        f"{path['local']} -> {path['remote']}",
        candidate["link"] or "-",
        -candidate["rank"]["priority"],
        candidate["rank"]["metric"],
        coloured(state, colours.get(state, "")),
        human_seconds(latency) if latency is not None else "-",
        f"{loss:.0%}" if loss is not None else "-",
        objections or candidate["note"] or ("in use" if chosen else ""),
    ]
