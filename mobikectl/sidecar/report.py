"""Observations told as events: one line each for `mobikectl monitor`, the log and the pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobikectl.model import ROUTE_PROTOCOL
from mobikectl.observe.events import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobikectl.model import Address, Link, Route
    from mobikectl.netlink import NetChange
    from mobikectl.observe.events import EventLog

Line = tuple[str, str, dict[str, object]]
"""An event's name, its line for people, and its details."""


def report_netlink(change: NetChange, events: EventLog) -> None:
    """Given a change of the host's network, record one event for each thing that changed."""
    for name, text, data in (*_links(change), *_addresses(change), *_rules(change), *_routes(change)):
        events.record(Source.NETLINK, name, text, at=change.at, data=data)
    if change.resync:
        events.record(
            Source.NETLINK, "resync", "the network was read anew, events had been lost", at=change.at
        )


def _links(change: NetChange) -> Iterator[Line]:
    for link in change.links_added:
        yield "link-added", f"link {link.name} is there ({_state(link)})", _link_data(link)
    for link in change.links_removed:
        yield "link-removed", f"link {link.name} is gone", _link_data(link)
    for before, after in change.links_changed:
        if before.usable == after.usable:
            continue
        yield (
            f"link-{'up' if after.usable else 'down'}",
            f"link {after.name}: {_state(after)}",
            _link_data(after),
        )


def _state(link: Link) -> str:
    return "up" if link.usable else "no carrier" if link.up else "down"


def _link_data(link: Link) -> dict[str, object]:
    return {"link": link.name, "index": link.index, "up": link.up, "carrier": link.carrier}


def _addresses(change: NetChange) -> Iterator[Line]:
    names = change.state.links
    for found, word, verb in (
        (change.addresses_added, "address-added", "appeared"),
        (change.addresses_removed, "address-removed", "went away"),
        (tuple(after for _, after in change.addresses_changed), "address-changed", "changed"),
    ):
        for address in found:
            link = names[address.index].name if address.index in names else f"#{address.index}"
            text = f"address {address.ip}/{address.prefixlen} on {link} {verb}{_marks(address)}"
            yield word, text, {"address": str(address.ip), "link": link}


def _marks(address: Address) -> str:
    marks = [mark for mark in ("tentative", "deprecated") if getattr(address, mark)]
    return f" ({', '.join(marks)})" if marks else ""


def _rules(change: NetChange) -> Iterator[Line]:
    for rules, word in ((change.rules_added, "rule-added"), (change.rules_removed, "rule-removed")):
        for rule in rules:
            text = f"ip rule {rule.priority} to table {rule.table} {word.removeprefix('rule-')}"
            yield word, text, {"priority": rule.priority, "table": rule.table}


def _routes(change: NetChange) -> Iterator[Line]:
    routes = change.routes
    if not routes:
        return
    strangers = [event for event in routes.sample if event.route.protocol != ROUTE_PROTOCOL]
    if not strangers and len(routes.sample) == routes.added + routes.removed and not routes.uncertain:
        return  # only our own steering, which the executor tells
    shown = ", ".join(f"{'+' if event.added else '-'} {_route(event.route)}" for event in strangers[:3])
    more = routes.added + routes.removed - len(strangers[:3])
    text = f"routes changed: {shown}" + (f" and {more} more" if more > 0 and shown else "")
    yield "routes", text, {"added": routes.added, "removed": routes.removed}


def _route(route: Route) -> str:
    dst = "default" if route.dst.prefixlen == 0 else str(route.dst)
    via = f" via {route.nexthops[0].gateway}" if route.nexthops and route.nexthops[0].gateway else ""
    return f"{dst}{via}" + (f" metric {route.priority}" if route.priority else "")
