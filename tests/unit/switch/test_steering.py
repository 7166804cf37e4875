"""Steering routes have one owner, are given back, and what a killed owner left is taken over or removed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType

import pytest

from mobikectl.errors import NetlinkError, NoRouteError
from mobikectl.model import (
    ROUTE_PROTOCOL,
    Address,
    IpAddress,
    Link,
    NetState,
    NextHop,
    Path,
    Route,
    RouteAnswer,
)
from mobikectl.netlink.rules import STEERING_TABLE
from mobikectl.switch.steering import Steering, link_of

GATEWAY = ip_address("198.18.9.1")
A, B = ip_address("198.18.1.2"), ip_address("198.18.2.2")
HOP_A, HOP_B = ip_address("198.18.1.1"), ip_address("198.18.2.1")
VIA_A, VIA_B = Path(A, GATEWAY), Path(B, GATEWAY)
NET = NetState(
    links=MappingProxyType({1: Link(1, "eth0", True, True), 2: Link(2, "eth1", True, True)}),
    addresses=frozenset({Address(1, A, 24), Address(2, B, 24)}),
)


class Kernel:
    """The routes that we made, as the kernel would hold them; every link has a next hop."""

    def __init__(self) -> None:
        self.routes: dict[IpAddress, Route] = {}
        self.hops = {1: HOP_A, 2: HOP_B}
        self.refuses = False

    async def through(self, dst: IpAddress, *, src: IpAddress, oif: int) -> tuple[RouteAnswer, int]:
        if oif not in self.hops:
            raise NoRouteError("no route")
        return RouteAnswer(dst, self.hops[oif], oif, src), 100

    async def replace(
        self, dst: IpAddress, gateway: IpAddress | None, oif: int, prefsrc: IpAddress | None, table: int
    ) -> None:
        assert table == STEERING_TABLE
        self.routes[dst] = Route(
            ip_network(dst), table, (NextHop(gateway, oif),), prefsrc=prefsrc, protocol=ROUTE_PROTOCOL
        )

    async def remove(self, dst: IpAddress, table: int) -> bool:
        if self.refuses:
            raise NetlinkError("no answer from the kernel")
        return self.routes.pop(dst, None) is not None

    async def list_own(self) -> list[Route]:
        return list(self.routes.values())

    async def flush(self) -> int:
        if self.refuses:
            raise NetlinkError("no answer from the kernel")
        removed = len(self.routes)
        self.routes.clear()
        return removed


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def steering(kernel: Kernel) -> Steering:
    return Steering(kernel, kernel, lambda: NET)


async def test_a_route_names_link_hop_and_source_of_the_path(steering: Steering, kernel: Kernel) -> None:
    assert await steering.point(VIA_B) is None
    route = kernel.routes[GATEWAY]
    assert (route.nexthops[0], route.prefsrc) == (NextHop(HOP_B, 2), B)


async def test_what_was_before_is_returned_and_can_be_given_back(steering: Steering, kernel: Kernel) -> None:
    await steering.point(VIA_A)
    before = await steering.point(VIA_B)
    assert before is not None
    assert before.path == VIA_A
    await steering.restore(GATEWAY, before)
    assert kernel.routes[GATEWAY].prefsrc == A
    await steering.restore(GATEWAY, None)
    assert not kernel.routes
    assert steering.steers == ()


async def test_an_address_that_is_gone_changes_nothing(steering: Steering, kernel: Kernel) -> None:
    await steering.point(VIA_A)
    with pytest.raises(NoRouteError, match="not an address of this host"):
        await steering.point(Path(ip_address("198.18.7.7"), GATEWAY))
    assert kernel.routes[GATEWAY].prefsrc == A


async def test_the_next_start_takes_over_what_holds_a_living_sa_and_removes_the_rest(kernel: Kernel) -> None:
    killed = Steering(kernel, kernel, lambda: NET)
    other = ip_address("198.18.9.2")
    await killed.point(VIA_B)
    await killed.point(Path(A, other))
    steering = Steering(kernel, kernel, lambda: NET)
    removed = await steering.adopt([VIA_B])
    assert [steer.path for steer in removed] == [Path(A, other)]
    assert set(kernel.routes) == {GATEWAY}
    assert steering.steers[0].path == VIA_B


async def test_a_left_route_that_points_elsewhere_than_its_sa_is_removed(kernel: Kernel) -> None:
    await Steering(kernel, kernel, lambda: NET).point(VIA_B)
    steering = Steering(kernel, kernel, lambda: NET)
    await steering.adopt([VIA_A])
    assert not kernel.routes


async def test_a_next_hop_that_changed_is_followed(steering: Steering, kernel: Kernel) -> None:
    await steering.point(VIA_A)
    other = ip_address("198.18.1.99")
    kernel.hops[1] = other
    await steering.refresh(GATEWAY, await steering.installed())
    assert kernel.routes[GATEWAY].nexthops[0] == NextHop(other, 1)


async def test_a_way_out_that_is_gone_is_not_held_on_to(steering: Steering, kernel: Kernel) -> None:
    await steering.point(VIA_A)
    del kernel.hops[1]
    await steering.refresh(GATEWAY, await steering.installed())
    assert not kernel.routes
    assert steering.steers == ()


async def test_a_route_that_somebody_removed_is_made_again(steering: Steering, kernel: Kernel) -> None:
    await steering.point(VIA_A)
    kernel.routes.clear()
    await steering.refresh(GATEWAY, await steering.installed())
    assert kernel.routes[GATEWAY].prefsrc == A


async def test_a_route_that_could_not_be_removed_is_still_known(steering: Steering, kernel: Kernel) -> None:
    await steering.point(VIA_A)
    kernel.refuses = True
    for attempt in (steering.release(GATEWAY), steering.release_all()):
        with pytest.raises(NetlinkError):
            await attempt
    assert steering.steer_to(GATEWAY) is not None


async def test_a_start_keeps_the_route_of_one_of_two_sas_on_two_paths_to_one_address(kernel: Kernel) -> None:
    await Steering(kernel, kernel, lambda: NET).point(VIA_A)
    for in_use in ([VIA_A, VIA_B], [VIA_B, VIA_A]):
        assert await Steering(kernel, kernel, lambda: NET).adopt(in_use) == ()
    assert set(kernel.routes) == {GATEWAY}


async def test_the_end_removes_every_route_even_unknown_ones(kernel: Kernel) -> None:
    await Steering(kernel, kernel, lambda: NET).point(VIA_B)
    steering = Steering(kernel, kernel, lambda: NET)
    assert await steering.release_all() == 1
    assert not kernel.routes


def test_an_address_on_two_links_belongs_to_the_usable_one() -> None:
    net = NetState(
        links=MappingProxyType({1: Link(1, "eth0", True, False), 2: Link(2, "eth1", True, True)}),
        addresses=frozenset({Address(1, A, 24), Address(2, A, 24)}),
    )
    assert link_of(net, A) == 2
    assert link_of(net, HOP_A) is None


async def test_a_route_that_went_with_its_link_is_forgotten(kernel: Kernel) -> None:
    net = NET
    steering = Steering(kernel, kernel, lambda: net)
    await steering.point(VIA_B)
    steering.forget_lost()
    assert steering.steer_to(GATEWAY) is not None
    net = replace(NET, links=MappingProxyType({1: NET.links[1], 2: replace(NET.links[2], up=False)}))
    steering.forget_lost()
    assert steering.steer_to(GATEWAY) is None
