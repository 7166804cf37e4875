"""How this node is: measured at a pace that disturbs nobody, and told to the cluster while it is a member.

Two loops, so that a charon that hangs is still reported: `Reporter.measure` asks charon and the kernel,
`Reporter.publish` tells what is known. Neither ends for a fault of what it asks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

from mobikectl.charon import commands
from mobikectl.charon.sa_events import SaRekeyed
from mobikectl.cluster.backend import Backoff, lease_clock
from mobikectl.cluster.load import HostLoad, read_memory, read_times
from mobikectl.cluster.records import NodeReport, SaRow
from mobikectl.errors import CharonError, LeaseLostError, NetlinkError, PrivilegeError, StoreError
from mobikectl.node import health, rows
from mobikectl.node.pools import Pools
from mobikectl.node.traffic import Traffic, from_charon, from_kernel
from mobikectl.policy.cluster import Health
from mobikectl.policy.settings import ProbeSettings
from mobikectl.policy.track import ProbeError
from mobikectl.probe.icmp import exchange
from mobikectl.probe.sockets import ProbeFailedError
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mobikectl.charon.rmobike_link import PluginLink
    from mobikectl.charon.session import Session
    from mobikectl.charon.tracker import SaTracker
    from mobikectl.cluster.membership import Presence
    from mobikectl.cluster.node_settings import ClusterSettings
    from mobikectl.model import IkeSa, IpAddress, NetState
    from mobikectl.netlink import KernelSas
    from mobikectl.node.memory import Memory
    from mobikectl.node.names import SaNames

log = logging.getLogger(__name__)

QUIET = 20.0
"""A measurement that took so long is followed by a pause of at least so many times that, but for `LATE`."""
LATE = 3.0
"""The pause is at most this part of how old numbers may be for others to plan with: a busy node is not unknown."""
POOLS_S = 60.0
REFRESH_S = 10.0
"""How often all that changed is written, also what changed so little that the others need not know at once."""
PROBE_S = 2.0
PROBE_TIMEOUT_S = 1.0
PROBE_FAILURES = 3
"""Echoes in a row without an answer until what is behind the gateway counts as away."""
OWN_FAULT = frozenset({ProbeError.NOT_PERMITTED, ProbeError.LOCAL})
"""Why a probe could not be sent that says nothing about what it is for."""
DRIVER = "kernel-libipsec"
"""charon's plugin that does ESP in userland."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the last measurement found."""

    at: float
    half_open: int = 0
    userland: bool = False
    host: HostLoad = field(default_factory=HostLoad)


@dataclass(frozen=True, slots=True)
class Beside:
    """What runs beside the reporter in the sidecar, and that it looks at."""

    session: Session
    tracker: SaTracker
    plugin: PluginLink
    net: Callable[[], NetState]
    kernel: KernelSas | None
    """The kernel's SAs; None: this kernel lets nobody see them."""


