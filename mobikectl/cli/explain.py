"""`mobikectl explain`: why an IKE_SA of the cluster is where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mobikectl.cli.cluster import open_cluster, warn
from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.journal import as_dict, outcome, steps_line
from mobikectl.cli.outlook import Advisor, under_way
from mobikectl.cli.output import console, json_option, print_json
from mobikectl.cli.sa_names import chosen, served
from mobikectl.cluster.caveats import caveats
from mobikectl.policy.cluster import Capability
from mobikectl.policy.explain import explain as explain_sa

if TYPE_CHECKING:
    from mobikectl.cli.sa_names import ServedSa
    from mobikectl.cluster.reading import Reading
    from mobikectl.cluster.records import MoveRecord
    from mobikectl.policy.cluster_settings import BalanceSettings

MOST = 10
"""IKE_SAs of one peer that are explained."""
LAST_MOVES = 5
CAN = {Capability.MOBIKE: "MOBIKE", Capability.SWITCH: "R", Capability.REDIRECT: "redirect"}


@click.command()
@settings_options
@click.argument("sa", metavar="SA")
@json_option
@run_async
async def explain(settings: Settings, sa: str, as_json: bool) -> None:
    """Say why SA is where it is: who serves it, what holds it, how it could leave, what is planned, what was done.

    SA is a key (NODE/PEER-ID#N), a peer's identity or outer address, or a unique id of this node.
    """
    async with open_cluster(settings) as cluster:
        reading = await Advisor(cluster).read()
        everything = served(reading.observed.sas) if reading.observed.sas is not None else []
        found = chosen(everything, sa, home=cluster.settings.node)
    shown = [(one, _moves(one, reading)) for one in found[:MOST]]
    reports = [(_report(one, moves, reading, cluster.settings.policy), moves) for one, moves in shown]
    if as_json:
        print_json([report for report, _ in reports])
        return
    for report, moves in reports:
        _show(report, moves)
    if len(found) > MOST:
        console.print(f"and {len(found) - MOST} more of {sa}", markup=False)
    warn(caveats(reading.state))


def _moves(one: ServedSa, reading: Reading) -> list[MoveRecord]:
    return [move.value for move in reading.journal.moves if one.row.key in move.value.sas][-LAST_MOVES:]


def _report(
    one: ServedSa, moves: list[MoveRecord], reading: Reading, policy: BalanceSettings
) -> dict[str, Any]:
    key, row = one.row.key, one.row
    on_its_way = under_way(reading).get(key)
    pins = [pin.value for name, pin in reading.state.pins.items() if name in {key, row.peer_id}]
    lines: tuple[str, ...] = ()
    if on_its_way is None and key in reading.view.sas.keys:
        lines = explain_sa(reading.view, policy, reading.at, key)
    elif on_its_way is None:
        lines = (f"served by {one.node}, which is not a member of the cluster now",)
    return {
        "sa": key,
        "node": one.node,
        "peer": row.peer_id,
        "peer_address": row.peer,
        "address": str(row.address),
        "behind_nat": row.behind_nat,
        "can": [word for bit, word in CAN.items() if row.capability & bit],
        "under_way": on_its_way,
        "pinned": [{"pin": pin.sa, "by": pin.by, "note": pin.note} for pin in pins],
        "why": list(lines),
        "moves": [as_dict(move) for move in moves],
    }


def _show(report: dict[str, Any], moves: list[MoveRecord]) -> None:
    console.print(report["sa"], style="bold", markup=False)
    can = " ".join(report["can"]) or "nothing that moves it without an interruption"
    nat = ", behind a NAT" if report["behind_nat"] else ""
    console.print(f"  peer {report['peer']} at {report['peer_address']}{nat}; it can: {can}", markup=False)
    if report["under_way"]:
        console.print(f"  {report['under_way']}", markup=False)
    for line in report["why"]:
        console.print(f"  {line}", markup=False, soft_wrap=True)
    for pin in report["pinned"]:
        said = ", ".join(part for part in (pin["by"] and f"by {pin['by']}", pin["note"]) if part)
        console.print(f"  the pin: {pin['pin']}" + (f" ({said})" if said else ""), markup=False)
    for move in moves:
        told = outcome(move) if move.done else f"#{move.number} {steps_line(move)}"
        console.print(f"  in the journal: {told}", markup=False, soft_wrap=True)
