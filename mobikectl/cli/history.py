"""`mobikectl history`: the cluster's journal of moves, and each step as it happens."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from mobikectl.cli.cluster import complete_node, open_cluster, require_node, warn
from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.journal import COLOUR, as_dict, clock, line, state_cell, steps_line, what, where
from mobikectl.cli.output import console, human_seconds, json_option, print_json, print_table
from mobikectl.cluster.backend import Gap
from mobikectl.cluster.caveats import caveats
from mobikectl.cluster.records import Versioned
from mobikectl.cluster.store import MAX_TAIL
from mobikectl.errors import StoreUnreachableError
from mobikectl.taskgroup import TaskGroup
from mobikectl.watch.moves import took

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mobikectl.cluster.records import MoveRecord
    from mobikectl.cluster.state import Journal
    from mobikectl.cluster.store import Store

SIGN_OF_LIFE_S = 3.0
"""A follower asks the store so often whether it is still there: a watch alone waits without a word."""


@click.command()
@settings_options
@click.option(
    "--follow", is_flag=True, help="Go on with each step as it happens (with --json: a line per step)."
)
@click.option("--node", metavar="NODE", shell_complete=complete_node, help="Only moves from or to this node.")
@click.option("--sa", metavar="TEXT", help="Only moves of IKE_SAs whose key holds this.")
@click.option("--failed", is_flag=True, help="Only moves that did not end well.")
@click.option(
    "--last", type=click.IntRange(0, MAX_TAIL), default=50, show_default=True, help="Moves to look back."
)
@json_option
@run_async
async def history(
    settings: Settings,
    follow: bool,
    node: str | None,
    sa: str | None,
    failed: bool,
    last: int,
    as_json: bool,
) -> None:
    """Show the last moves of the cluster: what went from where to where, how, why, and how long each step took.

    Times are those of the node that took the step; a move is planned by one node and carried out by another.
    """

    def wanted(move: MoveRecord) -> bool:
        return (
            (node is None or node in {move.source, move.target})
            and (sa is None or any(sa in key for key in move.sas))
            and not (failed and (not move.done or move.state.value == "verified"))
        )

    async with open_cluster(settings) as cluster:
        state = await cluster.store.state()
        journal = await cluster.store.journal()
        if node is not None:
            require_node(state, node, absent=_in_journal(journal, node))
        chosen = [move.value for move in journal.moves if wanted(move.value)]
        _show(chosen[-last:] if last else [], journal, follow=follow, as_json=as_json)
        if follow:
            warn([] if as_json else caveats(state))
            await _follow(cluster.store, journal, wanted, as_json=as_json)


def _in_journal(journal: Journal, node: str) -> bool:
    """Whether the journal knows a node, also one that is gone for good."""
    return any(node in {move.value.source, move.value.target} for move in journal.moves)


def _show(moves: list[MoveRecord], journal: Journal, *, follow: bool, as_json: bool) -> None:
    if as_json and follow:
        for move in moves:
            click.echo(_json_line(move))
    elif as_json:
        print_json([as_dict(move) for move in moves])
    elif follow:
        for move in moves:
            _print_line(move)
    else:
        print_table(
            ["#", "planned", "IKE_SA", "from and to", "mechanism", "why", "state", "took", "steps"],
            [_row(move) for move in moves],
            empty="no moves",
        )
    warn(f"a move of the journal cannot be read: {error}" for error in journal.broken)


def _row(move: MoveRecord) -> list[object]:
    seconds = took(move)
    return [
        move.number,
        clock(move.steps[0].at),
        what(move),
        where(move),
        move.mechanism.word,
        move.reason.value,
        state_cell(move),
        "-" if seconds is None else human_seconds(seconds),
        steps_line(move),
    ]


def _json_line(move: MoveRecord) -> str:
    return json.dumps(as_dict(move), separators=(",", ":"))


def _print_line(move: MoveRecord) -> None:
    console.print(line(move), style=COLOUR.get(move.state, ""), markup=False, soft_wrap=True)


async def _follow(
    store: Store, journal: Journal, wanted: Callable[[MoveRecord], bool], *, as_json: bool
) -> None:
    async with TaskGroup() as tasks:
        tasks.create_task(_signs_of_life(store))
        async for move in follow_moves(store, journal):
            if wanted(move.value):
                if as_json:
                    click.echo(_json_line(move.value))
                else:
                    _print_line(move.value)


async def follow_moves(store: Store, journal: Journal) -> AsyncIterator[Versioned[MoveRecord]]:
    """Given the store and the journal as it was read, yield each move as it is appended or changed, for ever.

    After a gap the journal is read anew, and what changed meanwhile is yielded in its last state. Values that cannot
    be read are told on standard error.
    """
    seen = {move.value.number: move.revision for move in journal.moves}
    async with aclosing(store.follow(after=journal.revision)) as changes:
        async for change in changes:
            if isinstance(change, Gap):
                warn([f"changes were missed ({change.reason}); the journal is read anew"])
                anew = await store.journal()
                newer = [move for move in anew.moves if move.revision > seen.get(move.value.number, 0)]
            elif isinstance(change, Versioned):
                newer = [change] if change.revision > seen.get(change.value.number, 0) else []
            else:
                warn([f"a move of the journal cannot be read: {change}"])
                newer = []
            for move in newer:
                seen[move.value.number] = move.revision
                yield move


async def _signs_of_life(store: Store) -> None:
    """Say when the store goes away and when it is back; both once."""
    away = False
    while True:
        await asyncio.sleep(SIGN_OF_LIFE_S)
        try:
            await store.leader()
        except StoreUnreachableError as error:
            if not away:
                warn([f"the store is not reachable: {error.message}; waiting for it"])
            away = True
        else:
            if away:
                warn(["the store is back"])
            away = False
