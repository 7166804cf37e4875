"""`mobikectl monitor`: one line per event, as it happens."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import click

from mobikectl.cli.common import Settings, run_async, settings_options, sidecar_runs
from mobikectl.cli.output import console, json_option, visible
from mobikectl.control import ControlClient
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

COLOURS = {
    "netlink": "cyan",
    "charon": "green",
    "probe": "blue",
    "decision": "magenta",
    "action": "yellow",
    "sidecar": "white",
}


@click.command()
@settings_options
@click.option(
    "--backlog", type=click.IntRange(0, 10_000), default=20, show_default=True, help="Past events first."
)
@json_option
@run_async
async def monitor(settings: Settings, backlog: int, as_json: bool) -> None:
    """Follow what happens: netlink, charon, probes, decisions, actions.

    With a running sidecar its events are shown; without one netlink and charon are watched, nothing is decided.
    """
    if sidecar_runs(settings):
        async with (
            ControlClient(settings.control) as client,
            contextlib.aclosing(client.events(backlog=backlog)) as events,
        ):
            async for event in events:
                _show(event, as_json)
        return
    click.echo("mobikectl: no sidecar runs here: only watching netlink and charon", err=True)
    async with contextlib.aclosing(_watching(settings)) as events:
        async for event in events:
            _show(event, as_json)


async def _watching(settings: Settings) -> AsyncGenerator[dict[str, Any], None]:
    from mobikectl.charon.tracker import SaTracker
    from mobikectl.cli.charon import charon_session
    from mobikectl.netlink import Watcher
    from mobikectl.observe.events import EventLog
    from mobikectl.sidecar.report import report_netlink, report_sa

    events = EventLog()

    async def netlink() -> None:
        async for change in watcher.changes():
            report_netlink(change, events)

    async def charon() -> None:
        with tracker.subscribe() as feed:
            async for event in feed:
                report_sa(event, events)

    async with (
        Watcher(window=settings.config.netlink.coalesce_s) as watcher,
        charon_session(settings) as session,
        TaskGroup() as tasks,
    ):
        tracker = SaTracker(session)
        works = [tasks.create_task(work) for work in (netlink(), charon(), tracker.run())]
        try:
            async with contextlib.aclosing(events.follow()) as following:
                async for event in following:
                    yield event.as_dict()
        finally:
            for work in works:
                work.cancel()


def _show(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(event, separators=(",", ":")))
        return
    clock = event["time"][11:23]
    source = event["source"]
    console.print(f"{clock} ", end="", style="dim")
    console.print(f"{source:<8} ", end="", style=COLOURS.get(source, ""))
    console.print(f"{event['name']:<18} ", end="", style="bold")
    console.print(visible(event["text"]), markup=False)
