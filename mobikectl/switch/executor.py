"""Carries out moves of IKE_SAs within this host, verifies each, and undoes those that do not verify.

The order is make-before-break: the way to the new path is prepared, charon or the peer updates the IKE_SA, and only
when IKE_SA, CHILD_SAs and data plane were seen on the new path is the move called verified. Until then the old way can
be given back. How that is asked for is each mechanism's own (`mobikectl.switch.course.Way`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mobikectl.errors import (
    CharonError,
    MoveError,
    NetlinkError,
    NoRouteError,
    NotFoundError,
    PrivilegeError,
)
from mobikectl.model import IkeState
from mobikectl.observe.events import Source
from mobikectl.switch.by_plugin import ASKED_BACK, Refusal
from mobikectl.switch.course import Course, MoveOrder, Tools
from mobikectl.switch.mechanism import choose
from mobikectl.switch.moves import Blame, DataPlane, Mechanism, Move, MoveState, plan_move
from mobikectl.switch.notify import UNDO_S, Notify
from mobikectl.switch.reconnect import Reconnect
from mobikectl.switch.redirect import Redirect
from mobikectl.switch.route import Route
from mobikectl.switch.turns import Turns
from mobikectl.switch.update import Update
from mobikectl.switch.verification import COUNTERS_S, Verification

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from mobikectl.charon.rmobike_link import PluginLink
    from mobikectl.model import IkeSa, IpAddress, Path
    from mobikectl.observe.events import EventLog
    from mobikectl.switch.course import SaView, Way
    from mobikectl.switch.steering import Steering
    from mobikectl.switch.verification import ChildCheck, TunnelProbe

__all__ = ["MoveExecutor", "MoveOrder"]

HISTORY = 1000
"""Moves that are remembered."""


class MoveExecutor:
    """Carries out one move at a time for each peer address. Owned by the sidecar.

    Whoever changes a steering route does it through here: a route that is put down to hold an SA must not fall into
    the middle of a move.
    """

    def __init__(
        self,
        sas: SaView,
        steering: Steering,
        events: EventLog,
        *,
        child_check: ChildCheck | None = None,
        tunnel_probe: TunnelProbe | None = None,
        data_plane_s: float = 1.0,
        plugin: PluginLink | None = None,
        redirect: Callable[[int, IpAddress], Awaitable[None]] | None = None,
        terminate: Callable[[int], Awaitable[None]] | None = None,
        nat_known: Callable[[], bool] = lambda: True,
    ) -> None:
        self._sas = sas
        self._plugin = plugin
        self._nat_known = nat_known
        self._steering = steering
        self._events = events
        self._turns = Turns()
        self._tools = Tools(sas, steering, self._turns, events, plugin, redirect, terminate)
        self._verification = Verification(
            self._tools, child_check=child_check, tunnel_probe=tunnel_probe, data_plane_s=data_plane_s
        )
        self._ways: dict[Mechanism, Way] = {
            Mechanism.UPDATE: Update(self._tools),
            Mechanism.NOTIFY: Notify(self._tools),
            Mechanism.ROUTE: Route(self._tools),
            Mechanism.REDIRECT: Redirect(self._tools),
            Mechanism.RECONNECT: Reconnect(self._tools),
        }
        self._history: list[Move] = []
        self._number = 0

    @property
    def history(self) -> tuple[Move, ...]:
        """The newest moves, oldest first."""
        return tuple(self._history)

    def busy(self, remote: IpAddress) -> bool:
        """Given a peer's address, return whether a move to it is under way."""
        return self._turns.taken(remote)

    async def move(self, order: MoveOrder) -> Move:
        """Carry out an order and return the record of the move, which has ended: verified, undone or failed.

        Cancelled, it puts back what was in force before. Raise NotFoundError: no such SA. Raise MoveError: the SA
        cannot be moved this way at all, or other moves of that peer took all the time.
        """
        sa = self._require(order)
        async with contextlib.AsyncExitStack() as turns:
            # Who leaves is steered by no route: clients behind one address need not wait for each other.
            leaves = order.mechanism is not None and self._ways[order.mechanism].leaves
            remotes = set() if leaves else {sa.path.remote, order.path.remote}
            await turns.enter_async_context(self._turns.alone(remotes, order.timeout_s))
            sa = self._require(order)
            mechanism = self.mechanism(sa, order.mechanism)
            self._number += 1
            move = plan_move(
                self._number,
                sa=sa.uniqueid,
                name=sa.name,
                before=sa.path,
                after=order.path,
                mechanism=mechanism,
                cause=order.cause,
                at=time.monotonic(),
            )
            self._tell(move)
            course = Course(order, time.monotonic() + order.timeout_s, turns)
            return self._remember(await self._carry_out(move, course))

    def mechanism(self, sa: IkeSa, wanted: Mechanism | None = None) -> Mechanism:
        """Given an IKE_SA and the mechanism asked for (None: the best), return how it would be moved.

        Raise MoveError: it cannot be moved that way, or in no way at all.
        """
        peer = self._plugin.peer(sa.uniqueid) if self._plugin else None
        return choose(sa, peer, wanted, nat_known=self._nat_known())

    async def hold(self, path: Path, still: Callable[[], bool]) -> None:
        """Given a path that an SA is on, hold it there with a steering route, unless a move is under way.

        ``still`` is asked at the last moment whether that is so. Raise NetlinkError, PrivilegeError.
        """
        if not self.busy(path.remote):
            async with self._turns.alone({path.remote}):
                if still():
                    await self._steering.point(path)

    async def let_go(self, remote: IpAddress, still: Callable[[], bool]) -> None:
        """Given a peer's address, remove its steering route, unless a move is under way.

        ``still`` is asked at the last moment. Raise NetlinkError, PrivilegeError.
        """
        if not self.busy(remote):
            async with self._turns.alone({remote}):
                if still():
                    await self._steering.release(remote)

    async def tend(self) -> None:
        """The network changed: bring every steering route in step with it. Raise NetlinkError, PrivilegeError."""
        if not self._steering.steers:
            return
        found = await self._steering.installed()
        for steer in self._steering.steers:
            remote = steer.path.remote
            if not self.busy(remote):
                async with self._turns.alone({remote}):
                    await self._steering.refresh(remote, found)

    def _require(self, order: MoveOrder) -> IkeSa:
        sa = self._sas.find(order.sa)
        if sa is None:
            raise NotFoundError(
                f"there is no IKE_SA {order.sa}", hint="`mobikectl sas` lists those that there are"
            )
        if sa.state not in {IkeState.ESTABLISHED, IkeState.REKEYING}:
            raise MoveError(
                f"IKE_SA {order.sa} is {sa.state.value}, only an established one can be moved",
                hint="wait until it is established",
            )
        if sa.path.family != order.path.family and sa.behind_nat:
            raise MoveError(
                f"IKE_SA {order.sa} is behind a NAT and cannot change its address family",
                hint="choose an address of the same family",
            )
        return sa

    async def _carry_out(self, move: Move, course: Course) -> Move:
        # charon may take milliseconds to list the SA, in which a dead path loses packets: ask meanwhile.
        sampling = asyncio.create_task(self._tools.ask(move.sa, course.deadline))
        way = self._ways[move.mechanism]
        try:
            try:
                how = await way.request(move, course)
            except (NetlinkError, PrivilegeError, CharonError) as error:
                blame = Blame.PATH if isinstance(error, NoRouteError) else Blame.HOST
                return self._step(replace(move, blame=blame), MoveState.FAILED, str(error))
            move = self._step(move, MoveState.REQUESTED, how)
            return await self._follow_up(move, course, way, sampling)
        except asyncio.CancelledError:
            await _to_its_end(self._give_up(move, course))
            raise
        finally:
            await _abandon(sampling)

    async def _follow_up(
        self,
        move: Move,
        course: Course,
        way: Way,
        sampling: asyncio.Task[IkeSa | None],
    ) -> Move:
        if way.leaves:
            return await self._see_off(move, course, way)
        try:
            traffic = await sampling
        except CharonError as error:
            return await self._undo(move, course, str(error), blame=Blame.HOST)
        problem: str | None = "the IKE_SA went away"
        if traffic is not None:
            move, problem = await self._arrive(move, course, way)
        if problem is not None and way.changes_nothing:
            return await self._leave(move, course, problem)
        if problem is None:
            move = self._step(move, MoveState.MOVED, "the IKE_SA is on the new path")
            await way.settle(move, course)
            problem = await self._verification.children(move, course.deadline)
        if problem is None and traffic is not None:
            data_plane = await self._verification.data_plane(move, traffic)
            move = replace(move, data_plane=data_plane)
            if data_plane is not DataPlane.SILENT:
                return self._step(move, MoveState.VERIFIED, f"data plane: {data_plane.value}")
            problem = f"no packet came in over the new path within {self._verification.data_plane_s:g} s"
        return await self._undo(move, course, problem or "", blame=Blame.PATH)

    async def _leave(self, move: Move, course: Course, problem: str) -> Move:
        """Nothing has changed here, but for the route of a peer that was asked again."""
        blame = Blame.PEER if isinstance(problem, Refusal) else Blame.PATH
        try:
            await self._put_back(move, course)
        except (NetlinkError, PrivilegeError) as error:
            problem = f"{problem}; undoing failed: {error}"
        return self._step(replace(move, blame=blame), MoveState.FAILED, problem)

    async def _see_off(self, move: Move, course: Course, way: Way) -> Move:
        """The IKE_SA is to leave this gateway: what becomes of it elsewhere is not seen from here."""
        move, problem = await way.arrive(move, course)
        if problem is not None:
            return self._step(replace(move, blame=Blame.PEER), MoveState.FAILED, problem)
        move = self._step(move, MoveState.MOVED, "its IKE_SA here is gone")
        done = "redirected to" if move.mechanism is Mechanism.REDIRECT else "it may come back at"
        return self._step(move, MoveState.VERIFIED, f"{done} {move.after.local}")

    async def _arrive(self, move: Move, course: Course, way: Way) -> tuple[Move, str | None]:
        """Wait until the IKE_SA is on the new path, or will not be; return the move, and None or what is wrong."""
        if course.request is None:
            return await way.arrive(move, course)
        outcome = await course.request.first(way.arrive(move, course))
        after, problem = (move, outcome) if isinstance(outcome, str) else outcome
        if problem is None:
            return after, None
        with contextlib.suppress(CharonError):
            # charon tells of no update when the peer's first message of a rekeyed IKE_SA comes over the new path.
            await self._tools.ask(move.sa, time.monotonic() + COUNTERS_S)
        sa = self._sas.find(move.sa)
        if sa is not None and sa.path.local == move.after.local:
            return await way.arrive(move, course)
        if problem == ASKED_BACK:
            return await self._ask_again(move, course, way)
        return after, problem

    async def _ask_again(self, move: Move, course: Course, way: Way) -> tuple[Move, str | None]:
        """Ask a peer once more that charon asked back, with a route that speaks for the new path in place before."""
        self._tools.note(move, "asked-back", ASKED_BACK)
        await way.settle(move, course)
        try:
            await way.request(move, course)
        except CharonError as error:
            return move, f"{ASKED_BACK}: {error}"
        arriving = way.arrive(move, course)
        outcome = await (course.request.first(arriving) if course.request else arriving)
        return (move, outcome) if isinstance(outcome, str) else outcome

    async def _give_up(self, move: Move, course: Course) -> None:
        """The move was cancelled, wherever it was: put back what was in force before, and say so."""
        problem = "given up: the sidecar stops, its caller went away, or another move takes its place"
        try:
            await self._put_back(move, course)
        except (NetlinkError, PrivilegeError) as error:
            problem = f"{problem}; undoing failed: {error}"
        self._remember(self._step(move, MoveState.FAILED, problem))

    async def _put_back(self, move: Move, course: Course) -> None:
        """Steer to where the SA was.

        Where no route steered before, releasing is not enough: the kernel's own choice may be the path that just
        failed, or charon may have to be told.
        """
        way = self._ways[move.mechanism]
        if move.state is MoveState.UNDOING:
            await way.ask_back(move, course)
        for remote, before in reversed(course.before.items()):
            if (
                before is None
                and not way.changes_nothing
                and course.order.give_back
                and move.before.remote == remote
            ):
                try:
                    await self._steering.point(move.before)
                except NoRouteError:
                    pass  # the old way out is gone: charon finds another
                else:
                    continue
            await self._steering.restore(remote, before)

    async def _undo(self, move: Move, course: Course, problem: str, *, blame: Blame) -> Move:
        move = self._step(replace(move, blame=blame), MoveState.UNDOING, problem)
        try:
            await self._put_back(move, course)
        except (NetlinkError, PrivilegeError) as error:
            return self._step(move, MoveState.FAILED, f"{problem}; undoing failed too: {error}")
        if not course.order.give_back or move.before == move.after:
            return self._step(move, MoveState.FAILED, problem)

        def back() -> bool:
            sa = self._sas.find(move.sa)
            return sa is None or sa.path != move.after

        await self._sas.wait(back, UNDO_S)
        sa = self._sas.find(move.sa)
        if sa is None or sa.path == move.after:
            return self._step(move, MoveState.FAILED, problem)
        return self._step(move, MoveState.UNDONE, f"{problem}; back on {sa.path}")

    def _remember(self, move: Move) -> Move:
        self._history = [*self._history[-HISTORY + 1 :], move]
        return move

    def _step(self, move: Move, state: MoveState, note: str) -> Move:
        move = move.to(state, at=time.monotonic(), note=note)
        self._tell(move)
        return move

    def _tell(self, move: Move) -> None:
        state = move.state.value
        text = f"{move.name}[{move.sa}] {move.before} => {move.after}: {state}"
        self._events.record(
            Source.ACTION,
            f"move-{state}",
            f"{text} ({move.reason})" if move.reason else text,
            at=move.steps[-1].at,
            data={
                "move": move.number,
                "ike_sa": move.sa,
                "connection": move.name,
                "before": str(move.before),
                "after": str(move.after),
                "cause": move.cause,
                "mechanism": move.mechanism.value,
                "data_plane": move.data_plane.value,
                "duration_s": round(move.duration_s, 6),
                "note": move.reason,
            },
        )


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Have this done although the caller is cancelled, be it twice. What it waits for has deadlines of its own."""
    task = asyncio.create_task(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    task.result()


async def _abandon(task: asyncio.Task[IkeSa | None]) -> None:
    """End a task whose result nobody wants any more."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # it is known, or does not matter: it is looked at so that asyncio does not complain
