"""`mobikectl timeline`: draw what happened."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import click

from mobikectl.cli.cluster import open_cluster
from mobikectl.cli.common import Settings, settings_options
from mobikectl.cli.output import console
from mobikectl.errors import DecodeError, NotFoundError
from mobikectl.observe.scenario import timeline_of
from mobikectl.observe.timeline import Timeline, draw
from mobikectl.watch.course import Window, course_of

MAX_SIZE = 64 << 20


@click.command()
@settings_options
@click.argument("results", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--history", is_flag=True, help="Draw the journal of the cluster's store instead of scenarios.")
@click.option(
    "--since",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="With --history: no older moves.",
)
@click.option("--title", default="", metavar="TEXT", help="With --history: the picture's title.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("timeline.svg"),
    show_default=True,
    help="The picture's file.",
)
def timeline(
    settings: Settings, results: tuple[Path, ...], history: bool, since: float | None, title: str, out: Path
) -> None:
    """Draw scenarios' results (result.json files, or folders that hold them) as SVG, PNG or PDF.

    Which path was in use when, what caused it to change, what was decided and done, and which packets were lost.
    With --history what the cluster did: which node served which IKE_SA when, why it went to another, and where the
    journal tells that nobody served it. At most the last 500 moves are drawn; times are the nodes' own clocks.
    """
    if history == bool(results):
        raise click.UsageError("name results of scenarios, or give --history")
    drawn = (asyncio.run(_history(settings, since, title)),) if history else _scenarios(results)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(drawn, out)
    console.print(f"drawn: {out}", markup=False)


def _scenarios(results: tuple[Path, ...]) -> tuple[Timeline, ...]:
    files = [file for given in results for file in _files(given)]
    if not files:
        raise DecodeError(
            f"no result.json in {', '.join(map(str, results))}", hint="run `mobikectl lab run` first"
        )
    return tuple(timeline_of(_read(file)) for file in files)


async def _history(settings: Settings, since: float | None, title: str) -> Timeline:
    """Raise NotFoundError: nothing was moved."""
    async with open_cluster(settings) as cluster:
        journal = await cluster.store.journal()
        rows = (await cluster.store.sas()).by_node()
        name = cluster.settings.store.cluster
    now_at = {row.peer_id: node for node, told in rows.items() for row in told}
    begin = None if since is None else time.time() - since
    drawn = course_of(
        [move.value for move in journal.moves], now_at, title=title or f"cluster {name}", window=Window(begin)
    )
    if drawn is None:
        raise NotFoundError(
            "the journal tells of no move that was begun", hint="`mobikectl history` shows it"
        )
    return drawn


def _files(given: Path) -> list[Path]:
    return sorted(given.rglob("result.json")) if given.is_dir() else [given]


def _read(file: Path) -> dict[str, object]:
    if file.stat().st_size > MAX_SIZE:
        raise DecodeError(f"{file}: larger than {MAX_SIZE} bytes", hint="that is no scenario's result")
    try:
        document = json.loads(file.read_text())
    except ValueError as error:
        raise DecodeError(
            f"{file}: not JSON: {error}", hint="give a result.json of `mobikectl lab run`"
        ) from error
    if not isinstance(document, dict):
        raise DecodeError(f"{file}: expected a JSON object", hint="give a result.json of `mobikectl lab run`")
    return document
