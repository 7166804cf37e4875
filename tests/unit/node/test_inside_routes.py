"""Host routes to virtual IPs are there for what this node serves, and for nothing else."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.cluster.node_settings import InsideRoutesSettings
from mobikectl.errors import ConfigError, NetlinkError
from mobikectl.model import IkeSa, IkeState, Link, NetState, Path
from mobikectl.netlink.routes import SteeringRoute
from mobikectl.node.inside_routes import GONE_S, InsideRoutes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobikectl.model import IpAddress, Route

VIP, OTHER = ip_address("198.19.8.1"), ip_address("198.19.8.2")
SETTINGS = InsideRoutesSettings("wan1")
PATH = Path(ip_address("198.18.9.1"), ip_address("198.18.1.1"))
SERVED = IkeSa(7, "office", IkeState.ESTABLISHED, PATH, original_initiator=False, remote_vips=(VIP,))


class Kernel:
    """A routing table."""

    def __init__(self) -> None:
        self.routes: dict[IpAddress, SteeringRoute] = {}

    async def list_own(self) -> tuple[Route, ...]:
        return tuple(route.as_route() for route in self.routes.values())

    async def apply(self, add: Iterable[SteeringRoute], remove: Iterable[tuple[IpAddress, int]]) -> int:
        for route in add:
            self.routes[route.dst] = route
        for dst, _ in remove:
            del self.routes[dst]
        return 0


class Inside:
    def __init__(self, settings: InsideRoutesSettings = SETTINGS) -> None:
        self.kernel = Kernel()
        self.tracker = SimpleNamespace(sas={}, in_step=True)
        self.net = NetState(links=MappingProxyType({3: Link(3, "wan1", True, True)}))
        self.now = 100.0
        routes: Any = self.kernel
        tracker: Any = self.tracker
        self.routes = InsideRoutes(settings, routes, tracker, lambda: self.net, clock=lambda: self.now)

    async def level(self, *sas: IkeSa) -> set[IpAddress]:
        self.tracker.sas = {sa.uniqueid: sa for sa in sas}
        await self.routes.level()
        return set(self.kernel.routes)


async def test_what_is_served_has_a_route_of_the_wanted_kind_and_what_left_has_none() -> None:
    inside = Inside(replace(SETTINGS, via=ip_address("198.18.9.254"), table=100, protocol=111, priority=7))
    assert await inside.level(SERVED) == {VIP}
    route = inside.kernel.routes[VIP].as_route()
    assert (route.dst, route.table, route.protocol, route.priority) == (ip_network(f"{VIP}/32"), 100, 111, 7)
    assert route.nexthops[0].oif == 3
    assert route.nexthops[0].gateway == ip_address("198.18.9.254")
    assert await inside.level() == set()


async def test_a_leftover_of_an_earlier_life_goes_and_a_route_that_the_kernel_dropped_comes_back() -> None:
    inside = Inside()
    inside.kernel.routes[OTHER] = SteeringRoute(OTHER, None, 3, priority=50, protocol=110)
    assert await inside.level(SERVED) == {VIP}
    inside.kernel.routes.clear()
    assert await inside.level(SERVED) == {VIP}


async def test_what_a_node_stands_by_for_has_none_and_what_it_froze_keeps_it_until_it_is_dropped() -> None:
    inside = Inside()
    passive = replace(SERVED, state=IkeState.PASSIVE)
    assert await inside.level(passive) == set()
    assert await inside.level(SERVED) == {VIP}
    assert await inside.level(passive) == {VIP}
    assert await inside.level() == set()


async def test_routes_stay_while_charon_is_away_for_a_moment_and_go_when_it_stays_away() -> None:
    inside = Inside()
    await inside.level(SERVED)
    inside.tracker.in_step = False
    assert await inside.level() == {VIP}
    inside.now += GONE_S
    assert await inside.level() == set()


async def test_an_interface_that_is_not_there_is_said_and_made_up_for_later() -> None:
    inside = Inside()
    there, inside.net = inside.net, NetState()
    with pytest.raises(NetlinkError, match="wan1"):
        await inside.level(SERVED)
    inside.net = there
    assert await inside.level(SERVED) == {VIP}


def test_a_protocol_number_that_others_use_is_refused() -> None:
    for wrong in (109, 4, 256):
        with pytest.raises(ConfigError, match="protocol"):
            InsideRoutesSettings("wan1", protocol=wrong)
