"""This node's part in its cluster, put together: it is a member, reports, decides when it leads, moves, places.

It stands beside what the sidecar does for its charon and never ends that: whatever fails in here is recorded, and begun
anew after a while. Nothing of it touches a tunnel but the moves that the journal tells it to carry out.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mobikectl import __version__
from mobikectl.charon.rmobike_pool import PoolStock
from mobikectl.charon.session import EventGap, EventLost
from mobikectl.cluster.backend import Backoff, lease_clock
from mobikectl.cluster.decider import Decider, DeciderSettings
from mobikectl.cluster.leader import Election
from mobikectl.cluster.membership import Membership
from mobikectl.cluster.node_settings import Placement
from mobikectl.cluster.settings import open_store
from mobikectl.errors import LeaseLostError, StoreError, innermost
from mobikectl.netlink import SteeringRoutes
from mobikectl.node.addresses import Addresses
from mobikectl.node.carriage import carriage
from mobikectl.node.executor import ClusterExecutor, NodeSas
from mobikectl.node.inside_routes import InsideRoutes
from mobikectl.node.memory import Memory
from mobikectl.node.names import SaNames
from mobikectl.node.opening import CLOSED, Opening
from mobikectl.node.placement import Placer
from mobikectl.node.reporter import Reporter
from mobikectl.node.steps import carries
from mobikectl.node.watching import nobody
from mobikectl.observe.events import Source
from mobikectl.observe.plain import plain
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mobikectl.charon.rmobike_events import PluginEvent
    from mobikectl.cluster.leader import Leadership
    from mobikectl.cluster.membership import Presence
    from mobikectl.cluster.node_settings import ClusterSettings, InsideRoutesSettings, TransferSettings
    from mobikectl.cluster.records import MoveRecord
    from mobikectl.cluster.store import Store
    from mobikectl.cluster.timed import Timing
    from mobikectl.node.carriage import Carriage
    from mobikectl.node.carrying import Mover
    from mobikectl.node.reporter import Beside
    from mobikectl.node.watching import Watch
    from mobikectl.observe.events import EventLog
    from mobikectl.switch.course import SaView

log = logging.getLogger(__name__)

AGAIN_MOST_S = 30.0
"""After a failure of its own the node begins anew, within this time."""
OFFER_WAIT_S = 2.0
"""A move's target is given so long to be ready for its virtual IPs."""
HA_SILENT_S = 5.0
"""charon's ha plugin speaks each second."""
SILENT = 3
"""So many reports that were not taken, and the store is said to be away."""


