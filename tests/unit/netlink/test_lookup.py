"""The kernel's answers to a lookup."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from mobikectl.errors import NetlinkError, NoRouteError
from mobikectl.model import NextHop, Route, RouteAnswer
from mobikectl.netlink import rtnl
from mobikectl.netlink.lookup import read_answer

DST, GATEWAY, LOCAL = ip_address("2001:db8:9::9"), ip_address("2001:db8::2"), ip_address("2001:db8::1")


def answer(kind: int = rtnl.RTN_UNICAST, oif: int | None = 4) -> bytes:
    hops = (NextHop(GATEWAY, oif),)
    route = Route(ip_network("2001:db8:9::9/128"), 254, hops, prefsrc=LOCAL, type=kind)
    return rtnl.message(rtnl.RTM_NEWROUTE, 0, 1, rtnl.encode_route(route))


@pytest.mark.parametrize("kind", [rtnl.RTN_UNICAST, rtnl.RTN_LOCAL])
def test_a_route_is_a_way(kind: int) -> None:
    assert read_answer(DST, answer(kind)) == RouteAnswer(DST, GATEWAY, 4, LOCAL)


@pytest.mark.parametrize("kind", [rtnl.RTN_BLACKHOLE, rtnl.RTN_UNREACHABLE, rtnl.RTN_PROHIBIT])
def test_a_route_that_refuses_is_no_way(kind: int) -> None:
    with pytest.raises(NoRouteError, match=str(DST)):
        read_answer(DST, answer(kind))


def test_a_route_that_leads_to_no_link_is_no_way() -> None:
    with pytest.raises(NoRouteError, match="no link"):
        read_answer(DST, answer(oif=None))


def test_an_empty_answer_is_a_netlink_error() -> None:
    with pytest.raises(NetlinkError, match="is none"):
        read_answer(DST, b"")
