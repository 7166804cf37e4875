"""A gateway whose IKE_SAs do as the test says, a store in memory, and sidecars that can be killed anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from mobikectl.cluster.backend import Change, Condition, Entry, Gap, Lease, Snapshot, Write
from mobikectl.cluster.records import MoveRecord, MoveState, MoveStep, SaPart, SaRow
from mobikectl.cluster.store import Store
from mobikectl.errors import LostRaceError, MoveError, NotFoundError, StoreUnreachableError
from mobikectl.model import IkeSa, IkeState, Path
from mobikectl.node.carrying import Times
from mobikectl.node.executor import ClusterExecutor
from mobikectl.node.memory import Memory
from mobikectl.observe.events import EventLog
from mobikectl.policy.cluster import Mechanism, Reason
from mobikectl.policy.cluster_settings import BalanceSettings
from mobikectl.switch import moves as switch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from mobikectl.model import IpAddress
    from mobikectl.node.queue import Limits
    from mobikectl.switch.course import MoveOrder

WAN1, WAN2 = ip_address("198.18.1.1"), ip_address("198.18.1.2")
OTHER = ip_address("198.18.2.1")
QUICK = Times(switch_s=1.0, leave_s=1.0, arrive_s=0.1, back_s=0.1, interrupted_s=0.1)
DELAY_S = 0.005
"""So long after it was asked does a peer what it does."""


class MemoryBackend:
    """`mobikectl.cluster.backend.Backend` in memory: shared by all lives, and by the tests."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self.log: list[Change] = []
        self.changed = asyncio.Event()
        self.away = False
        self.answers_lost = 0
        """So many commits take effect, and their answers are lost."""

    def _there(self) -> None:
        if self.away:
            raise StoreUnreachableError("no answer")

    async def read(self, prefix: str, *, last: int | None = None) -> Snapshot:
        self._there()
        found = [self.entries[key] for key in sorted(self.entries) if key.startswith(prefix)]
        return Snapshot(self.revision, tuple(found if last is None else found[-last:]))

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Write]) -> int:
        self._there()
        for condition in conditions:
            entry = self.entries.get(condition.key)
            if (entry.revision if entry else 0) != condition.revision:
                raise LostRaceError(f"{condition.key} is another")
        self.revision += 1
        for write in writes:
            if write.value is None:
                self.entries.pop(write.key, None)
            else:
                self.entries[write.key] = Entry(write.key, write.value, self.revision, write.lease)
            self.log.append(Change(write.key, write.value, self.revision))
        self.changed.set()
        self.changed = asyncio.Event()
        if self.answers_lost:
            self.answers_lost -= 1
            raise StoreUnreachableError("the answer was lost")
        return self.revision

    async def grant(self, ttl_s: int) -> Lease:
        return Lease(1, ttl_s)

    async def renew(self, lease: int) -> float:
        return 10.0

    async def revoke(self, lease: int) -> None:
        return None

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Change | Gap, None]:
        seen = 0
        while True:
            while seen < len(self.log):
                change = self.log[seen]
                seen += 1
                if change.revision > after and change.key.startswith(prefix):
                    yield change
            await self.changed.wait()

    async def close(self) -> None:
        return None


class LivingBackend(MemoryBackend):
    """The backend as one life sees it: it stops at the moment when that life is killed."""

    def __init__(self, shared: MemoryBackend, life: Life) -> None:
        self._shared = shared
        self._life = life

    async def read(self, prefix: str, *, last: int | None = None) -> Snapshot:
        await self._life.checkpoint()
        snapshot = await self._shared.read(prefix, last=last)
        await self._life.checkpoint()
        return snapshot

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Write]) -> int:
        await self._life.checkpoint()
        revision = await self._shared.commit(conditions, writes)
        await self._life.checkpoint()
        return revision

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Change | Gap, None]:
        async with contextlib.aclosing(self._shared.watch(prefix, after=after)) as changes:
            async for change in changes:
                yield change


async def until(true: Callable[[], bool], within: float = 3.0) -> None:
    """Wait until something inside of the tested code is so, of which it tells nobody."""
    async with asyncio.timeout(within):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0)


