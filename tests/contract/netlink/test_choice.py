"""The steering table, the rule that leads to it, and what the kernel would choose without it: on a real kernel."""

from __future__ import annotations

import os
import secrets
import subprocess
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import NoRouteError
from mobikectl.netlink.choice import KernelChoice
from mobikectl.netlink.lookup import lookup
from mobikectl.netlink.routes import SteeringRoutes
from mobikectl.netlink.rules import STEERING_TABLE, SteeringRule

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]

GATEWAY, GATEWAY6 = ip_address("198.18.9.1"), ip_address("2001:db8:9::1")
A, HOP_A = ip_address("198.18.1.2"), ip_address("198.18.1.1")
B, HOP_B = ip_address("198.18.2.2"), ip_address("198.18.2.1")
A6 = ip_address("2001:db8:1::2")


class Namespace:
    """Two uplinks: one with a default route (metric 100, IPv6: 33), one without any."""

    def __init__(self) -> None:
        self.name = f"mkt-choice-{os.getpid()}-{secrets.token_hex(3)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True, timeout=10)
        self.ip("link set lo up")
        self.ip("link add upa type veth peer name upb")
        for command in ("link set upa up", "link set upb up", "addr add 198.18.1.2/24 dev upa"):
            self.ip(command)
        self.ip("addr add 198.18.2.2/24 dev upb")
        self.ip("addr add 2001:db8:1::2/64 dev upa nodad")
        self.ip("route add default via 198.18.1.1 metric 100")
        self.ip("-6 route add default via 2001:db8:1::1 metric 33")
        self.a, self.b = self.index("upa"), self.index("upb")

    def ip(self, command: str) -> str:
        argv = ["ip", "-n", self.name, *command.split()]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=10).stdout

    def index(self, link: str) -> int:
        return int(self.ip(f"-o link show {link}").partition(":")[0])

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=True, timeout=10)


@pytest.fixture
def ns() -> Iterator[Namespace]:
    namespace = Namespace()
    try:
        yield namespace
    finally:
        namespace.remove()


async def test_a_route_through_a_link_comes_with_its_metric(ns: Namespace) -> None:
    async with KernelChoice(netns=ns.name) as kernel:
        answer, metric = await kernel.through(GATEWAY, src=A, oif=ns.a)
        assert (answer.gateway, answer.oif, metric) == (HOP_A, ns.a, 100)
        answer, metric = await kernel.through(GATEWAY6, src=A6, oif=ns.a)
        assert (answer.oif, metric) == (ns.a, 33)


async def test_a_link_without_a_route_is_not_taken_for_the_whole_world(ns: Namespace) -> None:
    plain = await lookup(GATEWAY, src=B, oif=ns.b, netns=ns.name)
    assert plain.gateway is None, (
        "the kernel guesses that the destination is on the link: the trap avoided here"
    )
    async with KernelChoice(netns=ns.name) as kernel:
        with pytest.raises(NoRouteError):
            await kernel.through(GATEWAY, src=B, oif=ns.b)


async def test_what_really_is_on_the_link_needs_no_gateway(ns: Namespace) -> None:
    async with KernelChoice(netns=ns.name) as kernel:
        answer, _ = await kernel.through(HOP_B, src=B, oif=ns.b)
        assert (answer.gateway, answer.oif) == (None, ns.b)


async def test_steering_moves_the_traffic_and_not_the_kernels_own_choice(ns: Namespace) -> None:
    async with (
        SteeringRule(netns=ns.name),
        KernelChoice(netns=ns.name) as kernel,
        SteeringRoutes(netns=ns.name) as routes,
    ):
        await routes.replace(GATEWAY, HOP_B, ns.b, B, table=STEERING_TABLE)
        assert (await lookup(GATEWAY, netns=ns.name)).prefsrc == B
        assert (await kernel.best(GATEWAY)).prefsrc == A
        with pytest.raises(NoRouteError):
            await kernel.through(GATEWAY, src=B, oif=ns.b)
        assert await routes.remove(GATEWAY, STEERING_TABLE)
        assert (await lookup(GATEWAY, netns=ns.name)).prefsrc == A


async def test_the_rule_is_taken_over_from_an_earlier_life_and_removed_once(ns: Namespace) -> None:
    async with SteeringRule(netns=ns.name), SteeringRule(netns=ns.name) as second:
        assert ns.ip("rule").count("lookup 109") == 1
        assert ns.ip("-6 rule").count("lookup 109") == 1
        await second.remove()
        await second.remove()
    assert "lookup 109" not in ns.ip("rule") + ns.ip("-6 rule")


async def test_an_ip_rule_of_the_operator_counts(ns: Namespace) -> None:
    ns.ip("route add default via 198.18.2.1 dev upb table 7")
    ns.ip("rule add from 198.18.2.2 lookup 7")
    async with KernelChoice(netns=ns.name) as kernel:
        answer, _ = await kernel.through(GATEWAY, src=B, oif=ns.b)
        assert answer.gateway == HOP_B
