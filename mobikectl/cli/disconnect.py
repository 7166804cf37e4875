"""`mobikectl disconnect`: a planned silence, announced to the gateways."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mobikectl.bridge.planned import Outcome
from mobikectl.bridge.planned import disconnect as announce
from mobikectl.bridge.planned import end as announce_end
from mobikectl.charon.rmobike import DEFAULT_SOCKET, Rmobike
from mobikectl.cli.charon import charon_session
from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.output import coloured, json_option, print_json, print_table
from mobikectl.errors import CharonRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.bridge.planned import Planned
    from mobikectl.model import IkeSa

_MEANING = {
    Outcome.KEPT: "the gateway keeps it",
    Outcome.REFUSED: "the gateway says no",
    Outcome.NOT_UNDERSTOOD: "no bridge at the gateway: it was not understood",
    Outcome.NO_ANSWER: "no answer",
    Outcome.GONE: "the IKE_SA is gone",
    Outcome.BACK: "the gateway knows that the silence is over",
}


@click.command()
@settings_options
@click.option("--for", "seconds", type=click.IntRange(1, 2**32 - 1), metavar="SECONDS", help="How long.")
@click.option("--end", is_flag=True, help="The silence is over: tell the gateways.")
@click.option("--sa", type=int, metavar="ID", help="The IKE_SA's unique id. Default: all that we initiated.")
@click.option("--peer", metavar="ID", help="Every IKE_SA of this peer identity, peer address or connection.")
@click.option("--timeout", type=click.FloatRange(0.1, 300), default=10.0, show_default=True, help="Seconds.")
@click.option("--plugin", default=str(DEFAULT_SOCKET), show_default=True, help="The plugin's socket.")
@json_option
@run_async
async def disconnect(
    settings: Settings,
    seconds: int | None,
    end: bool,
    sa: int | None,
    peer: str | None,
    timeout: float,
    plugin: str,
    as_json: bool,
) -> None:
    """Tell the gateways that this host will be silent for a while, so that they keep its IKE_SAs.

    For a laptop that sleeps, or a planned break of the network. Each gateway keeps the IKE_SA for so long, or says
    no: exit code 4 unless all keep it. Nothing is closed here in either case. Needs the plugin on both sides, and
    `mobikectl bridge` on the gateway.
    """
    if (seconds is None) != end:
        raise click.UsageError("give either --for SECONDS or --end")
    if sa is not None and peer is not None:
        raise click.UsageError("give either --sa or --peer")
    only = chosen(sa, peer)
    async with charon_session(settings) as charon, Rmobike(plugin) as control:
        if seconds is None:
            found = await announce_end(charon, control, only=only, timeout_s=timeout)
        else:
            found = await announce(charon, control, seconds, only=only, timeout_s=timeout)
    _show(found, as_json=as_json)


def chosen(sa: int | None, peer: str | None) -> Callable[[IkeSa], bool]:
    """Given what the operator named, return which IKE_SAs are meant."""

    def is_meant(one: IkeSa) -> bool:
        if sa is not None:
            return one.uniqueid == sa
        if peer is not None:
            return peer in {one.remote_id, str(one.path.remote), one.name}
        return one.original_initiator

    return is_meant


def _show(found: list[Planned], *, as_json: bool) -> None:
    bad = [one for one in found if not one.good]
    if as_json:
        print_json(found)
        if bad:
            sys.exit(CharonRefusedError.exit_code)
        return
    print_table(
        ["IKE_SA", "connection", "peer", "outcome", "meaning"],
        [
            [
                one.ike_sa,
                one.connection,
                one.peer,
                coloured(one.outcome.value, "green" if one.good else "red"),
                _MEANING[one.outcome] + _limit(one),
            ]
            for one in found
        ],
    )
    if bad:
        raise CharonRefusedError(
            f"{len(bad)} of {len(found)} gateways did not agree",
            hint="their IKE_SAs are untouched; the gateway's timers decide how long it can keep one (docs/rmobike.md)",
        )


def _limit(one: Planned) -> str:
    return "" if one.most_s is None else f"; it would for up to {one.most_s} s"
