"""What a scenario's steps can do: real actions on a running lab, each remembered with its moment."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from mobikectl.control.client import ControlClient
from mobikectl.errors import LabError, MobikectlError, SidecarError
from mobikectl.lab import vici
from mobikectl.lab.capture import Pinger
from mobikectl.lab.measure import is_served, ping_metrics
from mobikectl.lab.netns import DROP_PREFERENCE
from mobikectl.lab.processes import identify
from mobikectl.lab.results import Point
from mobikectl.lab.shell import IpShell
from mobikectl.lab.sidecars import DEADLINE as SIDECAR_DEADLINE
from mobikectl.lab.sidecars import control_socket, start_sidecar
from mobikectl.model import ROUTE_PROTOCOL, Path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from pathlib import Path as FilePath

    from mobikectl.lab.capture import Capture
    from mobikectl.lab.cluster import Cluster
    from mobikectl.lab.exchange import Message
    from mobikectl.lab.fleet import Fleet
    from mobikectl.lab.instance import Lab
    from mobikectl.lab.steps import Steps

REPLY_TIME = 0.2
"""Seconds after which a ping without a reply counts as lost: far above any round trip time of the lab."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that a step did to the network."""

    at: float
    label: str


@dataclass(slots=True)
class Journal:
    """What happened while the steps ran."""

    causes: list[Cause] = field(default_factory=list)
    metrics: dict[str, float | str] = field(default_factory=dict)
    exchanges: dict[str, list[str]] = field(default_factory=dict)
    """Title -> IKE messages that the result shows."""
    sidecar_events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """(node, event) as the control socket tells them."""


