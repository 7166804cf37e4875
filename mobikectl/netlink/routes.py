"""Steering routes: host routes to a peer or gateway that make charon use the path that policy chose.

With ``charon.prefer_best_path = yes`` charon asks the kernel for the way to the peer whenever something roams, and
moves the IKE_SA to the answer's source address; ``PEER/32 via HOP dev LINK src LOCAL`` is therefore how stock charon
is steered (RFC 4555 leaves the choice of addresses to the implementation).

All carry the protocol number `mobikectl.model.ROUTE_PROTOCOL`, by which they are found again after a crash. A route
of anybody else is never replaced or removed.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Self

from mobikectl.errors import MobikectlError, NetlinkError
from mobikectl.model import ROUTE_PROTOCOL, Family, IpAddress, NextHop, Route
from mobikectl.netlink import rtnl
from mobikectl.netlink.kernel import DEADLINE, Requests, kernel_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STEERING_PRIORITY = 10
"""The metric of steering routes: before what DHCP clients and NetworkManager install (from 100), and not 0, which
an operator's hand-made route has: that one keeps the upper hand. (IPv6 has no 0: the kernel makes it 1024.)"""

_Key = tuple[IpAddress, int, int]
_GONE = (0, errno.ESRCH, errno.ENODEV, errno.ENOENT)


class RouteConflictError(NetlinkError):
    """Somebody else's route has the same destination, table and metric; it was left alone."""


@dataclass(frozen=True, slots=True)
class SteeringRoute:
    """A host route: packets to ``dst`` leave by ``oif`` through ``gateway`` (None: on-link) from ``prefsrc``."""

    dst: IpAddress
    gateway: IpAddress | None
    oif: int
    prefsrc: IpAddress | None = None
    table: int = rtnl.RT_TABLE_MAIN
    priority: int = STEERING_PRIORITY
    protocol: int = ROUTE_PROTOCOL

    def __post_init__(self) -> None:
        for other in (self.gateway, self.prefsrc):
            if other is not None and other.version != self.dst.version:
                raise ValueError(f"{other} and {self.dst} are of two families")
        if self.priority < 1:
            raise ValueError("a steering route needs a metric of 1 or more")

    def __str__(self) -> str:
        via = f" via {self.gateway}" if self.gateway else ""
        src = f" src {self.prefsrc}" if self.prefsrc else ""
        return f"{self.dst}{via} dev #{self.oif}{src} table {self.table} metric {self.priority}"

    @property
    def key(self) -> _Key:
        """What the kernel tells routes apart by."""
        return self.dst, self.table, self.priority

    def as_route(self) -> Route:
        """Return it as rtnetlink knows it."""
        scope = rtnl.RT_SCOPE_LINK if self.gateway is None and self.dst.version == 4 else 0
        return Route(
            dst=IPv4Network(self.dst) if self.dst.version == 4 else IPv6Network(self.dst),
            table=self.table,
            nexthops=(NextHop(self.gateway, self.oif),),
            prefsrc=self.prefsrc,
            priority=self.priority,
            protocol=self.protocol,
            scope=scope,
        )

    @classmethod
    def from_route(cls, route: Route, protocol: int = ROUTE_PROTOCOL) -> SteeringRoute | None:
        """Given a route of the kernel, return it as a steering route; None when it is none of ours."""
        if route.protocol != protocol or route.dst.prefixlen != route.dst.max_prefixlen:
            return None
        if len(route.nexthops) != 1 or (oif := route.nexthops[0].oif) is None or route.priority < 1:
            return None
        gateway = route.nexthops[0].gateway
        dst = route.dst.network_address
        return cls(dst, gateway, oif, route.prefsrc, route.table, route.priority, protocol)


