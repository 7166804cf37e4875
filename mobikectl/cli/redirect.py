"""`mobikectl redirect`: send clients of this gateway to another one, now (RFC 5685)."""

from __future__ import annotations

import asyncio
import difflib
import sys
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import click

from mobikectl.charon import commands
from mobikectl.cli.charon import charon_session
from mobikectl.cli.cluster import complete_node, open_cluster
from mobikectl.cli.common import Settings, run_async, settings_options, sidecar_runs
from mobikectl.cli.output import coloured, console, human_seconds, json_option, print_json, print_table
from mobikectl.control import ControlClient
from mobikectl.errors import MobikectlError, MoveError, NotFoundError, StoreError
from mobikectl.model import IkeState, IpAddress
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.charon.session import Session
    from mobikectl.model import IkeSa

LIVE = {IkeState.ESTABLISHED, IkeState.REKEYING}
AT_ONCE = 32
"""Requests to the sidecar that are under way at one time."""
GRACE_S = 10.0
"""How much longer than the redirect itself the sidecar's answer is waited for."""
LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Redirected:
    """What became of one IKE_SA."""

    sa: int
    connection: str
    peer: str
    outcome: str
    """``gone``, ``refused``, or ``still-there``."""
    took_s: float | None = None
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether it left."""
        return self.outcome == "gone"


@click.command()
@settings_options
@click.option("--sa", type=int, metavar="ID", help="The IKE_SA with this unique id.")
@click.option("--peer-id", metavar="ID", help="Every IKE_SA of this peer identity.")
@click.option(
    "--peer-ip", metavar="ADDRESS", help="Every IKE_SA whose peer is at this address or in this subnet."
)
@click.option(
    "--to",
    "gateway",
    required=True,
    metavar="GATEWAY",
    shell_complete=complete_node,
    help="Where to: a node of the cluster, an address, or (without a sidecar) a host name.",
)
@click.option("--timeout", type=click.FloatRange(0.1, 300), default=10.0, show_default=True, help="Seconds.")
@click.option("--dry-run", is_flag=True, help="Say which IKE_SAs would be redirected where.")
@click.option(
    "--force", is_flag=True, help="Also those that may have followed five redirects in the last 300 s."
)
@json_option
@run_async
async def redirect(
    settings: Settings,
    sa: int | None,
    peer_id: str | None,
    peer_ip: str | None,
    gateway: str,
    timeout: float,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Redirect clients of this gateway to another one, and see them leave.

    The client makes a new IKE_SA there and deletes the one here, which is what counts as success: charon itself says
    yes also for clients that do not support redirection. The other gateway must have the same identity.

    A client follows 5 redirects in 300 s; when it is redirected once more, charon here deletes its IKE_SA 30 s later.
    The sidecar refuses that one, as far as it can know: it counts what this command asked for at this gateway since the
    sidecar started, each time that the client was back after it, and the redirects of the cluster's journal. Without a
    sidecar, and for redirects of new clients or by swanctl, nobody counts.

    Exit code 7: not all of them left.
    """
    if sum(given is not None for given in (sa, peer_id, peer_ip)) != 1:
        raise click.UsageError("give one of --sa, --peer-id and --peer-ip")
    target = await _target(settings, gateway)
    async with charon_session(settings) as session:
        found = _chosen(await commands.list_sas(session, children=False), sa, peer_id, peer_ip)
        if dry_run:
            _show_dry(found, target, as_json=as_json)
            return
        if sidecar_runs(settings) and not isinstance(target, str):
            done = await _by_sidecar(settings, found, target, timeout, force=force)
        else:
            done = await _by_charon(session, found, target, timeout, sa=sa, peer_id=peer_id, peer_ip=peer_ip)
    _finish(done, target, as_json=as_json)


