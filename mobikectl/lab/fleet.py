"""A fleet of clients while its scenario runs: its traffic, and what became of each client."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Self

from mobikectl.errors import LabError
from mobikectl.lab import vici
from mobikectl.lab.interruptions import interruption, lost_alone, standstills
from mobikectl.lab.measure import Interval, child_spis, ike_sa_inits, ms, ping_metrics, sa_keys
from mobikectl.lab.packets import Kind
from mobikectl.lab.results import Point, Track
from mobikectl.lab.traffic import FleetPinger, Load, open_sink
from mobikectl.lab.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mobikectl.lab.capture import Capture, Ping
    from mobikectl.lab.instance import Lab
    from mobikectl.lab.topology import Tunnel
    from mobikectl.model import IpAddress

UP_S = 30.0
SILENT_S = 1.0
"""A tunnel through which no ping came back for so long at the end is silent."""
FEW = 2
"""Up to so many fleets have pings that go before everything else on the machine."""
Listed = dict[str, list[tuple[str, dict[str, Any]]]]
"""Node -> what its charon lists."""


async def bring_up(lab: Lab, name: str) -> None:
    """Given a fleet's name, bring up all of its tunnels. Raise LabError when one does not come up."""
    tunnels = lab.topology.fleet(name)
    path = lab.vici_socket(tunnels[0].client)
    wanted = {tunnel.name for tunnel in tunnels}
    await asyncio.to_thread(vici.initiate_all, path, wanted)

    async def all_up() -> bool:
        return wanted <= await asyncio.to_thread(vici.installed, path)

    await until(all_up, within=UP_S, what=f"the tunnels of {name} are up")


