"""Carries out this node's part of the plans: the moves of the journal whose source it is.

How to make and run one (it lives as long as the sidecar, not as long as the membership: what is under way when a lease
or the store is lost is ended and recorded all the same; ``may_begin`` says whether anything new may be done):

    memory = Memory()
    executor = ClusterExecutor(
        store, settings.node,
        sas=NodeSas(names, tracker, sas),            # any `mobikectl.node.carrying.Sas`
        mover=move_executor,                         # mobikectl.switch.executor.MoveExecutor
        memory=memory,                               # the reporter reads it for its SaRows
        policy=settings.policy, events=events,
        in_step=sidecar.in_step,                     # the model of the IKE_SAs is what charon has
        may_begin=lambda: presence is not None and presence.alive,
    )
    tasks.create_task(executor.run())                # and executor.wake() when in_step or may_begin becomes true

The MoveExecutor should be given `mobikectl.switch.redirects.Redirects(...).redirect` as ``redirect``, so that redirects
become few commands, and ``terminate`` where reconnects are allowed.

Each move is begun once: only after the journal says *requested*, in a commit that the leader's fencing token guards.
What a start finds in a later state was begun by an earlier life of this node, and is only looked at. When the store
cannot be reached nothing is begun; what is under way is verified or undone here, and recorded when the store is back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobikectl.cluster.backend import Backoff, Gap
from mobikectl.cluster.records import MoveRecord, MoveState, Versioned, peer_of
from mobikectl.errors import FencedError, LostRaceError, StoreError
from mobikectl.node import steps
from mobikectl.node.arrivals import Arrivals
from mobikectl.node.carrying import Carrying
from mobikectl.node.outbox import Outbox
from mobikectl.node.queue import Queue
from mobikectl.node.wishes import WishList
from mobikectl.observe.events import Source
from mobikectl.policy.cluster import Mechanism, Reason
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobikectl.charon.tracker import SaTracker
    from mobikectl.cluster.store import Store
    from mobikectl.model import IkeSa, IpAddress
    from mobikectl.node.carrying import Carrier, Mover, Sas, Times
    from mobikectl.node.memory import Memory
    from mobikectl.node.names import SaNames
    from mobikectl.node.queue import Limits
    from mobikectl.observe.events import EventLog
    from mobikectl.policy.cluster_settings import BalanceSettings
    from mobikectl.switch.course import SaView

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""While something waits that cannot begin, it is looked at so often whether it can now."""
GOODBYE_S = 2.0
"""How long a stop waits for the store to take the last outcomes. What it does not take the next start finds out."""
REMEMBERED = 20_000
"""Moves of this node whose last revision is remembered, so that late echoes of earlier ones are known as such."""