async def _target(settings: Settings, gateway: str) -> IpAddress | str:
    """Given a node's name, an address or a host name, return the address or host name. Raise NotFoundError."""
    try:
        return ip_address(gateway)
    except ValueError:
        pass
    known: list[str] = []
    if settings.config.cluster is not None:
        try:
            async with open_cluster(settings) as cluster:
                members = (await cluster.store.state()).members
        except StoreError:
            if "." in gateway:  # a host name, most likely: it needs no store
                return gateway
            raise
        if gateway in members:
            addresses = [one.ip for one in members[gateway].value.addresses if one.usable]
            if not addresses:
                raise NotFoundError(
                    f"{gateway} has no address that works", hint="`mobikectl nodes` shows them"
                )
            return addresses[0]
        known = sorted(members)
    if "." in gateway:
        return gateway
    near = difflib.get_close_matches(gateway, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "give a node that is there, an address, or a host name"
    raise NotFoundError(f"no gateway {gateway!r}", hint=hint)


def _chosen(sas: list[IkeSa], sa: int | None, peer_id: str | None, peer_ip: str | None) -> list[IkeSa]:
    """Given charon's IKE_SAs and what the operator named, return those that are meant. Raise NotFoundError."""
    live = [one for one in sas if one.state in LIVE]
    meant = _meant(sa, peer_id, peer_ip)
    found = sorted((one for one in live if meant(one)), key=lambda one: one.uniqueid)
    if found:
        return found
    named = peer_id or peer_ip or sa
    near = (
        difflib.get_close_matches(str(peer_id), sorted({one.remote_id for one in live}), n=1)
        if peer_id
        else []
    )
    hint = f"did you mean {near[0]!r}?" if near else "`mobikectl sas` lists them"
    raise NotFoundError(f"no IKE_SA of this gateway matches {named}", hint=hint)


def _meant(sa: int | None, peer_id: str | None, peer_ip: str | None) -> Callable[[IkeSa], bool]:
    if sa is not None:
        return lambda one: one.uniqueid == sa
    if peer_id is not None:
        return lambda one: one.remote_id == peer_id
    try:
        net = ip_network(str(peer_ip))
    except ValueError as error:
        raise click.UsageError(f"--peer-ip: {error}") from error
    return lambda one: one.path.remote in net


async def _by_sidecar(
    settings: Settings, found: list[IkeSa], target: IpAddress, timeout: float, *, force: bool
) -> list[Redirected]:
    """Have the sidecar do it: it keeps count of a client's redirects, and verifies each."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(sa: IkeSa, client: ControlClient) -> Redirected:
        request = {
            "sa": sa.uniqueid,
            "to": str(target),
            "mechanism": "redirect",
            "timeout_s": timeout,
            "force": force,
        }
        async with places:
            try:
                answer = await client.switch(request, timeout=timeout + GRACE_S)
            except MobikectlError as error:
                return Redirected(sa.uniqueid, sa.name, sa.remote_id, "refused", reason=str(error))
        move = answer["moves"][0]
        good = move["state"] == "verified"
        took = move["steps"][-1]["at"] - move["steps"][0]["at"]
        return Redirected(
            sa.uniqueid, sa.name, sa.remote_id, "gone" if good else "still-there", took, move["reason"]
        )

    async with ControlClient(settings.control) as client, TaskGroup() as tasks:
        works = [tasks.create_task(one(sa, client)) for sa in found]
    return [work.result() for work in works]


async def _by_charon(
    session: Session,
    found: list[IkeSa],
    target: IpAddress | str,
    timeout: float,
    *,
    sa: int | None,
    peer_id: str | None,
    peer_ip: str | None,
) -> list[Redirected]:
    """Have charon queue it by one command, and look which IKE_SAs go away in time."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await commands.redirect(session, target, ike_id=sa, peer_id=peer_id, peer_ip=peer_ip)
    waiting = {one.uniqueid: one for one in found}
    gone: dict[int, float] = {}
    while waiting and loop.time() - began < timeout:
        await asyncio.sleep(LOOK_S)
        there = {
            one.uniqueid for one in await commands.list_sas(session, children=False) if one.state in LIVE
        }
        for uniqueid in waiting.keys() - there:
            gone[uniqueid] = loop.time() - began
            del waiting[uniqueid]
    return [
        Redirected(one.uniqueid, one.name, one.remote_id, "gone", gone[one.uniqueid])
        if one.uniqueid in gone
        else Redirected(
            one.uniqueid,
            one.name,
            one.remote_id,
            "still-there",
            reason=f"not gone within {timeout:g} s: does the client support redirection?",
        )
        for one in found
    ]


def _show_dry(found: list[IkeSa], target: IpAddress | str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {"sa": one.uniqueid, "connection": one.name, "peer": one.remote_id, "to": target}
                for one in found
            ]
        )
        return
    print_table(
        ["IKE_SA", "connection", "peer", "path", "to"],
        [[one.uniqueid, one.name, one.remote_id, one.path, target] for one in found],
    )


def _finish(done: list[Redirected], target: IpAddress | str, *, as_json: bool) -> None:
    bad = [one for one in done if not one.good]
    if as_json:
        print_json({"to": target, "gone": len(done) - len(bad), "ike_sas": done})
        if bad:
            sys.exit(MoveError.exit_code)
        return
    print_table(
        ["IKE_SA", "connection", "peer", "outcome", "took", "reason"],
        [
            [
                one.sa,
                one.connection,
                one.peer,
                coloured(one.outcome, "green" if one.good else "red"),
                "-" if one.took_s is None else human_seconds(one.took_s),
                one.reason,
            ]
            for one in done
        ],
    )
    if bad:
        raise MoveError(
            f"{len(bad)} of {len(done)} IKE_SAs did not leave for {target}",
            hint="`mobikectl sas` shows which clients can be redirected; `mobikectl switch` knows other ways",
        )
    console.print(f"all {len(done)} left for {target}; what came of that is seen there", markup=False)
