"""A seeded network in memory: it loses, delays, repeats and reorders messages, has a NAT, links that die."""

from __future__ import annotations

import heapq
import os
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from random import Random
from typing import TYPE_CHECKING, Any

from mobikectl.protocol.exchange import Endpoint, Message

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = int(os.environ.get("MOBIKECTL_PROTOCOL_RUNS", "500"))
"""Runs per scenario; set the environment variable for a longer search."""

I1, I2, I3 = (IPv4Address(f"198.18.0.{n}") for n in (1, 2, 3))
R1, R2, R3 = (IPv4Address(f"198.18.1.{n}") for n in (1, 2, 3))
NAT_OUTSIDE = IPv4Address("198.18.2.1")
VICTIM = IPv4Address("198.18.9.9")
MOST_STEPS = 30_000


@dataclass
class Nat:
    """An address-restricted NAT: it opens only from inside, and forgets when it is told to."""

    inside: set[Any]
    mapping: dict[Endpoint, int] = field(default_factory=dict)
    opened: set[tuple[int, Any]] = field(default_factory=set)
    next_port: int = 20_000

    def outbound(self, message: Message) -> Message:
        if message.source.ip not in self.inside:
            return message
        port = self.mapping.get(message.source)
        if port is None:
            self.next_port += 1
            port = self.mapping[message.source] = self.next_port
        self.opened.add((port, message.destination.ip))
        return replace(message, source=Endpoint(NAT_OUTSIDE, port))

    def inbound(self, message: Message) -> Message | None:
        if message.destination.ip != NAT_OUTSIDE:
            return None if message.destination.ip in self.inside else message
        port = message.destination.port
        if (port, message.source.ip) not in self.opened:
            return None
        inside = next((end for end, outside in self.mapping.items() if outside == port), None)
        return None if inside is None else replace(message, destination=inside)

    def outside_of(self, endpoint: Endpoint) -> Endpoint:
        port = self.mapping.get(endpoint)
        return endpoint if port is None else Endpoint(NAT_OUTSIDE, port)

    def remap(self) -> None:
        self.mapping.clear()
        self.opened.clear()


class Network:
    """Two hosts (or more), their addresses, and everything between them."""

    def __init__(self, seed: int, *, loss: float, duplicate: float = 0.1, slowest: float = 1.5) -> None:
        self.rng = Random(seed)
        self.loss, self.duplicate, self.slowest = loss, duplicate, slowest
        self.hosts: dict[str, Any] = {}
        self.owner: dict[Any, str] = {}
        self.dead: set[Any] = set()
        self.blocked: set[frozenset[Any]] = set()
        self.nat = Nat(set())
        self.now = 0.0
        self.tamper: Callable[[Message], Message] = lambda message: message
        self.watchers: list[Callable[[], None]] = []
        self.on_delivery: list[Callable[[str, Message, Callable[[], None]], None]] = []
        self._queue: list[tuple[float, int, Any]] = []
        self._count = 0

    def attach(self, name: str, machine: Any, addresses: list[Any]) -> None:
        self.hosts[name] = machine
        self.owner.update(dict.fromkeys(addresses, name))

    def at(self, when: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, action))

    def works(self, one: Any, other: Any) -> bool:
        return not {one, other} & self.dead and frozenset((one, other)) not in self.blocked

    def transmit(self, message: Message) -> None:
        if not self.works(message.source.ip, message.destination.ip):
            return
        outside = self.tamper(self.nat.outbound(message))
        copies = 2 if self.rng.random() < self.duplicate else 1
        for _ in range(copies):
            if self.rng.random() >= self.loss:
                delay = self.rng.uniform(0.005, self.slowest)
                self.at(self.now + delay, lambda: self._deliver(outside))

    def _deliver(self, message: Message) -> None:
        seen = self.nat.inbound(message)
        if seen is None or not self.works(seen.source.ip, seen.destination.ip):
            return
        name = self.owner.get(seen.destination.ip)
        if name is None:
            return
        machine = self.hosts[name]

        def receive() -> None:
            machine.receive(seen, self.now)

        for hook in self.on_delivery:
            hook(name, message, receive)
            return
        receive()

    def run(self, until: float) -> None:
        """Go on until the time is reached; raise AssertionError when that takes too many steps."""
        for _ in range(MOST_STEPS):
            self._flush()
            times = [d for m in self.hosts.values() if (d := m.next_deadline()) is not None]
            if self._queue:
                times.append(self._queue[0][0])
            upcoming = max(min(times, default=until), self.now)
            if upcoming >= until:
                self.now = until
                return
            stuck = upcoming == self.now and not (self._queue and self._queue[0][0] <= self.now)
            self.now = upcoming + 0.001 if stuck else upcoming
            if self._queue and self._queue[0][0] <= self.now:
                heapq.heappop(self._queue)[2]()
        raise AssertionError(f"no end in sight at {self.now}")

    def _flush(self) -> None:
        for machine in list(self.hosts.values()):
            for message in machine.send(self.now):
                self.transmit(message)
        for watch in self.watchers:
            watch()
