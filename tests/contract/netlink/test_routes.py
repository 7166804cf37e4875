"""Steering routes in the kernel: atomically replaced, never somebody else's, cleaned up after a crash."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.errors import NetlinkError, NoRouteError
from mobikectl.model import ROUTE_PROTOCOL
from mobikectl.netlink import RouteConflictError, RouteLookup, SteeringRoute, SteeringRoutes

if TYPE_CHECKING:
    from .conftest import Namespace

pytestmark = pytest.mark.netns
PEER = ip_address("198.19.0.9")
HOP, OTHER_HOP, LOCAL = ip_address("198.18.0.2"), ip_address("198.18.0.3"), ip_address("198.18.0.1")


def shown(ns: Namespace, family: int = 4, table: str = "all") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        ns.ip(f"-{family} -j route show table {table} proto {ROUTE_PROTOCOL}")
    )
    return found


async def test_a_steering_route_leads_the_peers_packets(ns: Namespace) -> None:
    ns.ip("route add default via 198.18.0.7")
    oif = ns.index("v0")
    async with SteeringRoutes(netns=ns.name) as routes, RouteLookup(netns=ns.name) as asking:
        await routes.replace(PEER, HOP, oif, LOCAL)
        answer = await asking.lookup(PEER)
        assert (answer.gateway, answer.oif, answer.prefsrc) == (HOP, oif, LOCAL)
        await routes.replace(PEER, OTHER_HOP, oif, LOCAL)
        assert (await asking.lookup(PEER)).gateway == OTHER_HOP
        assert [route["gateway"] for route in shown(ns)] == [str(OTHER_HOP)]
        assert await routes.remove(PEER)
        assert (await asking.lookup(PEER)).gateway == ip_address("198.18.0.7")


async def test_ipv6_and_another_table_work_the_same(ns: Namespace) -> None:
    peer, hop = ip_address("2001:db8:9::9"), ip_address("2001:db8::2")
    async with SteeringRoutes(netns=ns.name) as routes:
        for gateway in (hop, ip_address("2001:db8::3")):
            await routes.replace(peer, gateway, ns.index("v0"), ip_address("2001:db8::1"), table=1000)
        (route,) = shown(ns, 6, "1000")
        assert (route["dst"], route["gateway"], route["prefsrc"]) == (str(peer), "2001:db8::3", "2001:db8::1")
        assert not await routes.remove(peer)
        assert await routes.remove(peer, table=1000)
        assert shown(ns, 6) == []


async def test_there_is_a_way_at_every_moment_of_a_replacement(ns: Namespace) -> None:
    """The kernel's own log of events shows no removal between the old route and the new one."""
    process = await asyncio.create_subprocess_exec(
        "ip", "-n", ns.name, "-o", "monitor", "route", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    try:
        async with SteeringRoutes(netns=ns.name) as routes:
            async with asyncio.timeout(20):
                seen = asyncio.create_task(process.stdout.readline())
                while not seen.done():
                    ns.ip("route replace 198.19.7.7/32 via 198.18.0.2")
                    await asyncio.wait([seen], timeout=0.1)
                for place in range(20):
                    await routes.replace(PEER, (HOP, OTHER_HOP)[place % 2], ns.index("v0"), LOCAL)
                await routes.remove(PEER)
                lines: list[str] = []
                while not lines or not lines[-1].startswith("Deleted"):
                    line = (await process.stdout.readline()).decode()
                    if str(PEER) in line:
                        lines.append(line)
        assert len(lines) == 21
    finally:
        process.terminate()
        await process.wait()


async def test_installing_and_removing_twice_does_no_harm(ns: Namespace) -> None:
    async with SteeringRoutes(netns=ns.name) as routes:
        for _ in range(2):
            await routes.replace(PEER, HOP, ns.index("v0"), LOCAL)
        assert len(shown(ns)) == 1
        assert [await routes.remove(PEER), await routes.remove(PEER)] == [True, False]


async def test_another_metric_for_the_same_peer_takes_the_place_of_the_first(ns: Namespace) -> None:
    async with SteeringRoutes(netns=ns.name) as routes:
        await routes.replace(PEER, HOP, ns.index("v0"), LOCAL)
        await routes.replace(PEER, OTHER_HOP, ns.index("v0"), LOCAL, priority=50)
        assert [(r["gateway"], r["metric"]) for r in shown(ns)] == [(str(OTHER_HOP), 50)]


@pytest.mark.parametrize("peer", ["198.19.0.9", "2001:db8:9::9"])
async def test_somebody_elses_route_is_never_replaced_or_removed(ns: Namespace, peer: str) -> None:
    hop, mine = ("2001:db8::2", "2001:db8::3") if ":" in peer else ("198.18.0.2", "198.18.0.3")
    ns.ip(f"route add {peer} via {hop} metric 10")
    async with SteeringRoutes(netns=ns.name) as routes:
        with pytest.raises(RouteConflictError) as caught:
            await routes.replace(ip_address(peer), ip_address(mine), ns.index("v0"))
        assert "another metric" in caught.value.hint
        assert not await routes.remove(ip_address(peer))
        assert await routes.flush() == 0
    assert hop in ns.ip(f"route show {peer}" if ":" not in peer else f"-6 route show {peer}")


async def test_a_route_of_an_earlier_life_is_taken_over(ns: Namespace) -> None:
    async with SteeringRoutes(netns=ns.name) as routes:
        ns.ip(f"route add {PEER} via {HOP} metric 10 proto {ROUTE_PROTOCOL}")
        await routes.replace(PEER, OTHER_HOP, ns.index("v0"), LOCAL)
        assert [r["gateway"] for r in shown(ns)] == [str(OTHER_HOP)]


async def test_a_failed_replacement_leaves_the_route_that_was_there(ns: Namespace) -> None:
    async with SteeringRoutes(netns=ns.name) as routes:
        await routes.replace(PEER, HOP, ns.index("v0"), LOCAL)
        for priority in (10, 50):
            with pytest.raises(NoRouteError):
                await routes.replace(
                    PEER, ip_address("203.0.113.9"), ns.index("v0"), LOCAL, priority=priority
                )
        assert [r["gateway"] for r in shown(ns)] == [str(HOP)]


async def test_a_source_address_that_is_not_here_is_said_in_the_kernels_words(ns: Namespace) -> None:
    async with SteeringRoutes(netns=ns.name) as routes:
        with pytest.raises(NetlinkError, match="Invalid prefsrc address") as caught:
            await routes.replace(PEER, HOP, ns.index("v0"), ip_address("198.18.0.99"))
        assert "source address" in caught.value.hint


async def test_removing_a_route_that_went_with_its_link_is_no_failure(ns: Namespace) -> None:
    async with SteeringRoutes(netns=ns.name) as routes:
        await routes.replace(PEER, HOP, ns.index("v0"), LOCAL)
        ns.ip("link del v0")
        assert not await routes.remove(PEER)
        assert await routes.flush() == 0


async def test_a_route_that_went_with_its_link_can_be_installed_again(ns: Namespace) -> None:
    async with SteeringRoutes(netns=ns.name) as routes:
        await routes.replace(PEER, HOP, ns.index("v0"), LOCAL)
        ns.ip("link set v0 down")
        with pytest.raises(NetlinkError):
            await routes.replace(PEER, HOP, ns.index("v0"), LOCAL)
        ns.ip("link set v0 up")
        await routes.replace(PEER, HOP, ns.index("v0"), LOCAL)
        assert len(shown(ns)) == 1


async def test_three_hundred_go_in_and_out_in_one_batch_and_one_bad_one_stops_none(ns: Namespace) -> None:
    oif = ns.index("v0")
    many = [SteeringRoute(ip_address("198.19.0.0") + n, HOP, oif, LOCAL) for n in range(300)]
    bad = SteeringRoute(PEER + 4096, ip_address("203.0.113.9"), oif)
    async with SteeringRoutes(netns=ns.name) as routes:
        with pytest.raises(NoRouteError, match=r"203\.0\.113\.9"):
            await routes.apply([*many[:100], bad, *many[100:]])
        assert len(shown(ns)) == len(await routes.list_own()) == 300
        moved = [SteeringRoute(r.dst, OTHER_HOP, oif, LOCAL) for r in many[:200]]
        assert await routes.apply(moved, [(r.dst, r.table) for r in many[200:]]) == 100
        assert {r["gateway"] for r in shown(ns)} == {str(OTHER_HOP)}
        assert await routes.flush() == 200


CRASH = """
import asyncio, sys
from ipaddress import ip_address
from mobikectl.netlink import SteeringRoutes
async def main(ns, oif):
    async with SteeringRoutes(netns=ns) as routes:
        await routes.replace(ip_address("198.19.0.9"), ip_address("198.18.0.2"), oif, ip_address("198.18.0.1"))
        await routes.replace(ip_address("198.19.0.9"), ip_address("198.18.0.2"), oif, table=1000)
        await routes.replace(ip_address("2001:db8:9::9"), ip_address("2001:db8::2"), oif, table=70000)
        print("there", flush=True)
        await asyncio.Event().wait()
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_what_a_killed_process_left_is_found_in_every_table_and_flushed(ns: Namespace) -> None:
    ns.ip("route add 198.20.0.0/16 via 198.18.0.2")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CRASH,
        ns.name,
        str(ns.index("v0")),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"there\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    async with SteeringRoutes(netns=ns.name) as routes:
        assert {(str(r.dst), r.table) for r in await routes.list_own()} == {
            ("198.19.0.9/32", 254),
            ("198.19.0.9/32", 1000),
            ("2001:db8:9::9/128", 70000),
        }
        assert await routes.flush() == 3
        assert await routes.list_own() == ()
    assert "198.20.0.0/16" in ns.ip("route show")


UNPRIVILEGED = """
import asyncio, os
from ipaddress import ip_address
from mobikectl.errors import PrivilegeError
from mobikectl.netlink import SteeringRoutes
async def main():
    async with SteeringRoutes() as routes:
        try:
            await routes.replace(ip_address("198.19.0.9"), None, 1)
        except PrivilegeError as error:
            print(error.hint)
            return
        await routes.flush()
asyncio.run(main())
"""


async def test_without_the_capability_the_error_says_what_is_missing(ns: Namespace) -> None:
    """As nobody, in a namespace of the test's own: were the right there, no harm would be done."""
    process = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", ns.name, "setpriv", "--bounding-set=-all", "--inh-caps=-all"),
        *(sys.executable, "-c", UNPRIVILEGED),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert b"CAP_NET_ADMIN" in out


def test_a_steering_route_of_two_families_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="two families"):
        SteeringRoute(PEER, ip_address("2001:db8::2"), 2)