class SteeringRoutes:
    """Installs and removes steering routes (async context manager; leaving it leaves the routes as they are).

    Given the network namespace's name (None: the caller's), the deadline of each request in seconds, and the protocol
    number by which its routes are known (the inside routes of virtual IPs have one of their own). Methods
    raise PrivilegeError without CAP_NET_ADMIN, NoRouteError when the next hop is not reachable on that link,
    RouteConflictError when somebody else has that very route, NetlinkError otherwise.

    The kernel drops a route by itself when its link or its source address goes; nothing here fails on that.
    """

    def __init__(
        self, *, netns: str | None = None, deadline: float = DEADLINE, protocol: int = ROUTE_PROTOCOL
    ) -> None:
        self._requests = Requests(netns=netns, deadline=deadline)
        self._protocol = protocol
        self._ours: set[_Key] = set()

    async def __aenter__(self) -> Self:
        await self._requests.__aenter__()
        try:
            await self.list_own()
        except BaseException:
            await self._requests.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._requests.__aexit__(*exc)

    async def replace(
        self,
        dst: IpAddress,
        gateway: IpAddress | None,
        oif: int,
        prefsrc: IpAddress | None = None,
        table: int = rtnl.RT_TABLE_MAIN,
        priority: int = STEERING_PRIORITY,
    ) -> None:
        """Install a route, or put it in the place of the one of ours for ``dst`` in one step, never without any."""
        await self.apply([SteeringRoute(dst, gateway, oif, prefsrc, table, priority, self._protocol)])

    async def remove(self, dst: IpAddress, table: int = rtnl.RT_TABLE_MAIN) -> bool:
        """Remove our route to ``dst``; return whether there was one."""
        return await self.apply([], [(dst, table)]) > 0

    async def apply(
        self, replace: Iterable[SteeringRoute] = (), remove: Iterable[tuple[IpAddress, int]] = ()
    ) -> int:
        """Install or replace routes and remove others (destination, table), as few sends as possible.

        Every one is tried, also behind one that fails. Return how many were removed; raise the first failure.
        """
        wanted = list({route.key: route for route in replace}.values())
        answers = await self._install(wanted)
        errors = [
            self._error(route, answer) for route, answer in zip(wanted, answers, strict=True) if answer.errno
        ]
        installed = {route.key for route, answer in zip(wanted, answers, strict=True) if not answer.errno}
        self._ours |= installed
        places = {(dst, table) for dst, table, _ in installed}
        stale = [key for key in self._ours if key not in installed and key[:2] in places]
        removed = await self._remove([*stale, *((dst, table, 0) for dst, table in remove)])
        if errors:
            raise errors[0]
        return removed - len(stale)

    async def _install(self, routes: Sequence[SteeringRoute]) -> list[rtnl.KernelError]:
        """Add what is new, exclusively, so that a stranger's route is seen; replace what is ours."""
        answers = await self._requests.order(
            [self._order(route, route.key in self._ours) for route in routes]
        )
        taken = [place for place, answer in enumerate(answers) if answer.errno == errno.EEXIST]
        if taken:
            await self.list_own()
            again = [place for place in taken if routes[place].key in self._ours]
            orders = [self._order(routes[place], ours=True) for place in again]
            for place, answer in zip(again, await self._requests.order(orders), strict=True):
                answers[place] = answer
        return answers

    @staticmethod
    def _order(route: SteeringRoute, ours: bool) -> tuple[int, int, bytes]:
        flags = rtnl.NLM_F_CREATE | (rtnl.NLM_F_REPLACE if ours else rtnl.NLM_F_EXCL)
        return rtnl.RTM_NEWROUTE, flags, rtnl.encode_route(route.as_route())

    @staticmethod
    def _error(route: SteeringRoute, answer: rtnl.KernelError) -> MobikectlError:
        if answer.errno == errno.EEXIST:
            return RouteConflictError(
                f"route {route}: another program has a route to {route.dst} with this metric",
                hint=f"see `ip route show {route.dst} table {route.table}`; remove it or choose another metric",
            )
        return kernel_error(f"route {route}", answer.errno, answer.text)

    async def _remove(self, keys: Sequence[_Key]) -> int:
        """Given (dst, table, metric or 0 for any), remove what is ours; return how many there were."""
        orders = []
        for dst, table, priority in keys:
            net = IPv4Network(dst) if dst.version == 4 else IPv6Network(dst)
            scope = rtnl.RT_SCOPE_NOWHERE if dst.version == 4 else 0
            route = Route(net, table, (), None, priority, self._protocol, scope, type=0)
            orders.append((rtnl.RTM_DELROUTE, 0, rtnl.encode_route(route)))
        answers = await self._requests.order(orders)
        gone = {(dst, table, p) for (dst, table, p), a in zip(keys, answers, strict=True) if a.errno in _GONE}
        self._ours = {key for key in self._ours if key not in gone and (*key[:2], 0) not in gone}
        for (dst, table, _), answer in zip(keys, answers, strict=True):
            if answer.errno not in _GONE:
                raise kernel_error(f"removing the route to {dst} in table {table}", answer.errno, answer.text)
        return sum(1 for answer in answers if answer.errno == 0)

    async def list_own(self) -> tuple[Route, ...]:
        """Return every route with our protocol number, in all tables and both families."""
        found: list[Route] = []
        for family in Family:
            query = rtnl.encode_dump(rtnl.RTM_GETROUTE, family, self._protocol)
            for buf, msg in await self._requests.dump_all(rtnl.RTM_GETROUTE, query):
                if msg.type == rtnl.RTM_NEWROUTE and rtnl.route_brief(buf, msg)[1] == self._protocol:
                    route = rtnl.decode_route(buf, msg)
                    if route is not None:
                        found.append(route)
        steering = [SteeringRoute.from_route(route, self._protocol) for route in found]
        self._ours = {route.key for route in steering if route is not None}
        return tuple(found)

    async def flush(self) -> int:
        """Remove every route with our protocol number, those of an earlier life included; return how many."""
        removed = 0
        while routes := await self.list_own():
            orders = [(rtnl.RTM_DELROUTE, 0, rtnl.encode_route(_bare(route))) for route in routes]
            answers = await self._requests.order(orders)
            done = sum(1 for answer in answers if answer.errno == 0)
            refused = [(r, a) for r, a in zip(routes, answers, strict=True) if a.errno not in _GONE]
            if refused:
                route, answer = refused[0]
                raise kernel_error(f"removing the route to {route.dst}", answer.errno, answer.text)
            removed += done
            if not done:
                break
        self._ours.clear()
        return removed


def _bare(route: Route) -> Route:
    """Given a route of ours, return what names it to the kernel for removal."""
    scope = rtnl.RT_SCOPE_NOWHERE if route.dst.version == 4 else 0
    return Route(
        route.dst, route.table, (), None, route.priority, route.protocol, scope, type=0, tos=route.tos
    )