class ClusterNode:
    """Makes its charon's gateway a node of a cluster. ``run`` it; `state` tells how it is."""

    def __init__(
        self,
        settings: ClusterSettings,
        beside: Beside,
        *,
        sas: SaView,
        mover: Mover,
        events: EventLog,
        in_step: Callable[[], bool],
        store_timing: Timing | None = None,
        watch: Watch = nobody,
    ) -> None:
        self.settings = settings
        self._store_timing = store_timing
        self._watch = watch
        self._beside = beside
        self._sas = sas
        self._mover = mover
        self._events = events
        self._in_step = in_step
        self._instance = secrets.token_hex(8)
        self._names = SaNames(settings.node, beside.tracker)
        self._memory = Memory()
        self._reporter = Reporter(settings, self._instance, beside, self._names, self._memory)
        self._placer = Placer(settings, beside.plugin)
        self._addresses: Addresses | None = None
        self._presence: Presence | None = None
        self._leadership: Leadership | None = None
        self._decider: Decider | None = None
        self._executor: ClusterExecutor | None = None
        self._opening: Opening | None = None
        self._told_carries: str | None = None
        self._failure = ""

    async def run(self) -> None:
        """Be a node of the cluster until cancelled. Leaves it then, and gives back the leadership."""
        wait = Backoff(1.0, AGAIN_MOST_S)
        while True:
            try:
                await self._run()
            except Exception as error:
                # Here ends what may go wrong in the cluster's part: the tunnels' sidecar goes on in any case.
                log.exception("the cluster's part failed")
                self._failure = f"{type(error).__name__}: {innermost(error)}"
                self._events.record(
                    Source.SIDECAR, "cluster-failed", f"the cluster's part failed: {self._failure}"
                )
            await asyncio.sleep(wait.next())

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            # Leases are renewed over a connection of their own: no long list of IKE_SAs holds that up.
            leases, store = (open_store(self.settings.store, self._store_timing) for _ in range(2))
            stack.push_async_callback(leases.close)
            stack.push_async_callback(store.close)
            self._decider = Decider(
                store, DeciderSettings(self.settings.policy, self.settings.balance), tell=self._tell
            )
            # The executor ends before that by which it carries.
            outer = await stack.enter_async_context(TaskGroup())
            if self.settings.transfer is not None:
                self._opening = self._make_opening(self.settings.transfer, store)
                outer.create_task(self._opening.run(), name="carrying over")
                await self._opening.tried()
            if self.settings.address_pools:
                self._addresses = self._make_addresses(store)
            self._executor = ClusterExecutor(
                store,
                self.settings.node,
                sas=NodeSas(self._names, self._beside.tracker, self._sas),
                mover=self._mover,
                memory=self._memory,
                policy=self.settings.policy,
                events=self._events,
                in_step=self._in_step,
                may_begin=self._is_member,
                carrier=self._carriage.carrier if self._carriage is not None else None,
                prepare=self._prepare,
            )
            self._reporter.drained = self._executor.is_drained
            async with TaskGroup() as tasks:
                if self._addresses is not None:
                    tasks.create_task(self._addresses.run(), name="virtual IPs")
                if self.settings.inside_routes is not None:
                    tasks.create_task(self._route_inside(self.settings.inside_routes), name="inside routes")
                tasks.create_task(self._reporter.measure(), name="load")
                tasks.create_task(self._be_member(leases), name="membership")
                tasks.create_task(self._executor.run(), name="cluster moves")
                if self.settings.placement is not Placement.OFF:
                    tasks.create_task(self._placer.run(store), name="placement")

    def _make_opening(self, transfer: TransferSettings, store: Store) -> Opening:
        """Return what opens what carries IKE_SAs over; what cannot be had is told."""

        async def opened(carriage: Carriage) -> None:
            if self._presence is not None:  # it came late: a member did not ask yet what others took over
                await carriage.standing.leave()
            if self._executor is not None:
                self._executor.carry_with(carriage.carrier)

        return Opening(
            lambda: carriage(
                self.settings,
                transfer,
                self._instance,
                store,
                self._beside,
                self._reporter,
                self._events,
                lease=self._lease,
                find=self._names.find,
                watch=self._watch,
            ),
            opened=opened,
            off=self._tell_carries,
        )

    @property
    def _carriage(self) -> Carriage | None:
        return self._opening.carriage if self._opening is not None else None

    def why_not_carry(self) -> str:
        """Return why no IKE_SA can be carried over to or from this node at this moment; empty: it can."""
        if self.settings.transfer is None:
            return "[cluster.transfer] is not configured"
        if self._carriage is None:
            return self._opening.why_not if self._opening is not None else CLOSED
        if not self._beside.plugin.up:
            return "charon's rmobike plugin is not there"
        heard = self._carriage.broker.status.heard_s
        if heard is None or heard > HA_SILENT_S:
            return "charon's ha plugin tells nothing: is it loaded, with remote = 127.0.0.1?"
        return ""

    async def _tell_carrying(self, presence: Presence) -> None:
        """Let the others know whether this node carries IKE_SAs over, as often as that changes."""
        while True:
            carries = not self.why_not_carry()
            if carries != presence.member.carries:
                try:
                    await presence.update(replace(presence.member, carries=carries))
                except LeaseLostError:
                    raise
                except StoreError as error:
                    log.debug("the node cannot be told of: %s", error)
                else:
                    self._tell_carries(self.why_not_carry())
            await asyncio.sleep(1.0)

    def _tell_carries(self, why_not: str) -> None:
        """Tell it once: a member that is back after its lease was over says it to the others anew."""
        if why_not == self._told_carries:
            return
        self._told_carries = why_not
        if why_not:
            self._tell("carries-nothing", f"IKE_SAs are not carried over to or from here: {why_not}", {})
        else:
            self._tell("carries", "IKE_SAs are carried over to and from here", {})

    def redirected(self, peer: str) -> None:
        """Given a client's identity: an operator redirects it now, which counts as one of its redirects."""
        self._memory.redirected(peer)

    def redirects(self, peer: str) -> int:
        """Given a client's identity, return how often the cluster is known to have redirected it in the last 300 s."""
        return self._memory.redirects(peer)

    def take_plugin(self, event: PluginEvent | EventGap | EventLost) -> None:
        """Given what the plugin said, see to what follows from it for the virtual IPs."""
        if self._addresses is None:
            return
        if isinstance(event, EventGap):
            self._addresses.wake()
        elif not isinstance(event, EventLost):
            self._addresses.take(event)

    async def _route_inside(self, settings: InsideRoutesSettings) -> None:
        async with SteeringRoutes(protocol=settings.protocol) as routes:
            await InsideRoutes(settings, routes, self._beside.tracker, self._beside.net).run()

    async def _prepare(self, move: MoveRecord) -> str:
        """Have the virtual IPs of a move's IKE_SAs wait at its target; return why it must not be begun, or nothing."""
        for key in move.sas:
            sa = self._names.find(key)
            if self._addresses is None or sa is None:
                continue
            try:
                ready = await self._addresses.offer(sa, move.target, OFFER_WAIT_S)
            except StoreError as error:
                log.info("the virtual IPs of %s cannot be offered: %s", key, error)
                ready = False
            if not ready and carries(move):
                return f"{move.target} is not ready for the virtual IPs of {key}"
        return ""

    def _make_addresses(self, store: Store) -> Addresses:
        tracker = self._beside.tracker

        def tell(name: str, text: str, data: Mapping[str, object]) -> None:
            self._events.record(Source.CHARON, name, text, data=data)

        return Addresses(
            store.leases(),
            PoolStock(self._beside.plugin.plugin),
            self.settings.node,
            self.settings.address_pools,
            sas=lambda: tracker.sas.values() if tracker.in_step else None,
            tell=tell,
        )

    # --- member and leader ----------------------------------------------------------------------

    def _is_member(self) -> bool:
        return self._presence is not None and self._presence.alive

    def _lease(self) -> int | None:
        try:
            return self._presence.lease if self._presence is not None else None
        except LeaseLostError:
            return None

    async def _be_member(self, leases: Store) -> None:
        membership = Membership(
            leases,
            self.settings.member(self._instance, __version__, carries=not self.why_not_carry()),
            self.settings.store.lease,
        )

        async def present(presence: Presence) -> None:
            if self._carriage is not None:
                await self._carriage.standing.leave()
            self._presence = presence
            self._tell("member", f"{self.settings.node} is a member of the cluster", {})
            if self._executor is not None:
                self._executor.wake()
            try:
                async with TaskGroup() as tasks:
                    tasks.create_task(self._reporter.publish(presence), name="reports")
                    tasks.create_task(self._tell_carrying(presence), name="carrying")
                    tasks.create_task(self._campaign(leases), name="election")
            finally:
                self._presence = None
                self._tell("no-member", f"{self.settings.node} is no member of the cluster any more", {})

        await membership.run(present)

    async def _campaign(self, leases: Store) -> None:
        election = Election(leases, self.settings.node, self._instance, self.settings.store.lease)

        async def lead(leadership: Leadership) -> None:
            self._leadership = leadership
            try:
                if self._decider is not None:
                    await self._decider.lead(leadership)
            finally:
                self._leadership = None

        await election.run(lead)

    def _tell(self, name: str, text: str, data: Mapping[str, object]) -> None:
        self._events.record(Source.DECISION, f"cluster-{name}", text, data=data)

    # --- what it tells --------------------------------------------------------------------------

    def state(self) -> Mapping[str, Any]:
        """Return how this node stands in its cluster, JSON-able."""
        leadership, reporter, decider = self._leadership, self._reporter, self._decider
        leads = leadership is not None and leadership.alive
        age_s = None if reporter.published_at is None else lease_clock() - reporter.published_at
        told = age_s is not None and age_s <= SILENT * max(self.settings.report_s, 1.0)
        decision = decider.decision if decider is not None else None
        return {
            "node": self.settings.node,
            "cluster": self.settings.store.cluster,
            "member": self._is_member(),
            "role": "leader" if leads else "follower",
            "token": leadership.leader.token if leadership is not None and leads else None,
            "store": {
                "kind": self.settings.store.kind.value,
                "state": "reachable" if self._is_member() and told else "away",
                "error": str(decider.error) if decider is not None and decider.error else "",
            },
            "report": None
            if reporter.last is None or age_s is None
            else {**plain(reporter.last), "ago_s": round(age_s, 3)},
            "plan": None
            if decision is None
            else {"sas": decision.plan.sa_count, "notes": [*decision.notes, *decision.plan.notes]},
            "moves_under_way": self._executor.under_way if self._executor is not None else 0,
            "balance": self.settings.balance.value,
            "placement": {"mode": self.settings.placement.value, "answer": plain(self._placer.placement)},
            "carries_not": self.why_not_carry(),
            "carries": plain(self._carriage.broker.status) if self._carriage is not None else None,
            "standing": self._carriage.standing.state() if self._carriage is not None else None,
            "failure": self._failure,
        }
