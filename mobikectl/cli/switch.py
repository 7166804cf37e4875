"""`mobikectl switch`: move an IKE_SA (or all of a peer) to another address of this host, now."""

from __future__ import annotations

import sys
from typing import Any

import click

from mobikectl.cli.common import Settings, run_async, settings_options
from mobikectl.cli.output import coloured, console, human_seconds, json_option, print_json, print_table
from mobikectl.control import ControlClient
from mobikectl.errors import MoveError

GRACE_S = 10.0
"""How much longer than the moves themselves the sidecar's answer is waited for."""


@click.command()
@settings_options
@click.option("--sa", type=int, metavar="ID", help="The IKE_SA's unique id.")
@click.option("--peer", metavar="ID", help="Every IKE_SA of this peer identity, peer address or connection.")
@click.option(
    "--to",
    required=True,
    metavar="ADDRESS",
    help="This host's address to serve it from (with redirect: the other gateway's), or `auto`.",
)
@click.option("--from", "origin", metavar="ADDRESS", help="Only IKE_SAs that use this address now.")
@click.option(
    "--mechanism",
    type=click.Choice(["auto", "notify", "implicit", "redirect"]),
    default="auto",
    show_default=True,
    help="How: ask the client (notify), an address list from there (implicit), or another gateway (redirect).",
)
@click.option("--timeout", type=click.FloatRange(0.1, 300), default=5.0, show_default=True, help="Seconds.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and whether there is a way.")
@json_option
@run_async
async def switch(
    settings: Settings,
    sa: int | None,
    peer: str | None,
    to: str,
    origin: str | None,
    mechanism: str,
    timeout: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Move IKE_SAs to another address of this host. The running sidecar does it and verifies it.

    On a client this is a MOBIKE update. On a gateway a client with the rmobike plugin is asked to switch (notify): one
    IKE_SA at a time, through NAT too. Any other gets an address list from the new address (implicit), which every SA
    of the same peer address follows, and which a NAT would drop. A redirect costs the client a new IKE_SA. What does
    not verify in time is undone: exit code 7. A client leaves it there until the path fails or `--to auto` gives it
    back to the path policy.
    """
    if (sa is None) == (peer is None):
        raise click.UsageError("give either --sa or --peer")
    request = {
        "sa": sa,
        "peer": peer,
        "to": to,
        "from": origin,
        "mechanism": mechanism,
        "timeout_s": timeout,
        "dry_run": dry_run,
    }
    async with ControlClient(settings.control) as client:
        answer = await client.switch(request, timeout=timeout + GRACE_S)
    if as_json:
        print_json(answer)
    elif dry_run:
        _show_plan(answer["dry_run"])
    elif "released" in answer:
        console.print(f"given back to the path policy: {', '.join(map(str, answer['released']))}")
    else:
        _show_moves(answer["moves"])
    bad = [move for move in answer.get("moves", ()) if move["state"] != "verified"]
    if bad and as_json:
        sys.exit(MoveError.exit_code)
    if bad:
        raise MoveError(
            f"{len(bad)} of {len(answer['moves'])} IKE_SAs are not where they were to go",
            hint="the reason is in the table; `mobikectl monitor` shows each step",
        )


def _show_plan(plan: list[dict[str, Any]]) -> None:
    print_table(
        ["IKE_SA", "connection", "now", "mechanism", "to", "next hop"],
        [
            [
                one["ike_sa"],
                one["connection"],
                one["before"],
                one["mechanism"],
                *_way(one),
            ]
            for one in plan
        ],
    )


def _way(one: dict[str, Any]) -> tuple[str, str]:
    route = one["route"]
    if route is None:
        return f"gateway {one['gateway']}", "-"
    return f"{route['path']['local']} -> {route['path']['remote']}", route["gateway"] or "on the link"


def _show_moves(moves: list[dict[str, Any]]) -> None:
    print_table(
        ["IKE_SA", "connection", "before", "after", "mechanism", "outcome", "took", "data plane", "reason"],
        [
            [
                move["sa"],
                move["name"],
                f"{move['before']['local']} -> {move['before']['remote']}",
                f"{move['after']['local']} -> {move['after']['remote']}",
                move["mechanism"],
                coloured(move["state"], "green" if move["state"] == "verified" else "red"),
                human_seconds(move["steps"][-1]["at"] - move["steps"][0]["at"]),
                move["data_plane"],
                move["reason"],
            ]
            for move in moves
        ],
    )