class NodeSas:
    """This node's IKE_SAs by their names in the cluster."""

    def __init__(self, names: SaNames, tracker: SaTracker, view: SaView) -> None:
        self._names = names
        self._tracker = tracker
        self._view = view

    def find(self, key: str) -> IkeSa | None:
        """Given a name, return the IKE_SA as it is now, or None."""
        return self._names.find(key)

    def key_of(self, sa: IkeSa) -> str:
        """Given an IKE_SA, return its name."""
        return self._names.key_of(sa)

    def all(self) -> Iterable[IkeSa]:
        """Return every IKE_SA of this node."""
        return self._tracker.sas.values()

    async def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait, at most ``timeout`` seconds, until ``predicate`` is true; return whether it is."""
        return await self._view.wait(predicate, timeout)


Prepare = Callable[[MoveRecord], Awaitable[str]]
"""Given a move to another node, see to what that needs first; return why it must not be begun, or nothing."""


@dataclass(slots=True)
class _Seen:
    """What is known of one of our moves in the journal."""

    revision: int
    ours: bool
    """It is being carried out, or waits in the outbox: what the journal tells of it is an echo."""


class ClusterExecutor:
    """Follows the journal and carries out the moves whose source is this node."""

    def __init__(
        self,
        store: Store,
        node: str,
        *,
        sas: Sas,
        mover: Mover,
        memory: Memory,
        policy: BalanceSettings,
        events: EventLog,
        in_step: Callable[[], bool],
        may_begin: Callable[[], bool] = lambda: True,
        carrier: Carrier | None = None,
        prepare: Prepare | None = None,
        limits: Limits | None = None,
        times: Times | None = None,
    ) -> None:
        self._store = store
        self._node = node
        self._sas = sas
        self._memory = memory
        self._policy = policy
        self._events = events
        self._in_step = in_step
        self._may_begin = may_begin
        self._prepare = prepare
        self._carrying = Carrying(sas, mover, Arrivals(store), carrier=carrier, times=times)
        self._outbox = Outbox(store, self._sent)
        self._wishes = WishList(store, node, self.wake)
        self._queue = Queue(limits)
        self._begun: dict[int, Versioned[MoveRecord]] = {}
        """Found in the journal, begun by an earlier life of this node."""
        self._seen: OrderedDict[int, _Seen] = OrderedDict()
        self._wake = asyncio.Event()

    @property
    def under_way(self) -> int:
        """How many moves are under way, or ended and not recorded yet."""
        return sum(seen.ours for seen in self._seen.values())

    def is_drained(self) -> bool:
        """Return whether operators want this node to be empty, as far as that is known."""
        return self._wishes.known is not None and self._wishes.known.intent.drained

    def carry_with(self, carrier: Carrier) -> None:
        """Given what carries IKE_SAs over to other nodes from now on, use it."""
        self._carrying.carrier = carrier

    def wake(self) -> None:
        """Something changed that may let a move begin."""
        self._wake.set()

    async def run(self) -> None:
        """Carry out moves until cancelled; then undo what is under way, and record that if the store is there."""
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(self._follow(), name="journal")
                tasks.create_task(self._outbox.run(), name="outcomes")
                tasks.create_task(self._wishes.run(), name="wishes")
                tasks.create_task(self._schedule(tasks), name="moves")
        finally:
            if len(self._outbox) and not await self._outbox.flush(GOODBYE_S):
                log.warning(
                    "%d outcomes of moves are not recorded: the next start does it", len(self._outbox)
                )

    # What the journal says

    async def _follow(self) -> None:
        wait = Backoff()
        while True:
            try:
                journal = await self._store.journal(None)
                self._queue.clear()
                for move in journal.moves:
                    self._take(move)
                wait.reset()
                await self._follow_on(journal.revision)
            except StoreError as error:
                log.warning("the journal cannot be followed: %s", error)
                await asyncio.sleep(wait.next())

    async def _follow_on(self, revision: int) -> None:
        async with aclosing(self._store.follow(after=revision)) as moves:
            async for move in moves:
                if isinstance(move, Gap):
                    return
                if isinstance(move, Versioned):
                    self._take(move)

    def _take(self, move: Versioned[MoveRecord]) -> None:
        """Given a move as the journal has it, do what follows from that."""
        record = move.value
        self._memory.take(record)
        if record.by != self._node or record.reason is Reason.FAILOVER:
            return  # `mobikectl.node.failover` carries those out
        seen = self._seen.get(record.number)
        if seen is not None and (seen.ours or move.revision < seen.revision):
            return
        self._see(record.number, move.revision, ours=False)
        self._queue.drop(record.number)
        self._begun.pop(record.number, None)
        if record.state is MoveState.PLANNED:
            self._queue.put(move)
        elif not record.done:
            self._begun[record.number] = move
        self.wake()

    def _see(self, number: int, revision: int, *, ours: bool) -> None:
        self._seen[number] = _Seen(revision, ours)
        self._seen.move_to_end(number)
        while len(self._seen) > REMEMBERED and not next(iter(self._seen.values())).ours:
            self._seen.popitem(last=False)

    # What begins when

    async def _schedule(self, tasks: TaskGroup) -> None:
        while True:
            self._wake.clear()
            again = self._begin(tasks)
            try:
                async with asyncio.timeout(again):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _begin(self, tasks: TaskGroup) -> float | None:
        """Begin what may begin; return in how many seconds to look again (None: when woken)."""
        if self._begun and self._in_step():
            for move in self._begun.values():
                self._see(move.value.number, move.revision, ours=True)
                tasks.create_task(self._find_out(move), name=f"move {move.value.number}")
            self._begun.clear()
        wishes = self._wishes.known
        if not self._queue and not self._begun:
            return None
        if (
            wishes is None
            or wishes.paused
            or self._outbox.behind
            or not self._in_step()
            or not self._may_begin()
        ):
            return LOOK_S
        now = time.monotonic()
        moves, again = self._queue.take(now, self._peer, _steers, wishes.intent.rate_per_s)
        for move in moves:
            self._see(move.value.number, move.revision, ours=True)
            tasks.create_task(self._carry(move, wishes), name=f"move {move.value.number}")
        return None if again is None else max(0.0, again - now)

    def _peer(self, move: MoveRecord) -> IpAddress | None:
        sa = self._sas.find(move.sas[0])
        return None if sa is None else sa.path.remote

    # One move

    async def _carry(self, move: Versioned[MoveRecord], wishes: steps.Wishes) -> None:
        record = move.value
        try:
            stopped = self._obstacle(record, wishes)
            if stopped:
                self._end(move, steps.taken(record, stopped, time.time()))
                return
            requested = await self._request(move)
            if requested is None:
                return
            self._memory.take(requested.value)
            self._tell(requested.value)
            await self._carry_out(requested)
        finally:
            self._queue.done(record.number)
            self.wake()

    def _obstacle(self, move: MoveRecord, wishes: steps.Wishes) -> steps.Steps:
        sas = [self._sas.find(key) for key in move.sas]
        behind: list[str] = []
        if move.mechanism is Mechanism.IMPLICIT:
            remotes = {sa.path.remote for sa in sas if sa is not None}
            behind = [self._sas.key_of(sa) for sa in self._sas.all() if sa.path.remote in remotes]
        return steps.obstacle(
            move,
            sas,
            behind,
            wishes,
            self._policy,
            redirects=max(self._memory.redirects(peer_of(key)) for key in move.sas),
            can_carry=self._carrying.can_carry,
        )

    async def _request(self, move: Versioned[MoveRecord]) -> Versioned[MoveRecord] | None:
        """Write that a move is requested, which the fence has to allow; None: it must not be begun."""
        requested = move.value.to(MoveState.REQUESTED, at=time.time())
        try:
            return await self._store.update(move, requested)
        except FencedError:
            note = "the leader that planned it was replaced"
            self._end(move, move.value.to(MoveState.CANCELLED, at=time.time(), note=note))
        except LostRaceError:
            self._take_back(move.value.number, await self._now(move))
        except StoreError as error:
            # Whether it was written is not known. Nothing was done: where it was written that is said, too.
            log.warning("move %d is not begun: %s", move.value.number, error)
            never = steps.never_begun("the store went away")
            self._outbox.put(move, steps.taken(requested, never, time.time()), doubtful=True)
        return None

    async def _now(self, move: Versioned[MoveRecord]) -> Versioned[MoveRecord] | None:
        try:
            return await self._store.move(move.value.number)
        except StoreError:
            return None  # what is followed tells

    async def _carry_out(self, requested: Versioned[MoveRecord]) -> None:
        record = requested.value

        def left() -> None:
            self._queue.done(record.number)
            self.wake()

        try:
            out = record.source != record.target
            if self._prepare is not None and out and (why := await self._prepare(record)):
                left()
                self._end(requested, steps.taken(record, steps.never_begun(why), time.time()))
                return
            ended = await self._carrying.carry_out(record, left)
        except asyncio.CancelledError:
            # This host's executor has put its routes back. What a peer was asked for may still happen: the next start
            # finds that out.
            if record.mechanism is Mechanism.IMPLICIT and not steps.carries(record):
                why = "this node's sidecar was stopped"
                found = steps.rolled_back(self._carrying.places(record), why)
                if found[-1][0] is MoveState.ROLLED_BACK:
                    self._end(requested, steps.taken(record, found, time.time()))
            raise
        self._end(requested, ended)

    async def _find_out(self, move: Versioned[MoveRecord]) -> None:
        self._end(move, await self._carrying.find_out(move.value))

    # How it ended

    def _end(self, stored: Versioned[MoveRecord], ended: MoveRecord) -> None:
        self._memory.take(ended)
        self._tell(ended)
        self._outbox.put(stored, ended)

    def _sent(self, number: int, stored: Versioned[MoveRecord] | None) -> None:
        self._take_back(number, stored)
        self.wake()

    def _take_back(self, number: int, stored: Versioned[MoveRecord] | None) -> None:
        """It is ours no longer: what the journal has and will tell of it is news."""
        seen = self._seen.get(number)
        self._see(number, stored.revision if stored else seen.revision if seen else 0, ours=False)
        if stored is not None:
            self._take(stored)

    def _tell(self, move: MoveRecord) -> None:
        step = move.steps[-1]
        text = (
            f"{', '.join(move.sas[:3])}{'...' if len(move.sas) > 3 else ''}: {move.source_address} => "
            f"{move.target} ({move.target_address}) by {move.mechanism.word}: {move.state.value}"
        )
        self._events.record(
            Source.ACTION,
            f"cluster-move-{move.state.value}",
            f"{text} ({step.note})" if step.note else text,
            data={
                "move": move.number,
                "sas": list(move.sas),
                "source": move.source,
                "target": move.target,
                "mechanism": move.mechanism.word,
                "reason": move.reason.value,
                "token": move.token,
                "note": step.note,
            },
        )


def _steers(move: MoveRecord) -> bool:
    """Whether a move changes the route to its peer's address."""
    return not steps.leaves(move)
