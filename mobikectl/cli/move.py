"""`mobikectl move`: have IKE_SAs of the cluster go to another node, now."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from mobikectl.cli.cluster import asker, complete_node, note_option, open_cluster, require_node, warn
from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.history import follow_moves
from mobikectl.cli.journal import COLOUR, as_dict, line
from mobikectl.cli.output import console, counted, json_option, print_json
from mobikectl.cli.sa_names import chosen, served
from mobikectl.cli.waiting import INTERRUPTED, InterruptedByOperatorError, patiently
from mobikectl.cluster.caveats import caveats
from mobikectl.cluster.records import MoveState, Order
from mobikectl.errors import LostRaceError, MoveError
from mobikectl.policy.cluster import Mechanism

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobikectl.cli.cluster import Cluster
    from mobikectl.cli.sa_names import ServedSa
    from mobikectl.cluster.records import MoveRecord
    from mobikectl.cluster.store import Store

MOST = 100
"""IKE_SAs that one command moves; more is what `drain` is for."""
ANSWER_S = 15.0
"""The leader answers an order in its next round."""


@dataclass(slots=True)
class Ordered:
    """What becomes of the orders of one command."""

    orders: dict[str, Order] = field(default_factory=dict)
    """By name, as answered last."""
    moves: dict[int, MoveRecord] = field(default_factory=dict)

    @property
    def numbers(self) -> frozenset[int]:
        """The moves that were made of the orders."""
        return frozenset(order.move for order in self.orders.values() if order.move)

    @property
    def ended(self) -> bool:
        """Whether every move has ended."""
        return all(number in self.moves and self.moves[number].done for number in self.numbers)

    @property
    def refused(self) -> list[Order]:
        """Orders of which nothing comes."""
        return [order for order in self.orders.values() if not order.move]

    @property
    def good(self) -> bool:
        """Whether every IKE_SA is where it was ordered to."""
        verified = all(move.state is MoveState.VERIFIED for move in self.moves.values())
        return verified and self.ended and not self.refused


@click.command()
@settings_options
@click.option("--sa", metavar="ID", help="An IKE_SA: its key (NODE/PEER-ID#N), or a unique id of this node.")
@click.option("--peer-id", metavar="ID", help="All IKE_SAs of a peer's identity.")
@click.option("--to", "target", metavar="NODE", required=True, shell_complete=complete_node, help="Where to.")
@click.option(
    "--mechanism",
    type=click.Choice([each.word for each in Mechanism]),
    help="How; without it the best that its peer and both nodes can do.",
)
@click.option("--wait", is_flag=True, help="Follow it to its end, and tell each step.")
@click.option(
    "--timeout", type=click.FloatRange(1), default=60.0, show_default=True, metavar="SECONDS",
    help="Wait no longer than this.",
)  # fmt: skip
@note_option
@json_option
@run_async
async def move(
    settings: Settings,
    sa: str | None,
    peer_id: str | None,
    target: str,
    mechanism: str | None,
    wait: bool,
    timeout: float,
    note: str,
    as_json: bool,
) -> None:
    """Have IKE_SAs served by another NODE, now: carried over where both nodes can, else by a redirect.

    The leader makes a move of it, which the node that serves the IKE_SA carries out. Exit code 0: the leader took the
    order, with --wait: every move is verified; 7: not so. Ctrl-C ends the waiting, not the move.
    """
    if (sa is None) == (peer_id is None):
        raise click.UsageError("name --sa or --peer-id, one of both")
    wanted = next((each for each in Mechanism if each.word == mechanism), None)
    ordered = Ordered()
    async with open_cluster(settings) as cluster:
        found = await _found(cluster, sa, peer_id, target)
        orders = [
            Order(secrets.token_hex(8), one.row.key, target, wanted, by=asker(), note=note) for one in found
        ]
        ended = "answered"
        try:
            await patiently(_work(cluster.store, orders, ordered, wait=wait, quiet=as_json), timeout)
            ended = "ended" if wait else "ordered"
        except TimeoutError:
            ended = "timeout"
        except InterruptedByOperatorError:
            ended = "interrupted"
    _finish(ordered, ended, as_json=as_json, wait=wait)


async def _found(cluster: Cluster, sa: str | None, peer_id: str | None, target: str) -> list[ServedSa]:
    """Return what is meant. Raise NotFoundError, or MoveError: an order would not be heard."""
    state = await cluster.store.state()
    require_node(state, target)
    held = caveats(state)
    if held:
        raise MoveError(f"nothing was ordered: {held[0]}", hint="mend that first")
    everything = served(await cluster.store.sas())
    name = sa or peer_id or ""
    if peer_id is not None and any(one.row.peer_id == peer_id for one in everything):
        found = [one for one in everything if one.row.peer_id == peer_id and one.node != target]
        if not found:
            raise MoveError(f"{target} serves all IKE_SAs of {peer_id} already", hint="nothing to do")
    else:
        found = chosen(everything, name, home=cluster.settings.node)
    if len(found) > MOST:
        raise MoveError(f"{name} names {len(found)} IKE_SAs", hint="`mobikectl drain` moves many")
    return found


async def _work(store: Store, orders: Sequence[Order], ordered: Ordered, *, wait: bool, quiet: bool) -> None:
    journal = await store.journal()
    ordered.orders = {order.name: order for order in orders}
    revision = (await store.state()).revision
    try:
        for order in orders:
            await store.order(order)
        async with asyncio.timeout(ANSWER_S):
            await _answered(store, ordered, revision, quiet=quiet)
    except TimeoutError:
        pass
    finally:
        await _take_back(store, ordered)
    if not wait or not ordered.numbers:
        return
    for known in (await store.journal()).moves:
        _take(ordered, known.value, quiet=quiet)
    if ordered.ended:
        return
    async with aclosing(follow_moves(store, journal)) as moves:  # type: ignore[type-var]
        async for versioned in moves:
            _take(ordered, versioned.value, quiet=quiet)
            if ordered.ended:
                return


async def _answered(store: Store, ordered: Ordered, revision: int, *, quiet: bool) -> None:
    """Wait until the leader has answered every order."""
    async with aclosing(store.watch_state(after=revision)) as changes:
        async for _ in changes:
            for name, stored in (await store.state()).orders.items():
                if name in ordered.orders and stored.value.answered and not ordered.orders[name].answered:
                    ordered.orders[name] = stored.value
                    _say(stored.value, quiet=quiet)
            if all(order.answered for order in ordered.orders.values()):
                return


async def _take_back(store: Store, ordered: Ordered) -> None:
    """Remove the orders. One that was not answered yet is withdrawn, unless the leader is first."""
    left = set(ordered.orders)
    while left:
        orders = (await store.state()).orders
        for name in left.copy():
            stored = orders.get(name)
            if stored is not None:
                ordered.orders[name] = stored.value
                with contextlib.suppress(LostRaceError):
                    await store.end_order(stored)
                    left.discard(name)
            else:
                left.discard(name)


def _say(order: Order, *, quiet: bool) -> None:
    if quiet:
        return
    if order.move:
        console.print(f"{order.sa}: move {order.move} to {order.node} is planned", markup=False)
    else:
        console.print(f"{order.sa}: refused: {order.refused}", markup=False, style="yellow", soft_wrap=True)


def _take(ordered: Ordered, record: MoveRecord, *, quiet: bool) -> None:
    if record.number not in ordered.numbers:
        return
    before = ordered.moves.get(record.number)
    if before is not None and len(record.steps) < len(before.steps):
        return  # who follows from before the order hears again what was read meanwhile
    ordered.moves[record.number] = record
    if quiet:
        return
    for count in range(len(before.steps) if before else 1, len(record.steps)):
        shown = _upto(record, count + 1)
        console.print(line(shown), style=COLOUR.get(shown.state, ""), markup=False, soft_wrap=True)


def _upto(record: MoveRecord, count: int) -> MoveRecord:
    return replace(record, steps=record.steps[:count])


def _finish(ordered: Ordered, ended: str, *, as_json: bool, wait: bool) -> None:
    withdrawn = [order for order in ordered.refused if not order.refused]
    good = ordered.good if wait else not ordered.refused
    if as_json:
        print_json(_as_dict(ordered, ended, good=good))
    if ended == "interrupted":
        warn(["the moves go on: `mobikectl history --follow`"] if ordered.numbers else ["withdrawn"])
        raise click.exceptions.Exit(INTERRUPTED)
    if good:
        if wait and not as_json:
            console.print(f"{counted(len(ordered.moves))} moved", style="bold")
        return
    if as_json:
        sys.exit(MoveError.exit_code)
    if withdrawn:
        raise MoveError(
            f"the leader did not answer for {withdrawn[0].sa}: the order was withdrawn",
            hint="`mobikectl nodes` shows who leads",
        )
    if ended == "timeout":
        raise MoveError("not at its end in time; it goes on", hint="`mobikectl history --follow`")
    raise MoveError(
        "refused" if ordered.refused else "not every move was verified",
        hint="`mobikectl explain ID` says how it could leave; `mobikectl history --failed` what went wrong",
    )


def _as_dict(ordered: Ordered, ended: str, *, good: bool) -> dict[str, Any]:
    return {
        "ended": ended,
        "good": good,
        "orders": [
            {"sa": order.sa, "to": order.node, "move": order.move or None, "refused": order.refused}
            for order in ordered.orders.values()
        ],
        "moves": [as_dict(record) for record in ordered.moves.values()],
    }
