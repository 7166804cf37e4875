"""Observations told as events: one line each for `mobikectl monitor`, the log and the pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobikectl.charon.sa_events import (
    ChildDown,
    ChildRekeyed,
    ChildUp,
    PeerUnresponsive,
    Retransmit,
    SaDown,
    SaEventsDropped,
    SaModelResynced,
    SaPathChanged,
    SaPortsChanged,
    SaRekeyed,
    SaUp,
)
from mobikectl.model import ROUTE_PROTOCOL
from mobikectl.observe.events import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobikectl.charon.sa_events import SaEvent
    from mobikectl.model import Address, IkeSa, Link, Route
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


def report_sa(event: SaEvent, events: EventLog) -> None:
    """Given what happened to charon's SAs, record it as an event."""
    told = _sa(event)
    if told is not None:
        name, text, data = told
        events.record(Source.CHARON, name, text, data=data)


def _sa(event: SaEvent) -> Line | None:
    match event:
        case SaUp(sa=sa):
            return "ike-up", f"{_name(sa)} is up on {sa.path}", _sa_data(sa)
        case SaDown(sa=sa):
            return "ike-down", f"{_name(sa)} went down", _sa_data(sa)
        case SaPathChanged(sa=sa, before=before, after=after):
            data = {**_sa_data(sa), "before": str(before), "after": str(after)}
            return "ike-update", f"{_name(sa)} moved: {before} => {after}", data
        case SaPortsChanged(sa=sa, before=before, after=after):
            text = f"{_name(sa)} uses UDP ports {after[0]}, {after[1]} instead of {before[0]}, {before[1]}"
            return "ike-ports", text, _sa_data(sa)
        case SaRekeyed(old_id=old, sa=sa):
            return "ike-rekey", f"{_name(sa)} was rekeyed from {old}", {**_sa_data(sa), "old": old}
        case ChildUp(sa=sa, child=child):
            return "child-up", f"{_name(sa)}: CHILD_SA {child.name} is up", _sa_data(sa)
        case ChildDown(sa=sa, child=child):
            return "child-down", f"{_name(sa)}: CHILD_SA {child.name} went down", _sa_data(sa)
        case ChildRekeyed(sa=sa, child=child):
            return "child-rekey", f"{_name(sa)}: CHILD_SA {child.name} was rekeyed", _sa_data(sa)
        case _:
            return _doubt(event)


def _doubt(event: SaEvent) -> Line | None:
    match event:
        case Retransmit(uniqueid=number, count=count):
            text = f"IKE_SA {number}: the peer does not answer, sent again ({count})"
            return "retransmit", text, {"ike_sa": number, "count": count}
        case PeerUnresponsive(uniqueid=number, count=count):
            text = f"IKE_SA {number}: charon gave up after {count} retransmits"
            return "unresponsive", text, {"ike_sa": number, "count": count}
        case SaModelResynced(reason=reason, differences=differences) if differences:
            text = f"the IKE_SAs were listed ({reason}): {len(differences)} differences mended"
            return "resync", text, {"differences": len(differences)}
        case SaEventsDropped(count=count):
            return "events-dropped", f"{count} events about IKE_SAs were dropped", {"count": count}
        case _:
            return None


def _name(sa: IkeSa) -> str:
    return f"{sa.name}[{sa.uniqueid}]"


def _sa_data(sa: IkeSa) -> dict[str, object]:
    return {
        "ike_sa": sa.uniqueid,
        "connection": sa.name,
        "path": str(sa.path),
        "remote_id": sa.remote_id,
        "initiator": sa.original_initiator,
    }
