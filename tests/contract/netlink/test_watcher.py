"""The watcher on the kernel's own rtnetlink, in namespaces of its own."""

from __future__ import annotations

import asyncio
import resource
from functools import partial
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import NetlinkError
from mobikectl.netlink import Watcher

from .conftest import following

if TYPE_CHECKING:
    from mobikectl.model import IpNetwork
    from mobikectl.netlink import NetChange

    from .conftest import Namespace

pytestmark = pytest.mark.netns
TINY = 4096


async def test_the_first_state_is_all_there_is(ns: Namespace) -> None:
    ns.ip("rule add fwmark 5 table 100 priority 77")
    async with Watcher(netns=ns.name) as watcher:
        state = watcher.state
    names = {link.name: link for link in state.links.values()}
    assert names["v0"].usable
    assert names["v0"].kind == "veth"
    assert names["lo"].loopback
    ips = {(str(a.ip), a.prefixlen, names["v0"].index == a.index) for a in state.addresses}
    assert {("198.18.0.1", 24, True), ("2001:db8::1", 64, True), ("127.0.0.1", 8, False)} <= ips
    assert {(r.priority, r.table, r.fwmark) for r in state.rules} >= {(77, 100, 5), (32766, 254, 0)}


async def test_a_link_that_goes_down_and_comes_back_is_told(ns: Namespace) -> None:
    index = ns.index("v0")
    async with following(Watcher(netns=ns.name)) as follower:
        ns.ip("link set v0 down")
        change = await follower.until_any(lambda c: c.links_changed)
        assert not change.state.links[index].up
        assert change.routes.uncertain
        ns.ip("link set v0 up")
        await follower.until_any(lambda c: c.state.links[index].usable and c is not change)


async def test_a_lost_carrier_is_told(ns: Namespace) -> None:
    index = ns.index("v0")
    async with following(Watcher(netns=ns.name)) as follower:
        ns.ip("link set v1 down")
        change = await follower.until_any(lambda c: not c.state.links[index].carrier)
        assert change.state.links[index].up


async def test_a_link_that_comes_and_goes_is_told(ns: Namespace) -> None:
    async with following(Watcher(netns=ns.name)) as follower:
        ns.ip("link add br7 type bridge")
        change = await follower.until_any(lambda c: c.links_added)
        assert change.links_added[0].kind == "bridge"
        ns.ip("link set v1 master br7")
        await follower.until_any(lambda c: any(new.master for _, new in c.links_changed))
        ns.ip("link set v1 nomaster")
        await follower.until_any(lambda c: any(old.master and not new.master for old, new in c.links_changed))
        ns.ip("link del br7")
        gone = await follower.until_any(lambda c: c.links_removed)
        assert [link.name for link in gone.links_removed] == ["br7"]
        assert ns.index("v1") in gone.state.links


@pytest.mark.parametrize("cidr", ["198.18.7.1/32", "2001:db8:7::1/128"])
async def test_an_address_that_comes_and_goes_is_told(ns: Namespace, cidr: str) -> None:
    ip = ip_address(cidr.split("/", maxsplit=1)[0])
    async with following(Watcher(netns=ns.name)) as follower:
        ns.ip(f"addr add {cidr} dev v0" + (" nodad" if ip.version == 6 else ""))
        await follower.until_any(lambda c: ip in {a.ip for a in c.addresses_added})
        ns.ip(f"addr del {cidr} dev v0")
        change = await follower.until_any(lambda c: ip in {a.ip for a in c.addresses_removed})
        assert ip not in {a.ip for a in change.state.addresses}


async def test_a_new_ipv6_address_becomes_usable_when_its_duplicate_check_ends(ns: Namespace) -> None:
    ip = ip_address("2001:db8:7::1")
    async with following(Watcher(netns=ns.name)) as follower:
        ns.ip(f"addr add {ip}/64 dev v0")
        change = await follower.until_any(
            lambda c: ip in {a.ip for a in c.state.addresses if not a.tentative}
        )
        (now,) = (a for a in change.state.addresses if a.ip == ip)
        assert not now.tentative
        told = [a for c in follower.changes for a in c.addresses_added if a.ip == ip]
        assert [a.tentative for a in told] == [True]


async def test_a_duplicate_ipv6_address_never_becomes_usable(ns: Namespace) -> None:
    ip = ip_address("2001:db8:7::1")
    ns.ip(f"addr add {ip}/64 dev v1 nodad")
    async with following(Watcher(netns=ns.name)) as follower:
        ns.ip(f"addr add {ip}/64 dev v0")
        index = ns.index("v0")
        await follower.until_any(lambda c: (index, ip) in {(a.index, a.ip) for a in c.state.addresses})
        async with asyncio.timeout(15):
            while "dadfailed" not in ns.ip("-6 addr show dev v0"):  # noqa: ASYNC110  the kernel does not tell
                await asyncio.sleep(0.1)
        (found,) = (a for a in follower.watcher.state.addresses if a.ip == ip and a.index == index)
        assert found.tentative


