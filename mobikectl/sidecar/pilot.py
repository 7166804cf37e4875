"""The client's loop: what was observed goes into the path policy, what it decides is carried out.

The one owner of the policy's memory. It also holds each IKE_SA on the path it is on with a steering
route, so that charon leaves a working path only when the policy says so (hold-down, probing), while a
route that dies with its link still lets charon react by itself at once.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol

from mobikectl.errors import MobikectlError, MoveError, NetlinkError, PrivilegeError
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
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from mobikectl.model import IkeSa, IpAddress, NetState, Path
    from mobikectl.observe.events import EventLog
    from mobikectl.policy.settings import PathSettings
    from mobikectl.policy.state import Action, Explanation
    from mobikectl.policy.track import ProbeResult, Track
    from mobikectl.switch.executor import MoveExecutor
    from mobikectl.switch.moves import Move
    from mobikectl.switch.steering import Choice, Steering

INDICATIONS = 64
"""Indirect indications that are remembered; the policy takes each up once."""
TEND_S = 1.0
"""Steering routes are brought in step with a network that changes at most so often: seconds."""
TEND_SHARE = 0.05
"""And, where there are many, so that it takes at most this share of the time."""


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
        self._obeying: dict[asyncio.Task[Move], int] = {}
        self._tended: tuple[int, int] | None = None
        self._tend_from = 0.0
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

    def free(self, uniqueid: int) -> None:
        """Given an IKE_SA that an operator put somewhere, give it back to the policy."""
        self._memory = self._memory.with_pin(uniqueid, None)
        self.wake()

    def stay(self, uniqueid: int, path: Path) -> None:
        """Given an IKE_SA and the path that its gateway asked it to take, leave it there while that path works."""
        self._memory = self._memory.with_pin(uniqueid, path)
        self.wake()

    async def obey(self, sa: IkeSa, order: MoveOrder) -> Move:
        """Given one of our own IKE_SAs and an operator's order, carry that out and leave the SA there while it works.

        Until it has ended, the policy takes the SA as being moved. Raise what `MoveExecutor.move` raises, and
        MoveError when the policy needed another path meanwhile.
        """
        until = time.monotonic() + 2 * order.timeout_s  # for its turn, and for itself
        ordered = MoveSa(sa.uniqueid, order.path, sa.path, "", order.cause, MoveKind.PREFERENCE, until)
        self._memory = self._memory.with_move(ordered)
        task = asyncio.create_task(self._executor.move(order))
        self._obeying[task] = sa.uniqueid
        arrived: Path | None = None
        try:
            move = await task
            arrived = move.after if move.state is MoveState.VERIFIED else None
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if me is not None and me.cancelling():
                raise
            raise MoveError(
                "the operator's move was given up: the path policy needed another path",
                hint="`mobikectl paths` shows why",
            ) from None
        finally:
            now_id = self._obeying.pop(task)
            if now_id not in self._obeying.values():
                self._memory = self._memory.without_move(now_id)
            if arrived is not None:
                by = time.monotonic() + self._settings.verify_timeout_s
                for uniqueid in {now_id, *self._riders(arrived)}:
                    self._memory = self._memory.with_pin(uniqueid, arrived, by)
            self.wake()
        return move

    def _riders(self, path: Path) -> set[int]:
        """Return our IKE_SAs to the peer address of a path: its steering route takes them all along.

        One that the policy wanted back would drag the others with it.
        """
        return {sa.uniqueid for sa in self._around.own_sas() if sa.path.remote == path.remote}

    def rekeyed(self, old: int, new: int) -> None:
        """Given that an IKE_SA has a new unique id, go on with it under that."""
        self._memory = self._memory.with_rekey(old, new)
        moving = self._moving.pop(old, None)
        if moving is not None:
            self._moving[new] = moving
        for task in [task for task, sa in self._obeying.items() if sa == old]:
            self._obeying[task] = new
        self.wake()

    async def run(self) -> None:
        """Decide whenever something was observed or a deadline came, until cancelled."""
        async with TaskGroup() as tasks:
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

    async def _round(self, tasks: TaskGroup) -> float | None:
        if not self._around.in_step():
            return None  # without charon there is nothing to move; it wakes us when it is back
        self._steering.forget_lost()
        tend_at = await self._tend()
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
        await self._hold()
        return min((at for at in (decision.next_deadline, tend_at) if at is not None), default=None)

    async def _tend(self) -> float | None:
        """Bring the steering routes in step with a network that changed; return when to do so if not now."""
        net, now = self._around.net(), time.monotonic()
        seen = (net.generation, net.route_generation)
        if seen == self._tended:
            return None
        if now < self._tend_from:
            return self._tend_from
        self._tended, self._tend_from = seen, now + TEND_S
        try:
            await self._executor.tend()
        except (NetlinkError, PrivilegeError) as error:
            self._events.record(Source.ACTION, "tend-failed", f"steering routes could not be tended: {error}")
            self._tended = None
            return self._tend_from
        ended = time.monotonic()
        self._tend_from = max(self._tend_from, ended + (ended - now) / TEND_SHARE)
        return None

    def _perform(self, action: Action, tasks: TaskGroup) -> None:
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
                earlier: list[asyncio.Task[Any]] = [
                    t for t, sa in self._obeying.items() if sa == action.sa_uniqueid
                ]
                if (moving := self._moving.get(action.sa_uniqueid)) is not None:
                    earlier.append(moving)
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

    async def _move(self, action: MoveSa, earlier: list[asyncio.Task[Any]]) -> None:
        for task in earlier:
            task.cancel()
        if earlier:
            await asyncio.wait(earlier)
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
                move.sa, action.path, move.state is MoveState.VERIFIED, move.blame is Blame.PATH, move.reason
            )
        except MobikectlError as error:
            outcome = MoveOutcome(
                action.sa_uniqueid, action.path, ok=False, path_failed=False, reason=str(error)
            )
        now_id = self._id_now(asyncio.current_task(), action.sa_uniqueid)
        outcome = MoveOutcome(now_id, outcome.path, outcome.ok, outcome.path_failed, outcome.reason)
        if self._moving.get(now_id) is asyncio.current_task():
            del self._moving[now_id]
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

    async def _hold(self) -> None:
        """Keep one steering route to each peer address in use, on the path in use; drop the others."""
        moving = {self._memory.sas[key].move for key in self._moving if key in self._memory.sas}
        busy = {address for move in moving if move for address in (move.path.remote, move.origin.remote)}
        for path in {sa.path for sa in self._around.own_sas()}:
            held = self._steering.steer_to(path.remote)
            if path.remote in busy or self._routes.answers.get(path) is None:
                continue
            if held is not None and held.path == path:
                continue
            try:
                await self._executor.hold(path, lambda path=path: self._only(path))  # type: ignore[misc]
            except (NetlinkError, PrivilegeError) as error:
                self._complain(path.remote, f"{path} cannot be held by a route: {error}")
        used = {sa.path for sa in self._around.all_sas()}
        for steer in self._steering.steers:
            if steer.path.remote in busy or steer.path in used:
                continue
            try:
                await self._executor.let_go(steer.path.remote, lambda path=steer.path: self._unused(path))  # type: ignore[misc]
            except (NetlinkError, PrivilegeError) as error:
                self._complain(steer.path.remote, f"the steering route of {steer.path} stays: {error}")

    def _only(self, path: Path) -> bool:
        """Whether that is where our IKE_SAs to that address are. On two paths, neither is held against the other."""
        return {sa.path for sa in self._around.own_sas() if sa.path.remote == path.remote} == {path}

    def _unused(self, path: Path) -> bool:
        """Whether the steering route to that path is still in force and holds nobody."""
        steer = self._steering.steer_to(path.remote)
        return steer is not None and all(sa.path != steer.path for sa in self._around.all_sas())

    def _complain(self, remote: IpAddress, text: str) -> None:
        if self._complained.get(remote) != text:
            self._complained[remote] = text
            self._events.record(Source.ACTION, "hold-failed", text, data={"remote": str(remote)})
