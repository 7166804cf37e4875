"""The state fed with datagrams, and the differences it hands on."""

from __future__ import annotations

import contextlib
import struct
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.errors import DecodeError
from mobikectl.model import ROUTE_PROTOCOL, Address, IpAddress, Link, NextHop, Route
from mobikectl.netlink import rtnl
from mobikectl.netlink.state import ROUTE_SAMPLE, Tables

UP, RUNNING = 0x1, 0x10000


def link(
    index: int, *, flags: int = UP | RUNNING, name: str = "v0", kind: int = rtnl.RTM_NEWLINK, family: int = 0
) -> bytes:
    payload = struct.pack("=BxHiII", family, 1, index, flags, 0)
    payload += rtnl.attribute(3, name.encode() + b"\0") + rtnl.number(4, 1500)
    return rtnl.message(kind, 0, 0, payload)


def address(
    ip: str, *, index: int = 2, flags: int = 0x80, kind: int = rtnl.RTM_NEWADDR, peer: str = ""
) -> bytes:
    local = IPv6Address(ip) if ":" in ip else IPv4Address(ip)
    payload = struct.pack("=BBBBi", 10 if local.version == 6 else 2, 24, flags & 0xFF, 0, index)
    far = IPv4Address(peer) if peer else local
    payload += rtnl.attribute(1, far.packed) + rtnl.attribute(2, local.packed) + rtnl.number(8, flags)
    return rtnl.message(kind, 0, 0, payload)


def rule(priority: int, *, kind: int = rtnl.RTM_NEWRULE, flags: int = 0, tun_id: int = 0) -> bytes:
    payload = struct.pack("=BBBBBxxBI", 2, 0, 0, 0, 100, 1, flags) + rtnl.number(6, priority)
    if tun_id:
        payload += rtnl.attribute(12, struct.pack("!Q", tun_id))
    return rtnl.message(kind, 0, 0, payload)


def route(dst: str, *, protocol: int = 3, kind: int = rtnl.RTM_NEWROUTE, flags: int = 0) -> bytes:
    net = ip_network(dst)
    gateway = IPv4Address("198.18.0.2") if net.version == 4 else IPv6Address("2001:db8::2")
    payload = rtnl.encode_route(Route(net, 254, (NextHop(gateway, 2),), protocol=protocol))
    return rtnl.message(kind, 0, 0, payload[:8] + struct.pack("=I", flags) + payload[12:])


def addresses(tables: Tables) -> set[IpAddress]:
    return {address.ip for address in tables.state.addresses}


def test_an_event_changes_the_state_and_its_generation() -> None:
    tables = Tables()
    before = tables.state
    tables.feed(link(2))
    assert tables.state.links[2] == Link(2, "v0", up=True, carrier=True)
    assert tables.state.generation > before.generation
    assert not before.links


def test_a_repeated_event_changes_nothing() -> None:
    tables = Tables()
    tables.feed(link(2) + address("198.18.0.1"))
    tables.take(1.0)
    tables.feed(link(2) + address("198.18.0.1"))
    assert not tables.dirty


def test_a_change_holds_what_was_added_changed_and_removed() -> None:
    tables = Tables()
    tables.feed(link(2) + link(3, name="v1") + address("198.18.0.1") + address("198.18.0.2") + rule(7))
    tables.take(1.0)
    tables.feed(
        link(2, flags=UP)
        + link(3, kind=rtnl.RTM_DELLINK, name="v1")
        + link(4, name="v2")
        + address("198.18.0.2", kind=rtnl.RTM_DELADDR)
        + address("198.18.0.3")
        + address("198.18.0.1", flags=0xA0)
        + rule(7, kind=rtnl.RTM_DELRULE)
        + rule(8)
    )
    change = tables.take(2.0)
    assert change.at == 2.0
    assert [(a.carrier, b.carrier) for a, b in change.links_changed] == [(True, False)]
    assert [x.index for x in change.links_removed] == [3]
    assert [x.index for x in change.links_added] == [4]
    assert [x.ip for x in change.addresses_removed] == [IPv4Address("198.18.0.2")]
    assert [x.ip for x in change.addresses_added] == [IPv4Address("198.18.0.3")]
    assert [(a.deprecated, b.deprecated) for a, b in change.addresses_changed] == [(False, True)]
    assert [x.priority for x in change.rules_removed] == [7]
    assert [x.priority for x in change.rules_added] == [8]
    assert change.state == tables.state


