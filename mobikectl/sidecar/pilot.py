"""The client's loop: what was observed goes into the path policy, what it decides is carried out.

The one owner of the policy's memory. It also holds each IKE_SA on the path it is on with a steering
route, so that charon leaves a working path only when the policy says so (hold-down, probing), while a
route that dies with its link still lets charon react by itself at once.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from mobikectl.errors import MobikectlError, NetlinkError, PrivilegeError
from mobikectl.model import IkeState
from mobikectl.observe.events import Source
from mobikectl.policy.paths import decide
from mobikectl.policy.state import (
    Indication,
    Memory,
    MoveKind,
    MoveOutcome,
    MoveSa,
    PathState,
    ProbePath,
    ReportNoPath,
    TerminateSa,
)
from mobikectl.sidecar.routes import PathRoutes
from mobikectl.switch.executor import MoveOrder
from mobikectl.switch.moves import Blame, MoveState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from mobikectl.model import IkeSa, IpAddress, NetState, Path
    from mobikectl.observe.events import EventLog
    from mobikectl.policy.settings import PathSettings
    from mobikectl.policy.state import Action, Explanation
    from mobikectl.policy.track import ProbeResult, Track
    from mobikectl.switch.executor import MoveExecutor
    from mobikectl.switch.steering import Choice, Steering

INDICATIONS = 64
"""Indirect indications that are remembered; the policy takes each up once."""


class Surroundings(Protocol):
    """Where the pilot sees what is so now."""

    def net(self) -> NetState:
        """Return the host's network."""

    def own_sas(self) -> Iterable[IkeSa]:
        """Return the IKE_SAs that this host initiated and whose paths it is to choose."""

    def all_sas(self) -> Iterable[IkeSa]:
        """Return every IKE_SA."""

    def learnt(self) -> Mapping[int, tuple[IpAddress, ...]]:
        """Return the further addresses of the gateways, by the IKE_SA's unique id."""

    def in_step(self) -> bool:
        """Return whether the model of the SAs is what charon has (False: charon is away or hangs)."""


