"""`mobikectl plan`, `apply`: what would be moved now and why; and letting it be done."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from mobikectl.cli.apply_watch import Applied, ApplyWatch
from mobikectl.cli.cluster import asker, change_cluster, open_cluster, warn
from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.journal import COLOUR, as_dict, outcome
from mobikectl.cli.outlook import Advisor
from mobikectl.cli.output import console, counted, human_seconds, json_option, print_json, print_table
from mobikectl.cli.waiting import INTERRUPTED, InterruptedByOperatorError, patiently
from mobikectl.cluster.caveats import caveats
from mobikectl.cluster.decisions import URGENT, plan_for
from mobikectl.cluster.node_settings import Balance
from mobikectl.cluster.records import MoveState
from mobikectl.errors import ConfigError, MoveError

if TYPE_CHECKING:
    from mobikectl.cli.cluster import Cluster
    from mobikectl.cluster.reading import Reading
    from mobikectl.cluster.records import MoveRecord
    from mobikectl.policy.cluster import Plan, PlannedMove

MOST_SHOWN = 100
"""Moves that are shown; JSON has them all."""


@click.command()
@settings_options
@json_option
@run_async
async def plan(settings: Settings, as_json: bool) -> None:
    """Say what would be moved now, in order, how and why, and what would not and why. Changes nothing.

    It is the leader's code on what the leader reads, with the [cluster.policy] of this host. What is on its way already
    is not in it. Of a paused cluster it says what would be done after `resume`.
    """
    async with open_cluster(settings) as cluster:
        reading = await Advisor(cluster).read()
    reading = replace(reading, view=replace(reading.view, paused=False))
    found = plan_for(reading, cluster.settings.policy)
    balance = cluster.settings.balance
    if as_json:
        print_json(_as_dict(found, reading, balance))
        return
    _show(found, reading)
    _say_who_acts(found, reading, balance)


def _as_dict(found: Plan, reading: Reading, balance: Balance) -> dict[str, Any]:
    leader = reading.state.leader
    return {
        "ike_sas": found.sa_count,
        "by_mechanism": dict(_count(found, lambda move: move.mechanism.word)),
        "by_reason": dict(_count(found, lambda move: move.reason.value)),
        "moves": [
            {
                "sas": list(move.sas),
                "source": move.source,
                "source_address": str(move.source_address),
                "target": move.target,
                "target_address": str(move.target_address),
                "mechanism": move.mechanism.word,
                "reason": move.reason.value,
                "needs_apply": balance is Balance.MANUAL and move.reason not in URGENT,
                "effect": asdict(move.effect),
                "why": move.explain(),
            }
            for move in found.moves
        ],
        "next_in_s": None if found.next_deadline is None else max(found.next_deadline - reading.at, 0.0),
        "under_way": [as_dict(move.value) for move in reading.pending],
        "balance": balance.value,
        "leader": leader.node if leader else None,
        "paused": reading.state.cluster.value.paused,
        "notes": [*found.notes, *reading.notes, *caveats(reading.state)],
    }


def _count(found: Plan, key: Any) -> list[tuple[str, int]]:
    """Given a plan and what to count by, return how many IKE_SAs each has, the most first."""
    counts: Counter[str] = Counter()
    for move in found.moves:
        counts[key(move)] += len(move.sas)
    return counts.most_common()


def _show(found: Plan, reading: Reading) -> None:
    if found.moves:
        how = ", ".join(
            f"{count} by {word}" for word, count in _count(found, lambda move: move.mechanism.word)
        )
        why = ", ".join(f"{count} {word}" for word, count in _count(found, lambda move: move.reason.value))
        console.print(f"{counted(found.sa_count)} would be moved now: {how} ({why})", style="bold")
        print_table(
            ["IKE_SA", "from", "to", "mechanism", "why", "source's use", "target's use"],
            [_row(move) for move in found.moves[:MOST_SHOWN]],
        )
        if len(found.moves) > MOST_SHOWN:
            console.print(f"and {len(found.moves) - MOST_SHOWN} more moves (--json lists all)")
    else:
        console.print("nothing would be moved now")
    for note in (*found.notes, *reading.notes):
        console.print(note, markup=False, soft_wrap=True)
    if reading.pending:
        count = sum(len(move.value.sas) for move in reading.pending)
        console.print(f"on their way already: {counted(count)}, see `mobikectl history --follow`")
    if found.next_deadline is not None:
        seconds = human_seconds(max(found.next_deadline - reading.at, 0.0))
        console.print(f"the next plan may say something else in {seconds}")


def _row(move: PlannedMove) -> list[object]:
    more = f" and {len(move.sas) - 1} more" if len(move.sas) > 1 else ""
    effect = move.effect
    return [
        f"{move.sas[0]}{more}",
        f"{move.source} {move.source_address}",
        f"{move.target} {move.target_address}",
        move.mechanism.word,
        move.reason.value,
        f"{effect.source_before:.1%} -> {effect.source_after:.1%}",
        f"{effect.target_before:.1%} -> {effect.target_after:.1%}",
    ]


def _say_who_acts(found: Plan, reading: Reading, balance: Balance) -> None:
    held = caveats(reading.state)
    warn(held)
    leader = reading.state.leader
    if held or leader is None or not found.moves:
        return
    waits = sum(len(move.sas) for move in found.moves if move.reason not in URGENT)
    if balance is Balance.MANUAL and waits:
        rest = found.sa_count - waits
        also = f"; the other {rest} are carried out by {leader.node} in any case" if rest else ""
        console.print(f"`mobikectl apply` has {waits} of them carried out{also}", markup=False)
    else:
        console.print(f"{leader.node} leads and has it carried out by itself", markup=False)


@click.command()
@settings_options
@click.option(
    "--timeout",
    type=click.FloatRange(1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up waiting when nothing happened for so long.",
)
@json_option
@run_async
async def apply(settings: Settings, timeout: float, as_json: bool) -> None:
    """Have the plan of now carried out once, where the cluster has balance = "manual", and follow it to its end.

    Drains, impaired nodes and dead uplinks need no `apply`. Exit code 0: every move that was begun is verified, or
    there was nothing to move; 7: not so. Ctrl-C ends the watching, not the moves: `mobikectl pause` stops those.
    """
    async with open_cluster(settings) as cluster:
        reading = await Advisor(cluster).read()
        _refuse(cluster, reading)
        found = plan_for(reading, cluster.settings.policy)
        expected = sum(len(move.sas) for move in found.moves if move.reason not in URGENT)
        applied = Applied(expected)
        if expected:
            ended = await _order(cluster, applied, timeout, quiet=as_json)
        else:
            ended = "nothing-to-do"
    _finish(applied, ended, found, as_json=as_json)


def _refuse(cluster: Cluster, reading: Reading) -> None:
    """Return when an order would be heard. Raise ConfigError or MoveError: it would not, and nothing was ordered."""
    if cluster.settings.balance is Balance.AUTO:
        raise ConfigError(
            "[cluster] balance is auto: the leader carries out every plan by itself",
            hint="see `mobikectl plan` and `mobikectl history --follow`; `mobikectl pause` stops it",
        )
    held = caveats(reading.state)
    if held:
        raise MoveError(
            f"nothing was ordered: {held[0]}", hint="an order that nobody hears is lost: mend that first"
        )


async def _order(cluster: Cluster, applied: Applied, timeout: float, *, quiet: bool) -> str:
    journal = await cluster.store.journal()  # before the order: no move of it is missed
    await change_cluster(
        cluster.store, lambda intent: replace(intent, apply=intent.apply + 1, by=asker(), note=intent.note)
    )
    if not quiet:
        console.print(f"ordered: {counted(applied.expected)} to be moved")
    policy = cluster.settings.policy
    watch = ApplyWatch(
        cluster.store,
        applied,
        quiet_s=policy.settle_s + 2 * policy.interval_s,
        patience_s=timeout,
        show=(lambda _: None) if quiet else _show_outcome,
    )
    try:
        await patiently(watch.run(journal))
    except InterruptedByOperatorError:
        return "interrupted"
    return "ended"


def _show_outcome(move: MoveRecord) -> None:
    if move.done:
        console.print(outcome(move), style=COLOUR.get(move.state, ""), markup=False, soft_wrap=True)


def _finish(applied: Applied, ended: str, found: Plan, *, as_json: bool) -> None:
    counts = {state.value: count for state in MoveState if (count := applied.count(state))}
    good = ended == "nothing-to-do" or (ended == "ended" and applied.good)
    if as_json:
        moves = [as_dict(move) for move in applied.moves.values()]
        body = {"ended": ended, "good": good, "expected": applied.expected, "ike_sas": counts, "moves": moves}
        print_json({**body, "notes": list(found.notes)})
    elif ended == "nothing-to-do":
        console.print("there is nothing to carry out")
        for note in found.notes:
            console.print(note, markup=False, soft_wrap=True)
    else:
        said = ", ".join(f"{count} {word}" for word, count in counts.items()) or "none was begun"
        console.print(f"of {counted(applied.expected)} to be moved: {said}", style="bold")
    if ended == "interrupted":
        warn(["the order stands and its moves go on: `mobikectl history --follow`, `mobikectl pause`"])
        raise click.exceptions.Exit(INTERRUPTED)
    if good:
        return
    if as_json:
        sys.exit(MoveError.exit_code)
    if not applied.moves:
        raise MoveError(
            "no move was begun in time",
            hint="`mobikectl plan` shows whether anything is still to be done, and `mobikectl nodes` who leads",
        )
    raise MoveError("not every move was verified", hint="`mobikectl history --failed` says why")
