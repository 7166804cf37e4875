"""Carries out moves of IKE_SAs within this host, verifies each, and undoes those that do not verify.

The order is make-before-break: the steering route to the new path is put in place (atomically over an
old one), charon updates the IKE_SA (RFC 4555 section 3.5), and only when IKE_SA, CHILD_SAs and data
plane were seen on the new path is the move called verified. Until then the old way can be given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from mobikectl.errors import (
    CharonError,
    CharonRefusedError,
    CharonTimeoutError,
    MoveError,
    NetlinkError,
    NoRouteError,
    NotFoundError,
    PrivilegeError,
)
from mobikectl.model import ChildState, IkeState, Path
from mobikectl.observe.events import Source
from mobikectl.switch.by_plugin import notified, updated
from mobikectl.switch.mechanism import choose
from mobikectl.switch.moves import Blame, DataPlane, Mechanism, Move, MoveState, plan_move
from mobikectl.switch.turns import Turns
from mobikectl.switch.verification import ChildCheck, TunnelProbe, judge_data_plane

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from mobikectl.charon.rmobike_link import PluginLink
    from mobikectl.model import IkeSa, IpAddress
    from mobikectl.observe.events import EventLog
    from mobikectl.switch.by_plugin import Request
    from mobikectl.switch.steering import Steer, Steering

HISTORY = 1000
"""Moves that are remembered."""

UNDO_S = 3.0
"""How long the old path is waited for after it was given back."""

COUNTERS_S = 1.0
"""How much longer than the data plane is watched charon may take to tell its counters."""

SETTLE_S = 0.03
"""charon tells of a new path just before it installs it: asked at once, it would have to do both at one time, and
the packets that arrive meanwhile would be lost."""


class SaView(Protocol):
    """What the executor needs of the model of charon's SAs."""

    def find(self, uniqueid: int) -> IkeSa | None:
        """Given an id that the SA has or had before a rekey, return the SA as it is now, or None."""

    def shared(self, remote: IpAddress, uniqueid: int) -> bool:
        """Given a peer's address and an SA, return whether another SA uses that address too."""

    async def refresh(self, uniqueid: int) -> IkeSa | None:
        """Ask charon for one SA with its children and counters, bring the model in step, return it.

        Raise CharonError.
        """

    async def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait, at most ``timeout`` seconds, until ``predicate`` is true; return whether it is."""


@dataclass(frozen=True, slots=True)
class MoveOrder:
    """What is to be moved where, and why."""

    sa: int
    path: Path
    cause: str
    timeout_s: float = 5.0
    """The move has to be verified within this time. Moves of that peer that are under way are waited for as long."""
    give_back: bool = True
    """Whether the old path is worth going back to. False when it is known to be gone."""
    mechanism: Mechanism | None = None
    """How it is to be done; None: in the best way that the peer supports. With REDIRECT the local address of
    ``path`` is the other gateway's."""