def _adds_rule_from(src: IpNetwork, change: NetChange) -> bool:
    return src in {rule.src for rule in change.rules_added}


def _removes_rule_from(src: IpNetwork, change: NetChange) -> bool:
    return src in {rule.src for rule in change.rules_removed}


async def test_rules_of_both_families_are_told(ns: Namespace) -> None:
    async with following(Watcher(netns=ns.name)) as follower:
        for family, src in (("-4", "198.18.0.0/24"), ("-6", "2001:db8::/64")):
            ns.ip(f"{family} rule add from {src} table 100 priority 77")
            change = await follower.until_any(partial(_adds_rule_from, ip_network(src)))
            assert change.rules_added[0].table == 100
            ns.ip(f"{family} rule del from {src} table 100 priority 77")
            await follower.until_any(partial(_removes_rule_from, ip_network(src)))


@pytest.mark.parametrize(
    ("dst", "via"),
    [("198.19.0.0/16", "198.18.0.2"), ("2001:db8:9::/48", "2001:db8::2"), ("default", "198.18.0.2")],
)
async def test_routes_are_told_and_the_generation_grows(ns: Namespace, dst: str, via: str) -> None:
    net = ip_network("0.0.0.0/0" if dst == "default" else dst)
    async with following(Watcher(netns=ns.name)) as follower:
        before = follower.watcher.state.route_generation
        ns.ip(f"route add {dst} via {via}")
        added = await follower.until_any(
            lambda c: (True, net) in {(e.added, e.route.dst) for e in c.routes.sample}
        )
        assert added.state.route_generation > before
        ns.ip(f"route del {dst}")
        await follower.until_any(lambda c: (False, net) in {(e.added, e.route.dst) for e in c.routes.sample})


async def test_a_route_that_the_kernel_drops_silently_is_a_change_of_routes_all_the_same(
    ns: Namespace,
) -> None:
    ns.ip("route add 198.19.0.0/16 via 198.18.0.2")
    async with following(Watcher(netns=ns.name)) as follower:
        ns.ip("link set v0 down")
        await follower.until_any(lambda c: c.routes.uncertain)
        assert "198.19.0.0" not in ns.ip("route show table all")


async def test_a_burst_is_few_changes_and_ends_in_the_right_state(ns: Namespace) -> None:
    ips = {ip_address("198.18.8.1") + n for n in range(100)}
    async with following(Watcher(netns=ns.name, window=0.2)) as follower:
        await asyncio.to_thread(ns.batch, [f"addr add {ip}/32 dev v0" for ip in ips])
        changes = await follower.until(lambda cs: bool(cs) and ips <= {a.ip for a in cs[-1].state.addresses})
        assert len(changes) < 50
        assert {a.ip for c in changes for a in c.addresses_added} == ips


async def test_a_reader_that_stops_reading_gets_one_change_with_all_of_it(ns: Namespace) -> None:
    ips = {ip_address("198.18.8.1") + n for n in range(100)}
    async with Watcher(netns=ns.name, window=0) as watcher:
        await asyncio.to_thread(ns.batch, [f"addr add {ip}/32 dev v0" for ip in ips])
        async with asyncio.timeout(10):
            while not ips <= {a.ip for a in watcher.state.addresses}:  # noqa: ASYNC110  nobody reads: nothing tells
                await asyncio.sleep(0.01)
            change = await anext(watcher.changes())
        assert {a.ip for a in change.addresses_added} == ips


async def test_a_second_reader_is_refused(ns: Namespace) -> None:
    async with following(Watcher(netns=ns.name)) as follower:
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="a reader already"):
            await anext(follower.watcher.changes())


async def test_reading_after_the_watcher_was_left_is_an_error(ns: Namespace) -> None:
    async with Watcher(netns=ns.name) as watcher:
        pass
    with pytest.raises(NetlinkError, match="closed"):
        await anext(watcher.changes())