def test_what_came_and_went_between_two_looks_leaves_no_trace_in_memory() -> None:
    tables = Tables()
    for number in range(5000):
        ip = str(IPv4Address("198.18.0.0") + number)
        tables.feed(address(ip))
        tables.feed(address(ip, kind=rtnl.RTM_DELADDR))
    assert not tables._addresses._before
    assert not tables.take(1.0).addresses_added


def test_a_link_that_went_down_and_up_between_two_looks_is_still_a_change_of_routes() -> None:
    tables = Tables()
    tables.feed(link(2))
    tables.take(1.0)
    tables.feed(link(2, flags=0))
    tables.feed(link(2))
    change = tables.take(2.0)
    assert not change.links_changed
    assert change.routes.uncertain


@pytest.mark.parametrize(
    ("event", "urgent"),
    [
        (link(2, flags=UP), True),
        (link(2, kind=rtnl.RTM_DELLINK), True),
        (link(2, name="renamed"), False),
        (link(3), False),
        (address("198.18.0.1", kind=rtnl.RTM_DELADDR), True),
        (address("198.18.0.9", kind=rtnl.RTM_DELADDR), False),
        (address("198.18.0.9"), False),
        (address("2001:db8::1", flags=0xC8), True),
        (route("0.0.0.0/0", kind=rtnl.RTM_DELROUTE), True),
        (route("198.18.9.0/24", kind=rtnl.RTM_DELROUTE), False),
        (route("0.0.0.0/0"), False),
    ],
)
def test_only_a_loss_is_urgent(event: bytes, urgent: bool) -> None:
    tables = Tables()
    tables.feed(link(2) + address("198.18.0.1") + address("2001:db8::1"))
    assert tables.feed(event) is urgent


def test_a_link_that_leaves_a_bridge_is_not_a_link_that_is_gone() -> None:
    tables = Tables()
    tables.feed(link(2))
    tables.feed(link(2, kind=rtnl.RTM_DELLINK, family=7))
    assert 2 in tables.state.links


def test_two_addresses_that_differ_by_the_peer_only_go_one_at_a_time() -> None:
    tables = Tables()
    tables.feed(address("198.18.0.1", peer="198.18.0.5") + address("198.18.0.1", peer="198.18.0.6"))
    tables.take(1.0)
    tables.feed(address("198.18.0.1", peer="198.18.0.5", kind=rtnl.RTM_DELADDR))
    assert addresses(tables) == {IPv4Address("198.18.0.1")}
    assert not tables.take(2.0).addresses_removed
    tables.feed(address("198.18.0.1", peer="198.18.0.6", kind=rtnl.RTM_DELADDR))
    assert [a.ip for a in tables.take(3.0).addresses_removed] == [IPv4Address("198.18.0.1")]


def test_rules_that_differ_in_something_unknown_to_the_model_stay_apart() -> None:
    tables = Tables()
    tables.feed(rule(7) + rule(7, tun_id=5))
    tables.feed(rule(7, tun_id=5, kind=rtnl.RTM_DELRULE))
    assert len(tables.state.rules) == 1


def test_a_rule_is_known_again_when_the_kernel_marked_its_interface_as_missing() -> None:
    tables = Tables()
    tables.feed(rule(7))
    tables.feed(rule(7, kind=rtnl.RTM_DELRULE, flags=0x8))
    assert not tables.state.rules


def test_routes_are_counted_sampled_and_never_kept() -> None:
    tables = Tables()
    for number in range(1000):
        tables.feed(route(f"{IPv4Address('198.18.0.0') + number}/32"))
    tables.feed(route("198.18.0.7/32", protocol=ROUTE_PROTOCOL) + route("0.0.0.0/0", kind=rtnl.RTM_DELROUTE))
    routes = tables.take(1.0).routes
    assert (routes.added, routes.removed, routes.uncertain) == (1001, 1, False)
    assert len(routes.sample) == ROUTE_SAMPLE
    assert [(e.added, str(e.route.dst)) for e in routes.sample[:2]] == [
        (True, "198.18.0.7/32"),
        (False, "0.0.0.0/0"),
    ]
    assert not tables.take(2.0).routes


