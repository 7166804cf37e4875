"""`mobikectl pause`, `resume`, `weight`: what operators want of the whole cluster, or of a node for good."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from mobikectl.cli.cluster import (
    absent_option,
    asker,
    node_argument,
    note_option,
    open_cluster,
    require_node,
    warn,
)
from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.output import console, counted, json_option, print_json
from mobikectl.cli.wishes import want_paused
from mobikectl.cluster.caveats import caveats, signed
from mobikectl.cluster.records import FINAL

if TYPE_CHECKING:
    from mobikectl.cluster.records import NodeIntent
    from mobikectl.cluster.store import Store

OWN = "own"
"""As a weight: the one that the node was configured with."""
MOST_WEIGHT = 1000.0


@click.command()
@settings_options
@note_option
@json_option
@run_async
async def pause(settings: Settings, note: str, as_json: bool) -> None:
    """Let no further move be planned or begun, in the whole cluster, until `resume`.

    Moves that have begun are brought to their end. Drains stand and go on after `resume`.
    """
    async with open_cluster(settings) as cluster:
        before = await want_paused(cluster.store, True, note=note)
        under_way = await _under_way(cluster.store)
        state = await cluster.store.state()
    was = before.cluster.value
    if as_json:
        print_json({"paused": True, "was_paused": was.paused, "moves_under_way": under_way})
        return
    console.print(
        f"the cluster was paused already{signed(was)}; it still is" if was.paused else "the cluster is paused"
    )
    if under_way:
        console.print(
            f"{counted(under_way, 'move')} begun before, brought to the end: `mobikectl history --follow`"
        )
    warn(caveats(replace(state, cluster=before.cluster)) if not was.paused else [])


async def _under_way(store: Store) -> int:
    moves = [move.value for move in (await store.journal()).moves]
    return sum(1 for move in moves if move.state not in FINAL and len(move.steps) > 1)


@click.command()
@settings_options
@json_option
@run_async
async def resume(settings: Settings, as_json: bool) -> None:
    """Let moves be planned and begun again after `pause`."""
    async with open_cluster(settings) as cluster:
        before = await want_paused(cluster.store, False)
        state = await cluster.store.state()
    was = before.cluster.value
    if as_json:
        print_json({"paused": False, "was_paused": was.paused, "notes": caveats(state)})
        return
    console.print(f"the cluster goes on; it was paused{signed(was)}" if was.paused else "it was not paused")
    warn(caveats(state))


def _weight(_ctx: click.Context, _param: click.Parameter, value: str) -> float | None:
    """Given what was typed, return the weight; None: the node's own. Raise click.BadParameter."""
    if value == OWN:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if number == 0:
        raise click.BadParameter("to take a node out of use, drain it: `mobikectl drain NODE`")
    if not 0 < number <= MOST_WEIGHT:
        raise click.BadParameter(f"{value!r} is no number above 0 (up to {MOST_WEIGHT:g}), nor `{OWN}`")
    return number


@click.command()
@settings_options
@node_argument
@click.argument("weight", metavar="N", callback=_weight)
@absent_option
@json_option
@run_async
async def weight(settings: Settings, node: str, weight: float | None, absent: bool, as_json: bool) -> None:
    """Give NODE a share of the load relative to its capacity: 0.5 is to be half as full as the others.

    N is a number above 0, or `own` for what the node was configured with.
    """
    before: list[NodeIntent] = []

    def change(intent: NodeIntent) -> NodeIntent:
        before[:] = [intent]
        return replace(intent, weight=weight, by=asker())

    async with open_cluster(settings) as cluster:
        require_node(await cluster.store.state(), node, absent=absent)
        await cluster.store.change_intent(node, change)
        state = await cluster.store.state()
    member = state.members.get(node)
    own = member.value.weight if member else None
    was = before[0].weight
    if as_json:
        print_json({"node": node, "weight": weight, "was": was, "own": own, "notes": caveats(state)})
        return
    console.print(f"{node}: weight {_shown(weight, own)}, was {_shown(was, own)}", markup=False)
    warn(caveats(state))
    if member is None:
        warn([f"{node} is not there now; this holds as soon as it comes"])


def _shown(weight: float | None, own: float | None) -> str:
    if weight is not None:
        return f"{weight:g}"
    return "its own" if own is None else f"its own, {own:g}"
