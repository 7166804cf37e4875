"""The composition root: what runs beside charon, and who owns what."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from mobikectl import __version__
from mobikectl.charon import commands
from mobikectl.charon.rmobike_events import Capability, UpdateDone
from mobikectl.charon.rmobike_link import PluginLink
from mobikectl.charon.sa_events import (
    PeerUnresponsive,
    Retransmit,
    SaDown,
    SaEventsDropped,
    SaModelResynced,
    SaRekeyed,
    SaUp,
)
from mobikectl.charon.session import EventGap, LinkState, Session
from mobikectl.charon.tracker import SaTracker, TrackerConfig
from mobikectl.config import OnExit, Role
from mobikectl.control import serve, serve_metrics
from mobikectl.errors import (
    CharonError,
    MobikectlError,
    NetlinkError,
    PrivilegeError,
    SidecarError,
    to_tell,
)
from mobikectl.netlink import KernelSas, SteeringRoutes, Watcher, xfrm_available
from mobikectl.netlink.choice import KernelChoice
from mobikectl.netlink.rules import RULE_PRIORITY, SteeringRule
from mobikectl.node.main import ClusterNode
from mobikectl.node.reporter import Beside
from mobikectl.node.watching import nobody
from mobikectl.observe.events import EventLog, Source
from mobikectl.observe.metrics import Metrics, Snapshot
from mobikectl.observe.plain import plain
from mobikectl.policy.paths import decides_about
from mobikectl.policy.state import Indication, IndicationKind
from mobikectl.probe import probe
from mobikectl.sidecar import gauges
from mobikectl.sidecar.arrivals import Arrivals
from mobikectl.sidecar.bridging import Bridging
from mobikectl.sidecar.comings import Comings
from mobikectl.sidecar.losses import Losses
from mobikectl.sidecar.pilot import Pilot
from mobikectl.sidecar.plugin import describe_plugin, report_plugin
from mobikectl.sidecar.report import report_netlink, report_sa
from mobikectl.sidecar.sas import GatewayAddresses, KernelChildCheck, Sas
from mobikectl.sidecar.switching import switch
from mobikectl.sidecar.systemd import Notifier
from mobikectl.sidecar.tunnel import EchoThroughTunnel
from mobikectl.sidecar.watching import Watching
from mobikectl.switch.executor import MoveExecutor
from mobikectl.switch.moves import Mechanism
from mobikectl.switch.redirects import Redirects
from mobikectl.switch.steering import Steering
from mobikectl.taskgroup import TaskGroup
from mobikectl.web import serve_web
from mobikectl.web.guard import read_token

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mobikectl.charon.rmobike_events import PluginEvent
    from mobikectl.charon.sa_events import SaEvent
    from mobikectl.charon.session import EventLost
    from mobikectl.config import Config
    from mobikectl.model import IkeSa, IpAddress, NetState
    from mobikectl.node.watching import Watch
    from mobikectl.switch.executor import MoveOrder
    from mobikectl.switch.moves import Move

ENDING = (signal.SIGTERM, signal.SIGINT)

AGAIN_S = 1.0
"""What the kernel refused is tried again after so many seconds."""


class Sidecar:
    """What runs beside one charon. Make one, and `run` it. ``watch``: is told each step of a handover."""

    def __init__(self, config: Config, *, watch: Watch = nobody) -> None:
        self.config = config
        self._watch = watch
        self.events = EventLog()
        self._metrics = Metrics(self._gauges)
        self.events.listen(self._metrics.take)
        self._notifier = Notifier()
        self._started = time.time()
        self._session = Session(
            config.charon.socket, timeout=config.charon.timeout_s, timing=self._metrics.vici
        )
        self._plugin = PluginLink(config.charon.plugin_socket, timeout=config.charon.timeout_s)
        self._tracker = SaTracker(
            self._session, TrackerConfig(verify_s=config.charon.resync_s), role_of=self._plugin.role
        )
        self._bridging = Bridging(config.bridge, self._session, self._plugin.plugin, self.events)
        self._sas = Sas(self._tracker)
        self._gateways = GatewayAddresses(self._session)
        self._adopted = False
        self._userland = False
        self._unsettled = asyncio.Event()
        self._switching: set[asyncio.Task[Mapping[str, Any]]] = set()
        self._node: ClusterNode | None = None
        self._comings = Comings()
        self._watching: Watching | None = None
        self._losses: Losses | None = None

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raise MobikectlError when it cannot start."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in ENDING:
            loop.add_signal_handler(number, stop.set)
        try:
            async with self._house(), TaskGroup() as tasks:
                running = [tasks.create_task(work, name=name) for name, work in self._works()]
                self._notifier.ready()
                self.events.record(
                    Source.SIDECAR, "started", f"mobikectl {__version__} runs", data={"pid": os.getpid()}
                )
                await stop.wait()
                self._notifier.stopping()
                for task in running:
                    task.cancel()
        except BaseExceptionGroup as group:
            raise to_tell(group) from group
        finally:
            for number in ENDING:
                loop.remove_signal_handler(number)

    @contextlib.asynccontextmanager
    async def _house(self) -> Any:
        """Open everything that the works need; on the way out clean up what is ours."""
        config = self.config
        async with contextlib.AsyncExitStack() as stack:
            self._watcher = await stack.enter_async_context(Watcher(window=config.netlink.coalesce_s))
            self._choice = await stack.enter_async_context(KernelChoice())
            self._routes = await stack.enter_async_context(SteeringRoutes())
            self._rule = await stack.enter_async_context(SteeringRule())
            self._steering = Steering(self._routes, self._choice, self._watcher_state)
            child_check = kernel = None
            if await xfrm_available():
                kernel = await stack.enter_async_context(KernelSas())
                child_check = KernelChildCheck(kernel)
                self._losses = Losses(kernel, self._sas.find, self.events)
            self._executor = MoveExecutor(
                self._sas,
                self._steering,
                self.events,
                child_check=_Unless(self._userland_esp, child_check) if child_check else None,
                tunnel_probe=EchoThroughTunnel(config.move.tunnel_probe)
                if config.move.tunnel_probe
                else None,
                data_plane_s=config.move.data_plane_s,
                plugin=self._plugin,
                redirect=Redirects(self.all_sas, self._redirect).redirect,
                terminate=self._terminate,
                nat_known=lambda: not self._userland,
            )
            self._pilot = Pilot(
                config.paths,
                self,
                choice=self._choice,
                steering=self._steering,
                executor=self._executor,
                probe=probe,
                terminate=self._terminate,
                events=self.events,
            )
            self._arrivals = Arrivals(
                [address.ip for address in config.cluster.addresses] if config.cluster else [],
                self._choice,
                self._executor,
                sas=self.all_sas,
                held=self._steering.steer_to,
                events=self.events,
            )
            if config.cluster is not None:
                self._node = ClusterNode(
                    config.cluster,
                    Beside(self._session, self._tracker, self._plugin, self._watcher_state, kernel),
                    sas=self._sas,
                    mover=self._executor,
                    events=self.events,
                    in_step=self.in_step,
                    store_timing=self._metrics.store,
                    watch=self._watch,
                )
            stack.push_async_callback(self._session.aclose)
            stack.push_async_callback(self._plugin.aclose)
            stack.push_async_callback(self._clean_up)
            await stack.enter_async_context(serve(self, FilePath(config.control.socket)))
            if config.metrics.port:
                await stack.enter_async_context(
                    serve_metrics(self, config.metrics.address, config.metrics.port)
                )
            if config.web.port:
                self._watching = Watching(self, config.cluster)
                token = read_token(config.web.token_file) if config.web.token_file else None
                await stack.enter_async_context(
                    serve_web(self._watching, config.web.address, config.web.port, token)
                )
            stack.push_async_callback(self._end_switches)
            yield

    def _works(self) -> list[tuple[str, Any]]:
        return [
            ("netlink", self._follow_netlink()),
            ("charon", self._tracker.run()),
            ("charon events", self._follow_charon()),
            ("charon status", self._follow_status()),
            ("plugin", self._plugin.run(self._take_plugin)),
            ("settling", self._settle()),
            ("pilot", self._pilot.run()),
            ("arrivals", self._arrivals.run()),
            ("watchdog", self._watchdog()),
            *([("bridge", self._bridging.run())] if self.config.bridge.enabled else []),
            *([("cluster", self._node.run())] if self._node is not None else []),
            *([("web", self._watching.run())] if self._watching is not None else []),
            *([("losses", self._losses.run())] if self._losses is not None else []),
        ]

    async def _end_switches(self) -> None:
        """Give up what operators have under way: nobody is left to verify it."""
        for work in self._switching:
            work.cancel()
        if self._switching:
            await asyncio.wait(self._switching)

    async def _clean_up(self) -> None:
        if self.config.move.on_exit is OnExit.KEEP:
            return
        try:
            removed = await self._steering.release_all()
            await self._rule.remove()
        except MobikectlError as error:
            self.events.record(Source.SIDECAR, "clean-up-failed", str(error))
            return
        self.events.record(Source.SIDECAR, "stopped", f"stopped; {removed} steering routes removed")

    # --- the works ------------------------------------------------------------------------------

    async def _follow_netlink(self) -> None:
        async for change in self._watcher.changes():
            self._pilot.wake()
            report_netlink(change, self.events)
            if any(rule.priority == RULE_PRIORITY for rule in change.rules_removed):
                await self._mend_rule()

    async def _mend_rule(self) -> None:
        """Somebody removed the rule that leads to the steering routes: programs exist that own all rules."""
        try:
            await self._rule.ensure()
        except (NetlinkError, PrivilegeError) as error:
            self.events.record(Source.ACTION, "rule-failed", f"the ip rule cannot be made again: {error}")
            return
        self.events.record(
            Source.ACTION, "rule-made", "somebody removed the ip rule for steering; made again"
        )

    async def _follow_charon(self) -> None:
        with self._tracker.subscribe() as feed:
            async for event in feed:
                self._sas.catch_up()
                self._take(event)
                report_sa(event, self.events)

    def _take(self, event: SaEvent) -> None:
        match event:
            case SaDown(sa=sa):
                self._plugin.forget(sa.uniqueid)
            case SaRekeyed(old_id=old, sa=sa):
                self._plugin.rekeyed(old, sa.uniqueid)
                self._pilot.rekeyed(old, sa.uniqueid)
            case Retransmit() | PeerUnresponsive():
                self._indicate(event)
            case SaUp(sa=sa):
                self._arrivals.arrived(sa)
                if not sa.original_initiator:
                    self._comings.came(sa.remote_id)
                self._unsettled.set()
            case SaModelResynced() | SaEventsDropped():
                self._unsettled.set()
        self._pilot.wake()

    def _take_plugin(self, event: PluginEvent | EventGap | EventLost) -> None:
        report_plugin(event, self.events)
        if isinstance(event, Capability):
            self._know_roles([event.ike_id])
        elif isinstance(event, EventGap):
            self._know_roles(self._plugin.peers)
        if self._node is not None:
            self._node.take_plugin(event)
        if isinstance(event, UpdateDone) and event.cause == "switch":
            # The gateway asked for it, and may know more than we do: stay there while that path works.
            self._pilot.stay(event.ike_id, event.path)

    def _know_roles(self, numbers: Iterable[int]) -> None:
        """The plugin knows who initiated an IKE_SA, and may have said so after charon told of it."""
        for number in numbers:
            role = self._plugin.role(number)
            sa = None if role is None else self._tracker.know_role(number, original_initiator=role)
            if sa is not None:
                self._arrivals.arrived(sa)
                self._pilot.wake()

    def _indicate(self, event: Retransmit | PeerUnresponsive) -> None:
        sa = self._sas.find(event.uniqueid)
        if sa is None or event.probing:
            return
        detail = f"charon sent a request {event.count} times again"
        self._pilot.indicate(
            Indication(sa.uniqueid, IndicationKind.RETRANSMIT, sa.path, time.monotonic(), detail)
        )

    async def _settle(self) -> None:
        """Do what follows from SAs becoming known. It asks charon and the kernel: the events do not wait for it."""
        while True:
            await self._unsettled.wait()
            self._unsettled.clear()
            try:
                await self._adopt()
            except (NetlinkError, PrivilegeError) as error:
                self.events.record(Source.ACTION, "adopt-failed", f"earlier steering routes stay: {error}")
                self._unsettled.set()
                await asyncio.sleep(AGAIN_S)
                continue
            self._userland = await self._userland_esp()
            await self._gateways.read()
            self._pilot.wake()

    async def _adopt(self) -> None:
        """Once charon's SAs are known: take over or remove the steering routes of an earlier life."""
        if self._adopted or not self._tracker.in_step:
            return
        removed = await self._steering.adopt(sa.path for sa in self.all_sas())
        for steer in removed:
            text = f"removed a steering route that an earlier run left behind: {steer.path}"
            self.events.record(Source.ACTION, "leftover-removed", text, data={"path": str(steer.path)})
        self._adopted = True
        self._pilot.wake()

    async def _follow_status(self) -> None:
        seen = self._session.status
        while True:
            status = await self._session.status_after(seen)
            text = f"charon is {status.state.value}" + (f": {status.detail}" if status.detail else "")
            self.events.record(Source.CHARON, f"charon-{status.state.value}", text, at=status.since)
            self._notifier.status(text)
            self._pilot.wake()
            seen = status

    async def _watchdog(self) -> None:
        interval = self._notifier.watchdog_s
        while interval is not None:
            self._notifier.alive()
            await asyncio.sleep(interval / 2)

    async def _terminate(self, uniqueid: int) -> None:
        await commands.terminate(self._session, ike_id=uniqueid)

    async def _redirect(self, uniqueid: int | None, peer_ip: str | None, gateway: IpAddress) -> None:
        await commands.redirect(self._session, gateway, ike_id=uniqueid, peer_ip=peer_ip)

    async def _userland_esp(self) -> bool:
        try:
            return "kernel-libipsec" in await commands.plugins(self._session)
        except CharonError:
            return False

    # --- what the pilot sees --------------------------------------------------------------------

    def _watcher_state(self) -> NetState:
        return self._watcher.state

    def net(self) -> NetState:
        """Return the host's network."""
        return self._watcher.state

    def own_sas(self) -> Iterable[IkeSa]:
        """Return the IKE_SAs whose paths are ours to choose."""
        if self.config.role is Role.GATEWAY:
            return ()
        return [sa for sa in self._tracker.sas.values() if decides_about(sa)]

    def all_sas(self) -> Iterable[IkeSa]:
        """Return every IKE_SA."""
        return self._tracker.sas.values()

    def learnt(self) -> Mapping[int, tuple[IpAddress, ...]]:
        """Return the further addresses of the gateways, by the IKE_SA's unique id."""
        return {sa.uniqueid: self._gateways.of(sa) for sa in self.own_sas()}

    def in_step(self) -> bool:
        """Return whether the model of the SAs is what charon has."""
        return self._tracker.in_step and self._adopted

    # --- the control socket ---------------------------------------------------------------------

    def healthy(self) -> Mapping[str, Any]:
        """Return whether all is well, and what is not."""
        charon = self._session.status
        problems = []
        if charon.state is not LinkState.UP:
            problems.append(f"charon is {charon.state.value}: {charon.detail}")
        elif not self._tracker.in_step:
            problems.append("the model of the IKE_SAs is not in step with charon")
        elif not self._adopted:
            problems.append("the steering routes of an earlier life were not looked at yet")
        return {"ok": not problems, "problems": problems}

    def state(self) -> Mapping[str, Any]:
        """Return everything that is known, JSON-able."""
        charon = self._session.status
        sas = self._tracker.sas
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": self._started,
            "role": self.config.role.value,
            "health": self.healthy(),
            "charon": {
                "socket": self.config.charon.socket,
                "state": charon.state.value,
                "detail": charon.detail,
            },
            "plugin": describe_plugin(self._plugin, self.config.charon.plugin_socket),
            "bridge": self._bridging.describe(),
            "netlink": asdict(self._watcher.counters),
            "sas": [plain(sa) for sa in sas.values()],
            "paths": [plain(explanation) for explanation in self._pilot.explanations],
            "steering": [plain(steer) for steer in self._steering.steers],
            "cluster": self._node.state() if self._node is not None else None,
            "moves": [{**plain(move), "state": move.state.value} for move in self._executor.history[-100:]],
        }

    def metrics(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        return self._metrics.expose()

    def _gauges(self) -> Snapshot:
        node, cluster = self._node, self.config.cluster
        return gauges.snapshot(
            gauges.of_sidecar(
                self.config.role.value,
                charon_up=self._session.status.state is LinkState.UP,
                in_step=self.in_step(),
                steering=len(self._steering.steers),
            ),
            gauges.of_sas(self.all_sas(), self._plugin.peers.values(), self._gateways.connections),
            gauges.of_paths(self._pilot.explanations, time.monotonic()),
            gauges.of_netlink(self._watcher.counters),
            gauges.of_node(node.state(), cluster.capacity) if node and cluster else {},
        )

    async def switch(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Given a switch request, carry it out and return its outcome. Raise MobikectlError."""
        work = asyncio.create_task(
            switch(
                request,
                self._tracker.sas,
                self._steering,
                self._obey,
                self._pilot.free,
                self._executor.mechanism,
                redirects=self._redirects,
            )
        )
        self._switching.add(work)
        try:
            return await work
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if me is not None and me.cancelling():
                raise
            raise SidecarError(
                "the sidecar stops; what was under way is undone", hint="ask again when it runs"
            ) from None
        finally:
            self._switching.discard(work)

    def _redirects(self, sa: IkeSa) -> int:
        """How many redirects its peer may have followed lately: as seen from here, and by the cluster's journal."""
        told = self._node.redirects(sa.remote_id) if self._node is not None else 0
        return max(told, self._comings.redirects(sa.remote_id))

    async def _obey(self, sa: IkeSa, order: MoveOrder) -> Move:
        if self.config.role is not Role.GATEWAY and decides_about(sa):
            return await self._pilot.obey(sa, order)
        if order.mechanism is Mechanism.REDIRECT:
            self._comings.sent(sa.remote_id)
            if self._node is not None:
                self._node.redirected(sa.remote_id)
        return await self._executor.move(order)


class _Unless:
    """A kernel check that is left out while charon does ESP in userland."""

    def __init__(self, userland: Any, check: KernelChildCheck) -> None:
        self._userland = userland
        self._check = check

    async def __call__(self, sa: IkeSa, path: Any) -> str | None:
        if await self._userland():
            return None
        return await self._check(sa, path)
