"""Serves the IKE_SAs of a node that died, where this one stands by; gives up those that others took over from us.

A standby claims the copies of a node in the store when that is no member any more *and* no IKE daemon answers where it
served them: not to us, not to any other node that can be asked. The leader grants the claims (`cluster.failovers`), and
the standby serves what it was granted. A node that is only cut off from the store goes on with its tunnels.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from mobikectl.cluster.backend import Backoff, Gap
from mobikectl.cluster.failovers import is_dead, last_arrivals, returned_to_source
from mobikectl.cluster.records import Claim, ClaimRow, MoveState, Versioned
from mobikectl.errors import (
    CharonUnreachableError,
    FencedError,
    LeaseLostError,
    LostRaceError,
    MobikectlError,
    StoreError,
)
from mobikectl.node.outbox import Outbox
from mobikectl.node.room import Room
from mobikectl.observe.events import Source
from mobikectl.policy.cluster import Reason
from mobikectl.policy.pace import Pace, PaceSettings
from mobikectl.policy.silence import Reports
from mobikectl.taskgroup import TaskGroup
from mobikectl.wire.ha_chain import IkeSpis
from mobikectl.wire.standby import STANDBY_ASK, Inquiry, Testimony

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
    from typing import Protocol

    from mobikectl.cluster.records import MoveRecord
    from mobikectl.cluster.state import ClusterState
    from mobikectl.cluster.store import Store
    from mobikectl.model import IpAddress
    from mobikectl.node.control import HeldSa, Notes
    from mobikectl.node.copies import Copies, Copy
    from mobikectl.node.handing import Transfer
    from mobikectl.node.room import Place
    from mobikectl.observe.events import EventLog

    class Dropper(Protocol):
        """What ends an IKE_SA silently: charon's plugin and HA broker."""

        async def look(self, spis: IkeSpis) -> HeldSa | None:
            """Return it as charon has it."""

        def remove(self, spis: IkeSpis) -> None:
            """Have charon drop it without a word to the peer."""


log = logging.getLogger(__name__)
T = TypeVar("T")

ROWS: Final = 200
"""IKE_SAs of one claim: a value of the store is small."""
PACE: Final = PaceSettings(first=32, most=32, short_s=1.0)
"""How many IKE_SAs are begun at the same time. Their clients have nobody: only what holds all up is too much."""
AHEAD: Final = 32
"""So many are requested at the same time: while charon begins some, the store is asked for the next."""
_SEEN: Final = "failed-over"
UNDONE: Final = frozenset({MoveState.CANCELLED, MoveState.TIMED_OUT})
"""How a failover ends that took nothing from the node that died."""


@dataclass(frozen=True, slots=True)
class FailoverTimes:
    """Seconds."""

    look_s: float = 0.5
    """While a node is away, it is looked at so often whether it really is dead."""
    probe_s: float = 0.2
    """An IKE daemon answers a probe."""
    probes: int = 2
    """Probes that stay unanswered; the first is still waited for when the next is sent."""
    ask_s: float = 0.8
    """Another node says what it sees."""
    fresh_s: float = 2.0
    """When the lease of a node that fell silent is over, what a look found that began so long ago still counts."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What this node and others see of a node. ``heard``: who hears its IKE daemon; empty: nobody."""

    heard: str
    elsewhere: frozenset[IkeSpis]
    """Served by another node."""
    undecided: frozenset[IkeSpis]
    """Handed over by another node, and perhaps served by the target."""
    silent: frozenset[str]
    """Who was asked and did not answer."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What was looked for in a node that fell silent, and seen."""

    began: float
    addresses: frozenset[IpAddress]
    spis: frozenset[IkeSpis]
    seen: _Seen


