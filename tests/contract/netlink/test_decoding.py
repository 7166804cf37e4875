"""Our decoder and pyroute2's, on the same bytes of a real kernel."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from mobikectl.model import Family
from mobikectl.netlink import rtnl
from mobikectl.netlink.kernel import Requests

if TYPE_CHECKING:
    from .conftest import Namespace

pytestmark = pytest.mark.netns


async def both(ns: Namespace, kind: int, family: int = 0) -> list[tuple[bytes, rtnl.Message, Any]]:
    """Return every message of a dump with what pyroute2 makes of it."""
    async with Requests(netns=ns.name) as requests:
        found = await requests.dump_all(kind, rtnl.encode_dump(kind, family))
    pairs = []
    for buf, msg in found:
        (library,) = MarshalRtnl().parse(buf[msg.start - rtnl.HEADER_SIZE : msg.end])
        pairs.append((buf, msg, library))
    return pairs


async def test_links_are_read_alike(ns: Namespace) -> None:
    ns.ip("link add br7 type bridge")
    ns.ip("link set v1 master br7 mtu 1400")
    pairs = await both(ns, rtnl.RTM_GETLINK)
    assert len(pairs) == 4
    for buf, msg, library in pairs:
        link = rtnl.decode_link(buf, msg)
        assert link is not None
        assert (link.index, link.name) == (library["index"], library.get("ifname"))
        assert (link.mtu, link.master) == (library.get("mtu"), library.get("master"))
        assert link.kind == (library.get(("linkinfo", "kind")) or "")
        assert (link.up, link.loopback, link.carrier) == tuple(
            bool(library["flags"] & bit) for bit in (1, 8, 0x10000)
        )


async def test_addresses_are_read_alike(ns: Namespace) -> None:
    ns.ip("addr add 198.18.5.1 peer 198.18.5.2/32 dev v0")
    ns.ip("addr add 2001:db8:5::1/64 dev v1 nodad preferred_lft 0")
    ns.ip("addr add 198.18.0.5/24 dev v0")
    pairs = await both(ns, rtnl.RTM_GETADDR)
    assert len(pairs) == 7
    deprecated = []
    for buf, msg, library in pairs:
        decoded = rtnl.decode_address(buf, msg)
        assert decoded is not None
        _, address = decoded
        assert address.ip == ip_address(library.get("local") or library.get("address"))
        assert (address.index, address.prefixlen) == (library["index"], library["prefixlen"])
        assert address.scope == library["scope"]
        assert address.deprecated == bool(library.get("flags") & 0x20)
        deprecated.append(address.deprecated)
    assert any(deprecated)


async def test_rules_are_read_alike(ns: Namespace) -> None:
    ns.ip("rule add from 198.18.0.0/24 to 198.19.0.0/16 iif v0 fwmark 0x5/0xff table 70000 priority 7")
    ns.ip("-6 rule add from 2001:db8::/64 oif v1 table 100 priority 8")
    everything = await both(ns, rtnl.RTM_GETRULE)
    pairs = [item for item in everything if item[2]["family"] in list(Family)]
    assert len(pairs) == 7
    multicast = [item for item in everything if item not in pairs]
    assert all(rtnl.decode_rule(buf, msg) is None for buf, msg, _ in multicast)
    for buf, msg, library in pairs:
        decoded = rtnl.decode_rule(buf, msg)
        assert decoded is not None
        _, rule = decoded
        assert (rule.family, rule.action) == (library["family"], library["action"])
        assert (rule.priority, rule.table) == (library.get("priority") or 0, library.get("table"))
        assert (rule.fwmark, rule.fwmask) == (library.get("fwmark") or 0, library.get("fwmask") or 0)
        assert (rule.iif, rule.oif) == (library.get("iifname") or "", library.get("oifname") or "")
        for ours, theirs, length in (
            (rule.src, library.get("src"), library["src_len"]),
            (rule.dst, library.get("dst"), library["dst_len"]),
        ):
            assert (str(ours) if ours else None) == (f"{theirs}/{length}" if theirs else None)


@pytest.mark.parametrize("family", list(Family))
async def test_routes_are_read_alike(ns: Namespace, family: Family) -> None:
    if family is Family.INET:
        ns.ip("route add 198.19.0.0/16 via 198.18.0.2 src 198.18.0.1 metric 7 table 70000")
        ns.ip("route add default nexthop via 198.18.0.2 weight 1 nexthop via 198.18.0.3 weight 5")
        ns.ip("route add blackhole 198.20.0.0/16")
        ns.ip("route add 198.21.0.0/16 via inet6 2001:db8::2 dev v0")
    else:
        ns.ip("route add 2001:db8:9::/48 via 2001:db8::2 src 2001:db8::1 metric 7 table 70000")
        ns.ip("route add unreachable 2001:db8:a::/48")
    pairs = await both(ns, rtnl.RTM_GETROUTE, family)
    assert len(pairs) > 5
    for buf, msg, library in pairs:
        route = rtnl.decode_route(buf, msg)
        assert route is not None
        assert route.dst.prefixlen == library["dst_len"]
        if library["dst_len"]:
            assert route.dst.network_address == ip_address(library.get("dst"))
        assert (route.table, route.priority) == (library.get("table"), library.get("priority") or 0)
        assert (route.protocol, route.scope, route.type) == (
            library["proto"],
            library["scope"],
            library["type"],
        )
        assert (str(route.prefsrc) if route.prefsrc else None) == library.get("prefsrc")
        hops = library.get("multipath") or ([library] if library.get("oif") else [])
        assert [hop.oif for hop in route.nexthops] == [h.get("oif") for h in hops]
        for hop, theirs in zip(route.nexthops, hops, strict=True):
            gateway = theirs.get("gateway") or (theirs.get("via") or {}).get("addr")
            assert (str(hop.gateway) if hop.gateway else None) == gateway
