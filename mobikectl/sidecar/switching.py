"""The operator's `switch`: a request from the command line, checked and carried out."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from mobikectl.errors import MobikectlError, MoveError, NotFoundError
from mobikectl.model import IpAddress, Path
from mobikectl.observe.plain import plain
from mobikectl.policy.cluster_settings import MAX_REDIRECTS, REDIRECT_PERIOD_S
from mobikectl.switch.executor import MoveOrder
from mobikectl.switch.moves import Mechanism, MoveState, plan_move
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from mobikectl.model import IkeSa
    from mobikectl.switch.moves import Move
    from mobikectl.switch.steering import Steering

MOST = 10_000
"""IKE_SAs that one request moves at most."""
SIDE_BY_SIDE = 64
"""Peer addresses to which moves are under way at one time."""

KEYS = frozenset({"sa", "peer", "to", "from", "timeout_s", "dry_run", "mechanism", "force"})
"""What a request may say. A word that is not known could be a misspelt ``dry_run``."""

MECHANISMS = {
    "auto": None,
    "notify": Mechanism.NOTIFY,
    "implicit": Mechanism.ROUTE,
    "redirect": Mechanism.REDIRECT,
}
"""What ``mechanism`` may say. None: the best that the peer was seen to support."""

AUTO = "auto"
"""As ``to``: give the IKE_SAs back to the path policy."""


async def switch(
    request: Mapping[str, Any],
    sas: Mapping[int, IkeSa],
    steering: Steering,
    obey: Callable[[IkeSa, MoveOrder], Awaitable[Move]],
    free: Callable[[int], None],
    how: Callable[[IkeSa, Mechanism | None], Mechanism],
    *,
    redirects: Callable[[IkeSa], int] = lambda _: 0,
) -> Mapping[str, Any]:
    """Given ``sa`` or ``peer``, ``to`` and what else `KEYS` has, move what matches.

    ``obey`` carries out one order, and ``how`` tells by which mechanism it would be; the path policy leaves an SA that
    arrived alone until that path fails, or until it is switched to `AUTO` (``free``). ``redirects`` tells how many
    redirects an SA's peer may have followed lately: one that would follow no more is redirected only with ``force``.
    Return ``moves`` (records), or with ``dry_run`` what would be done.

    Raise NotFoundError: nothing matches. Raise MoveError: the request makes no sense, or its only SA cannot be moved.
    Raise NoRouteError: a dry run found no way there.
    """
    chosen = select(request, sas)
    if request.get("to") == AUTO:
        for sa in chosen:
            free(sa.uniqueid)
        return {"moves": [], "released": [sa.uniqueid for sa in chosen]}
    target = _address(request, "to")
    timeout = _seconds(request)
    wanted = _mechanism(request)
    pairs = [(sa, destination(sa, target)) for sa in chosen]
    if request.get("dry_run"):
        return {"dry_run": [await _plan(sa, path, how(sa, wanted), steering) for sa, path in pairs]}
    orders = {
        sa.uniqueid: MoveOrder(
            sa.uniqueid, path, "asked for by the operator", timeout_s=timeout, mechanism=wanted
        )
        for sa, path in pairs
    }
    carry_out = obey
    if wanted is Mechanism.REDIRECT and not request.get("force"):
        carry_out = _unless_spent(obey, redirects)
    if len(chosen) == 1:
        moves = [await carry_out(chosen[0], orders[chosen[0].uniqueid])]
    else:
        moves = await _all_of(chosen, orders, carry_out)
    return {"moves": [{**plain(move), "state": move.state.value, "reason": move.reason} for move in moves]}


def _unless_spent(
    obey: Callable[[IkeSa, MoveOrder], Awaitable[Move]], redirects: Callable[[IkeSa], int]
) -> Callable[[IkeSa, MoveOrder], Awaitable[Move]]:
    """Given what redirects an SA, return what does so only when its peer will follow (RFC 5685 section 7)."""

    async def careful(sa: IkeSa, order: MoveOrder) -> Move:
        if (before := redirects(sa)) >= MAX_REDIRECTS:
            raise MoveError(
                f"{sa.remote_id} may have followed {before} redirects within the last {REDIRECT_PERIOD_S:g} s: it would"
                " not follow one more, and charon here would delete its IKE_SA 30 s later",
                hint="wait, or use `mobikectl move`; --force redirects it all the same",
            )
        return await obey(sa, order)

    return careful


async def _plan(sa: IkeSa, path: Path, mechanism: Mechanism, steering: Steering) -> Mapping[str, Any]:
    """What would be done with one IKE_SA. Raise NoRouteError."""
    redirects = mechanism is Mechanism.REDIRECT
    return {
        "ike_sa": sa.uniqueid,
        "connection": sa.name,
        "before": str(sa.path),
        "mechanism": mechanism.value,
        "route": None if redirects else plain(await steering.resolve(path)),
        "gateway": str(path.local) if redirects else None,
    }


async def _all_of(
    chosen: list[IkeSa],
    orders: Mapping[int, MoveOrder],
    obey: Callable[[IkeSa, MoveOrder], Awaitable[Move]],
) -> list[Move]:
    """Carry out many orders: one peer address beside the other, the SAs of one after each other.

    An SA that cannot be moved does not stop the others: its record says why.
    """
    done: dict[int, Move] = {}
    places = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one_peer(group: list[IkeSa]) -> None:
        async with places:
            for sa in group:
                order = orders[sa.uniqueid]
                try:
                    done[sa.uniqueid] = await obey(sa, order)
                except MobikectlError as error:
                    done[sa.uniqueid] = _refused(sa, order, str(error))

    peers: dict[IpAddress, list[IkeSa]] = {}
    for sa in chosen:
        peers.setdefault(sa.path.remote, []).append(sa)
    async with TaskGroup() as tasks:
        for group in peers.values():
            tasks.create_task(one_peer(group))
    return [done[sa.uniqueid] for sa in chosen]


def _refused(sa: IkeSa, order: MoveOrder, why: str) -> Move:
    now = time.monotonic()
    planned = plan_move(
        0,
        sa=sa.uniqueid,
        name=sa.name,
        before=sa.path,
        after=order.path,
        mechanism=order.mechanism or Mechanism.ROUTE,
        cause=order.cause,
        at=now,
    )
    return planned.to(MoveState.FAILED, at=now, note=why)


def select(request: Mapping[str, Any], sas: Mapping[int, IkeSa]) -> list[IkeSa]:
    """Given a request, return the IKE_SAs that it means. Raise NotFoundError or MoveError."""
    _check_kinds(request)
    number, peer = request.get("sa"), request.get("peer")
    if (number is None) == (peer is None):
        raise MoveError("which IKE_SA is meant was not said", hint="give either --sa or --peer")
    if number is not None:
        found = [sa for sa in sas.values() if sa.uniqueid == number]
    else:
        found = [sa for sa in sas.values() if peer in {sa.remote_id, str(sa.path.remote), sa.name}]
    origin = request.get("from")
    if origin is not None:
        old = _address(request, "from")
        found = [sa for sa in found if old in {sa.path.local, sa.path.remote}]
    if not found:
        raise NotFoundError(
            f"no IKE_SA matches {f'--sa {number}'[:60] if number is not None else f'--peer {_short(peer)}'}"
            + (f" --from {origin}" if origin else ""),
            hint="`mobikectl sas` lists those that there are",
        )
    if len(found) > MOST:
        raise MoveError(f"{len(found)} IKE_SAs match, at most {MOST} are moved at once", hint="choose fewer")
    return sorted(found, key=lambda sa: sa.uniqueid)


def _check_kinds(request: Mapping[str, Any]) -> None:
    """Raise MoveError unless the request has known keys with values of their kinds."""
    if unknown := sorted(str(key)[:40] for key in request.keys() - KEYS):
        raise MoveError(
            f"unknown in a switch request: {', '.join(unknown[:5])}",
            hint=f"known are {', '.join(sorted(KEYS))}",
        )
    for key, kind, expected in (
        ("sa", int, "a number"),
        ("peer", str, "a text"),
        ("dry_run", bool, "a truth value"),
        ("force", bool, "a truth value"),
    ):
        value = request.get(key)
        if value is not None and (type(value) is not kind or value == ""):
            raise MoveError(
                f"{key}: expected {expected}, got {_short(value)}", hint="`mobikectl sas` lists the IKE_SAs"
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def destination(sa: IkeSa, target: IpAddress) -> Path:
    """Given an IKE_SA and this host's address to serve it from, return the new path. Raise MoveError."""
    if target.version != sa.path.remote.version:
        raise MoveError(
            f"{target} and the peer's {sa.path.remote} are of two families",
            hint="choose an address of the same family",
        )
    return Path(target, sa.path.remote)


def _address(request: Mapping[str, Any], key: str) -> IpAddress:
    value = request.get(key)
    try:
        return ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise MoveError(
            f"--{key}: expected an IP address, got {_short(value)}", hint="give an IPv4 or IPv6 address"
        ) from None


def _mechanism(request: Mapping[str, Any]) -> Mechanism | None:
    value = request.get("mechanism") or "auto"
    if not isinstance(value, str) or value not in MECHANISMS:
        raise MoveError(
            f"--mechanism: expected one of {', '.join(MECHANISMS)}, got {_short(value)}",
            hint="auto is a good choice",
        )
    return MECHANISMS[value]


def _seconds(request: Mapping[str, Any]) -> float:
    value = request.get("timeout_s", 5.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 300:
        raise MoveError(
            f"--timeout: expected seconds above 0 and up to 300, got {_short(value)}",
            hint="5 is a good choice",
        )
    return float(value)