class Reporter:
    """Measures this node and its IKE_SAs, and tells the cluster."""

    def __init__(
        self,
        settings: ClusterSettings,
        instance: str,
        beside: Beside,
        names: SaNames,
        memory: Memory,
        *,
        clock: Callable[[], float] = lease_clock,
    ) -> None:
        self.last: NodeReport | None = None
        """The report that was published last."""
        self.published_at: float | None = None
        self.copies: Callable[[], int] = lambda: 0
        """Tells how many copies of other nodes' IKE_SAs are here."""
        self.drained: Callable[[], bool] = lambda: False
        """Tells whether operators want this node to be empty."""
        self._settings = settings
        self._instance = instance
        self._beside = beside
        self._names = names
        self._memory = memory
        self._clock = clock
        self._events = beside.tracker.subscribe()
        self._traffic = Traffic(settings.half_life_s)
        self._measured = Measured(clock())
        self._pools = Pools()
        self._probe: bool | None = None
        self._sequence = 0
        self._trouble = ""
        self._leaving = False
        """Whether every IKE_SA has to leave, when the last report began."""

    # --- measuring ------------------------------------------------------------------------------

    async def measure(self) -> None:
        """Measure until cancelled."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._measure_traffic())
            if self._settings.probe is not None:
                tasks.create_task(self._probe_for_ever(self._settings.probe))

    async def _measure_traffic(self) -> None:
        pools_at = -POOLS_S
        while True:
            began = self._clock()
            try:
                await self._measure_once()
                if began - pools_at >= POOLS_S and self._beside.tracker.in_step:
                    pools_at = began
                    await self._pools.read(self._beside.session)
                self._complain("")
            except (CharonError, NetlinkError, PrivilegeError) as error:
                self._complain(str(error))
            stale_after_s = self._settings.policy.stale_after_s
            await asyncio.sleep(pause_s(self._clock() - began, self._settings.report_s, stale_after_s))

    async def _measure_once(self) -> None:
        stats = await commands.stats(self._beside.session)
        userland = DRIVER in stats.plugins
        asked = self._clock()
        if userland or self._beside.kernel is None:
            listed = await commands.list_sas(self._beside.session)
            now = (asked + self._clock()) / 2
            self._catch_up()
            readings = from_charon(listed)
        else:
            states = await self._beside.kernel.dump()
            now = (asked + self._clock()) / 2
            self._catch_up()
            readings = from_kernel(states, self._beside.tracker.sas.values())
        self._traffic.take(readings, now)
        host = self._measured.host.then(
            read_times(), read_memory(), now, half_life_s=self._settings.half_life_s
        )
        self._measured = Measured(now, stats.half_open, userland, host)

    def _catch_up(self) -> None:
        for event in self._events.take():
            if isinstance(event, SaRekeyed):
                self._traffic.rekeyed(event.old_id, event.sa.uniqueid)

    async def _probe_for_ever(self, target: IpAddress) -> None:
        failed = 0
        anywhere = ip_address("0.0.0.0" if target.version == 4 else "::")  # noqa: S104 (a source, not a listener)
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    await exchange(anywhere, target, "", ProbeSettings())
                failed = 0
            except TimeoutError:
                failed += 1
            except ProbeFailedError as error:
                if error.kind in OWN_FAULT:
                    log.debug("probe: %s", error)
                else:
                    failed += 1
            self._probe = failed < PROBE_FAILURES
            await asyncio.sleep(max(PROBE_S - (time.monotonic() - began), 0))

    def _complain(self, what: str) -> None:
        if what and what != self._trouble:
            log.warning("the load cannot be measured: %s", what)
        self._trouble = what

    # --- what is known --------------------------------------------------------------------------

    def served(self) -> list[IkeSa]:
        """Return the IKE_SAs that this node serves."""
        return [sa for sa in self._beside.tracker.sas.values() if rows.is_served(sa)]

    def report(self, sas: Iterable[IkeSa], told: Mapping[str, SaRow]) -> NodeReport:
        """Given the served IKE_SAs and their rows, return the report of this moment."""
        settings, measured = self._settings, self._measured
        down = health.down(settings.addresses, self._beside.net())
        verdict = health.judge(
            self._beside.session.status,
            in_step=self._beside.tracker.in_step,
            measured=self._traffic.measured,
            addresses=len(settings.addresses),
            down=down,
            probe=self._probe,
        )
        self._sequence += 1
        served = list(sas)
        host = measured.host
        return NodeReport(
            node=settings.node,
            instance=self._instance,
            sequence=self._sequence,
            # That charon is dead is news of this moment, however old the numbers are.
            age_s=0.0 if verdict.health is Health.DEAD else max(self._clock() - measured.at, 0.0),
            health=verdict.health,
            maintenance=settings.maintenance_file.exists(),
            down=down,
            ike_sas=len(served),
            half_open=measured.half_open,
            child_sas=sum(len(sa.children) for sa in served),
            bytes_per_s=round(sum(row.bytes_per_s for row in told.values()), 1),
            packets_per_s=round(sum(row.packets_per_s for row in told.values()), 1),
            cpu=round(host.cpu.value, 4) if host.cpu and settings.cpu else 0.0,
            memory=round(host.memory.value, 4) if host.memory else 0.0,
            copies=self.copies(),
            note=verdict.note,
        )

    def row(self, sa: IkeSa) -> SaRow:
        """Given a served IKE_SA, return what the cluster needs to know of it."""
        settings, memory = self._settings, self._memory
        key, peer_id = self._names.key_of(sa), sa.remote_id
        seen = rows.capability_of(
            self._beside.plugin.peer(sa.uniqueid),
            mobike=settings.assume_mobike,
            redirect=settings.assume_redirect,
        )
        rate = self._traffic.rate(sa.uniqueid)
        moved_ago = memory.moved_ago(peer_id)
        return SaRow(
            key=key,
            peer_id=peer_id,
            peer=str(sa.path.remote),
            address=ip_address(str(sa.path.local).partition("%")[0]),
            bytes_per_s=round(rate.bytes_per_s, 1),
            packets_per_s=round(rate.packets_per_s, 1),
            capability=memory.capability(key, seen, leaving=self._leaving),
            behind_nat=rows.behind_nat(sa, userland=self._measured.userland),
            pool=self._pools.of(sa.remote_vips),
            site=settings.site,
            moved_ago_s=None if moved_ago is None else round(moved_ago, 1),
            redirects=memory.redirects(peer_id),
            refused_for_s=round(memory.refused_for(key), 1),
        )

    def _is_left(self) -> bool:
        """Whether every IKE_SA has to leave this node, and not only for the better."""
        impaired = self.last is not None and self.last.health is Health.IMPAIRED
        return impaired or self.drained() or self._settings.maintenance_file.exists()

    # --- telling --------------------------------------------------------------------------------

    async def publish(self, presence: Presence) -> None:
        """Given that this node is a member, tell until cancelled. Raise LeaseLostError: it is one no longer."""
        parts = rows.Parts(self._settings.node, self._instance)
        wait = Backoff(0.2, max(self._settings.report_s, 1.0))
        refreshed_at = self._clock()
        while True:
            began = self._clock()
            try:
                refresh = began - refreshed_at >= REFRESH_S
                await self._publish_once(presence, parts, refresh=refresh)
                if refresh:
                    refreshed_at = began
            except LeaseLostError:
                raise
            except StoreError as error:
                log.debug("no report: %s", error)
                await asyncio.sleep(wait.next())
                continue
            wait.reset()
            await asyncio.sleep(max(self._settings.report_s - (self._clock() - began), 0.05))

    async def _publish_once(self, presence: Presence, parts: rows.Parts, *, refresh: bool) -> None:
        """Tell of this node first: what it says of its health must not wait for a long list."""
        self._catch_up()
        self._leaving = self._is_left()
        served = self.served()
        told = {row.key: row for row in map(self.row, served)}
        report = self.report(served, told)
        await presence.report(report)
        self.last, self.published_at = report, self._clock()
        if self._beside.tracker.in_step:  # else those told last stand until they are listed anew
            parts.put(told.values(), refresh=refresh)
        changed = parts.changed()
        if changed:
            await presence.report_sas(changed)
            parts.written(changed)


def pause_s(took_s: float, report_s: float, stale_after_s: float) -> float:
    """Given how long a measurement took, how often to report and when that is too old, return the pause after it."""
    return max(report_s, min(QUIET * took_s, stale_after_s / LATE))
