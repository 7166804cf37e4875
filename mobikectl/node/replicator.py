"""Keeps copies of this node's IKE_SAs at the nodes that stand by for them (`mobikectl.policy.standby`).

What a standby should have is compared with what it last confirmed, and the difference is told: so it does not matter
what was lost on the way, and a standby that comes back is brought up to date. Each standby has a task of its own: one
that is away holds up nobody. Every other node is told what it should have, if only that it is nothing: before a restart
of this process it may have been chosen.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mobikectl.cluster.backend import Backoff
from mobikectl.errors import DecodeError, MobikectlError, NetlinkError, NotFoundError, PrivilegeError
from mobikectl.policy.standby import Ward, choose
from mobikectl.taskgroup import TaskGroup
from mobikectl.wire.ha import HaAttribute, HaType
from mobikectl.wire.ha_chain import MIDS
from mobikectl.wire.handover import Offer
from mobikectl.wire.standby import (
    MAX_BATCH,
    MAX_LISTED,
    STANDBY,
    All,
    Batch,
    Gone,
    Lost,
    Numbers,
    Touch,
    Wants,
    encoded,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from typing import Protocol

    from mobikectl.model import IpAddress
    from mobikectl.node.control import Sequences
    from mobikectl.node.handing import Transfer
    from mobikectl.policy.standby import Candidate
    from mobikectl.wire.ha import HaMessage, Host
    from mobikectl.wire.ha_chain import HaChain, IkeSpis
    from mobikectl.wire.standby import Item

    class Broker(Protocol):
        """The HA broker (`mobikectl.charon.ha_broker.HaBroker`)."""

        def chain_of(self, spis: IkeSpis, children: Collection[int] | None = None) -> HaChain:
            """Return an IKE_SA's chain. Raise NotFoundError."""

        def listen(self, listener: Callable[[IkeSpis, bool], None]) -> Callable[[], None]:
            """Have the listener told of each IKE_SA that changed, and whether it ended."""


log = logging.getLogger(__name__)

AT_ONCE: Final = 64
"""Whole copies of one batch: the standby's charon makes them side by side."""


@dataclass(frozen=True, slots=True)
class Served:
    """An IKE_SA that this node serves. ``children``: inbound and outbound SPIs of those that are installed."""

    name: str
    spis: IkeSpis
    local: Host
    remote: Host
    children: tuple[tuple[int, int], ...]
    peer_r: bool = False
    own_r: bool = False
    pool: str = ""
    site: str = ""
    vips: tuple[IpAddress, ...] = ()
    """Virtual addresses of the peer."""


@dataclass(frozen=True, slots=True)
class ReplicatorTimes:
    """Seconds."""

    together_s: float = 0.02
    """Changes that come within this time are told together."""
    look_s: float = 1.0
    """What no event tells of is looked at so often."""
    came_s: float = 0.2
    """So often while an IKE_SA has come that charon did not tell of yet."""
    numbers_s: float = 2.0
    """The numbers of ESP are told so often."""
    compare_s: float = 10.0
    """What the standby has is compared with what it should have."""
    call_s: float = 15.0
    again_s: tuple[float, float] = (0.1, 5.0)
    """Between two tries to reach a standby: the first and the longest."""
    rest_s: float = 5.0
    """After a standby refused a copy."""
    settle_s: float = 2.0
    """charon has told again of what it has, after it was restarted."""


@dataclass(slots=True)
class _Told:
    """What a standby confirmed."""

    served: Served
    frame: tuple[HaMessage, ...]
    mids: tuple[int | None, int | None]
    numbers_at: float = 0.0


