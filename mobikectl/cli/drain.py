"""`mobikectl drain`, `undrain`: empty a node of the cluster, see it happen, and give it back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import click

from mobikectl.cli.cluster import (
    absent_option,
    node_argument,
    note_option,
    open_cluster,
    require_node,
    warn,
)
from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.drain_show import DrainDisplay, as_dict, show
from mobikectl.cli.drain_watch import DrainRecord, DrainWatch, End, Outlook, Summary, summarize
from mobikectl.cli.outlook import Advisor
from mobikectl.cli.output import console, counted, json_option, print_json
from mobikectl.cli.waiting import INTERRUPTED, InterruptedByOperatorError, patiently
from mobikectl.cli.wishes import want_drained, want_undrained
from mobikectl.cluster.caveats import caveats, signed
from mobikectl.errors import MoveError, StoreError
from mobikectl.policy.cluster import Mechanism

if TYPE_CHECKING:
    from mobikectl.cli.cluster import Cluster
    from mobikectl.cluster.records import NodeIntent, SaRow
    from mobikectl.cluster.state import ClusterState, Journal

WORDS = [mechanism.word for mechanism in Mechanism]


@click.command()
@settings_options
@node_argument
@click.option("--wait", is_flag=True, help="Stay until the node is empty, or nothing more will leave it.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="Wait no longer than this (implies --wait).",
)
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="At most N IKE_SAs in a second."
)
@click.option(
    "--mechanism",
    "mechanisms",
    type=click.Choice(WORDS),
    multiple=True,
    help="How; may be given several times. Otherwise what [cluster.policy] allows; reconnect interrupts the peer.",
)
@absent_option
@note_option
@json_option
@run_async
async def drain(
    settings: Settings,
    node: str,
    wait: bool,
    timeout: float | None,
    rate: float | None,
    mechanisms: tuple[str, ...],
    absent: bool,
    note: str,
    as_json: bool,
) -> None:
    """Have every IKE_SA of NODE moved to the other nodes, and none moved to it, until `undrain`.

    The node that leads the cluster plans the moves, NODE carries them out. With --wait each outcome is shown, and in
    the end who left by which mechanism, who stays and why. Exit code 0: the node is empty; 7: it is not. Ctrl-C and
    --timeout end the waiting, not the drain.
    """
    wanted = frozenset(Mechanism[word.upper()] for word in mechanisms)
    async with open_cluster(settings) as cluster:
        require_node(await cluster.store.state(), node, absent=absent)
        journal = await cluster.store.journal()  # read first: no move of this drain is missed
        was = await want_drained(cluster.store, node, mechanisms=wanted, rate=rate, note=note)
        rows = (await cluster.store.sas()).by_node().get(node, ())
        if wait or timeout is not None:
            summary = await _wait(cluster, DrainRecord.begin(node, rows, journal), journal, timeout, as_json)
            _finish(summary, as_json=as_json)
        else:
            state = await cluster.store.state()
            _tell(state, node, was, rows, await _outlook(cluster, node), as_json=as_json)


async def _outlook(cluster: Cluster, node: str) -> Outlook:
    return await Advisor(cluster).outlook(node)


def _tell(
    state: ClusterState,
    node: str,
    was: NodeIntent,
    rows: tuple[SaRow, ...],
    outlook: Outlook,
    *,
    as_json: bool,
) -> None:
    """Say what was ordered, and what is in its way."""
    notes = caveats(state)
    if node not in state.members:
        notes.append(f"{node} is not there now; it is drained as soon as it comes")
    elif rows and not outlook.ahead:
        notes += outlook.notes or ["nothing can leave it now: `mobikectl plan` says more"]
    if as_json:
        print_json({"node": node, "drained": True, "was": was.drained, "ike_sas": len(rows), "notes": notes})
        return
    head = "was drained already" + signed(was) if was.drained else "is drained"
    console.print(f"{node} {head}: {counted(len(rows))} to leave it", markup=False)
    console.print(
        f"follow it with `mobikectl drain {node} --wait`; `mobikectl undrain {node}` ends it", markup=False
    )
    warn(notes)


async def _wait(
    cluster: Cluster, record: DrainRecord, journal: Journal, timeout: float | None, as_json: bool
) -> Summary:
    advisor = Advisor(cluster)
    with DrainDisplay(record.node, quiet=as_json) as display:
        watch = DrainWatch(cluster.store, record, display, lambda: advisor.outlook(record.node))
        try:
            end = await patiently(watch.run(journal), timeout)
        except TimeoutError:
            end = End.TIMEOUT
        except InterruptedByOperatorError:
            end = End.INTERRUPTED
    return await _sum_up(cluster, advisor, record, end)


async def _sum_up(cluster: Cluster, advisor: Advisor, record: DrainRecord, end: End) -> Summary:
    """Look once more, and say what became of the drain."""
    try:
        if end is End.EMPTY:
            return summarize(record, end, (), {}, ())
        if end is End.AWAY:
            return summarize(record, end, None, {}, ())
        left = record.left()
        rows = [
            row for row in (await cluster.store.sas()).by_node().get(record.node, ()) if row.key not in left
        ]
        outlook = await advisor.outlook(record.node)
        return summarize(record, end, rows, await advisor.why([row.key for row in rows]), outlook.notes)
    except StoreError as error:
        return summarize(record, end, None, {}, (f"the store: {error.message}",))


def _finish(summary: Summary, *, as_json: bool) -> None:
    """Show how it ended, and end with the exit code that says so."""
    if as_json:
        print_json(as_dict(summary))
    else:
        show(summary)
    if summary.end is End.INTERRUPTED:
        raise click.exceptions.Exit(INTERRUPTED)
    if summary.end is not End.EMPTY:
        _fail(summary, as_json=as_json)


def _fail(summary: Summary, *, as_json: bool) -> NoReturn:
    if as_json:
        sys.exit(MoveError.exit_code)
    node = summary.node
    if summary.end is End.UNDRAINED:
        raise MoveError(
            f"{node} is no longer drained: somebody ended the drain", hint="`mobikectl nodes` shows it"
        )
    hint = f"it stays drained; `mobikectl drain {node} --wait` waits again, `mobikectl undrain {node}` gives it back"
    if summary.stays is None:
        raise MoveError(f"{node} does not tell what it serves", hint=hint)
    raise MoveError(f"{node} is not empty: {counted(len(summary.stays))} still there", hint=hint)


@click.command()
@settings_options
@node_argument
@json_option
@run_async
async def undrain(settings: Settings, node: str, as_json: bool) -> None:
    """Let NODE take IKE_SAs again. What is under way is brought to its end; nothing comes back at once."""
    async with open_cluster(settings) as cluster:
        require_node(await cluster.store.state(), node)
        was = await want_undrained(cluster.store, node)
        state = await cluster.store.state()
    notes = caveats(state)
    report = state.reports.get(node)
    if report is not None and report.value.maintenance:
        notes.append(
            f"{node} is emptied all the same: it says `maintenance` itself (its maintenance_file is there)"
        )
    if node not in state.members:
        notes.append(f"{node} is not there now")
    if as_json:
        print_json({"node": node, "drained": False, "was": was.drained, "notes": notes})
        return
    again = f"{node} takes IKE_SAs again; it was drained{signed(was)}"
    console.print(again if was.drained else f"{node} was not drained", markup=False)
    warn(notes)