class Gateway:
    """gw1 with its IKE_SAs, and gw2 where clients go. It goes on when a sidecar dies."""

    def __init__(self) -> None:
        self.backend = MemoryBackend()
        self.store = Store(self.backend)
        self.sas: dict[int, IkeSa] = {}
        self.peers: dict[int, str] = {}
        """What each peer does when it is asked: follow, refuse, stay, die, or break (it goes, and does not work)."""
        self.at_gw2: list[str] = []
        self.orders: list[MoveOrder] = []
        self.held: list[Path] = []
        self.changed = asyncio.Event()
        self.asked: dict[int, asyncio.TimerHandle] = {}
        self.token = 0

    def add(self, number: int, does: str = "follow", *, remote: IpAddress | None = None) -> str:
        remote = remote or ip_address(f"198.19.{number // 250}.{number % 250 + 1}")
        self.sas[number] = IkeSa(
            number,
            "clients",
            IkeState.ESTABLISHED,
            Path(WAN1, remote),
            remote_id=f"peer{number}",
            original_initiator=False,
        )
        self.peers[number] = does
        return f"gw1/peer{number}#{number}"

    def put(self, number: int, sa: IkeSa | None) -> None:
        if sa is None:
            self.sas.pop(number, None)
        else:
            self.sas[number] = sa
        self.changed.set()
        self.changed = asyncio.Event()

    async def lead(self) -> None:
        self.token = (await self.store.campaign("gw1", "leader", 1)).token

    async def plan(
        self,
        mechanism: Mechanism,
        *groups: Sequence[str],
        reason: Reason = Reason.SPREAD,
        target: str | None = None,
    ) -> tuple[int, ...]:
        leaving = mechanism in {Mechanism.REDIRECT, Mechanism.RECONNECT}
        target = target or ("gw2" if leaving else "gw1")
        moves = [
            MoveRecord(
                token=self.token,
                sas=tuple(group),
                source="gw1",
                target=target,
                mechanism=mechanism,
                reason=reason,
                source_address=WAN1,
                target_address=OTHER if target == "gw2" else WAN2,
                steps=(MoveStep(MoveState.PLANNED, 1.0),),
            )
            for group in groups
        ]
        stored = await self.store.append(moves, token=self.token)
        return tuple(move.value.number for move in stored)

    async def record(self, number: int) -> MoveRecord:
        found = await self.store.move(number)
        assert found is not None
        return found.value

    async def states(self) -> list[MoveState]:
        return [move.value.state for move in (await self.store.journal()).moves]

    async def settled(self, *, within: float = 5.0) -> None:
        """Wait until every move has ended."""
        async with asyncio.timeout(within):
            while not await self._all_ended():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def _all_ended(self) -> bool:
        return not self.backend.away and all(move.value.done for move in (await self.store.journal()).moves)

    async def quiet(self) -> None:
        """Return when every peer has done what it was asked last: a move may end while a request of its own works."""
        loop = asyncio.get_running_loop()
        last = max(
            (asked.when() for asked in self.asked.values() if not asked.cancelled()), default=loop.time()
        )
        done = loop.create_future()
        loop.call_at(last + DELAY_S, done.set_result, None)
        await done

    def ask(self, number: int, path: Path, *, away: bool) -> None:
        """The peer of an IKE_SA is asked: a moment later it does what it does, whoever lives then."""
        loop = asyncio.get_running_loop()
        does = self.peers[number]
        if does == "die":
            loop.call_later(DELAY_S, self.put, number, None)
        elif does in {"follow", "break"}:
            together = [n for n, sa in self.sas.items() if sa.path.remote == self.sas[number].path.remote]
            for one in [number] if away else together:
                self.asked[one] = loop.call_later(DELAY_S, self._follow, one, path, away)

    def _follow(self, number: int, path: Path, away: bool) -> None:
        sa = self.sas.get(number)
        if sa is None:
            return
        if away:
            self.put(number, None)
            asyncio.get_running_loop().create_task(self._appear(sa.remote_id))
        else:
            self.put(number, replace(sa, path=path))

    async def _appear(self, peer: str) -> None:
        self.at_gw2.append(peer)
        rows = tuple(
            SaRow(key=f"gw2/{p}#{n}", peer_id=p, peer="198.19.0.1", address=OTHER)
            for n, p in enumerate(self.at_gw2, 1)
        )
        await self.store.report_sas([SaPart("gw2", "i", len(rows), 0, 1, rows)], 1)