@dataclass(slots=True)
class _Standby:
    node: str
    wanted: dict[IkeSpis, Served] = field(default_factory=dict)
    told: dict[IkeSpis, _Told] = field(default_factory=dict)
    changed: set[IkeSpis] = field(default_factory=set)
    over: dict[IkeSpis, bool] = field(default_factory=dict)
    """To be taken from it: whether our charon lost it."""
    resting: dict[IkeSpis, float] = field(default_factory=dict)
    compared_at: float = float("-inf")
    share: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Replicator:
    """Tells the standbys. ``run`` it.

    ``served``: the IKE_SAs that this node serves now; None while charon cannot be asked, and nothing is concluded.
    ``exists``: whether charon has an IKE_SA that is not among those, as it is frozen for a moment. ``candidates``: the
    nodes that may stand by.
    """

    def __init__(
        self,
        node: str,
        broker: Broker,
        transfer: Transfer,
        *,
        served: Callable[[], Iterable[Served] | None],
        candidates: Callable[[], Iterable[Candidate]],
        exists: Callable[[IkeSpis], bool] = lambda _: False,
        standbys: int = 1,
        sequences: Sequences | None = None,
        times: ReplicatorTimes | None = None,
    ) -> None:
        self._node = node
        self._broker = broker
        self._transfer = transfer
        self._served = served
        self._candidates = candidates
        self._exists = exists
        self._count = standbys
        self._sequences = sequences
        self._times = times or ReplicatorTimes()
        self._standbys: dict[str, _Standby] = {}
        self._fresh: list[_Standby] = []
        """Those that nobody follows yet."""
        self._ended: set[IkeSpis] = set()
        self._chosen: dict[str, tuple[str, ...]] = {}
        """By name of an IKE_SA."""
        self._missed: dict[IkeSpis, float] = {}
        """Those of which nobody said that they ended: since when they are not there."""
        self._numbers: dict[int, tuple[float, int]] = {}
        self._came: dict[IkeSpis, tuple[float, Served]] = {}
        """Those that came from another node, which charon may not have told of yet: since when, and how."""
        self._blind = False
        """charon cannot be asked."""
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """An IKE_SA came or went, or a node."""
        self._wake.set()

    def standbys_of(self, name: str) -> tuple[str, ...]:
        """Given an IKE_SA's name, return who stands by for it."""
        return self._chosen.get(name, ())

    def came(self, source: str, served: Served) -> None:
        """Given an IKE_SA that another node handed over just now, count that node among those that have a copy.

        What it has is as of the handover. It is told what changes until those that are to stand by have confirmed
        theirs, and what is known of the IKE_SA is told them even if charon dies before anybody saw it there.
        """
        if not self._count:
            return
        if source not in self._standbys:
            self._standbys[source] = _Standby(source)
            self._fresh.append(self._standbys[source])
        standby = self._standbys[source]
        standby.over.pop(served.spis, None)
        standby.told[served.spis] = _Told(served, (), (None, None))
        standby.wanted[served.spis] = served
        standby.changed.add(served.spis)
        standby.wake.set()
        self._ended.discard(served.spis)
        self._came[served.spis] = time.monotonic(), served
        self._wake.set()

    @property
    def behind(self) -> int:
        """How many IKE_SAs have a standby that did not confirm the present state."""
        return sum(
            self._outdated(standby, served)
            for standby in self._standbys.values()
            for served in standby.wanted.values()
        )

    async def run(self) -> None:
        """Keep the standbys up to date, until cancelled."""
        forget = self._broker.listen(self._heard)
        try:
            async with TaskGroup() as tasks:
                while True:
                    self._wake.clear()
                    for standby in self._assign():
                        tasks.create_task(self._follow(standby), name=f"standby {standby.node}")
                    try:
                        async with asyncio.timeout(self._times.came_s if self._came else self._times.look_s):
                            await self._wake.wait()
                    except TimeoutError:
                        continue
                    await asyncio.sleep(self._times.together_s)
        finally:
            forget()

    def _heard(self, spis: IkeSpis, ended: bool) -> None:
        if ended:
            self._ended.add(spis)
            self._wake.set()
        known = False
        for standby in self._standbys.values():
            if spis in standby.wanted or spis in standby.told:
                standby.changed.add(spis)
                standby.wake.set()
                known = True
        if not known:
            self._wake.set()

    # --- who ------------------------------------------------------------------------------------

    def _assign(self) -> list[_Standby]:
        """Compare what is served with what the standbys are to have; return the standbys that are new."""
        served = self._served()
        self._blind = served is None
        if served is None:
            return self._unfollowed()
        now = time.monotonic()
        present = {each.spis: each for each in served}
        candidates = tuple(self._candidates())
        wanted: dict[str, dict[IkeSpis, Served]] = {}
        chosen: dict[str, tuple[str, ...]] = {}
        for spis, each in present.items():
            ward = Ward(each.name, each.pool, each.site, each.remote.address.version)
            before = self._chosen.get(each.name, ())
            chosen[each.name] = choose(self._node, ward, candidates, count=self._count, present=before)
            for name in (*chosen[each.name], *self._until(chosen[each.name], spis)):
                wanted.setdefault(name, {})[spis] = each
        self._came = {
            spis: (since, each)
            for spis, (since, each) in self._came.items()
            if spis not in present and spis not in self._ended and now - since < self._times.settle_s
        }
        for spis, (_, each) in self._came.items():
            for name in self._holders(spis):
                wanted.setdefault(name, {})[spis] = each
        present |= {spis: each for spis, (_, each) in self._came.items()}
        self._chosen = chosen
        spis_out = {spi for each in present.values() for _, spi in each.children}
        self._numbers = {spi: known for spi, known in self._numbers.items() if spi in spis_out}
        self._missed = {spis: since for spis, since in self._missed.items() if spis not in present}
        for name in (
            (wanted.keys() | {each.name for each in candidates}) - self._standbys.keys() - {self._node}
        ):
            self._standbys[name] = _Standby(name)
            self._fresh.append(self._standbys[name])
        for name, standby in self._standbys.items():
            self._compare(standby, wanted.get(name, {}), present, now)
        self._ended -= {
            spis for spis in self._ended if not any(spis in s.told for s in self._standbys.values())
        }
        return self._unfollowed()

    def _unfollowed(self) -> list[_Standby]:
        fresh, self._fresh = self._fresh, []
        return fresh

    def _holders(self, spis: IkeSpis) -> list[str]:
        """Return the nodes that have confirmed some state of an IKE_SA."""
        return [name for name, standby in self._standbys.items() if spis in standby.told]

    def _until(self, chosen: tuple[str, ...], spis: IkeSpis) -> list[str]:
        """Return who goes on to stand by for an IKE_SA until those that are chosen have confirmed that they do."""
        holders = self._holders(spis)
        return [name for name in holders if name not in chosen] if set(chosen) - set(holders) else []

    def _compare(
        self, standby: _Standby, wanted: dict[IkeSpis, Served], present: Mapping[IkeSpis, Served], now: float
    ) -> None:
        for spis, each in wanted.items():
            if self._outdated(standby, each):
                standby.changed.add(spis)
        for spis in standby.told.keys() - wanted.keys() - standby.over.keys():
            if spis in present or spis in self._ended:
                standby.over[spis] = False
                self._missed.pop(spis, None)
            elif self._exists(spis):
                continue
            elif now - self._missed.setdefault(spis, now) >= self._times.settle_s:
                standby.over[spis] = True
                del self._missed[spis]
        for spis in standby.over.keys() & wanted.keys():
            del standby.over[spis]
        standby.wanted = wanted
        if standby.changed or standby.over:
            standby.wake.set()

    @staticmethod
    def _outdated(standby: _Standby, served: Served) -> bool:
        told = standby.told.get(served.spis)
        return told is None or told.served != served

    # --- one standby ----------------------------------------------------------------------------

    async def _follow(self, standby: _Standby) -> None:
        wait = Backoff(*self._times.again_s)
        failing = ""
        while True:
            standby.wake.clear()
            try:
                more = await self._tell(standby)
            except MobikectlError as error:
                if error.message != failing:
                    log.warning("%s is not told of its copies: %s", standby.node, error)
                failing = error.message
                standby.compared_at = float("-inf")
                await asyncio.sleep(wait.next())
                continue
            failing = ""
            wait.reset()
            if more:
                continue
            try:
                async with asyncio.timeout(self._times.look_s):
                    await standby.wake.wait()
                await asyncio.sleep(self._times.together_s)
            except TimeoutError:
                continue

    async def _tell(self, standby: _Standby) -> bool:
        """Tell a standby what it does not know yet, as much as a batch takes. Return whether there is more."""
        now = time.monotonic()
        items: list[Item] = []
        confirmed: dict[IkeSpis, _Told] = {}
        over = dict(list(standby.over.items())[:AT_ONCE])
        items += [Lost(spis) if lost else Gone(spis) for spis, lost in over.items()]
        if now - standby.compared_at >= self._times.compare_s:
            items.append(self._listing(standby))
            compared_at = now
        else:
            compared_at = standby.compared_at
        size = sum(len(encoded(item)) for item in items)
        looked: set[IkeSpis] = set()
        for spis in self._due(standby, now):
            told, added = await self._items(standby, standby.wanted[spis], now)
            more = sum(len(encoded(item)) for item in added)
            if size + more > MAX_BATCH or len(confirmed) >= AT_ONCE:
                break
            looked.add(spis)
            standby.changed.discard(spis)
            if told is not None:
                items += added
                size += more
                confirmed[spis] = told
        if not items:
            return False
        try:
            await self._call(standby, Batch(tuple(items)), over, confirmed)
        except BaseException:
            standby.changed |= confirmed.keys() & standby.wanted.keys()
            raise
        standby.compared_at = compared_at
        return bool((standby.changed - standby.resting.keys()) & standby.wanted.keys() or standby.over)

    def _due(self, standby: _Standby, now: float) -> Iterator[IkeSpis]:
        standby.changed &= standby.wanted.keys()
        standby.resting = {spis: until for spis, until in standby.resting.items() if until > now}
        yield from list(standby.changed - standby.resting.keys())
        if self._sequences is not None:
            for spis, told in list(standby.told.items()):
                if (
                    spis in standby.wanted
                    and spis not in standby.changed
                    and now - told.numbers_at >= self._times.numbers_s
                ):
                    yield spis

    async def _call(
        self,
        standby: _Standby,
        batch: Batch,
        over: Mapping[IkeSpis, bool],
        confirmed: Mapping[IkeSpis, _Told],
    ) -> None:
        answer = await self._transfer.call(
            standby.node, STANDBY, batch.to_secret(), deadline=self._times.call_s
        )
        wants = Wants.from_secret(answer)
        for spis in over:
            standby.told.pop(spis, None)
            standby.over.pop(spis, None)
        standby.told.update(confirmed)
        for spis, told in confirmed.items():
            if set(self._holders(spis)) - {standby.node, *self.standbys_of(told.served.name)}:
                self._wake.set()  # it takes the place of somebody
        for spis in wants.missing | wants.refused:
            standby.told.pop(spis, None)
        standby.changed |= wants.missing & standby.wanted.keys()
        until = time.monotonic() + self._times.rest_s
        for spis in wants.refused & standby.wanted.keys():
            standby.resting[spis] = until
            standby.changed.add(spis)

    @staticmethod
    def _listing(standby: _Standby) -> All:
        # What is not served any more, and may be lost, is not given up by this.
        known = (standby.wanted.keys() | standby.told.keys()) - standby.over.keys()
        of = len(known) // (MAX_LISTED // 2) + 1
        standby.share = (standby.share + 1) % of
        return All(
            frozenset(spis for spis in known if spis.initiator % of == standby.share),
            standby.share,
            of,
        )

    async def _items(self, standby: _Standby, served: Served, now: float) -> tuple[_Told | None, list[Item]]:
        """Return what is to be told of an IKE_SA, and what is known there then; None: it cannot be copied now."""
        told = standby.told.get(served.spis)
        try:
            chain = self._chain(served, follows=told is not None)
        except NotFoundError as error:
            log.debug("%s cannot be copied: %s", served.name, error)
            standby.resting[served.spis] = now + self._times.look_s
            standby.changed.add(served.spis)
            return None, []
        frame = tuple(message for message in chain.messages if message.kind not in MIDS)
        mids = chain.counts
        items: list[Item] = []
        if told is None or told.frame != frame or _moved(told.served, served):
            local = served.local
            offer = Offer(
                0,
                served.name,
                chain,
                local.address,
                local,
                served.remote,
                served.peer_r,
                served.own_r,
                _children(chain),
            )
            try:
                encoded(offer)
            except DecodeError as error:
                log.warning("%s is too large for a copy: %s", served.name, error)
                return None, []
            items.append(offer)
        items.append(Touch(served.spis, mids, await self._read(served, now)))
        return _Told(served, frame, mids, now), items

    def _chain(self, served: Served, *, follows: bool) -> HaChain:
        """Return what an IKE_SA is made of; all that charon told, where it cannot say what lives of that.

        ``follows``: the standby has a copy that is to follow. A rekeying is known from charon's HA messages before it
        is known what is served now: in between all that charon told counts, as nothing may keep message IDs back.
        """
        all_told = self._blind or served.spis in self._came
        inbound = None if all_told else [spi for spi, _ in served.children]
        try:
            chain = self._broker.chain_of(served.spis, inbound)
        except NotFoundError:
            if not follows or all_told:
                raise
            chain = self._broker.chain_of(served.spis)
        return chain.with_remote_vips(served.vips)

    async def _read(self, served: Served, now: float) -> tuple[Numbers, ...]:
        found: list[Numbers] = []
        if self._sequences is None:
            return ()
        for inbound, outbound in served.children:
            try:
                sent = await self._sequences.read(served.remote.address, outbound)
                received = await self._sequences.read(served.local.address, inbound)
            except (NetlinkError, PrivilegeError) as error:
                log.debug("%s: no ESP numbers: %s", served.name, error)
                continue
            if sent is None:
                continue
            at, number = self._numbers.get(outbound, (now, sent.oseq))
            rate = max(sent.oseq - number, 0) / (now - at) if now > at else 0.0
            self._numbers[outbound] = (now, sent.oseq)
            highest = received.seq if received is not None else 0
            found.append(Numbers(inbound, outbound, sent.oseq, highest, round(rate * 1000)))
        return tuple(found)


def _children(chain: HaChain) -> tuple[tuple[int, int], ...]:
    """Return the inbound and outbound SPIs of a chain's CHILD_SAs."""
    return tuple(
        (message.need(HaAttribute.INBOUND_SPI, int), message.need(HaAttribute.OUTBOUND_SPI, int))
        for message in chain.messages
        if message.kind is HaType.CHILD_ADD
    )


def _moved(before: Served, now: Served) -> bool:
    """Whether what a copy was made of is not so any more (its CHILD_SAs are in the chain)."""
    return (before.remote, before.local, before.peer_r, before.own_r, before.name) != (
        now.remote, now.local, now.peer_r, now.own_r, now.name,
    )  # fmt: skip
