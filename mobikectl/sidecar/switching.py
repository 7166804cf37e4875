"""The operator's `switch`: a request from the command line, checked and carried out."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from mobikectl.errors import MoveError, NotFoundError
from mobikectl.model import IpAddress, Path
from mobikectl.observe.plain import plain
from mobikectl.switch.executor import MoveOrder
from mobikectl.switch.moves import MoveState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mobikectl.model import IkeSa
    from mobikectl.switch.executor import MoveExecutor
    from mobikectl.switch.moves import Move
    from mobikectl.switch.steering import Steering

MOST = 10_000
"""IKE_SAs that one request moves at most."""
SIDE_BY_SIDE = 64
"""Moves that are under way at one time."""


AUTO = "auto"
"""As ``to``: give the IKE_SAs back to the path policy."""


async def switch(
    request: Mapping[str, Any],
    sas: Mapping[int, IkeSa],
    steering: Steering,
    executor: MoveExecutor,
    pin: Callable[[int, Path | None], None],
) -> Mapping[str, Any]:
    """Given ``sa`` or ``peer``, ``to``, optionally ``from``, ``timeout_s`` and ``dry_run``, move what matches.

    An IKE_SA that arrived is pinned there (``pin``): the path policy leaves it alone until that path fails, or
    until it is switched to `AUTO`. Return ``moves`` (records), or with ``dry_run`` what would be done.

    Raise NotFoundError: nothing matches. Raise MoveError: the request makes no sense. Raise NoRouteError: there is
    no way there.
    """
    chosen = select(request, sas)
    if request.get("to") == AUTO:
        for sa in chosen:
            pin(sa.uniqueid, None)
        return {"moves": [], "released": [sa.uniqueid for sa in chosen]}
    target = _address(request, "to")
    pairs = [(sa, destination(sa, target)) for sa in chosen]
    if request.get("dry_run"):
        steers = [await steering.resolve(path) for _, path in pairs]
        return {
            "dry_run": [
                {"ike_sa": sa.uniqueid, "connection": sa.name, "before": str(sa.path), "route": plain(steer)}
                for (sa, _), steer in zip(pairs, steers, strict=True)
            ]
        }
    timeout = _seconds(request)
    places = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one(sa: IkeSa, path: Path) -> Move:
        order = MoveOrder(sa.uniqueid, path, "asked for by the operator", timeout_s=timeout)
        async with places:
            move = await executor.move(order)
        if move.state is MoveState.VERIFIED:
            pin(move.sa, path)
        return move

    moves = await asyncio.gather(*(one(sa, path) for sa, path in pairs))
    return {"moves": [{**plain(move), "state": move.state.value, "reason": move.reason} for move in moves]}


def select(request: Mapping[str, Any], sas: Mapping[int, IkeSa]) -> list[IkeSa]:
    """Given a request, return the IKE_SAs that it means. Raise NotFoundError or MoveError."""
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
            f"no IKE_SA matches {'--sa ' + str(number) if number is not None else '--peer ' + str(peer)}"
            + (f" --from {origin}" if origin else ""),
            hint="`mobikectl sas` lists those that there are",
        )
    if len(found) > MOST:
        raise MoveError(f"{len(found)} IKE_SAs match, at most {MOST} are moved at once", hint="choose fewer")
    return sorted(found, key=lambda sa: sa.uniqueid)


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
            f"--{key}: expected an IP address, got {value!r}", hint="give an IPv4 or IPv6 address"
        ) from None


def _seconds(request: Mapping[str, Any]) -> float:
    value = request.get("timeout_s", 5.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 300:
        raise MoveError(f"--timeout: expected seconds above 0 and up to 300, got {value!r}")
    return float(value)
