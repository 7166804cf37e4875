"""rtnetlink messages to and from bytes, held against pyroute2's own encoder and decoder."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from mobikectl.errors import DecodeError
from mobikectl.model import NextHop, Route
from mobikectl.netlink import rtnl

ipv4 = st.integers(0, 2**32 - 1).map(IPv4Address)
ipv6 = st.integers(0, 2**128 - 1).map(IPv6Address)


def hops(
    gateways: st.SearchStrategy[IPv4Address] | st.SearchStrategy[IPv6Address],
) -> st.SearchStrategy[NextHop]:
    return st.builds(NextHop, st.none() | gateways, st.integers(1, 2**31 - 1))


def routes(family: int) -> st.SearchStrategy[Route]:
    ip = ipv4 if family == 4 else ipv6
    networks = st.tuples(ip, st.integers(0, 32 if family == 4 else 128))
    kind = IPv4Network if family == 4 else IPv6Network
    return st.builds(
        Route,
        dst=networks.map(lambda pair: kind(pair, strict=False)),
        table=st.integers(1, 2**32 - 1),
        nexthops=st.lists(hops(ip), max_size=1).map(tuple),
        prefsrc=st.none() | ip,
        priority=st.integers(0, 2**32 - 1),
        protocol=st.integers(0, 255),
        scope=st.sampled_from([0, 253, 254]),
        type=st.sampled_from([1, 6, 7, 8]),
        tos=st.just(0),
    )


def only(buf: bytes) -> rtnl.Message:
    (msg,) = rtnl.messages(buf)
    return msg


@given(st.sampled_from([4, 6]).flatmap(routes))
def test_a_route_survives_the_way_to_bytes_and_back(route: Route) -> None:
    buf = rtnl.message(rtnl.RTM_NEWROUTE, 0, 7, rtnl.encode_route(route))
    assert rtnl.decode_route(buf, only(buf)) == route


@given(st.sampled_from([4, 6]).flatmap(routes))
def test_pyroute2_reads_our_routes_as_we_mean_them(route: Route) -> None:
    buf = rtnl.message(rtnl.RTM_NEWROUTE, 0, 7, rtnl.encode_route(route))
    (seen,) = MarshalRtnl().parse(buf)
    assert (seen["dst_len"], seen["proto"], seen["type"]) == (route.dst.prefixlen, route.protocol, route.type)
    assert seen.get_attr("RTA_TABLE") == route.table
    assert (seen.get_attr("RTA_PRIORITY") or 0) == route.priority
    assert ip_address(seen.get_attr("RTA_DST")) == route.dst.network_address
    prefsrc = seen.get_attr("RTA_PREFSRC")
    assert (ip_address(prefsrc) if prefsrc else None) == route.prefsrc
    for hop in route.nexthops:
        gateway = seen.get_attr("RTA_GATEWAY")
        assert seen.get_attr("RTA_OIF") == hop.oif
        assert (ip_address(gateway) if gateway else None) == hop.gateway


def test_a_route_of_several_next_hops_is_decoded_and_not_encoded() -> None:
    def nexthop(gateway: str, oif: int, weight: int) -> bytes:
        inner = rtnl.attribute(rtnl.RTA_GATEWAY, IPv4Address(gateway).packed)
        return struct.pack("=HBBi", 8 + len(inner), 0, weight - 1, oif) + inner

    payload = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0)
    payload += rtnl.attribute(rtnl.RTA_MULTIPATH, nexthop("198.18.0.2", 3, 1) + nexthop("198.18.1.2", 4, 5))
    buf = rtnl.message(rtnl.RTM_NEWROUTE, 0, 0, payload)
    route = rtnl.decode_route(buf, only(buf))
    assert route is not None
    assert route.dst == IPv4Network("0.0.0.0/0")
    assert route.nexthops == (
        NextHop(IPv4Address("198.18.0.2"), 3, 1),
        NextHop(IPv4Address("198.18.1.2"), 4, 5),
    )
    with pytest.raises(ValueError, match="several next hops"):
        rtnl.encode_route(route)


def test_a_gateway_of_the_other_family_is_decoded() -> None:
    payload = struct.pack("=BBBBBBBBI", 2, 32, 0, 0, 254, 3, 0, 1, 0)
    via = struct.pack("=H", 10) + IPv6Address("2001:db8::2").packed
    payload += rtnl.attribute(rtnl.RTA_DST, bytes([198, 18, 0, 1])) + rtnl.attribute(rtnl.RTA_VIA, via)
    buf = rtnl.message(rtnl.RTM_NEWROUTE, 0, 0, payload)
    route = rtnl.decode_route(buf, only(buf))
    assert route is not None
    assert route.nexthops == (NextHop(IPv6Address("2001:db8::2"), None),)


def test_several_messages_in_one_datagram_are_told_apart() -> None:
    buf = rtnl.message(16, 1, 5, b"abc") + rtnl.message(17, 2, 6, b"") + rtnl.message(18, 3, 7, b"defg")
    seen = [(m.type, m.flags, m.seq, buf[m.start : m.end]) for m in rtnl.messages(buf)]
    assert seen == [(16, 1, 5, b"abc"), (17, 2, 6, b""), (18, 3, 7, b"defg")]


def test_every_truncation_is_a_decode_error_or_nothing() -> None:
    route = Route(IPv4Network("198.18.0.0/24"), 254, (NextHop(IPv4Address("198.18.0.2"), 3),))
    whole = rtnl.message(rtnl.RTM_NEWROUTE, 0, 7, rtnl.encode_route(route))
    for size in range(rtnl.HEADER_SIZE, len(whole)):
        with pytest.raises(DecodeError):
            list(rtnl.messages(whole[:size]))
        shortened = struct.pack("=I", size) + whole[4:size]
        with_less = None
        try:
            with_less = rtnl.decode_route(shortened, only(shortened))
        except DecodeError:
            continue
        assert with_less != route


def test_the_kernels_words_are_read_from_a_refusal() -> None:
    echoed = struct.pack("=IHHII", 16, rtnl.RTM_NEWROUTE, 5, 9, 0)
    payload = struct.pack("=i", -22) + echoed + rtnl.attribute(1, b"Invalid prefsrc address\0")
    buf = rtnl.message(rtnl.NLMSG_ERROR, rtnl.NLM_F_CAPPED | rtnl.NLM_F_ACK_TLVS, 9, payload)
    assert rtnl.decode_error(buf, only(buf)) == (22, "Invalid prefsrc address")


def test_an_acknowledgement_is_no_refusal() -> None:
    buf = rtnl.message(rtnl.NLMSG_ERROR, 0, 9, bytes(20))
    assert rtnl.decode_error(buf, only(buf)).errno == 0


def test_pyroute2_reads_our_lookup_as_we_mean_it() -> None:
    payload = rtnl.encode_lookup(IPv6Address("2001:db8::9"), IPv6Address("2001:db8::1"), 4, 0x2A)
    (seen,) = MarshalRtnl().parse(rtnl.message(rtnl.RTM_GETROUTE, 1, 1, payload))
    assert (seen["family"], seen["dst_len"], seen["src_len"]) == (10, 128, 128)
    assert seen.get_attr("RTA_DST") == "2001:db8::9"
    assert seen.get_attr("RTA_SRC") == "2001:db8::1"
    assert (seen.get_attr("RTA_OIF"), seen.get_attr("RTA_MARK")) == (4, 0x2A)
