"""Steering routes: how stock charon is told which path to use.

A host route to the peer's outer address, through the wanted link and with the wanted source, makes
charon (``prefer_best_path = yes``) update the IKE_SA's addresses (RFC 4555 section 3.5). There is at
most one per peer address: its granularity is the peer's outer address, not the IKE_SA.

`Steering` is the one owner of these routes. They carry `mobikectl.model.ROUTE_PROTOCOL`, so that what
a killed sidecar left is found again: a start takes over those that hold a living SA on its path and
removes the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mobikectl.errors import NoRouteError
from mobikectl.model import Path
from mobikectl.netlink.rules import STEERING_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from mobikectl.model import IpAddress, NetState, Route, RouteAnswer


class Choice(Protocol):
    """Asks the kernel for its own way, steering routes left out."""

    async def through(self, dst: IpAddress, *, src: IpAddress, oif: int) -> tuple[RouteAnswer, int]:
        """Return the way from ``src`` through the link ``oif``, and its metric. Raise NoRouteError."""


class Routes(Protocol):
    """Makes and removes host routes in the steering table."""

    async def replace(
        self, dst: IpAddress, gateway: IpAddress | None, oif: int, prefsrc: IpAddress | None, table: int
    ) -> None:
        """Make or atomically replace the host route to ``dst``. Raise NetlinkError, PrivilegeError."""

    async def remove(self, dst: IpAddress, table: int) -> bool:
        """Remove the host route to ``dst``; return whether there was one."""

    async def list_own(self) -> Sequence[Route]:
        """Return every route with our protocol number."""

    async def flush(self) -> int:
        """Remove every route with our protocol number; return how many there were."""


@dataclass(frozen=True, slots=True)
class Steer:
    """A steering route: the path it holds, and the way out that it names."""

    path: Path
    gateway: IpAddress | None
    oif: int


class Steering:
    """The owner of all steering routes of this host."""

    def __init__(self, routes: Routes, choice: Choice, net: Callable[[], NetState]) -> None:
        self._routes = routes
        self._choice = choice
        self._net = net
        self._steers: dict[IpAddress, Steer] = {}

    @property
    def steers(self) -> tuple[Steer, ...]:
        """Every steering route that is in force, as far as we know."""
        return tuple(self._steers.values())

    def steer_to(self, remote: IpAddress) -> Steer | None:
        """Given a peer's address, return its steering route, or None."""
        return self._steers.get(remote)

    async def resolve(self, path: Path) -> Steer:
        """Given a path, return the steering route that would hold it, without making it.

        Raise NoRouteError: the local address is on no link, or no route leads out of its link.
        """
        oif = link_of(self._net(), path.local)
        if oif is None:
            raise NoRouteError(
                f"{path.local} is not an address of this host",
                hint="`mobikectl links` shows the addresses that there are",
            )
        answer, _metric = await self._choice.through(path.remote, src=path.local, oif=oif)
        return Steer(path, answer.gateway, answer.oif)

    async def point(self, path: Path) -> Steer | None:
        """Given a path, install its steering route in place of any other to the same peer address.

        Return the steering route that was there before (None: none). Raise NoRouteError, NetlinkError,
        PrivilegeError: nothing was changed.
        """
        before = self._steers.get(path.remote)
        await self._install(await self.resolve(path))
        return before

    async def restore(self, remote: IpAddress, before: Steer | None) -> None:
        """Given what `point` returned, put it back: the earlier route, or none."""
        if before is None:
            await self.release(remote)
        else:
            await self._install(before)

    async def release(self, remote: IpAddress) -> bool:
        """Given a peer's address, remove its steering route; return whether there was one.

        Raise NetlinkError, PrivilegeError: it counts as being in force still.
        """
        removed = await self._routes.remove(remote, STEERING_TABLE)
        self._steers.pop(remote, None)
        return removed

    async def release_all(self) -> int:
        """Remove every steering route of ours; return how many there were."""
        removed = await self._routes.flush()
        self._steers.clear()
        return removed

    async def refresh(self, remote: IpAddress, found: Collection[Steer]) -> None:
        """Given a peer's address and what `installed` found, bring its steering route in step with the network.

        A next hop that changed is followed, as the kernel would; a way out that is gone is not held on to; a route
        that somebody removed is made again. Raise NetlinkError, PrivilegeError.
        """
        steer = self._steers.get(remote)
        if steer is None:
            return
        try:
            wanted = await self.resolve(steer.path)
        except NoRouteError:
            await self.release(remote)
            return
        if wanted not in found:
            await self._install(wanted)

    async def installed(self) -> frozenset[Steer]:
        """Return the steering routes that the kernel has. Raise NetlinkError, PrivilegeError."""
        found = map(_steer_of, await self._routes.list_own())
        return frozenset(steer for steer in found if steer is not None)

    def forget_lost(self) -> None:
        """Forget the steering routes that the kernel dropped with their link or their source address."""
        net = self._net()
        for remote, steer in list(self._steers.items()):
            link = net.links.get(steer.oif)
            if link is None or not link.up or link_of(net, steer.path.local) is None:
                del self._steers[remote]

    async def adopt(self, in_use: Iterable[Path]) -> tuple[Steer, ...]:
        """Given the paths of the living SAs, take over the routes that hold one of them and remove the rest.

        Return the routes that were removed: what a sidecar that was killed left behind.
        """
        wanted = set(in_use)
        removed: list[Steer] = []
        for route in await self._routes.list_own():
            steer = _steer_of(route)
            if steer is not None and route.table == STEERING_TABLE and steer.path in wanted:
                self._steers[steer.path.remote] = steer
                continue
            await self._routes.remove(route.dst.network_address, route.table)
            if steer is not None:
                removed.append(steer)
        return tuple(removed)

    async def _install(self, steer: Steer) -> None:
        await self._routes.replace(
            steer.path.remote, steer.gateway, steer.oif, steer.path.local, STEERING_TABLE
        )
        self._steers[steer.path.remote] = steer


def _steer_of(route: Route) -> Steer | None:
    """Given a route of ours, return what it steers; None when it is no steering route."""
    hop = route.nexthops[0] if route.nexthops else None
    if hop is None or hop.oif is None or route.prefsrc is None:
        return None
    return Steer(Path(route.prefsrc, route.dst.network_address), hop.gateway, hop.oif)


def link_of(net: NetState, local: IpAddress) -> int | None:
    """Given an address of this host, return the index of the link that has it (a usable one first)."""
    found = sorted(
        (address.index for address in net.addresses if address.ip == local),
        key=lambda index: (index not in net.links or not net.links[index].usable, index),
    )
    return found[0] if found else None