async def test_a_mistake_in_the_background_reaches_the_reader(
    ns: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Watcher(netns=ns.name, verify_every=0.05) as watcher:

        async def fail() -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(watcher, "_check", fail)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(anext(watcher.changes()), 10)


async def test_an_overrun_of_addresses_is_resolved_by_the_difference(ns: Namespace) -> None:
    """The loop stands still while thousands of addresses come, go and stay: the small buffer must overflow."""
    kept = {ip_address("198.19.0.0") + n for n in range(1000)}
    gone = {ip_address("198.19.64.0") + n for n in range(1000)}
    ns.ip("addr add 198.18.9.9/32 dev v0")
    async with following(Watcher(netns=ns.name, rcvbuf=TINY)) as follower:
        commands = [f"addr add {ip}/32 dev v0" for ip in kept | gone] + [
            f"addr del {ip}/32 dev v0" for ip in gone
        ]
        ns.batch([*commands, "addr del 198.18.9.9/32 dev v0"])
        change = await follower.until_any(lambda c: c.resync)
        assert change.routes.uncertain
        await follower.until(lambda cs: kept <= {a.ip for a in cs[-1].state.addresses})
        told: set[object] = set()
        for one in follower.changes:
            told = (told - {a.ip for a in one.addresses_removed}) | {a.ip for a in one.addresses_added}
        assert told == kept
        assert ip_address("198.18.9.9") in {a.ip for c in follower.changes for a in c.addresses_removed}
        assert follower.watcher.counters.overruns >= 1
        assert follower.watcher.counters.resyncs >= 1


async def test_an_overrun_of_routes_says_so_and_leaves_the_rest_alone(ns: Namespace) -> None:
    async with following(Watcher(netns=ns.name, route_rcvbuf=TINY)) as follower:
        nets = [ip_address("198.19.0.0") + n for n in range(5000)]
        ns.batch([*(f"route add {net}/32 via 198.18.0.2" for net in nets), "addr add 198.18.9.9/32 dev v0"])
        change = await follower.until_any(lambda c: c.routes.uncertain)
        assert change.routes.added < 5000
        await follower.until_any(lambda c: c.addresses_added)
        assert follower.watcher.counters.route_overruns >= 1
        assert follower.watcher.counters.overruns == 0


@pytest.mark.parametrize("which", ["_events", "_route_events"])
async def test_a_closed_socket_is_opened_again_and_the_difference_told(ns: Namespace, which: str) -> None:
    async with following(Watcher(netns=ns.name, verify_every=0.3)) as follower:
        getattr(follower.watcher, which).close()
        ns.ip("addr add 198.18.9.9/32 dev v0")
        ns.ip("route add 198.19.0.0/16 via 198.18.0.2")
        ip = ip_address("198.18.9.9")
        await follower.until_any(lambda c: ip in {a.ip for a in c.addresses_added})
        await follower.until_any(lambda c: c.routes)
        ns.ip("addr del 198.18.9.9/32 dev v0")
        ns.ip("route add 198.20.0.0/16 via 198.18.0.2")
        net = ip_network("198.20.0.0/16")
        await follower.until_any(lambda c: ip in {a.ip for a in c.addresses_removed})
        await follower.until_any(lambda c: net in {e.route.dst for e in c.routes.sample})


async def test_the_periodic_check_finds_nothing_where_nothing_is_wrong(ns: Namespace) -> None:
    async with following(Watcher(netns=ns.name, verify_every=0.05)) as follower:
        ns.ip("addr add 198.18.9.9/32 dev v0")
        await follower.until_any(lambda c: c.addresses_added)
        ns.ip("addr add 2001:db8:7::1/64 dev v0")
        await follower.until_any(lambda c: any(not a.tentative for _, a in c.addresses_changed))
        assert not any(c.resync for c in follower.changes)
        assert follower.watcher.counters.corrections == 0


@pytest.mark.slow
async def test_a_full_table_loaded_and_flushed_costs_no_memory_and_hides_no_link(ns: Namespace) -> None:
    count = 100_000
    index = ns.index("v0")
    async with following(Watcher(netns=ns.name)) as follower:
        net = ip_address("198.19.0.0")
        commands = [f"route add {net + n}/32 via 198.18.0.2 table 1000" for n in range(count)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        loading = asyncio.create_task(asyncio.to_thread(ns.batch, commands))
        await follower.until(lambda cs: sum(c.routes.added for c in cs) > 1000)
        await asyncio.to_thread(ns.ip, "link set v0 mtu 1400")
        await follower.until_any(lambda c: c.state.links[index].mtu == 1400)
        await loading
        await asyncio.to_thread(ns.ip, "route flush table 1000")
        ns.ip("addr add 198.18.9.9/32 dev v0")
        await follower.until_any(lambda c: c.addresses_added)
        counted = sum(c.routes.added for c in follower.changes)
        assert counted >= count or any(c.routes.uncertain for c in follower.changes)
        assert follower.watcher.counters.overruns == 0
        assert max(len(c.routes.sample) for c in follower.changes) <= 16
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
