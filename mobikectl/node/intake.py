"""The target's side of a handover: takes an IKE_SA over from another node, serves it when told to, gives it back.

This side is the arbiter (`mobikectl.protocol.handover`): what it answers is what its charon has, looked up each time,
so that it answers the same after a restart.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from mobikectl.errors import (
    CharonError,
    CharonUnreachableError,
    MobikectlError,
    MoveError,
    NetlinkError,
    NotFoundError,
)
from mobikectl.netlink.esp import Received
from mobikectl.node import imported
from mobikectl.node.calling import caught_up
from mobikectl.node.control import unheard
from mobikectl.node.replicator import Served
from mobikectl.node.watching import Step, TargetStep, nobody
from mobikectl.protocol.handover import DID_NOT_COME, Ask, TargetState, asked
from mobikectl.switch.turns import OneByOne
from mobikectl.wire.ha import Host
from mobikectl.wire.ha_chain import IkeSpis
from mobikectl.wire.handover import Recall, Standing, Stands, Start

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.model import IpAddress
    from mobikectl.node.control import ChainKeeper, Ended, HeldSa, Notes, SaControl, Sequences
    from mobikectl.node.watching import Watch
    from mobikectl.wire.handover import Offer

    Came = Callable[[str, Served], None]
    """Told which node an IKE_SA came from that is served here from now on, before that node knows."""

log = logging.getLogger(__name__)

_IN: Final = "in/"
_PASSIVE: Final = "passive/"
_STARTED: Final = "started/"


@dataclass(frozen=True, slots=True)
class IntakeTimes:
    """Seconds."""

    appear_s: float = 3.0
    """charon has made the IKE_SA and its CHILD_SAs of the messages."""
    answer_s: float = 3.0
    """The client answers: some round trips, or a retransmission. One that still probes where an earlier move asked it
    to go does so each 2.5 s (strongSwan), and nothing else meanwhile."""
    expire_s: float = 60.0
    """What is offered and neither started nor recalled is dropped."""
    remember_s: float = 3600.0
    """What was served here is known to have been, although charon does not have it any more."""
    look_s: float = 0.01


class Hosts(Protocol):
    """What is done on this host for an IKE_SA that comes or goes."""

    async def arrived(self, held: HeldSa, name: str) -> None:
        """It is served here from now on."""


class Standby(Protocol):
    """What this node has copies of, in case their nodes die (`mobikectl.node.copies.Copies`).

    What is offered to it may be among them, and is again when the offer is taken back. The caller has the turn.
    """

    turns: OneByOne[IkeSpis]
    """Who deals with an IKE_SA."""

    async def lend(self, source: str, offer: Offer) -> bool:
        """Return whether charon has what a node offers, because this node stands by for it.

        Raise MoveError, CharonError.
        """

    def lent(self, source: str, offer: Offer) -> None:
        """What there is a copy of was made anew, as it is offered."""

    def keeps(self, spis: IkeSpis) -> bool:
        """Return whether it stays, passive."""

    def begun(self, spis: IkeSpis) -> None:
        """It is about to be served here."""

    async def again(self, spis: IkeSpis) -> None:
        """Have charon drop what was begun, and take the copy of it again. Raise MoveError, CharonError."""

    def forget(self, spis: IkeSpis) -> None:
        """It is no copy any more."""


@dataclass(slots=True)
class _Taken:
    """What was offered. Lost at a restart: then only what charon has counts."""

    offer: Offer
    since: float
    started: Start | None = None


class Intake:
    """Answers the three verbs. One IKE_SA is dealt with by one request at a time."""

    def __init__(
        self,
        control: SaControl,
        broker: ChainKeeper,
        sequences: Sequences | None,
        *,
        is_ours: Callable[[IpAddress], bool],
        hosts: Hosts | None = None,
        notes: Notes | None = None,
        times: IntakeTimes | None = None,
        watch: Watch = nobody,
        ended: Ended = unheard,
    ) -> None:
        self._came: Came = lambda _source, _served: None
        self._standby: Standby | None = None
        self._control = control
        self._broker = broker
        self._sequences = sequences
        self._is_ours = is_ours
        self._hosts = hosts
        self._notes = notes
        self._times = times or IntakeTimes()
        self._watch = watch
        self._ended = ended
        self._taken: dict[IkeSpis, _Taken] = {}
        self._turns: OneByOne[IkeSpis] = OneByOne()

    def stand_by(self, standby: Standby, came: Came) -> None:
        """Given the copies that this node has, and who is told what came here, deal with them too.

        Before anything is offered (`mobikectl.node.standing.introduce`).
        """
        self._standby = standby
        self._turns = standby.turns
        self._came = came

    @property
    def taken(self) -> frozenset[IkeSpis]:
        """IKE_SAs that came from other nodes since the start and are not served yet."""
        return frozenset(self._taken)

    # --- the verbs ------------------------------------------------------------------------------

    async def offer(self, offer: Offer, source: str = "") -> Standing:
        """Take an IKE_SA over from its ``source``, passive. A copy of it that is here stays one until it is served.

        Raise MoveError when this node cannot, what charon raises otherwise.
        """
        async with self._turns.alone(offer.spis):
            taken = self._taken.get(offer.spis)
            stands = _standing_of(await self._control.look(offer.spis), taken)
            if taken is not None and taken.offer == offer and stands is TargetState.PASSIVE:
                return _standing(stands)
            if asked(stands, Ask.OFFER) is None:
                raise MoveError(
                    f"{offer.name} ({offer.spis}) is here already",
                    hint="it would exist twice: end it here first",
                )
            await self._require(offer)
            self._taken[offer.spis] = _Taken(offer, time.monotonic())
            self._note(offer.spis, None)
            self._note_started(offer.spis, None)
            self._note_passive(offer.spis, f"{time.time():.0f}")
            lent = False
            try:
                await self._watch(Step(TargetStep.IMPORT, offer.spis))
                lent = self._standby is not None and await self._standby.lend(source, offer)
                if not lent:
                    await self._import(offer, source, stands)
                await self._watch(Step(TargetStep.ACCEPT, offer.spis))
            except BaseException:
                self._give_back(offer.spis, lent=lent)
                raise
            return _standing(TargetState.PASSIVE)

    async def _import(self, offer: Offer, source: str, stands: TargetState) -> None:
        if stands is TargetState.PASSIVE:
            await self._end(offer.spis)
        for generation in offer.chain.generations:
            self._broker.forget(generation)
        # At once with our address: an update of the CHILD_SAs' would be a rekeying where ESP is in userland.
        await self._broker.replay(offer.there)
        await self._appeared(offer)
        if self._standby is not None:
            self._standby.lent(source, offer)

    async def start(self, start: Start, source: str = "") -> Standing:
        """Given what the ``source`` asks, serve an IKE_SA that was offered, and tell whether its client answered.

        Raise MoveError when it is not here, or cannot be served.
        """
        async with self._turns.alone(start.spis):
            taken = self._taken.get(start.spis)
            held = await self._control.look(start.spis)
            if held is None or held.frozen or (taken is None and not held.serving):
                raise MoveError(f"{start.spis} was not offered to this node", hint="offer it again")
            if held.serving and taken is not None and taken.started is None:
                raise MoveError(f"{start.spis} is served here and nobody started it", hint="see charon's log")
            if start.mids is None:
                start = replace(
                    start, mids=(held.mid_initiator, held.mid_responder), rekey=tuple(held.inbound)
                )
            if not held.serving and taken is not None:
                await self._watch(Step(TargetStep.ACTIVATE, start.spis))
                await self._activate(held, taken.offer, start)
                await self._watch(Step(TargetStep.HEAR, start.spis))
            answered = held if held.serving and taken is None else await self._heard(start)
            if answered is None:
                return Standing(Stands.STARTED, DID_NOT_COME)
            await self._watch(Step(TargetStep.ANSWER, start.spis))
            await self._served(answered, taken, start, source)
            return _standing(TargetState.SERVED)

    async def recall(self, recall: Recall, source: str = "") -> Standing:
        """Give an IKE_SA back to its ``source``, unless its client is here already. The answer says which.

        One whose client may be here stays so when charon dies: it has used message IDs that the source does not know
        of. Who stands by for it goes on with it then.
        """
        async with self._turns.alone(recall.spis):
            stands = await self._stands(recall)
            if stands is TargetState.SERVED:
                self._told_of(recall.spis, recall.move, source)
                if recall.since is not None:
                    await caught_up(self._control, self._broker, recall.spis, recall.since)
            if asked(stands, Ask.RECALL) is TargetState.NONE:
                await self._withdraw(recall.spis, stands)
                await self._watch(Step(TargetStep.GIVE_BACK, recall.spis))
                return _standing(TargetState.NONE)
            return _standing(stands)

    def taken_over(self, spis: IkeSpis, *, served: bool) -> None:
        """Given what was to be served here because its node is dead, and whether it is: what that node offered is void.

        The caller has the turn.
        """
        taken = self._taken.pop(spis, None)
        if taken is None:
            return
        self._note_passive(spis, None)
        self._note_started(spis, None)
        if served:
            self._note(spis, f"{time.time():.0f} {taken.offer.move}")

    async def _withdraw(self, spis: IkeSpis, stands: TargetState) -> None:
        """Serve it not, and have of it what was here before: the copy of it, or nothing."""
        copied = self._copied(spis)
        if stands is TargetState.STARTED or (stands is TargetState.PASSIVE and copied is None):
            await self._watch(Step(TargetStep.END, spis))
            await (copied.again(spis) if copied is not None else self._end(spis))
        self._taken.pop(spis, None)
        self._note_passive(spis, None)
        self._note_started(spis, None)
        if copied is None or stands is TargetState.NONE:
            self._forget_copy(spis)
            self._broker.forget(spis)

    def _copied(self, spis: IkeSpis) -> Standby | None:
        return self._standby if self._standby is not None and self._standby.keeps(spis) else None

    async def expire(self) -> None:
        """Drop what was offered long ago and neither started nor recalled, for ever."""
        while True:
            await asyncio.sleep(self._times.expire_s / 4)
            self._strike_out()
            try:
                await self._end_forgotten()
            except MobikectlError as error:
                log.info("what was taken over before a restart cannot be looked at: %s", error)
            for spis, taken in list(self._taken.items()):
                if time.monotonic() - taken.since < self._times.expire_s:
                    continue
                async with self._turns.alone(spis):
                    try:
                        stands = await self._stands(Recall(taken.offer.move, spis))
                        if asked(stands, Ask.EXPIRED) is TargetState.NONE and self._copied(spis) is None:
                            await self._end(spis)
                            log.info("%s was offered and never started: dropped", taken.offer.name)
                        self._taken.pop(spis, None)
                    except MobikectlError as error:
                        log.info("%s cannot be dropped yet: %s", taken.offer.name, error)

    # --- what is here ---------------------------------------------------------------------------

    async def _stands(self, recall: Recall) -> TargetState:
        spis, move = recall.spis, recall.move
        try:
            held = await self._control.look(spis)
        except CharonUnreachableError:
            if self._was_heard(spis, move):
                return TargetState.SERVED
            raise
        taken = self._taken.get(spis)
        if self._was_heard(spis, move) and (held is None or (held.serving and taken is None)):
            return TargetState.SERVED  # or it was, and ended, or was rekeyed, or charon died since
        started = self._started_before(recall) if taken is None else None
        if held is not None and held.serving and started is not None:
            return TargetState.SERVED if _has_come(held, started) else TargetState.STARTED
        return _standing_of(held, taken)

    def _started_before(self, recall: Recall) -> Start | None:
        """Return with what a process before this one began to serve it, if its client was not heard by then.

        Where nothing is remembered of that, its source says with what it was to begin.
        """
        note = self._notes.notes.get(_key(recall.spis, _STARTED), "") if self._notes is not None else ""
        if not note or _move_of(note) != recall.move:
            if recall.mids is None:
                return None
            return Start(recall.move, recall.spis, recall.mids, roam=recall.roam)
        ours, theirs, roam = (int(each) for each in note.split()[2:])
        return Start(recall.move, recall.spis, (ours, theirs), roam=bool(roam))

    def _was_heard(self, spis: IkeSpis, move: int) -> bool:
        """Whether its client came here with this move, or something went to or fro that only charon can tell of.

        That it was here before says nothing: an IKE_SA keeps its SPIs wherever it goes.
        """
        if self._notes is not None and _move_of(self._notes.notes.get(_key(spis), "")) == move:
            return True
        taken = self._taken.get(spis)
        if taken is None or taken.started is None or taken.started.mids is None:
            return False
        counts = self._broker.counts(spis)
        return any(
            now is not None and now > then for now, then in zip(counts, taken.started.mids, strict=True)
        )

    def _told_of(self, spis: IkeSpis, move: int, source: str) -> None:
        """Its client may be here, and nothing was told of that: tell what is known, should charon have died."""
        taken = self._taken.pop(spis, None)
        if taken is None:
            return
        self._forget_copy(spis)
        self._note(spis, f"{time.time():.0f} {move}")
        self._note_passive(spis, None)
        self._note_started(spis, None)
        offer = taken.offer
        self._say_that_it_came(
            source, _of(offer, Host(offer.address, offer.local.port), offer.remote, offer.children)
        )

    def _say_that_it_came(self, source: str, served: Served) -> None:
        if source and not self._broker.has_ended(served.spis):
            self._came(source, served)

    def _note(self, spis: IkeSpis, value: str | None) -> None:
        if self._notes is not None:
            self._notes.note(_key(spis), value)

    def _note_passive(self, spis: IkeSpis, value: str | None) -> None:
        if self._notes is not None:
            self._notes.note(_key(spis, _PASSIVE), value)

    def _note_started(self, spis: IkeSpis, start: Start | None) -> None:
        if self._notes is not None:
            value = None
            if start is not None and start.mids is not None:
                value = f"{time.time():.0f} {start.move} {start.mids[0]} {start.mids[1]} {start.roam:d}"
            self._notes.note(_key(spis, _STARTED), value)

    async def _end_forgotten(self) -> None:
        """Drop what a process before this one took over, and whose source was not heard of since."""
        old = time.time() - self._times.expire_s
        for key, value in list(self._notes.notes.items() if self._notes is not None else ()):
            spis = _spis_of(key)
            if spis is None or spis in self._taken or float(value) > old:
                continue
            async with self._turns.alone(spis):
                held = await self._control.look(spis)
                if _standing_of(held, None) is TargetState.PASSIVE and self._copied(spis) is None:
                    await self._end(spis)
                self._note_passive(spis, None)

    def _strike_out(self) -> None:
        notes = self._notes.notes if self._notes is not None else {}
        old = time.time() - self._times.remember_s
        for key, value in list(notes.items()):
            if (
                self._notes is not None
                and key.startswith((_IN, _STARTED))
                and float(value.partition(" ")[0]) < old
            ):
                self._notes.note(key, None)

    async def _require(self, offer: Offer) -> None:
        if not self._is_ours(offer.address):
            raise MoveError(
                f"{offer.address} is no address of this node", hint="[cluster] addresses names those that are"
            )
        await imported.require(self._control, offer.chain)
        look = partial(imported.find, self._control)
        if (other := await imported.served(look, self._broker.rivals(offer.chain))) is not None:
            raise MoveError(
                f"the client of {offer.name} has another IKE_SA here ({other}), of the same traffic selectors",
                hint="it would take that one's traffic: one of them ends, or is left by its client",
            )

    async def _appeared(self, offer: Offer) -> None:
        await imported.appeared(
            partial(imported.find, self._control),
            offer.spis,
            lambda held: not held.serving and set(held.children) == set(offer.children),
            name=offer.name,
            children=len(offer.children),
            within=self._times.appear_s,
            every=self._times.look_s,
        )

    def _give_back(self, spis: IkeSpis, *, lent: bool) -> None:
        self._taken.pop(spis, None)
        if lent:
            return
        try:
            self._forget_copy(spis)
            self._broker.remove(spis)
        except CharonError as error:
            log.info("%s: charon is away: %s", spis, error)

    def _forget_copy(self, spis: IkeSpis) -> None:
        if (copied := self._copied(spis)) is not None:
            copied.forget(spis)

    async def _end(self, spis: IkeSpis) -> None:
        """Drop it and see that it is gone. Raise MoveError: it is not."""
        await imported.end(
            self._control,
            self._broker,
            spis,
            self._ended,
            within=self._times.appear_s,
            every=self._times.look_s,
        )

    # --- serving --------------------------------------------------------------------------------

    async def _activate(self, held: HeldSa, offer: Offer, start: Start) -> None:
        await self._continue_numbers(held, start)
        taken = self._taken[start.spis]
        taken.started = start
        if (copied := self._copied(start.spis)) is not None:
            copied.begun(start.spis)
        self._note_started(start.spis, start)
        if start.mids is not None:
            self._broker.count_from(start.spis, *start.mids)
        await self._control.activate(
            held,
            mids=start.mids,
            roam=start.roam,
            peer_r=offer.peer_r,
            own_r=offer.own_r,
        )

    async def _continue_numbers(self, held: HeldSa, start: Start) -> None:
        """Set the ESP numbers. Raise MoveError when that fails: two nodes must not send with the same numbers."""
        if self._sequences is None:
            return
        try:
            for spi, last in start.numbers:
                await self._sequences.start_after(held.remote.address, spi, last)
            for spi, highest, seen, window in start.received:
                await self._sequences.mark_received(held.local.address, spi, Received(highest, seen, window))
        except (NetlinkError, NotFoundError) as error:
            raise MoveError(
                f"the ESP numbers cannot be continued: {error.message}", hint=error.hint
            ) from error

    async def _heard(self, start: Start) -> HeldSa | None:
        deadline = time.monotonic() + self._times.answer_s
        while True:
            asked_at = time.monotonic()
            held = await self._control.look(start.spis)
            if held is None:
                raise MoveError(f"{start.spis} went away while it was started", hint="see charon's log")
            if _has_come(held, start):
                return held
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(imported.pause(self._times.look_s, asked_at))

    async def _served(self, held: HeldSa, taken: _Taken | None, start: Start, source: str) -> None:
        self._taken.pop(start.spis, None)
        self._forget_copy(start.spis)
        if taken is not None:
            self._say_that_it_came(source, _of(taken.offer, held.local, held.remote, held.children))
        try:
            self._note(start.spis, f"{time.time():.0f} {start.move}")
            self._note_passive(start.spis, None)
            self._note_started(start.spis, None)
            if start.rekey:
                await self._control.rekey_children(held.ike_id, start.rekey)
            if self._hosts is not None and taken is not None:
                await self._hosts.arrived(held, taken.offer.name)
        except MobikectlError as error:
            # Its client is here: nothing that fails now can undo that.
            log.warning("%s is served here, but %s", start.spis, error)


def _of(offer: Offer, local: Host, remote: Host, children: tuple[tuple[int, int], ...]) -> Served:
    return Served(offer.name, offer.spis, local, remote, children, peer_r=offer.peer_r, own_r=offer.own_r)


def _standing_of(held: HeldSa | None, taken: _Taken | None) -> TargetState:
    """Given what charon has of an IKE_SA and what is under way here, return what this node has of it."""
    if held is None:
        return TargetState.NONE
    if held.frozen:
        return TargetState.SERVED  # and on its way from here to somewhere else
    if not held.serving:
        return TargetState.PASSIVE
    if taken is None:
        return TargetState.SERVED
    come = taken.started is not None and _has_come(held, taken.started)
    return TargetState.SERVED if come else TargetState.STARTED


def _key(spis: IkeSpis, prefix: str = _IN) -> str:
    return prefix + spis.hex


def _move_of(note: str) -> int | None:
    """Given the note that an IKE_SA's client came here, "SECONDS MOVE", return the number of the move."""
    number = note.split(" ")[1:2]
    return int(number[0]) if number and number[0].isdecimal() else None


def _spis_of(key: str) -> IkeSpis | None:
    """Given a note's key, return the IKE_SA that was taken over and not started; None: it says something else."""
    if not key.startswith(_PASSIVE):
        return None
    try:
        return IkeSpis.from_hex(key.removeprefix(_PASSIVE))
    except ValueError:
        return None


def _has_come(held: HeldSa, start: Start) -> bool:
    """Whether the client is here.

    A request of its own says so: it moves by UPDATE_SA_ADDRESSES (RFC 4555 section 3.5). One that is told our address
    and follows without a word, as strongSwan does, only answers that; without being told (no ``roam``) an answer says
    nothing, as it would come from where the client was.
    """
    ours, theirs = start.mids or (held.mid_initiator, held.mid_responder)
    followed = start.roam and held.mid_initiator > ours and not held.busy
    return held.serving and (followed or held.mid_responder > theirs)


def _standing(state: TargetState) -> Standing:
    return Standing(Stands(state.value))