class Fleet:
    """One fleet. A context manager: its pings and its load go on while it is entered."""

    def __init__(self, lab: Lab, name: str, capture: Capture) -> None:
        self.name = name
        self.tunnels = lab.topology.fleet(name)
        self._topology = lab.topology
        self._capture = capture
        self._vici = lab.vici_socket(self.tunnels[0].client)
        namespace = lab.namespace(self.tunnels[0].client)
        first = self.tunnels[0]
        interval = first.kernel_ping_s if lab.record.esp == "kernel" else first.ping_s
        # Many threads that go before all others keep that one from running which has the interpreter: on the one
        # processor of a guest nothing gets on then.
        few = len(lab.topology.fleets) <= FEW
        self._pinger = FleetPinger(namespace, self.tunnels, interval=interval, undisturbed=few)
        self.load = Load(namespace, self.tunnels)
        targets = {(node, str(t.gateway_inside)) for t in self.tunnels for node in t.gateways}
        self._sinks = [open_sink(lab.namespace(node), address) for node, address in sorted(targets)]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._pinger)
        self._stack.enter_context(self.load)
        for sink in self._sinks:
            self._stack.callback(sink.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def addresses(self) -> Mapping[IpAddress, str]:
        """The gateways' outer addresses and whose they are."""
        gateways = dict.fromkeys(node for tunnel in self.tunnels for node in tunnel.gateways)
        return {address: node for node in gateways for address in self._topology.outer_addresses(node)}

    def pings_of(self, tunnel: str) -> Sequence[Ping]:
        """Given the name of one of its tunnels, return the pings sent through it so far, in order."""
        return self._pinger.pings[tunnel]

    def rates(self, seconds: float) -> dict[IpAddress, float]:
        """Return the bytes/s of ESP that went to and came from each gateway address in the last seconds."""
        since = time.monotonic() - seconds
        octets = dict.fromkeys(self.addresses, 0)
        for packet in reversed(self._capture.packets):
            if packet.time < since:
                break
            if packet.kind is Kind.ESP and packet.path.remote in octets:
                octets[packet.path.remote] += packet.size
        return {address: count / seconds for address, count in octets.items()}

    def spread(self, seconds: float) -> float:
        """Return by how much the most loaded gateway was above the mean in the last seconds, as seen on the wire."""
        by_node = dict.fromkeys(self.addresses.values(), 0.0)
        for address, rate in self.rates(seconds).items():
            by_node[self.addresses[address]] += rate
        return above_mean(by_node.values())

    def uplink_spread(self, seconds: float) -> float:
        """Return the same for the addresses of each gateway, of the gateway with the worst spread."""
        rates = self.rates(seconds)
        nodes = set(self.addresses.values())
        return max(
            above_mean([rates[a] for a, owner in self.addresses.items() if owner == node]) for node in nodes
        )

    def inits(self, start: float, end: float) -> int:
        """Return how many IKE_SA_INIT messages were on the wire between two times of CLOCK_MONOTONIC."""
        packets = self._capture.packets
        return ike_sa_inits(p for p in packets if start <= p.time <= end)

    def pinged(self, start: float = 0.0, end: float = math.inf) -> dict[str, float]:
        """Return what the pings say that were sent between two times of CLOCK_MONOTONIC.

        ``sent`` and ``lost`` of all clients, ``worst_lost`` of the client that lost most, and the longest
        ``longest_gap_ms``, ``longest_outage_ms``, ``longest_silence_ms`` and ``lost_in_a_row`` of any client, with
        ``median_gap_ms``. ``interrupted_ms``: the longest time that nothing came back to a client, less what the lab
        itself stood still (`mobikectl.lab.interruptions`), which was ``stood_still_ms`` at a time; ``lost_alone``: what
        was lost while it did not.
        """
        sent = [[p for p in pings if start <= p.sent < end] for pings in self._pinger.pings.values()]
        found = [ping_metrics(pings) for pings in sent]
        until_ = max((pings[-1].sent for pings in sent if pings), default=0.0)
        still = standstills(sent, apart=self._pinger.interval, until=until_)
        gaps = sorted(one["longest_gap_ms"] for one in found)
        return {
            "sent": sum(one["sent"] for one in found),
            "lost": sum(one["lost"] for one in found),
            "worst_lost": max(one["lost"] for one in found),
            "longest_gap_ms": gaps[-1],
            "median_gap_ms": gaps[len(gaps) // 2],
            "longest_outage_ms": max(one["longest_outage_ms"] for one in found),
            "longest_silence_ms": max(one["longest_silence_ms"] for one in found),
            "lost_in_a_row": max(one["lost_in_a_row"] for one in found),
            "interrupted_ms": ms(max(interruption(pings, still, until_) for pings in sent)),
            "lost_alone": sum(lost_alone(pings, still, until_) for pings in sent),
            "stood_still_ms": ms(max((b - a for a, b in still), default=0.0)),
        }

    def back_after(self, at: float) -> float:
        """Return when the last client of those that lost a ping after a time of CLOCK_MONOTONIC was answered again.

        Raise LabError: one was not.
        """
        back = at
        for name, pings in self._pinger.pings.items():
            since = next((p.sent for p in pings if p.sent >= at and p.received is None), None)
            if since is None:
                continue
            answers = [p.received for p in pings if p.sent > since and p.received is not None]
            if not answers:
                raise LabError(f"{name} is not answered any more", hint="see the charons' logs")
            back = max(back, min(answers))
        return back

    async def spis(self) -> frozenset[tuple[str, ...]]:
        """Return the SPIs of the clients' IKE_SAs and of their installed CHILD_SAs, as their charon has them."""
        listed = await asyncio.to_thread(vici.list_sas, self._vici)
        return frozenset({*sa_keys(listed), *child_spis(listed)})

    def metrics(
        self, start: float, before: Listed, after: Listed, events: Sequence[vici.CharonEvent]
    ) -> dict[str, float | str]:
        """Given when it began, what charons listed before and after, and their events, return what was measured."""
        served = serving(self.tunnels, before, events)
        changes = {name: len(history) - 1 for name, history in served.items()}
        packets = [p for p in self._capture.packets if p.time >= start and p.kind is Kind.IKE]
        numbers: dict[str, float | str] = {
            **self.pinged(),
            "interval_ms": ms(self._pinger.interval),
            "ike_messages": len(packets),
            "ike_sa_init": ike_sa_inits(packets),
            "silent": self._silent(),
            "moved": sum(count > 0 for count in changes.values()),
            "moved_twice": sum(count > 1 for count in changes.values()),
            "capture_drops": self._capture.kernel_drops,
        }
        numbers |= self._sa_metrics(after)
        return {f"{self.name}.{key}": value for key, value in numbers.items()}

    def tracks(
        self, start: float, end: float, before: Listed, events: Sequence[vici.CharonEvent]
    ) -> list[Track]:
        """Return how many clients each gateway served when, and when pings were lost."""
        history = serving(self.tunnels, before, events)
        moments = sorted({max(at, start) for served in history.values() for at, _ in served})
        intervals = []
        for at, until_ in zip(moments, [*moments[1:], end], strict=True):
            now = Counter(
                self.addresses.get(ip_address([who for when, who in served if when <= at][-1]), "?")
                for served in history.values()
                if served and served[0][0] <= at
            )
            intervals.append(Interval(at, until_, ", ".join(f"{node} {now[node]}" for node in sorted(now))))
        lost = sorted(p.sent for found in self._pinger.pings.values() for p in found if p.received is None)
        return [
            Track(f"{self.name}: clients", "charon", intervals=tuple(intervals)),
            Track(f"{self.name}: lost pings", "lost", points=tuple(Point(at, "lost") for at in lost)),
        ]

    def _silent(self) -> int:
        return sum(
            not any(p.received for p in found if p.sent >= found[-1].sent - SILENT_S)
            for found in self._pinger.pings.values()
        )

    def _sa_metrics(self, after: Listed) -> dict[str, float | str]:
        """Return ``tunnels_lost``, ``doubles`` and ``at.GATEWAY``."""
        at_client = sa_keys(after[self.tunnels[0].client])
        nodes = dict.fromkeys(self.addresses.values())
        at_gateways = {node: sa_keys(after[node]) for node in nodes}
        names = [tunnel.name for tunnel in self.tunnels]
        ours = {name: [key for key in at_client if key[0] == name] for name in names}
        theirs = {
            name: [key for keys in at_gateways.values() for key in keys if key[0] == name] for name in names
        }
        numbers: dict[str, float | str] = {
            "tunnels_lost": sum(not set(ours[name]) & set(theirs[name]) for name in names),
            "doubles": sum(len(ours[name]) > 1 or len(theirs[name]) > 1 for name in names),
        }
        for node, keys in at_gateways.items():
            numbers[f"at.{node}"] = len([key for key in keys if key[0] in ours])
        return numbers


def above_mean(values: Iterable[float]) -> float:
    """Given loads, return by which share the largest is above their mean; 0 without any load."""
    loads = list(values)
    mean = sum(loads) / len(loads)
    return round(max(loads) / mean - 1, 4) if mean else 0.0


def serving(
    tunnels: Iterable[Tunnel], before: Listed, events: Iterable[vici.CharonEvent]
) -> dict[str, list[tuple[float, str]]]:
    """Given tunnels, what charons listed before, and their events, return who served each tunnel since when.

    As its client's charon tells: a change is another gateway address, whether by an update or by a new IKE_SA.
    """
    clients = {tunnel.name: tunnel.client for tunnel in tunnels}
    history: dict[str, list[tuple[float, str]]] = {name: [] for name in clients}
    for name, client in clients.items():
        remotes = [str(sa["remote-host"]) for listed, sa in before[client] if listed == name]
        history[name] = [(0.0, remote) for remote in remotes[-1:]]
    for event in sorted(events, key=lambda e: e.time):
        for name in [key for key in event.data if clients.get(key) == event.node]:
            remote = _remote(event, name)
            if remote and (not history[name] or history[name][-1][1] != remote):
                history[name].append((event.time, remote))
    return history


def _remote(event: vici.CharonEvent, name: str) -> str:
    """The gateway's address after an event; empty when it tells of none."""
    if event.name == "ike-update":
        return str(event.data.get("remote-host", ""))
    if event.name == "ike-updown" and event.data.get("up") == "yes":
        return str(event.data[name].get("remote-host", ""))
    return ""