def test_a_cached_route_is_no_route() -> None:
    tables = Tables()
    tables.feed(route("198.18.0.7/32", flags=rtnl.RTM_F_CLONED))
    assert not tables.dirty


@pytest.mark.parametrize("event", [address("198.18.0.1", kind=rtnl.RTM_DELADDR), link(2, flags=UP)])
def test_what_makes_the_kernel_drop_routes_silently_grows_the_route_generation(event: bytes) -> None:
    tables = Tables()
    tables.feed(link(2) + address("198.18.0.1"))
    before = tables.state.route_generation
    tables.feed(event)
    assert tables.state.route_generation > before


def test_a_next_hop_object_changed_may_have_changed_routes() -> None:
    tables = Tables()
    tables.feed(rtnl.message(rtnl.RTM_NEWNEXTHOP, 0, 0, bytes(8)))
    assert tables.take(1.0).routes.uncertain


KNOWN = Address(2, IPv4Address("198.18.0.1"), 24)
OTHER = Address(2, IPv4Address("198.18.0.2"), 24)


def test_a_dump_hands_on_the_difference_only() -> None:
    tables = Tables()
    tables.replace_all({2: Link(2, "v0", True, True)}, {b"1": KNOWN}, {})
    tables.take(1.0)
    assert tables.replace_all({2: Link(2, "v0", True, False)}, {b"2": OTHER}, {})
    change = tables.take(2.0)
    assert change.resync
    assert change.routes.uncertain
    assert change.addresses_added == (OTHER,)
    assert change.addresses_removed == (KNOWN,)
    assert [b.carrier for _, b in change.links_changed] == [False]


def test_a_dump_that_finds_nothing_new_is_no_change() -> None:
    tables = Tables()
    tables.replace_all({2: Link(2, "v0", True, True)}, {b"1": KNOWN}, {})
    tables.take(1.0)
    assert not tables.replace_all({2: Link(2, "v0", True, True)}, {b"1": KNOWN}, {})
    assert not tables.dirty


def test_an_address_seen_before_its_duplicate_check_ended_is_taken_in_without_alarm() -> None:
    tables = Tables()
    early = Address(2, IPv6Address("fe80::1"), 64, 253, tentative=True)
    assert not tables.replace_all({}, {b"1": early}, {})
    change = tables.take(1.0)
    assert change.addresses_added == (early,)
    assert not change.resync


Event = tuple[int, bool]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans())), st.integers(0, 100), st.integers(0, 100))
def test_differences_add_up_to_the_state_however_they_are_cut_and_dumped(
    events: list[Event], cut: int, dump: int
) -> None:
    """Whatever the reader's pace, what it was told adds up to what there is."""
    tables = Tables()
    there: dict[bytes, Address] = {}
    told: set[Address] = set()

    def look() -> None:
        change = tables.take(0.0)
        nonlocal told
        told = (told - set(change.addresses_removed)) | set(change.addresses_added)
        assert told == set(change.state.addresses) == set(there.values())

    for place, (number, present) in enumerate(events):
        raw = address(f"198.18.0.{number}", kind=rtnl.RTM_NEWADDR if present else rtnl.RTM_DELADDR)
        decoded = rtnl.decode_address(raw, next(rtnl.messages(raw)))
        assert decoded
        if present:
            there[decoded[0]] = decoded[1]
        else:
            there.pop(decoded[0], None)
        if place % 7 == dump % 7:
            tables.replace_all({}, there, {})
        else:
            tables.feed(raw)
        if place % 5 == cut % 5:
            look()
    look()


@given(st.binary(max_size=200))
def test_no_datagram_does_more_than_raise_a_decode_error(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        Tables().feed(data)


@given(
    st.sampled_from([link(2), address("198.18.0.1"), rule(7), route("198.18.0.0/24"), route("::/0")]),
    st.integers(16, 200),
    st.integers(0, 255),
)
def test_no_damaged_message_does_more_than_raise_a_decode_error(data: bytes, place: int, value: int) -> None:
    damaged = bytearray(data)
    damaged[place % (len(data) - 16) + 16 if place < len(data) else 16] = value
    with contextlib.suppress(DecodeError):
        Tables().feed(damaged)