class Life:
    """One life of gw1's sidecar. ``dies_after``: at which of its awaits it is killed."""

    def __init__(self, gateway: Gateway, *, dies_after: int | None = None) -> None:
        self.gateway = gateway
        self._left = dies_after
        self.dead = asyncio.Event()
        self.in_step = True
        self.may_begin = True
        self.memory = Memory()

    async def checkpoint(self) -> None:
        """Somewhere a process may be killed."""
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self.dead.set()
        if self.dead.is_set():
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    # What the executor sees of the IKE_SAs

    def find(self, key: str) -> IkeSa | None:
        return self.gateway.sas.get(int(key.rpartition("#")[2]))

    def key_of(self, sa: IkeSa) -> str:
        return f"gw1/{sa.remote_id}#{sa.uniqueid}"

    def all(self) -> list[IkeSa]:
        return list(self.gateway.sas.values())

    async def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        await self.checkpoint()
        try:
            async with asyncio.timeout(timeout):
                while not predicate():
                    await self.gateway.changed.wait()
        except TimeoutError:
            return predicate()
        return True

    # The executor of this host

    async def hold(self, path: Path, still: Callable[[], bool]) -> None:
        await self.checkpoint()
        if still():
            self.gateway.held.append(path)

    async def move(self, order: MoveOrder) -> switch.Move:
        await self.checkpoint()
        world = self.gateway
        sa = world.sas.get(order.sa)
        if sa is None:
            raise NotFoundError("there is no such IKE_SA")
        if world.peers[order.sa] == "impossible":
            raise MoveError("its peer does not support that")
        assert order.mechanism is not None
        world.orders.append(order)
        move = switch.plan_move(
            1,
            sa=sa.uniqueid,
            name=sa.name,
            before=sa.path,
            after=order.path,
            mechanism=order.mechanism,
            cause=order.cause,
            at=time.monotonic(),
        )
        away = order.mechanism in {switch.Mechanism.REDIRECT, switch.Mechanism.RECONNECT}
        try:
            return await self._carry_out(move, sa, away)
        except asyncio.CancelledError:
            if not self.dead.is_set() and order.mechanism is switch.Mechanism.ROUTE:
                for one in [one for one in world.sas.values() if one.path.remote == sa.path.remote]:
                    if (asked := world.asked.get(one.uniqueid)) is not None:
                        asked.cancel()
                    world.put(one.uniqueid, replace(one, path=sa.path))
            raise

    async def _carry_out(self, move: switch.Move, sa: IkeSa, away: bool) -> switch.Move:
        world, states = self.gateway, switch.MoveState
        does = world.peers[sa.uniqueid]
        world.ask(sa.uniqueid, move.after, away=away)
        await self.checkpoint()
        move = move.to(states.REQUESTED, at=time.monotonic(), note="asked")
        if does in {"refuse", "stay"}:
            blame = switch.Blame.PEER if does == "refuse" or away else switch.Blame.PATH
            return replace(move, blame=blame).to(states.FAILED, at=time.monotonic(), note="the peer stays")

        def there() -> bool:
            now = world.sas.get(sa.uniqueid)
            return now is None or (now.path.local == move.after.local and not away)

        await self.wait(there, 1.0)
        await self.checkpoint()
        if not away and sa.uniqueid not in world.sas:
            return move.to(states.FAILED, at=time.monotonic(), note="the IKE_SA went away")
        move = move.to(states.MOVED, at=time.monotonic())
        await self.checkpoint()
        if does == "break" and not away and move.before != move.after:
            move = move.to(states.UNDOING, at=time.monotonic(), note="no packet came in")
            for one in [one for one in world.sas.values() if one.path.remote == sa.path.remote]:
                world.put(one.uniqueid, replace(one, path=move.before))
            await self.checkpoint()
            return move.to(states.UNDONE, at=time.monotonic(), note="no packet came in")
        if does == "break" and not away:
            return move.to(states.FAILED, at=time.monotonic(), note="no packet came in")
        return move.to(states.VERIFIED, at=time.monotonic())

    def executor(
        self, *, limits: Limits | None = None, policy: BalanceSettings | None = None
    ) -> ClusterExecutor:
        return ClusterExecutor(
            Store(LivingBackend(self.gateway.backend, self)),
            "gw1",
            sas=self,
            mover=self,
            memory=self.memory,
            policy=policy or BalanceSettings(),
            events=EventLog(),
            in_step=lambda: self.in_step,
            may_begin=lambda: self.may_begin,
            limits=limits,
            times=QUICK,
        )

    @contextlib.asynccontextmanager
    async def lived(self, **more: Any) -> AsyncIterator[ClusterExecutor]:
        """Live while the context lasts, or until killed."""
        executor = self.executor(**more)
        running = asyncio.create_task(executor.run())
        try:
            yield executor
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