class Pilot:
    """Decides about the paths of this host's own IKE_SAs and sees to it that it happens."""

    def __init__(
        self,
        settings: PathSettings,
        surroundings: Surroundings,
        *,
        choice: Choice,
        steering: Steering,
        executor: MoveExecutor,
        probe: Callable[[ProbePath], Awaitable[ProbeResult]],
        terminate: Callable[[int], Awaitable[None]],
        events: EventLog,
    ) -> None:
        self._settings = settings
        self._around = surroundings
        self._steering = steering
        self._executor = executor
        self._probe = probe
        self._terminate = terminate
        self._events = events
        self._memory = Memory()
        self._explanations: tuple[Explanation, ...] = ()
        self._indications: tuple[Indication, ...] = ()
        self._routes = PathRoutes(choice, settings)
        self._moving: dict[int, asyncio.Task[None]] = {}
        self._probing: dict[Path, asyncio.Task[None]] = {}
        self._complained: dict[IpAddress, str] = {}
        self._dirty = asyncio.Event()

    @property
    def explanations(self) -> tuple[Explanation, ...]:
        """Why each IKE_SA is where it is, as of the last decision."""
        return self._explanations

    def wake(self) -> None:
        """Something was observed: decide again."""
        self._dirty.set()

    def indicate(self, indication: Indication) -> None:
        """Given an indirect indication that a path might not work, take it up."""
        self._indications = (*self._indications[-INDICATIONS + 1 :], indication)
        self.wake()

    def pin(self, uniqueid: int, path: Path | None) -> None:
        """Given an IKE_SA that the operator put on a path (None: gives free), leave it there while it works."""
        self._memory = self._memory.with_pin(uniqueid, path)
        self.wake()

    def rekeyed(self, old: int, new: int) -> None:
        """Given that an IKE_SA has a new unique id, go on with it under that."""
        self._memory = self._memory.with_rekey(old, new)
        task = self._moving.pop(old, None)
        if task is not None:
            self._moving[new] = task
        self.wake()

    async def run(self) -> None:
        """Decide whenever something was observed or a deadline came, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            deadline: float | None = None
            while True:
                await self._until(deadline)
                deadline = await self._round(tasks)

    async def _until(self, deadline: float | None) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._dirty.wait()
        except TimeoutError:
            pass
        self._dirty.clear()

    async def _round(self, tasks: asyncio.TaskGroup) -> float | None:
        if not self._around.in_step():
            return None  # without charon there is nothing to move; it wakes us when it is back
        self._steering.forget_lost()
        sas = tuple(
            sa for sa in self._around.own_sas() if sa.state in {IkeState.ESTABLISHED, IkeState.REKEYING}
        )
        net, learnt = self._around.net(), self._around.learnt()
        await self._routes.ask(net, sas, learnt)
        state = PathState(
            net,
            sas,
            self._routes.answers,
            self._routes.metrics,
            learnt,
            self._indications,
            self._memory,
        )
        decision = decide(state, self._settings, time.monotonic())
        self._memory = decision.memory
        self._explanations = decision.explanations
        for action in decision.actions:
            self._perform(action, tasks)
        await self._hold(sas)
        return decision.next_deadline

    def _perform(self, action: Action, tasks: asyncio.TaskGroup) -> None:
        match action:
            case MoveSa():
                self._events.record(
                    Source.DECISION,
                    "move",
                    f"IKE_SA {action.sa_uniqueid}: {action.origin} => {action.path} ({action.cause})",
                    data={
                        "ike_sa": action.sa_uniqueid,
                        "before": str(action.origin),
                        "after": str(action.path),
                        "cause": action.cause,
                        "kind": action.kind.value,
                    },
                )
                earlier = self._moving.get(action.sa_uniqueid)
                self._moving[action.sa_uniqueid] = tasks.create_task(self._move(action, earlier))
            case ProbePath():
                if action.path not in self._probing:
                    self._probing[action.path] = tasks.create_task(self._check(action))
            case ReportNoPath():
                tried = ", ".join(map(str, action.tried)) or "none"
                self._events.record(
                    Source.DECISION,
                    "no-path",
                    f"IKE_SA {action.sa_uniqueid}: no path answers ({action.cause}; tried {tried})",
                    data={
                        "ike_sa": action.sa_uniqueid,
                        "cause": action.cause,
                        "tried": [*map(str, action.tried)],
                    },
                )
            case TerminateSa():
                self._events.record(
                    Source.DECISION,
                    "terminate",
                    f"IKE_SA {action.sa_uniqueid}: terminated, as configured ({action.cause})",
                    data={"ike_sa": action.sa_uniqueid, "cause": action.cause},
                )
                tasks.create_task(self._end(action))

    async def _move(self, action: MoveSa, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None and not earlier.done():
            earlier.cancel()
            await asyncio.wait([earlier])
        order = MoveOrder(
            action.sa_uniqueid,
            action.path,
            action.cause,
            timeout_s=max(0.1, action.verify_by - time.monotonic()),
            give_back=action.kind is not MoveKind.DIRECT,
        )
        try:
            move = await self._executor.move(order)
            outcome = MoveOutcome(
                move.sa, move.after, move.state is MoveState.VERIFIED, move.blame is Blame.PATH, move.reason
            )
        except MobikectlError as error:
            outcome = MoveOutcome(
                action.sa_uniqueid, action.path, ok=False, path_failed=False, reason=str(error)
            )
        now_id = self._id_now(asyncio.current_task(), action.sa_uniqueid)
        outcome = MoveOutcome(now_id, outcome.path, outcome.ok, outcome.path_failed, outcome.reason)
        self._moving.pop(now_id, None)
        self._memory = self._memory.with_outcome(outcome, self._settings, time.monotonic())
        self.wake()

    def _id_now(self, task: asyncio.Task[None] | None, uniqueid: int) -> int:
        """The SA's unique id as of now: a rekey during the move has changed it."""
        return next((key for key, moving in self._moving.items() if moving is task), uniqueid)

    async def _check(self, action: ProbePath) -> None:
        try:
            result = await self._probe(action)
        finally:
            self._probing.pop(action.path, None)
        before = self._memory.tracks.get(action.path)
        self._memory = self._memory.with_probe(result, time.monotonic())
        self._tell_track(action, before, self._memory.tracks.get(action.path), result)
        self.wake()

    def _tell_track(
        self, action: ProbePath, before: Track | None, after: Track | None, result: ProbeResult
    ) -> None:
        if after is None or (before is not None and before.state is after.state):
            return
        self._events.record(
            Source.PROBE,
            f"path-{after.state.value}",
            f"{action.path} by {action.link}: {after.state.value}"
            + (f" ({result.detail})" if result.detail else ""),
            at=result.at,
            data={
                "path": str(action.path),
                "link": action.link,
                "state": after.state.value,
                "sent": result.sent,
                "received": result.received,
                "error": result.error.value if result.error else None,
            },
        )

    async def _end(self, action: TerminateSa) -> None:
        try:
            await self._terminate(action.sa_uniqueid)
        except MobikectlError as error:
            self._events.record(
                Source.ACTION,
                "terminate-failed",
                f"IKE_SA {action.sa_uniqueid} could not be terminated: {error}",
            )

    async def _hold(self, own: tuple[IkeSa, ...]) -> None:
        """Keep one steering route to each peer address in use, on the path in use; drop the others."""
        moving = {self._memory.sas[key].move for key in self._moving if key in self._memory.sas}
        busy = {address for move in moving if move for address in (move.path.remote, move.origin.remote)}
        await self._hold_own(own, busy)
        used = {(sa.path.remote, sa.path.local) for sa in self._around.all_sas()}
        for steer in self._steering.steers:
            remote = steer.path.remote
            if (
                remote not in busy
                and not self._executor.busy(remote)
                and (remote, steer.path.local) not in used
            ):
                await self._steering.release(remote)

    async def _hold_own(self, own: tuple[IkeSa, ...], busy: set[IpAddress]) -> None:
        paths: dict[IpAddress, set[Path]] = {}
        for sa in own:
            paths.setdefault(sa.path.remote, set()).add(sa.path)
        for remote, wanted in paths.items():
            path = next(iter(wanted))
            held = self._steering.steer_to(remote)
            if len(wanted) > 1 or remote in busy or self._executor.busy(remote):
                continue  # two SAs on two paths to one address: neither is held against the other
            if self._routes.answers.get(path) is None or (held is not None and held.path == path):
                continue
            try:
                await self._steering.point(path)
            except (NetlinkError, PrivilegeError) as error:
                self._complain(remote, f"{path} cannot be held by a route: {error}")

    def _complain(self, remote: IpAddress, text: str) -> None:
        if self._complained.get(remote) != text:
            self._complained[remote] = text
            self._events.record(Source.ACTION, "hold-failed", text, data={"remote": str(remote)})
