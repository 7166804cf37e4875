"""Route lookup answered by the kernel itself."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import NetlinkError, NoRouteError
from mobikectl.netlink import RouteLookup, lookup

if TYPE_CHECKING:
    from .conftest import Namespace

pytestmark = pytest.mark.netns


@pytest.mark.parametrize(
    ("dst", "route", "gateway", "src"),
    [
        ("198.19.0.9", "198.19.0.0/16 via 198.18.0.2", "198.18.0.2", "198.18.0.1"),
        ("198.18.0.9", "", None, "198.18.0.1"),
        ("2001:db8:9::9", "2001:db8:9::/48 via 2001:db8::2", "2001:db8::2", "2001:db8::1"),
        ("2001:db8::9", "", None, "2001:db8::1"),
    ],
)
async def test_the_way_is_the_one_that_ip_route_get_shows(
    ns: Namespace, dst: str, route: str, gateway: str | None, src: str
) -> None:
    if route:
        ns.ip(f"route add {route}")
    answer = await lookup(dst, netns=ns.name)
    (shown,) = json.loads(ns.ip(f"-j route get {dst}"))
    assert (str(answer.gateway) if answer.gateway else None) == gateway == shown.get("gateway")
    assert str(answer.prefsrc) == src == shown["prefsrc"]
    assert answer.oif == ns.index("v0")


async def test_a_rule_for_a_mark_counts(ns: Namespace) -> None:
    ns.ip("route add 198.19.0.0/16 via 198.18.0.2")
    ns.ip("route add 198.19.0.0/16 via 198.18.0.3 table 100")
    ns.ip("rule add fwmark 5 table 100")
    dst = ip_address("198.19.0.9")
    async with RouteLookup(netns=ns.name) as asking:
        assert (await asking.lookup(dst)).gateway == ip_address("198.18.0.2")
        assert (await asking.lookup(dst, mark=5)).gateway == ip_address("198.18.0.3")


async def test_a_rule_for_a_source_address_counts(ns: Namespace) -> None:
    ns.ip("addr add 198.18.0.7/24 dev v0")
    ns.ip("route add 198.19.0.0/16 via 198.18.0.2")
    ns.ip("route add 198.19.0.0/16 via 198.18.0.3 table 100")
    ns.ip("rule add from 198.18.0.7 table 100")
    dst = ip_address("198.19.0.9")
    async with RouteLookup(netns=ns.name) as asking:
        assert (await asking.lookup(dst, src=ip_address("198.18.0.1"))).gateway == ip_address("198.18.0.2")
        assert (await asking.lookup(dst, src=ip_address("198.18.0.7"))).gateway == ip_address("198.18.0.3")


async def test_the_outgoing_link_counts(ns: Namespace) -> None:
    ns.ip("addr add 198.18.1.1/24 dev v1")
    ns.ip("route add default via 198.18.0.2 metric 1")
    ns.ip("route add default via 198.18.1.2 metric 2")
    dst = ip_address("198.19.0.9")
    async with RouteLookup(netns=ns.name) as asking:
        assert (await asking.lookup(dst)).gateway == ip_address("198.18.0.2")
        answer = await asking.lookup(dst, oif=ns.index("v1"))
    assert (answer.gateway, answer.oif) == (ip_address("198.18.1.2"), ns.index("v1"))


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit", ""])
@pytest.mark.parametrize("net", ["198.19.0.0/16", "2001:db8:9::/48"])
async def test_no_way_is_a_no_route_error_whatever_the_reason(ns: Namespace, kind: str, net: str) -> None:
    if kind:
        ns.ip(f"route add {kind} {net}")
    with pytest.raises(NoRouteError) as caught:
        await lookup(net.split("/", maxsplit=1)[0], netns=ns.name)
    assert "ip route get" in caught.value.hint


async def test_a_link_that_is_down_is_no_way(ns: Namespace) -> None:
    ns.ip("route add default via 198.18.0.2")
    ns.ip("link set v0 down")
    with pytest.raises(NoRouteError):
        await lookup("198.19.0.9", netns=ns.name)


async def test_a_link_that_is_not_there_is_a_refused_question(ns: Namespace) -> None:
    with pytest.raises(NetlinkError) as caught:
        await lookup("198.18.0.9", oif=4711, netns=ns.name)
    assert not isinstance(caught.value, NoRouteError)


async def test_two_families_in_one_question_are_a_mistake_of_the_caller(ns: Namespace) -> None:
    with pytest.raises(ValueError, match="two families"):
        await lookup("198.18.0.9", src=ip_address("2001:db8::1"), netns=ns.name)


async def test_a_namespace_that_is_not_there_is_a_typed_error() -> None:
    with pytest.raises(NetlinkError):
        await lookup("198.18.0.9", netns="mknl-there-is-none")