class Run:
    """Given to a scenario's ``steps(run)``."""

    def __init__(
        self,
        lab: Lab,
        captures: Mapping[str, Capture],
        pingers: Mapping[str, Pinger],
        *,
        fleets: Mapping[str, Fleet] | None = None,
        cluster: Cluster | None = None,
        handovers: Steps | None = None,
        folder: FilePath,
        patience: float = 1.0,
        sidecar: bool,
        tell: Callable[[str], None],
    ) -> None:
        self.lab = lab
        self.sidecar = sidecar
        """Whether sidecars take part; without, charon is alone."""
        self.fleets = fleets or {}
        """The fleets of the scenario, by name."""
        self.cluster = cluster
        """The cluster; None: the scenario has none."""
        self._handovers = handovers
        self.journal = Journal()
        self._captures = captures
        self._pingers = pingers
        self._folder = folder
        self._patience = patience
        self._tell = tell
        self._followers: list[asyncio.Task[None]] = []
        self._shells: dict[tuple[str, str], IpShell] = {}

    # --- causes ----------------------------------------------------------------------------------

    async def link_down(self, node: str, dev: str) -> Cause:
        """Set a device down: its addresses stay, its routes go, its carrier at the other end too."""
        return await self._cause(f"{dev} down", node, f"link set {dev} down")

    async def link_up(self, node: str, dev: str) -> Cause:
        """Set a device up. Its static routes do not come back by themselves."""
        return await self._cause(f"{dev} up", node, f"link set {dev} up")

    async def address_add(self, node: str, dev: str, address: str) -> Cause:
        """Given an address with its prefix length, add it to a device."""
        flags = " nodad" if ":" in address else ""
        return await self._cause(f"+{address}", node, f"addr add {address} dev {dev}{flags}")

    async def address_deprecate(self, node: str, dev: str, address: str) -> Cause:
        """Mark an address as one that goes soon: its preferred lifetime is over (RFC 4862 section 5.5.4)."""
        line = f"addr change {address} dev {dev} valid_lft forever preferred_lft 0"
        return await self._cause(f"{address} is deprecated", node, line)

    async def address_del(self, node: str, dev: str, address: str) -> Cause:
        """Given an address with its prefix length, take it from a device."""
        return await self._cause(f"-{address}", node, f"addr del {address} dev {dev}")

    async def route_add(self, node: str, dst: str, **how: str | int) -> Cause:
        """Add a route; `how` are ``ip route``'s words (via, dev, metric, src, proto)."""
        return await self._route("add", node, dst, how)

    async def route_replace(self, node: str, dst: str, **how: str | int) -> Cause:
        """Add or replace a route, as `route_add`."""
        return await self._route("replace", node, dst, how)

    async def route_del(self, node: str, dst: str, **how: str | int) -> Cause:
        """Remove a route, as `route_add`."""
        return await self._route("del", node, dst, how)

    async def _route(self, verb: str, node: str, dst: str, how: Mapping[str, str | int]) -> Cause:
        words = " ".join(f"{key} {value}" for key, value in how.items())
        return await self._cause(f"route {verb} {dst} {words}", node, f"route {verb} {dst} {words}")

    async def drop(self, router: str, selector: str) -> Cause:
        """Given a router and a selector of ``ip rule``, have the router drop what it would forward, silently.

        Selectors are ``from``, ``to``, ``iif`` and what else ip-rule(8) knows: ``from 198.18.1.1``.
        """
        line = f"rule add pref {DROP_PREFERENCE} {selector} blackhole"
        return await self._cause(f"drops {selector}", router, line)

    async def undrop(self, router: str) -> Cause:
        """Have a router forward everything again."""
        script = (
            f"for f in -4 -6; do while ip $f rule del pref {DROP_PREFERENCE} 2>/dev/null; do :; done; done"
        )
        return await self.command(router, "sh", "-c", script, label="drops end")

    async def command(self, node: str, *argv: str, label: str) -> Cause:
        """Run a command on a node as a cause with a name of its own; its moment is before the command starts."""
        at = time.monotonic()
        await self.lab.run_in(node, *argv)
        return self._remember(Cause(at, f"{node}: {label}"))

    async def reconnect(self, node: str, tunnel: str) -> Cause:
        """Have a client end its IKE_SA of a tunnel and come anew; its moment is before that. Raise LabError."""
        at = time.monotonic()
        await asyncio.to_thread(vici.reconnect, self.lab.vici_socket(node), tunnel)
        return self._remember(Cause(at, f"{node}: comes anew"))

    async def _cause(self, label: str, node: str, line: str) -> Cause:
        shell = await self._shell(node, "-6" if ":" in line else "-4")
        return self._remember(Cause(await shell.do(line), f"{node}: {label}"))

    def _remember(self, cause: Cause) -> Cause:
        self.journal.causes.append(cause)
        self._tell(cause.label)
        return cause

    async def _shell(self, node: str, family: str) -> IpShell:
        if (node, family) not in self._shells:
            self._shells[node, family] = await IpShell.start(self.lab.namespace(node), family=family)
        return self._shells[node, family]

    def cause(self, label: str) -> Cause:
        """Given what a step is about to do by other means ("WHO: what"), remember it with its moment."""
        return self._remember(Cause(time.monotonic(), label))

    @property
    def the_cluster(self) -> Cluster:
        """The cluster. Raise LabError: the scenario has none, or its sidecars do not run."""
        if not self.sidecar:
            raise LabError("without sidecars there is nobody to act", hint="leave --no-sidecar away")
        if self.cluster is None:
            raise LabError("this scenario has no cluster", hint="add [cluster] to its scenario.toml")
        return self.cluster

    @property
    def handovers(self) -> Steps:
        """The steps of handovers, which can be held. Raise LabError: the scenario does not look on."""
        if self._handovers is None:
            raise LabError("nobody looks on at handovers", hint="add watched = true to [cluster]")
        return self._handovers

    # --- waiting and measuring -------------------------------------------------------------------

    async def ready(self, *nodes: str) -> None:
        """Have an ``ip`` waiting on these nodes, so that their first cause is as exact as the others."""
        for node in nodes:
            for family in ("-4", "-6"):
                await self._shell(node, family)

    async def traffic(self, seconds: float) -> None:
        """Let the pings run for a while: the stretch of time that is measured."""
        await asyncio.sleep(seconds)

    async def served(
        self, tunnel: str, local: str, remote: str, *, after: Cause, metric: str, within: float = 10.0
    ) -> float:
        """Wait until ESP of a tunnel comes in over the path local -> remote after a cause.

        Record and return the milliseconds from the cause to that packet under the name `metric`.
        Raise LabError when none came `within` so many seconds after the cause.
        """
        path = Path(ip_address(local), ip_address(remote))
        capture = self._captures[tunnel]
        packet = await asyncio.to_thread(
            capture.wait_for, lambda p: is_served(p, after.at, path), start=0, deadline=after.at + within
        )
        if packet is None:
            raise LabError(
                f"{tunnel}: nothing came over {path} within {within:g} s after {after.label!r}",
                hint="see charon.log and sidecar.out",
            )
        took = round((packet.time - after.at) * 1000, 2)
        self.journal.metrics[metric] = took
        self._tell(f"{tunnel} on {path} after {took:.0f} ms")
        return took

    async def losses(self, tunnel: str, *, since: Cause, metric: str) -> int:
        """Record and return how many pings of a tunnel, sent since a cause, have no reply.

        Pings of the last moment are waited for.
        """
        until = time.monotonic()
        await asyncio.sleep(REPLY_TIME)
        pings = [p for p in self._pingers[tunnel].pings if since.at <= p.sent < until]
        lost = sum(p.received is None for p in pings)
        self.journal.metrics[metric] = lost
        return lost

    @contextlib.asynccontextmanager
    async def stream(self, tunnel: str, *, per_s: float, metric: str) -> AsyncIterator[Pinger]:
        """Send so many echo requests per second through a tunnel besides its pings, for as long as this is entered.

        Records what they say (`measure.ping_metrics`) and ``per_s``, what was really sent, as ``METRIC.NAME``.
        """
        way = next(t for t in self.lab.topology.tunnels if t.name == tunnel)
        namespace = self.lab.namespace(way.client)
        train = Pinger(namespace, way.client_inside, way.gateway_inside, interval=1 / per_s)
        began = time.monotonic()
        train.__enter__()
        try:
            yield train
        finally:
            ended = time.monotonic()
            await asyncio.to_thread(train.__exit__)
        numbers = ping_metrics(train.pings) | {"per_s": round(len(train.pings) / (ended - began), 1)}
        self.journal.metrics |= {f"{metric}.{name}": value for name, value in numbers.items()}

    def answered(self, tunnel: str, *, since: Cause) -> int:
        """Return how many pings of a tunnel, sent since a cause, have a reply by now."""
        return sum(p.received is not None for p in self._pingers[tunnel].pings if p.sent >= since.at)

    def sent(self, tunnel: str, *, since: Cause) -> int:
        """Return how many pings of a tunnel were sent since a cause."""
        return sum(p.sent >= since.at for p in self._pingers[tunnel].pings)

    def record(self, metric: str, value: float | str) -> None:
        """Record a measurement of the scenario's own under a name that its checks use."""
        self.journal.metrics[metric] = value

    def show(self, title: str, messages: Iterable[Message]) -> None:
        """Have the result show IKE messages under a title."""
        self.journal.exchanges[title] = [str(message) for message in messages]

    def told(self, node: str, name: str, *, since: Cause | None = None) -> list[dict[str, Any]]:
        """Return what a node's sidecar told under an event's name, oldest first; ``since``: only after that."""
        return [
            event
            for where, event in self.journal.sidecar_events
            if (where, event["name"]) == (node, name) and (since is None or event["at"] >= since.at)
        ]

    async def routes_of_sidecar(self, node: str) -> list[str]:
        """Return the routes on a node that carry mobikectl's protocol number, in every table."""
        lines: list[str] = []
        for family in ("-4", "-6"):
            output = await self.lab.run_in(
                node, "ip", family, "route", "show", "table", "all", "proto", str(ROUTE_PROTOCOL)
            )
            lines += [line for line in output.splitlines() if line.strip()]
        return lines

    async def routes_gone(self, node: str, dst: str, *, metric: str, within: float = 5.0) -> int:
        """Wait until a node has no route of mobikectl's to `dst`; record how many are left under `metric`."""
        end = time.monotonic() + within
        while True:
            left = [line for line in await self.routes_of_sidecar(node) if line.split()[0] == dst]
            if not left or time.monotonic() > end:
                self.journal.metrics[metric] = len(left)
                return len(left)
            await asyncio.sleep(0.1)

    # --- sidecars --------------------------------------------------------------------------------

    async def sidecar_start(self, node: str) -> None:
        """Start a node's sidecar with its configuration and wait until it is healthy.

        Raise LabError when it ended or is not healthy in time.
        """
        await start_sidecar(self.lab, node, self._folder, patience=self._patience)
        self._followers.append(asyncio.create_task(self._follow(node)))
        self._tell(f"{node}: sidecar runs")

    async def sidecar_kill(self, node: str) -> Cause:
        """Kill a node's sidecar (SIGKILL): it cannot clean up anything."""
        who = self.lab.newest(node, "sidecar")
        cause = Cause(time.monotonic(), f"{node}: SIGKILL of the sidecar")
        if not self.lab.signal(who, signal.SIGKILL):
            raise LabError(f"{node}: the sidecar was gone already", hint="see sidecar.out")
        while identify(who.pid) == who:  # noqa: ASYNC110 (SIGKILL takes no longer than this)
            await asyncio.sleep(0.005)
        return self._remember(cause)

    def control_socket(self, node: str) -> FilePath:
        """Given a node, return the path of its sidecar's control socket on this machine."""
        return control_socket(self.lab, node)

    async def switch(
        self,
        node: str,
        *,
        peer: str,
        to: str,
        mechanism: str = "auto",
        timeout: float = 10.0,
        metric: str = "mechanism",
    ) -> Cause:
        """Ask a node's sidecar to switch a peer, as ``mobikectl switch --peer PEER --to TO`` does.

        Record under the name `metric` which mechanism was used. Return the moment of the request. Raise LabError when
        it did not verify, MobikectlError when it was refused.
        """
        cause, move = await self._switch(node, peer, to, mechanism, timeout)
        self.journal.metrics[metric] = move["mechanism"]
        if move["state"] != "verified":
            raise LabError(f"{cause.label}: {move['state']}: {move['reason']}", hint="see sidecar.out")
        return cause

    async def switch_fails(
        self, node: str, *, peer: str, to: str, mechanism: str = "auto", timeout: float = 10.0
    ) -> str:
        """As `switch`, but return why it was refused or did not verify. Raise LabError when it did verify."""
        try:
            cause, move = await self._switch(node, peer, to, mechanism, timeout)
        except SidecarError:
            raise
        except MobikectlError as error:
            return error.message
        if move["state"] == "verified":
            raise LabError(f"{cause.label}: verified, and should not have been", hint="see sidecar.out")
        self._tell(f"{cause.label}: {move['state']}: {move['reason']}")
        return str(move["reason"])

    async def _switch(
        self, node: str, peer: str, to: str, mechanism: str, timeout: float
    ) -> tuple[Cause, dict[str, Any]]:
        request = {"peer": peer, "to": to, "mechanism": mechanism, "timeout_s": timeout}
        async with ControlClient(self.control_socket(node)) as client:
            cause = self._remember(Cause(time.monotonic(), f"{node}: switch {peer} to {to}"))
            answer = await client.switch(request, timeout=timeout + SIDECAR_DEADLINE)
        return cause, answer["moves"][0]

    async def _follow(self, node: str) -> None:
        try:
            async with ControlClient(self.control_socket(node)) as client:
                async for event in client.events(backlog=1000):
                    self.journal.sidecar_events.append((node, event))
        except SidecarError:
            return  # it ended or was killed; what it told until then stays

    async def close(self) -> None:
        """Stop following the sidecars, end the waiting shells."""
        for shell in self._shells.values():
            await shell.close()
        for task in self._followers:
            task.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)

    def sidecar_points(self, source: str) -> tuple[Point, ...]:
        """Given a source of events (``decision``, ``action``), return when the sidecars told of which."""
        return tuple(
            Point(float(event["at"]), f"{node}: {event['text']}")
            for node, event in self.journal.sidecar_events
            if event.get("source") == source
        )