@dataclass(slots=True)
class _Course:
    """What one move needs on its way, and needs to be undone."""

    order: MoveOrder
    deadline: float
    turns: contextlib.AsyncExitStack
    """The turns at the peer's addresses that are held until the move ends."""
    before: dict[IpAddress, Steer | None] = field(default_factory=dict)
    """By address of the peer: the steering route that this move has replaced (None: there was none)."""
    request: Request | None = None
    """What the plugin was asked to do."""


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
        nat_known: Callable[[], bool] = lambda: True,
    ) -> None:
        self._sas = sas
        self._plugin = plugin
        self._redirect = redirect
        self._nat_known = nat_known
        self._steering = steering
        self._events = events
        self._child_check = child_check
        self._tunnel_probe = tunnel_probe
        self._data_plane_s = data_plane_s
        self._turns = Turns()
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
            remotes = {sa.path.remote, order.path.remote}
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
            course = _Course(order, time.monotonic() + order.timeout_s, turns)
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

    async def _carry_out(self, move: Move, course: _Course) -> Move:
        # charon may take milliseconds to list the SA, in which a dead path loses packets: ask meanwhile.
        sampling = asyncio.create_task(self._ask(move.sa, course.deadline))
        try:
            try:
                how = await self._request(move, course)
            except (NetlinkError, PrivilegeError, CharonError) as error:
                blame = Blame.PATH if isinstance(error, NoRouteError) else Blame.HOST
                return self._step(replace(move, blame=blame), MoveState.FAILED, str(error))
            move = self._step(move, MoveState.REQUESTED, how)
            if move.mechanism is Mechanism.REDIRECT:
                return await self._await_leaving(move, course)
            return await self._follow_up(move, course, sampling)
        except asyncio.CancelledError:
            await _to_its_end(self._give_up(move, course))
            raise
        finally:
            await _abandon(sampling)

    async def _request(self, move: Move, course: _Course) -> str:
        """Ask charon or the peer for the move; return what was done. Raise NetlinkError, PrivilegeError, CharonError.

        Where it raises nothing was changed.
        """
        if move.mechanism is Mechanism.REDIRECT:
            if self._redirect is None:
                raise CharonRefusedError("nobody here redirects", hint="ask the running sidecar")
            await self._redirect(move.sa, move.after.local)
            return f"charon is to redirect it to {move.after.local}"
        if move.mechanism is Mechanism.NOTIFY and self._plugin is not None:
            left = max(0.0, course.deadline - time.monotonic())
            asking = notified(self._plugin, move.sa, move.after.local, timeout=left)
            course.request = await course.turns.enter_async_context(asking)
            return f"the peer is asked to switch to {move.after.local}"
        await self._steer(move.after, course)
        if move.mechanism is Mechanism.UPDATE and self._plugin is not None:
            try:
                asking = updated(self._plugin, move.sa, move.after)
                course.request = await course.turns.enter_async_context(asking)
            except CharonError as error:
                return f"a steering route is in place; the plugin started no update: {error}"
            return "a steering route is in place, and the plugin updates the addresses"
        return "a steering route is in place"

    async def _await_leaving(self, move: Move, course: _Course) -> Move:
        """A redirected client makes a new IKE_SA at the other gateway, and then deletes the one that it has here."""

        def left() -> bool:
            sa = self._sas.find(move.sa)
            return sa is None or sa.state not in {IkeState.ESTABLISHED, IkeState.REKEYING}

        if not await self._sas.wait(left, max(0.0, course.deadline - time.monotonic())):
            problem = "the peer stays: it follows no redirects, or the other gateway did not take it"
            return self._step(replace(move, blame=Blame.PATH), MoveState.FAILED, problem)
        move = self._step(move, MoveState.MOVED, "the peer has deleted its IKE_SA here")
        return self._step(move, MoveState.VERIFIED, f"redirected to {move.after.local}")

    async def _steer(self, path: Path, course: _Course) -> None:
        """Put a steering route in place, and remember what it replaces. Raise NetlinkError, PrivilegeError."""
        course.before.setdefault(path.remote, self._steering.steer_to(path.remote))
        await self._steering.point(path)

    async def _give_up(self, move: Move, course: _Course) -> None:
        """The move was cancelled, wherever it was: put back what was in force before, and say so."""
        problem = "given up: the sidecar stops, its caller went away, or another move takes its place"
        try:
            await self._put_back(move, course)
        except (NetlinkError, PrivilegeError) as error:
            problem = f"{problem}; undoing failed: {error}"
        self._remember(self._step(move, MoveState.FAILED, problem))

    async def _put_back(self, move: Move, course: _Course) -> None:
        """Steer to where the SA was.

        Where no route steered before, releasing is not enough: the kernel's own choice may be the path that just
        failed, or charon may have to be told.
        """
        if move.state is MoveState.UNDOING and move.mechanism is Mechanism.NOTIFY:
            await self._ask_back(move, course)
        for remote, before in reversed(course.before.items()):
            if (
                before is None
                and move.mechanism is not Mechanism.NOTIFY
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

    async def _ask_back(self, move: Move, course: _Course) -> None:
        """Ask the peer to switch back to the address that it was served from before."""
        if self._plugin is None:
            return
        asking = notified(self._plugin, move.sa, move.before.local, timeout=UNDO_S)
        try:
            await course.turns.enter_async_context(asking)
        except CharonError as error:
            self._note(move, "ask-back-failed", str(error))

    async def _ask(self, uniqueid: int, deadline: float) -> IkeSa | None:
        """Ask charon for the SA with its counters, until ``deadline``. Raise CharonError."""
        try:
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                return await self._sas.refresh(uniqueid)
        except TimeoutError:
            raise CharonTimeoutError(
                "charon did not tell about the IKE_SA in time", hint="it hangs or is overloaded: see its log"
            ) from None

    async def _follow_up(
        self,
        move: Move,
        course: _Course,
        sampling: asyncio.Task[IkeSa | None],
    ) -> Move:
        try:
            traffic = await sampling
        except CharonError as error:
            return await self._undo(move, course, str(error), blame=Blame.HOST)
        problem: str | None = "the IKE_SA went away"
        if traffic is not None:
            move, problem = await self._arrive(move, course)
        if problem is not None and move.mechanism is Mechanism.NOTIFY:
            # Until the peer follows, nothing has changed here.
            return self._step(replace(move, blame=Blame.PATH), MoveState.FAILED, problem)
        if problem is None:
            move = self._step(move, MoveState.MOVED, "the IKE_SA is on the new path")
            if move.mechanism is Mechanism.NOTIFY:
                await self._keep(move, course)
            problem = await self._await_children(move, course.deadline)
        if problem is None and traffic is not None:
            data_plane = await self._data_plane(move, traffic)
            move = replace(move, data_plane=data_plane)
            if data_plane is not DataPlane.SILENT:
                return self._step(move, MoveState.VERIFIED, f"data plane: {data_plane.value}")
            problem = f"no packet came in over the new path within {self._data_plane_s:g} s"
        return await self._undo(move, course, problem or "", blame=Blame.PATH)

    async def _arrive(self, move: Move, course: _Course) -> tuple[Move, str | None]:
        """Wait until the IKE_SA is on the new path, or will not be; return the move, and None or what is wrong."""
        by_notify = move.mechanism is Mechanism.NOTIFY
        wait = self._await_switch if by_notify else self._await_path
        if course.request is None:
            return await wait(move, course)
        outcome = await course.request.first(wait(move, course))
        after, problem = (move, outcome) if isinstance(outcome, str) else outcome
        if problem is None:
            return after, None
        with contextlib.suppress(CharonError):
            # charon tells of no update when the peer's first message of a rekeyed IKE_SA comes over the new path.
            await self._ask(move.sa, time.monotonic() + COUNTERS_S)
        sa = self._sas.find(move.sa)
        if sa is not None and sa.path.local == move.after.local:
            return await wait(move, course)
        return after, problem

    async def _await_switch(self, move: Move, course: _Course) -> tuple[Move, str | None]:
        """Wait until the peer has switched. Which of its own addresses it uses then is its own matter."""

        def switched() -> bool:
            sa = self._sas.find(move.sa)
            return sa is None or sa.path.local == move.after.local

        if not await self._sas.wait(switched, max(0.0, course.deadline - time.monotonic())):
            return move, "the peer did not switch in time"
        sa = self._sas.find(move.sa)
        return (replace(move, after=sa.path), None) if sa is not None else (move, "the IKE_SA went away")

    async def _keep(self, move: Move, course: _Course) -> None:
        """The peer has switched: keep charon, which follows the kernel's preference, from asking it back.

        A route steers every IKE_SA of that peer address: with others there it is left as it is.
        """
        if self._sas.shared(move.after.remote, move.sa):
            return
        try:
            await self._steer(move.after, course)
        except (NetlinkError, PrivilegeError) as error:
            self._note(move, "hold-failed", str(error))

    async def _await_path(self, move: Move, course: _Course) -> tuple[Move, str | None]:
        """Wait until the IKE_SA is on the new path; return the move, and None or what is wrong.

        charon checks the paths to all addresses of the peer at once and takes the one that answers first (RFC 4555
        section 3.5). Where the order leaves the peer's address as it is and charon goes to another one, the move
        goes on to that: what was ordered is where from.
        """
        ordered = course.order.path
        stays = ordered.remote == move.before.remote

        def arrived(sa: IkeSa) -> bool:
            if sa.path == ordered:
                return True
            return stays and sa.path.local == ordered.local and sa.path.remote in course.before

        def settled() -> bool:
            sa = self._sas.find(move.sa)
            return sa is None or arrived(sa) or (stays and sa.path.remote not in course.before)

        while await self._sas.wait(settled, max(0.0, course.deadline - time.monotonic())):
            sa = self._sas.find(move.sa)
            if sa is None:
                return move, "the IKE_SA went away"
            if arrived(sa):
                return replace(move, after=sa.path), None
            if self._sas.shared(sa.path.remote, sa.uniqueid):
                # A route to that address would move the others too, whom nobody asked to move.
                return move, f"charon went to the peer's address {sa.path.remote}, where other IKE_SAs are"
            move = replace(move, after=Path(ordered.local, sa.path.remote))
            try:
                left = max(0.0, course.deadline - time.monotonic())
                await course.turns.enter_async_context(self._turns.alone({sa.path.remote}, left))
                await self._steer(move.after, course)
            except (MoveError, NetlinkError, PrivilegeError) as error:
                return move, f"charon went to the peer's address {sa.path.remote}: {error}"
        return (
            move,
            "charon did not move the IKE_SA in time (the peer did not answer, or prefer_best_path is off)",
        )

    async def _await_children(self, move: Move, deadline: float) -> str | None:
        """Ask charon and the kernel whether the CHILD_SAs followed; return None, or what is wrong."""
        problem: str | None = None
        await asyncio.sleep(SETTLE_S)
        while True:
            try:
                sa = await self._ask(move.sa, deadline)
            except CharonError as error:
                return str(error)
            if sa is None:
                return "the IKE_SA went away"
            problem = self._children_problem(sa, move) or await self._kernel_problem(sa, move)
            if problem is None or time.monotonic() >= deadline:
                return problem
            await self._sas.wait(lambda seen=sa: self._sas.find(move.sa) is not seen, 0.05)  # type: ignore[misc]

    def _children_problem(self, sa: IkeSa, move: Move) -> str | None:
        if sa.path != move.after:
            return f"charon went on to {sa.path}"
        lost = [child.name for child in sa.children if child.state not in LIVE_CHILD]
        if lost:
            return f"CHILD_SA {', '.join(lost)} is not installed"
        return None

    async def _kernel_problem(self, sa: IkeSa, move: Move) -> str | None:
        if self._child_check is None:
            return None
        return await self._child_check(sa, move.after)

    async def _data_plane(self, move: Move, traffic: IkeSa) -> DataPlane:
        """Watch the counters (and the probe inside the tunnel, if there is one) for a while."""
        deadline = time.monotonic() + self._data_plane_s
        if self._tunnel_probe is not None and await self._tunnel_probe(traffic, self._data_plane_s):
            return DataPlane.ANSWERED
        baseline: IkeSa | None = None
        while True:
            try:
                sa = await self._ask(move.sa, deadline + COUNTERS_S)
            except CharonError:
                return DataPlane.UNKNOWN  # charon's trouble is no proof against the path
            if sa is None:
                return DataPlane.SILENT
            baseline = baseline or sa
            verdict = judge_data_plane(traffic, baseline, sa, over=time.monotonic() >= deadline)
            if verdict is not None:
                return verdict
            await asyncio.sleep(min(0.02, self._data_plane_s / 10))

    async def _undo(self, move: Move, course: _Course, problem: str, *, blame: Blame) -> Move:
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

    def _note(self, move: Move, name: str, text: str) -> None:
        self._events.record(
            Source.ACTION,
            name,
            f"{move.name}[{move.sa}] {move.before} => {move.after}: {text}",
            data={"move": move.number},
        )

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


LIVE_CHILD = frozenset({ChildState.INSTALLED, ChildState.REKEYING, ChildState.UPDATING, ChildState.REKEYED})
"""States of a CHILD_SA that carries traffic, or that another one replaces."""
