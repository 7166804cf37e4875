"""The host's network kept in step with rtnetlink, and what changed since somebody last asked. Pure: bytes in.

What is kept: every link, address and rule, and for each the value that was handed on last, if it differs. So the
memory is that of two states at most, however slow the reader and however long the storm.

Of routes nothing is kept but counts, a generation and a bounded sample: 100,000 routes cost what none cost. More
would be wrong as well as dear: the kernel drops IPv4 routes silently when a link goes down or an address goes
(no RTM_DELROUTE), and a replaced route is named by its successor only. Both therefore count as "routes may have
changed". Who needs a route asks for it (`mobikectl.netlink.lookup`).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar

from mobikectl.model import ROUTE_PROTOCOL, Address, Link, NetState, Route, Rule
from mobikectl.netlink import rtnl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROUTE_SAMPLE = 16
"""How many route events a `NetChange` shows at most."""

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class RouteEvent:
    """A route that was added (or replaced another: the kernel does not say which) or removed."""

    added: bool
    route: Route


@dataclass(frozen=True, slots=True)
class RouteChanges:
    """What became of routes: how many messages said so, and some of them."""

    added: int = 0
    removed: int = 0
    sample: tuple[RouteEvent, ...] = ()
    """At most `ROUTE_SAMPLE`; default routes and mobikectl's own come before others."""
    uncertain: bool = False
    """More may have changed than was counted: an overrun, or a change that drops routes silently."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.uncertain)


@dataclass(frozen=True, slots=True)
class NetChange:
    """What changed between two states handed on one after the other."""

    at: float
    """When the first event of it was received: seconds of CLOCK_MONOTONIC."""
    state: NetState
    """The state after it."""
    links_added: tuple[Link, ...] = ()
    links_removed: tuple[Link, ...] = ()
    links_changed: tuple[tuple[Link, Link], ...] = ()
    """(before, after)."""
    addresses_added: tuple[Address, ...] = ()
    addresses_removed: tuple[Address, ...] = ()
    addresses_changed: tuple[tuple[Address, Address], ...] = ()
    """(before, after): the same address with other flags."""
    rules_added: tuple[Rule, ...] = ()
    rules_removed: tuple[Rule, ...] = ()
    routes: RouteChanges = RouteChanges()
    resync: bool = False
    """Found by dumping everything again after an overrun, a broken socket, or in the periodic check."""


class Table(Generic[_K, _V]):
    """Objects by identity, and the value each had when the table was last taken."""

    def __init__(self) -> None:
        self.now: dict[_K, _V] = {}
        self._before: dict[_K, _V | None] = {}

    def put(self, key: _K, value: _V) -> bool:
        """Given what there is under an identity now, return whether that is new."""
        old = self.now.get(key)
        if old == value:
            return False
        self._touch(key, old)
        self.now[key] = value
        return True

    def drop(self, key: _K) -> bool:
        """Given an identity that is gone, return whether it was there."""
        old = self.now.pop(key, None)
        if old is None:
            return False
        if self._before.get(key, old) is None:
            del self._before[key]
        else:
            self._touch(key, old)
        return True

    def replace(self, wanted: Mapping[_K, _V]) -> bool:
        """Given everything there is, return whether that differs from what was known."""
        gone = [key for key in self.now if key not in wanted]
        changed = [self.drop(key) for key in gone]
        changed += [self.put(key, value) for key, value in wanted.items()]
        return any(changed)

    def _touch(self, key: _K, old: _V | None) -> None:
        self._before.setdefault(key, old)

    def take(self) -> list[tuple[_V | None, _V | None]]:
        """Return (before, after) of all that changed since the last call; None is "not there"."""
        pairs = [(old, self.now.get(key)) for key, old in self._before.items()]
        self._before.clear()
        return [(old, new) for old, new in pairs if old != new]


class Tables:
    """The state, fed with the kernel's datagrams."""

    def __init__(self) -> None:
        self._links: Table[int, Link] = Table()
        self._addresses: Table[bytes, Address] = Table()
        self._rules: Table[bytes, Rule] = Table()
        self._generation = 0
        self._route_generation = 0
        self._added = 0
        self._removed = 0
        self._uncertain = False
        self._notable: list[RouteEvent] = []
        self._ordinary: list[RouteEvent] = []
        self._resync = False
        self._dirty = False
        self._state: NetState | None = None
        self._handed_on = NetState()
        self.messages = 0
        """Messages taken in so far."""

    @property
    def dirty(self) -> bool:
        """Whether anything changed since the last `take`."""
        return self._dirty

    @property
    def state(self) -> NetState:
        """The state as it is known now."""
        if self._state is None:
            self._state = NetState(
                links=MappingProxyType(dict(self._links.now)),
                addresses=frozenset(self._addresses.now.values()),
                rules=frozenset(self._rules.now.values()),
                generation=self._generation,
                route_generation=self._route_generation,
            )
        return self._state

    def feed(self, buf: rtnl.Buffer) -> bool:
        """Given a datagram, take in its messages; return whether one is a loss that must not wait.

        Raise DecodeError when it is not what the kernel sends.
        """
        urgent = False
        for msg in rtnl.messages(buf):
            self.messages += 1
            kind = msg.type
            if kind in (rtnl.RTM_NEWROUTE, rtnl.RTM_DELROUTE):
                urgent |= self._feed_route(buf, msg)
            elif kind in (rtnl.RTM_NEWLINK, rtnl.RTM_DELLINK):
                urgent |= self._feed_link(buf, msg)
            elif kind in (rtnl.RTM_NEWADDR, rtnl.RTM_DELADDR):
                urgent |= self._feed_address(buf, msg)
            elif kind in (rtnl.RTM_NEWRULE, rtnl.RTM_DELRULE):
                self._feed_rule(buf, msg)
            elif kind in (rtnl.RTM_NEWNEXTHOP, rtnl.RTM_DELNEXTHOP):
                self.routes_uncertain()
        return urgent

    def _feed_link(self, buf: rtnl.Buffer, msg: rtnl.Message) -> bool:
        link = rtnl.decode_link(buf, msg)
        if link is None:
            return False
        old = self._links.now.get(link.index)
        if msg.type == rtnl.RTM_DELLINK:
            if not self._links.drop(link.index):
                return False
            self.routes_uncertain()
            return True
        if not self._links.put(link.index, link):
            return False
        self._changed()
        if old is not None and old.usable != link.usable:
            self.routes_uncertain()
        return old is not None and old.usable and not link.usable

    def _feed_address(self, buf: rtnl.Buffer, msg: rtnl.Message) -> bool:
        decoded = rtnl.decode_address(buf, msg)
        if decoded is None:
            return False
        key, address = decoded
        if msg.type == rtnl.RTM_DELADDR:
            if not self._addresses.drop(key):
                return False
            self.routes_uncertain()
            return True
        old = self._addresses.now.get(key)
        if not self._addresses.put(key, address):
            return False
        self._changed()
        return old is not None and address.tentative and not old.tentative

    def _feed_rule(self, buf: rtnl.Buffer, msg: rtnl.Message) -> None:
        decoded = rtnl.decode_rule(buf, msg)
        if decoded is None:
            return
        key, rule = decoded
        changed = self._rules.drop(key) if msg.type == rtnl.RTM_DELRULE else self._rules.put(key, rule)
        if changed:
            self._changed()
            self._route_generation += 1

    def _feed_route(self, buf: rtnl.Buffer, msg: rtnl.Message) -> bool:
        prefixlen, protocol, flags = rtnl.route_brief(buf, msg)
        if flags & rtnl.RTM_F_CLONED:
            return False
        added = msg.type == rtnl.RTM_NEWROUTE
        if added:
            self._added += 1
        else:
            self._removed += 1
        self._route_generation += 1
        self._changed()
        notable = prefixlen == 0 or protocol == ROUTE_PROTOCOL
        sample = self._notable if notable else self._ordinary
        if len(sample) < ROUTE_SAMPLE and (route := rtnl.decode_route(buf, msg)) is not None:
            sample.append(RouteEvent(added, route))
        return prefixlen == 0 and not added

    def routes_uncertain(self) -> None:
        """Take in that routes may have changed without saying so."""
        self._uncertain = True
        self._route_generation += 1
        self._changed()

    def replace_all(
        self, links: Mapping[int, Link], addresses: Mapping[bytes, Address], rules: Mapping[bytes, Rule]
    ) -> bool:
        """Given all that a dump found, make it the state; return whether that differs from what was known.

        The kernel tells of an IPv6 address only once duplicate address detection is over: one that a dump shows
        before that is taken in, but is no difference that an event should have told.
        """
        early = {k: a for k, a in addresses.items() if a.tentative and k not in self._addresses.now}
        for key, address in early.items():
            self._addresses.put(key, address)
            self._changed()
        differs = self._links.replace(links)
        differs |= self._addresses.replace(addresses)
        differs |= self._rules.replace(rules)
        if differs:
            self._resync = True
            self.routes_uncertain()
        return differs

    def agrees(
        self, links: Mapping[int, Link], addresses: Mapping[bytes, Address], rules: Mapping[bytes, Rule]
    ) -> bool:
        """Given all that a dump found, return whether events told of all of it (see `replace_all`)."""
        told = {k: a for k, a in addresses.items() if not a.tentative or k in self._addresses.now}
        return links == self._links.now and told == self._addresses.now and rules == self._rules.now

    def _changed(self) -> None:
        self._generation += 1
        self._dirty = True
        self._state = None

    def take(self, at: float) -> NetChange:
        """Given when its first event was received, return all that changed since the last call."""
        links, addresses, rules = self._links.take(), self._addresses.take(), self._rules.take()
        before, state = self._handed_on, self.state
        self._handed_on = state
        change = NetChange(
            at=at,
            state=state,
            links_added=_added(links),
            links_removed=_removed(links),
            links_changed=_both(links),
            addresses_added=_without(_added(addresses), before.addresses),
            addresses_removed=_without(_removed(addresses), state.addresses),
            addresses_changed=_both(addresses),
            rules_added=_without(_added(rules), before.rules),
            rules_removed=_without(_removed(rules), state.rules),
            routes=RouteChanges(
                self._added,
                self._removed,
                tuple((self._notable + self._ordinary)[:ROUTE_SAMPLE]),
                self._uncertain,
            ),
            resync=self._resync,
        )
        self._added = self._removed = 0
        self._uncertain = self._resync = self._dirty = False
        self._notable, self._ordinary = [], []
        return change


def _added(pairs: Iterable[tuple[_V | None, _V | None]]) -> tuple[_V, ...]:
    return tuple(new for old, new in pairs if old is None and new is not None)


def _removed(pairs: Iterable[tuple[_V | None, _V | None]]) -> tuple[_V, ...]:
    return tuple(old for old, new in pairs if old is not None and new is None)


def _both(pairs: Iterable[tuple[_V | None, _V | None]]) -> tuple[tuple[_V, _V], ...]:
    return tuple((old, new) for old, new in pairs if old is not None and new is not None)


def _without(some: tuple[_V, ...], known: frozenset[_V]) -> tuple[_V, ...]:
    """Leave out what is there under another identity too: what differs for the kernel may be one for us."""
    return tuple(value for value in some if value not in known)