class Failover:
    """This node's part in the death of others, and what remains to be done after its own.

    ``probe``: given an address of another node, returns whether an IKE daemon answers there. ``lease``: the lease under
    which this node is a member; None: it is none, and does nothing. ``gone``: told the unique id of an IKE_SA that was
    dropped, so that the model of the IKE_SAs is in step again.
    """

    def __init__(
        self,
        node: str,
        store: Store,
        copies: Copies,
        transfer: Transfer,
        dropper: Dropper,
        notes: Notes,
        events: EventLog,
        *,
        probe: Callable[[IpAddress], Awaitable[bool]],
        lease: Callable[[], int | None],
        address_for: Callable[[IpAddress], IpAddress | None],
        gone: Callable[[int], Awaitable[object]],
        times: FailoverTimes | None = None,
    ) -> None:
        self._node = node
        self._store = store
        self._copies = copies
        self._transfer = transfer
        self._dropper = dropper
        self._notes = notes
        self._events = events
        self._probe = probe
        self._lease = lease
        self._address_for = address_for
        self._refresh = gone
        self._times = times or FailoverTimes()
        self._outbox = Outbox(store, self._written)
        self._claimed: dict[str, frozenset[IkeSpis]] = {}
        """By source: what was claimed of it."""
        self._ours: set[int] = set()
        """Numbers of moves that are being carried out or written."""
        self._look: asyncio.Task[ClusterState] | None = None
        """A look at the cluster's state that has not begun yet."""
        self._room = Room(Pace(PACE))
        self._ahead = asyncio.Semaphore(AHEAD)
        self._reports: dict[str, Reports] = {}
        """By node, since the store was followed without a gap."""
        self._looks: dict[str, _Look] = {}
        """Of nodes that fell silent: the last look for them."""
        self._wake = asyncio.Event()
        self._cede: Callable[[frozenset[IkeSpis]], frozenset[IkeSpis]] = lambda _spis: frozenset()

    def mind(self, cede: Callable[[frozenset[IkeSpis]], frozenset[IkeSpis]]) -> None:
        """Given how handovers from here are given up (`Handing.cede`), do so where others ask."""
        self._cede = cede

    def wake(self) -> None:
        """A node lost IKE_SAs that there are copies of here."""
        self._wake.set()

    async def run(self) -> None:
        """Do it until cancelled."""
        await self._again(self._copies.remember)
        async with TaskGroup() as tasks:
            tasks.create_task(self._outbox.run(), name="failovers recorded")
            tasks.create_task(self._copies.run(), name="copies")
            tasks.create_task(self._watch(), name="deaths")
            tasks.create_task(self._suspect(), name="nodes that fell silent")
            tasks.create_task(self._claims(), name="claims")
            tasks.create_task(self._follow(tasks), name="failovers")

    async def _again(self, work: Callable[[], Awaitable[T]], most: float = 5.0) -> T:
        wait = Backoff(0.2, most)
        while True:
            try:
                return await work()
            except MobikectlError as error:
                log.info("failover: %s", error)
                await asyncio.sleep(wait.next())

    # --- who is dead ----------------------------------------------------------------------------

    async def _watch(self) -> None:
        wait = Backoff(0.2, 5.0)
        while True:
            try:
                after = (await self._store.state()).revision
                self._wake.set()
                self._reports.clear()
                async with aclosing(self._store.watch_state(after=after)) as changes:
                    async for change in changes:
                        wait.reset()
                        if isinstance(change, Gap):
                            self._reports.clear()
                            self._wake.set()
                        elif change.kind in {"members", "claims"}:
                            self._wake.set()
                        elif change.kind == "reports":
                            self._heard(change.name, time.monotonic())
            except StoreError as error:
                log.debug("failover: %s", error)
            await asyncio.sleep(wait.next())

    async def _suspect(self) -> None:
        """Look for nodes that fell silent, so that what they left can be claimed as soon as their lease is over."""
        while True:
            await asyncio.sleep(self._times.look_s)
            now = time.monotonic()
            silent = [node for node in self._copies.sources() if self._is_silent(node, now)]
            self._looks = {node: look for node, look in self._looks.items() if node in silent}
            if not silent or self._lease() is None:
                continue
            try:
                state = await self._store.state()
            except StoreError as error:
                log.debug("failover: %s", error)
                continue
            for node in silent:
                if not is_dead(state, node):
                    asked = self._others(state) - {node}
                    self._looks[node] = await self._look_for(self._copies.of(node), asked)

    def _heard(self, node: str, now: float) -> None:
        before = self._reports.get(node)
        self._reports[node] = Reports(now) if before is None else before.heard(now)

    def _is_silent(self, node: str, now: float) -> bool:
        reports = self._reports.get(node)
        return reports is not None and reports.is_silent(now)

    def _others(self, state: ClusterState) -> frozenset[str]:
        """Return the other members that can be asked."""
        members = {name for name, member in state.members.items() if member.value.transfer}
        return frozenset(members - {self._node})

    async def _look_for(self, copies: Mapping[IkeSpis, Copy], others: Iterable[str]) -> _Look:
        """Given copies of a node's IKE_SAs and whom to ask, see whether it is heard, or others serve one of them."""
        began, spis = time.monotonic(), frozenset(copies)
        addresses = frozenset(copy.offer.local.address for copy in copies.values())
        return _Look(began, addresses, spis, await self._look_around(addresses, spis, others))

    def _seen_before(self, node: str, copies: Mapping[IkeSpis, Copy]) -> _Look | None:
        """Return the last look for a node that fell silent, if it tells enough: nobody heard it just before."""
        look = self._looks.pop(node, None)
        if look is None or look.seen.heard or time.monotonic() - look.began > self._times.fresh_s:
            return None
        addresses = {copy.offer.local.address for copy in copies.values()}
        return look if copies.keys() <= look.spis and addresses <= look.addresses else None

    async def _claims(self) -> None:
        """Claim what dead nodes left to us, and withdraw what they came back for."""
        while True:
            self._wake.clear()
            try:
                again = await self._claim_all(await self._store.state())
            except LeaseLostError:
                self._claimed.clear()
                again = True
            except StoreError as error:
                log.debug("failover: nothing is claimed: %s", error)
                again = True
            try:
                async with asyncio.timeout(self._times.look_s if again else 5 * self._times.look_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _claim_all(self, state: ClusterState) -> bool:
        """Return whether somebody is away, so that it is to be looked at again soon."""
        lease = self._lease()
        if lease is None:
            self._claimed.clear()  # they lived under a lease that is over
            return True
        again = False
        for source in sorted(self._copies.sources() | self._claimed.keys()):
            copies = self._copies.of(source)
            away = is_dead(state, source)
            ready = {spis: copy for spis, copy in copies.items() if not (copy.waiting or copy.over)}
            wanted = {spis: copy for spis, copy in ready.items() if away or copy.lost}
            again |= any(copy.waiting and (away or copy.lost) for copy in copies.values())
            if not wanted:
                if self._claimed.pop(source, None):
                    await self._store.withdraw(self._node, source)
                continue
            again = True
            if wanted.keys() - self._claimed.get(source, frozenset()):
                await self._claim(source, wanted, state, lease, lost=not away)
        return again

    async def _claim(
        self, source: str, copies: dict[IkeSpis, Copy], state: ClusterState, lease: int, *, lost: bool
    ) -> None:
        others = self._others(state)
        if lost:
            evidence = "its charon lost it"
            seen = await self._look_around((), frozenset(copies), others)
        else:
            look = self._seen_before(source, copies) if source not in others else None
            if look is None:
                look = await self._look_for(copies, others)
            seen = look.seen
            what = "its charon is dead" if source in state.members else "not a member"
            where = ", ".join(map(str, sorted(look.addresses, key=str)[:4]))
            evidence = f"{what}; no answer at {where}"
        for spis in seen.elsewhere & copies.keys():
            await self._copies.give_up(spis)
        if seen.heard:
            log.info("%s is away, but its IKE daemon answers %s: its tunnels are its own", source, seen.heard)
            return
        if source in seen.silent:
            # Only its charon is dead: it may be handing over what it lost, until it is told that we take it over.
            log.info("%s does not say what becomes of its IKE_SAs: nothing is claimed yet", source)
            return
        handed = await self._handed(source, copies, seen.silent)
        left = copies.keys() - seen.elsewhere - seen.undecided - handed
        rows = [
            ClaimRow(spis.hex, copies[spis].offer.name, copies[spis].offer.local.address, address)
            for spis in sorted(left)
            if (address := self._address_for(copies[spis].offer.remote.address)) is not None
        ]
        claims = [
            Claim(self._node, source, evidence, tuple(rows[start : start + ROWS]), lost)
            for start in range(0, len(rows), ROWS)
        ]
        await self._store.claim(claims, lease)
        self._claimed[source] = frozenset(left)
        if rows:
            self._tell(
                "claimed", f"{source} is dead ({evidence}): {len(rows)} IKE_SAs claimed", {"source": source}
            )

    async def _handed(
        self, source: str, copies: Mapping[IkeSpis, Copy], silent: Collection[str]
    ) -> frozenset[IkeSpis]:
        """Return what the source was just handing over to a node that does not say what it serves."""
        if not silent:
            return frozenset()
        moves = [move.value for move in (await self._store.journal()).moves]
        names = {
            name
            for move in moves
            if move.source == source and move.target in silent and not move.done
            for name in move.sas
        }
        return frozenset(spis for spis, copy in copies.items() if copy.offer.name in names)

    async def _look_around(
        self, addresses: Collection[IpAddress], spis: frozenset[IkeSpis], others: Iterable[str]
    ) -> _Seen:
        """Given addresses and IKE_SAs, ask the others whether an IKE daemon answers at those, and who serves these."""
        async with TaskGroup() as tasks:
            mine = tasks.create_task(self.hears(addresses))
            asked = {name: tasks.create_task(self._ask(name, addresses, spis)) for name in others}
        said = {name: testimony for name, task in asked.items() if (testimony := task.result()) is not None}
        hearing = ["us"] * mine.result() + [name for name, testimony in said.items() if testimony.heard]
        return _Seen(
            next(iter(hearing), ""),
            spis & frozenset().union(*(each.served for each in said.values())),
            spis & frozenset().union(*(each.undecided for each in said.values())),
            frozenset(asked.keys() - said.keys()),
        )

    async def _ask(
        self, node: str, addresses: Collection[IpAddress], spis: frozenset[IkeSpis]
    ) -> Testimony | None:
        inquiry = Inquiry(tuple(sorted(addresses, key=str))[:16], frozenset(sorted(spis)[:4000]))
        try:
            answer = await self._transfer.call(
                node, STANDBY_ASK, inquiry.to_secret(), deadline=self._times.ask_s
            )
            return Testimony.from_secret(answer)
        except MobikectlError as error:
            log.info("%s does not say whether it hears them: %s", node, error)
            return None

    async def anybody_hears(self, node: str, address: IpAddress) -> bool:
        """Given a node and its address, return whether we, or another member, hear an IKE daemon there.

        Raise what `Store.state` raises.
        """
        state = await self._store.state()
        others = self._others(state) - {node}
        return bool((await self._look_around([address], frozenset(), others)).heard)

    async def hears(self, addresses: Collection[IpAddress]) -> bool:
        """Given addresses, return whether an IKE daemon answers at one of them."""
        apart = self._times.probe_s / self._times.probes
        async with TaskGroup() as tasks:
            asking = [
                tasks.create_task(self._heard_at(each, after=number * apart))
                for number in range(self._times.probes)
                for each in addresses
            ]
        return any(task.result() for task in asking)

    async def _heard_at(self, address: IpAddress, *, after: float) -> bool:
        await asyncio.sleep(after)
        try:
            async with asyncio.timeout(self._times.probe_s):
                return await self._probe(address)
        except TimeoutError:
            return False

    async def testify(self, inquiry: Inquiry) -> Testimony:
        """Given another node's question, answer it."""
        heard = await self.hears(inquiry.addresses)
        try:
            served = await self._copies.serving(inquiry.spis)
        except CharonUnreachableError:
            served = frozenset()
        # What charon does not have is not started anywhere by us from now on: who asks may take it over.
        return Testimony(heard, served, self._cede(inquiry.spis - served))

    # --- what was granted -----------------------------------------------------------------------

    async def _follow(self, tasks: TaskGroup) -> None:
        wait = Backoff(0.2, 5.0)
        await self._again(self.leave)
        while True:
            try:
                journal = await self._store.journal()
                for move in journal.moves:
                    if move.value.target == self._node or not move.value.done:
                        self._take(move, tasks)
                wait.reset()
                async with aclosing(self._store.follow(after=journal.revision)) as moves:
                    async for move_or_gap in moves:
                        if isinstance(move_or_gap, Gap):
                            break
                        if isinstance(move_or_gap, Versioned):
                            self._take(move_or_gap, tasks)
            except StoreError as error:
                log.debug("failover: the journal cannot be followed: %s", error)
            await asyncio.sleep(wait.next())

    def _take(self, move: Versioned[MoveRecord], tasks: TaskGroup) -> None:
        record = move.value
        if record.reason is not Reason.FAILOVER or record.number in self._ours:
            return
        if record.state is MoveState.VERIFIED and record.target != self._node:
            copy = self._copies.taken_over(_spis(record.spis), record.source)
            if copy is not None:
                tasks.create_task(self._copies.give_up(_spis(record.spis), copy), name="a copy that is over")
        if record.target == self._node and not record.done:
            self._ours.add(record.number)
            tasks.create_task(self._carry(move), name=f"failover {record.number}")
        elif record.source == self._node and record.state is MoveState.VERIFIED:
            self._ours.add(record.number)
            tasks.create_task(self._leave_one(record), name=f"failed over {record.number}")

    async def _carry(self, move: Versioned[MoveRecord]) -> None:
        record = move.value
        async with AsyncExitStack() as stack:
            async with self._ahead:
                if record.state is MoveState.PLANNED:
                    requested = await self._requested(move)
                    if requested is None:
                        self._ours.discard(record.number)
                        return
                    move, record = requested, requested.value
                place = await stack.enter_async_context(self._room.place())
            why = await self._start(record, place)
            if why is None:
                for state, note in (
                    (MoveState.MOVED, f"its client answered {record.target}"),
                    (MoveState.VERIFIED, "served here"),
                ):
                    record = record.to(state, at=time.time(), note=note)
            else:
                record = record.to(MoveState.TIMED_OUT, at=time.time(), note=why)
            self._outbox.put(move, record)
        self._tell(
            f"move-{record.state.value}",
            f"{record.sas[0]}: {record.source} is dead, served here: {record.state.value} ({record.steps[-1].note})",
            {"move": record.number, "source": record.source, "sas": list(record.sas)},
        )
        self._wake.set()

    async def _start(self, record: MoveRecord, place: Place) -> str | None:
        began = time.monotonic()

        def begun() -> None:
            """Only its client is waited for: the next may begin."""
            place.took(time.monotonic() - began)
            place.leave()

        try:
            spis = _spis(record.spis)
            return await self._copies.start(spis, begun)
        except MobikectlError as error:
            return error.message

    async def _requested(self, move: Versioned[MoveRecord]) -> Versioned[MoveRecord] | None:
        """Write that it is requested; None: it must not be begun. Nobody else ends what was granted to this node.

        While this node is no member, or the store is away, that is waited for.
        """
        wait = Backoff(0.2, 2.0)
        while True:
            if self._lease() is not None:
                try:
                    return await self._request(move)
                except StoreError as error:
                    log.warning("failover %d is not begun yet: %s", move.value.number, error)
            await asyncio.sleep(wait.next())

    async def _request(self, move: Versioned[MoveRecord]) -> Versioned[MoveRecord] | None:
        """Write that it is requested, which the leader's token has to allow; None: it must not be begun.

        Raise StoreError: whether it was written is not known.
        """
        record = move.value
        copy = self._copies.find(_spis(record.spis))
        try:
            if copy is None or copy.over or not (copy.lost or await self._is_away(record.source)):
                why = "its copy is gone" if copy is None else f"{record.source} is back"
                await self._store.update(move, record.to(MoveState.CANCELLED, at=time.time(), note=why))
                return None
            return await self._store.update(move, record.to(MoveState.REQUESTED, at=time.time()))
        except FencedError:
            note = "the leader that planned it was replaced"
            self._outbox.put(move, record.to(MoveState.CANCELLED, at=time.time(), note=note))
        except LostRaceError as error:
            log.info("failover %d: %s", record.number, error)
            now = await self._store.move(record.number)
            if now is not None and now.value.state is MoveState.REQUESTED:
                return now  # nobody else writes that: it was us, and the answer was lost
        return None

    async def _is_away(self, source: str) -> bool:
        """Whether it is away now. All that want to know before a look begins share it: a dead node leaves many."""
        if self._look is None:
            self._look = asyncio.create_task(self._look_now(), name="look whether it is away")
        return is_dead(await asyncio.shield(self._look), source)

    async def _look_now(self) -> ClusterState:
        self._look = None
        return await self._store.state()

    def _written(self, number: int, _stored: Versioned[MoveRecord] | None) -> None:
        """Recorded: it stays among ours, so that its echo is not taken for news."""

    # --- after our own death --------------------------------------------------------------------

    async def is_left(self, spis: IkeSpis) -> bool:
        """Given an IKE_SA of ours that charon lost, return whether another node claims it, or was granted it.

        While the store is away, that is waited for.
        """

        async def look() -> tuple[ClusterState, list[MoveRecord], list[MoveRecord]]:
            # Both anew each time: what is claimed no more, as it was granted, is in the journal.
            return await self._store.state(), *await self._journal()

        state, moves, ours = await self._again(look, most=2.0)
        came = last_arrivals(moves)
        return any(
            row.spis == spis.hex
            for claim in state.claims.values()
            if claim.value.source == self._node
            for row in claim.value.rows
        ) or any(
            move.spis == spis.hex and not (move.state in UNDONE or returned_to_source(move, came))
            for move in ours
        )

    async def _journal(self) -> tuple[list[MoveRecord], list[MoveRecord]]:
        """Return all moves, and those of them by which others take over from us. Raise StoreError."""
        moves = [move.value for move in (await self._store.journal(None)).moves]
        return moves, [move for move in moves if move.reason is Reason.FAILOVER and move.source == self._node]

    async def leave(self) -> int:
        """Before this node acts as a member again: drop what others took over. Return how many IKE_SAs those were.

        Raise StoreError, CharonError: it is not known, and this node must not act yet.
        """
        moves, ours = await self._journal()
        came = last_arrivals(moves)
        dropped = 0
        for record in ours:
            if record.state is MoveState.VERIFIED and not returned_to_source(record, came):
                dropped += await self._dropped(record)
        self._look_no_more_at(ours)
        return dropped

    def _look_no_more_at(self, ours: Iterable[MoveRecord]) -> None:
        """Note how far the journal was dealt with, in one note."""
        ended = 0
        for record in ours:
            if not record.done:
                break
            ended = record.number
        if ended > int(self._notes.notes.get(_SEEN, "0")):
            self._notes.note(_SEEN, str(ended))
        for key in [key for key in self._notes.notes if key.startswith(f"{_SEEN}/")]:
            if int(key.partition("/")[2]) <= ended:
                self._notes.note(key, None)

    async def _leave_one(self, record: MoveRecord) -> None:
        await self._again(lambda: self._dropped(record))

    async def _dropped(self, record: MoveRecord) -> bool:
        """Drop an IKE_SA that another node took over, once. Return whether it was here."""
        key = f"{_SEEN}/{record.number}"
        last = int(self._notes.notes.get(_SEEN, "0"))
        if record.number <= last or key in self._notes.notes:
            return False
        spis = _spis(record.spis)
        held = await self._dropper.look(spis)
        # What is passive is a copy, perhaps of who took it over.
        ours = held is not None and (held.serving or held.frozen)
        if held is not None and ours:
            self._dropper.remove(spis)
            await self._gone(spis)
            await self._refresh(held.ike_id)
            self._tell(
                "left",
                f"{record.sas[0]} was taken over by {record.target}: dropped here without a word to its client",
                {"move": record.number, "target": record.target},
            )
        self._notes.note(key, "")
        return ours

    async def _gone(self, spis: IkeSpis) -> None:
        async with asyncio.timeout(5.0):
            while await self._dropper.look(spis) is not None:  # noqa: ASYNC110 - charon tells nobody
                await asyncio.sleep(0.02)

    def _tell(self, name: str, text: str, data: dict[str, object]) -> None:
        self._events.record(Source.ACTION, f"cluster-failover-{name}", text, data=data)


def _spis(digits: str) -> IkeSpis:
    try:
        return IkeSpis.from_hex(digits)
    except ValueError:
        return IkeSpis(0, 0)  # somebody else wrote it: no IKE_SA has these
