"""`mobikectl sas`: charon's IKE_SAs, once or as they change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click
from rich.live import Live

from mobikectl.charon import commands
from mobikectl.charon.tracker import SaTracker, TrackerConfig
from mobikectl.cli.capabilities import can_do, peers_known
from mobikectl.cli.charon import charon_session
from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.output import (
    coloured,
    console,
    human_bytes,
    human_seconds,
    json_option,
    print_json,
    table,
)
from mobikectl.model import IkeState
from mobikectl.observe.plain import plain
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from mobikectl.cli.capabilities import Known
    from mobikectl.model import ChildSa, IkeSa

REDRAW_S = 0.25
"""A watched table is drawn anew at most so often."""


@click.command()
@settings_options
@click.option(
    "--watch", is_flag=True, help="Follow the SAs until interrupted (with --json: a line per change)."
)
@click.option("--peer", help="Only SAs with this peer identity, peer address or connection name.")
@json_option
@run_async
async def sas(settings: Settings, watch: bool, peer: str | None, as_json: bool) -> None:
    """List charon's IKE_SAs with their paths, peers and traffic.

    What a peer can do (MOBIKE, R: it may be asked to switch, redirect) is known where charon has the rmobike plugin.
    """
    if watch:
        await _watch(settings, peer, as_json)
        return
    async with charon_session(settings) as session:
        found = _chosen(await commands.list_sas(session), peer)
    known = await peers_known(settings)
    if as_json:
        print_json([{**plain(sa), "peer": known.get(sa.uniqueid)} for sa in found])
    elif found:
        console.print(_table(found, known))
    else:
        console.print("no IKE_SA" + (f" of {peer}" if peer else ""))


async def _watch(settings: Settings, peer: str | None, as_json: bool) -> None:
    async with charon_session(settings) as session, TaskGroup() as tasks:
        tracker = SaTracker(session, TrackerConfig(watch_log=False))
        following = tasks.create_task(tracker.run())
        try:
            if as_json:
                await _stream(tracker, peer)
            else:
                await _draw(tracker, peer)
        finally:
            following.cancel()


async def _stream(tracker: SaTracker, peer: str | None) -> None:
    with tracker.subscribe() as feed:
        async for event in feed:
            sa = getattr(event, "sa", None)
            if sa is None or _chosen([sa], peer):
                body = {"event": type(event).__name__, **plain(event)}
                click.echo(_line(body))


def _line(body: dict[str, Any]) -> str:
    import json

    return json.dumps(body, separators=(",", ":"))


async def _draw(tracker: SaTracker, peer: str | None) -> None:
    with tracker.subscribe() as feed, Live(console=console, auto_refresh=False) as live:
        live.update(_table(_chosen(tracker.sas.values(), peer)), refresh=True)
        async for _ in feed:
            await asyncio.sleep(REDRAW_S)
            live.update(_table(_chosen(tracker.sas.values(), peer)), refresh=True)


def _chosen(found: Iterable[IkeSa], peer: str | None) -> list[IkeSa]:
    wanted = [sa for sa in found if peer is None or peer in {sa.remote_id, str(sa.path.remote), sa.name}]
    return sorted(wanted, key=lambda sa: sa.uniqueid)


def _table(found: list[IkeSa], known: Known | None = None) -> Table:
    columns = ["id", "connection", "state", "role", "path", "NAT", "peer", "CHILD_SAs", "in", "out", "age"]
    if known:
        columns.insert(7, "can")
    return table(columns, [_row(sa, known) for sa in found])


def _row(sa: IkeSa, known: Known | None) -> list[object]:
    good = sa.state in {IkeState.ESTABLISHED, IkeState.REKEYING}
    nat = "+".join(word for word, is_there in (("here", sa.nat_local), ("peer", sa.nat_remote)) if is_there)
    counters = [child.counters for child in sa.children if child.counters is not None]
    can = [can_do(known.get(sa.uniqueid))] if known else []
    return [
        sa.uniqueid,
        sa.name,
        coloured(sa.state.value, "green" if good else "yellow"),
        "initiator" if sa.original_initiator else "responder",
        f"{sa.path.local} -> {sa.path.remote}",
        nat or "-",
        sa.remote_id,
        *can,
        ", ".join(_child(child) for child in sa.children) or "-",
        human_bytes(sum(c.bytes_in for c in counters)) if counters else "-",
        human_bytes(sum(c.bytes_out for c in counters)) if counters else "-",
        human_seconds(sa.established_s) if sa.established_s is not None else "-",
    ]


def _child(child: ChildSa) -> str:
    return f"{child.name} {child.state.value}" + (" in UDP" if child.encap else "")
