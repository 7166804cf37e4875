"""The source's side of a handover: each state of `mobikectl.protocol.handover` carried out, with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from mobikectl.errors import (
    CharonError,
    CharonUnreachableError,
    DecodeError,
    MobikectlError,
    MoveError,
    NetlinkError,
    NotFoundError,
    PrivilegeError,
    StoreError,
    TransferDeniedError,
    TransferError,
    TransferRefusedError,
    TransferUnreachableError,
)
from mobikectl.netlink.esp import DEFAULT_WINDOW, Received, Rekey, continuity
from mobikectl.node.calling import CallTimes, called_back, came_back
from mobikectl.node.control import BusyError
from mobikectl.node.imported import pause
from mobikectl.node.watching import Step, nobody
from mobikectl.protocol.handover import Event, Handover, SourceState
from mobikectl.wire.ha import Host
from mobikectl.wire.handover import OFFER, RECALL, START, Offer, Recall, Standing, Stands, Start
from mobikectl.wire.standby import Numbers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from mobikectl.model import IpAddress
    from mobikectl.node.control import ChainKeeper, HeldSa, SaControl, Sequences
    from mobikectl.node.watching import Watch
    from mobikectl.wire.ha_chain import HaChain, IkeSpis
    from mobikectl.wire.secret import SecretBytes

log = logging.getLogger(__name__)

SAID_EVERY: Final = 8
"""What does not get on is said after so many tries, and after as many again: each ten seconds and more."""
Outcome = tuple[Event, str]
_GOOD: Final[Outcome] = (Event.DONE, "")


@dataclass(frozen=True, slots=True)
class HandingTimes:
    """Seconds."""

    chain_s: float = 2.0
    quiet_s: float = 8.0
    """A rekeying ends: charon keeps a rekeyed CHILD_SA for 5 s (``charon.delete_rekeyed_delay``)."""
    offer_s: float = 5.0
    ask_s: float = 5.0
    freeze_s: float = 2.0
    """An exchange that is under way ends."""
    end_s: float = 0.3
    """What charon told its HA peer is read."""
    back_s: float = 15.0
    """charon is started again."""
    start_s: float = 5.0
    recall_s: float = 3.0
    meanwhile_s: float = 8.0
    """So long a client that was asked to go is left to a target that may serve it and does not say so."""
    hold_s: float = 0.3
    """Packets that the peer sent before it moved arrive."""
    again_s: tuple[float, float] = (0.1, 2.0)
    """Between two tries of what must be done: the first and the longest."""
    sends_s: float = 2.0
    """How long the source may go on to send ESP after its numbers were read."""
    call: CallTimes = field(default_factory=CallTimes)
    """Of a client that is called back."""


class Transfer(Protocol):
    """Asks other nodes (`mobikectl.transfer.client.TransferClient`)."""

    async def call(
        self, node: str, verb: str, payload: SecretBytes, *, token: int = 0, deadline: float
    ) -> SecretBytes:
        """Return the answer. Raise TransferError, NotFoundError, StoreError."""


class Keeper(Protocol):
    """Has a copy of what was handed over until its target has a standby (`mobikectl.node.copies.Copies`)."""

    def handed(self, target: str, offer: Offer, numbers: Iterable[Numbers] = ()) -> None:
        """Put by what is frozen here and served at the target, and ESP numbers that it is not below."""

    async def dropped(self, spis: IkeSpis) -> None:
        """It is dropped: have charon take the copy, unless the target has its standby."""

    def kept(self, spis: IkeSpis) -> None:
        """It is served here after all, or nowhere: have no copy of it."""


@dataclass(frozen=True, slots=True)
class Order:
    """One IKE_SA to hand over. ``peer_r`` and ``own_r``: who announced SWITCH_TO_IP_ADDRESS.

    ``ask``: the peer is asked to switch, if both did.
    """

    move: int
    token: int
    name: str
    spis: IkeSpis
    target: str
    address: IpAddress
    peer_r: bool = False
    own_r: bool = False
    ask: bool = True
    vips: tuple[IpAddress, ...] = ()
    """Virtual addresses of the peer: charon does not tell them again in a RESYNC."""

    def offer(
        self, chain: HaChain, local: Host, remote: Host, children: tuple[tuple[int, int], ...]
    ) -> Offer:
        """Given what makes the IKE_SA, the path that it uses, and its CHILD_SAs, return what the target is offered."""
        return Offer(
            self.move, self.name, chain, self.address, local, remote, self.peer_r, self.own_r, children
        )


@dataclass(slots=True)
class _Work:
    order: Order
    held: HeldSa | None = None
    offer: Offer | None = None
    numbers: dict[int, tuple[float, int]] = field(default_factory=dict)
    """By outbound SPI: when its number was read first, and the number."""
    lasts: dict[int, int] = field(default_factory=dict)
    """By outbound SPI: the last number that is ours."""
    last_told: list[Numbers] = field(default_factory=list)
    """The numbers that the target begins behind."""
    asked: bool = False
    """The peer was asked to switch and will come by itself."""
    frozen_at: float | None = None
    meanwhile: bool = False
    """It was thawed while the target does not say what it serves."""
    since: tuple[int, int] | None = None
    """It is frozen again since: the message IDs of the next requests, ours and the peer's."""
    started: bool = False
    """The target may have sent something to the peer."""
    start: Start | None = None
    """What it was told then."""
    unsaid: bool = False
    """The target went without a word whether the client had come."""
    returned: bool = False
    """The target said, or it is known, that it does not serve it."""
    ceded: bool = False
    """Another node takes it over, as charon lost it here: no target may be told to start it."""
    stop: bool = False
    tries: int = 0


class Handing:
    """Hands IKE_SAs of this node over.

    ``is_out``: given a node and its address, whether it serves nothing there, although it does not say so
    (`mobikectl.node.fence`). ``keeper``: None: nothing is kept of what was handed over. ``is_left``: given an IKE_SA
    that charon does not have, whether who stands by claims it, or was granted it.
    """

    def __init__(
        self,
        control: SaControl,
        broker: ChainKeeper,
        sequences: Sequences | None,
        transfer: Transfer,
        *,
        is_out: Callable[[str, IpAddress], Awaitable[bool]],
        times: HandingTimes | None = None,
        told: Callable[[Order, Handover], None] = lambda _order, _handover: None,
        watch: Watch = nobody,
        keeper: Keeper | None = None,
        is_left: Callable[[IkeSpis], Awaitable[bool]] | None = None,
    ) -> None:
        self._keeper = keeper
        self._is_left = is_left
        self._control = control
        self._broker = broker
        self._sequences = sequences
        self._transfer = transfer
        self._is_out = is_out
        self._times = times or HandingTimes()
        self._told = told
        self._watch = watch
        self._works: dict[IkeSpis, _Work] = {}
        """What is under way."""

    def cede(self, spis: frozenset[IkeSpis]) -> frozenset[IkeSpis]:
        """Given IKE_SAs that charon has lost and a node that stands by may take over, begin them nowhere from now on.

        Return those for which it is too late: their targets may have begun to serve them, and alone say whether.
        """
        undecided = set()
        for each in spis & self._works.keys():
            work = self._works[each]
            if work.started and not work.returned:
                undecided.add(each)
            else:
                work.ceded = True
        return frozenset(undecided)

    async def hand_over(self, order: Order) -> Handover:
        """Given an order, carry it out; return how it ended.

        Cancelled, it first sees to it that one node serves the IKE_SA.
        """
        with self._under_way(_Work(order)) as work:
            return await self._guarded(work, Handover())

    async def settle(self, order: Order) -> Handover:
        """Given an order that an earlier life of this node began, see to it that one node serves the IKE_SA."""
        held = await self._control.look(order.spis)
        with self._under_way(_Work(order, held=held, started=True)) as work:
            work.ceded = held is None and self._is_left is not None and await self._is_left(order.spis)
            present = held is not None or await self._over(order.spis)
            return await self._guarded(work, Handover.resumed(present=present))

    @contextlib.contextmanager
    def _under_way(self, work: _Work) -> Iterator[_Work]:
        self._works[work.order.spis] = work
        try:
            yield work
        finally:
            del self._works[work.order.spis]

    async def _guarded(self, work: _Work, handover: Handover) -> Handover:
        running = asyncio.create_task(self._run(work, handover))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            work.stop = True
            await asyncio.wait({running}, timeout=self._times.recall_s + self._times.start_s)
            if not running.done():
                running.cancel()
            raise

    async def _run(self, work: _Work, handover: Handover) -> Handover:
        acts: dict[SourceState, Callable[[_Work], Awaitable[Outcome]]] = {
            SourceState.OFFERING: self._offer,
            SourceState.ASKING: self._ask,
            SourceState.FREEZING: self._freeze,
            SourceState.STARTING: self._start,
            SourceState.HOLDING: self._hold,
            SourceState.DROPPING: self._drop,
            SourceState.RECALLING: self._recall,
            SourceState.THAWING: self._thaw,
        }
        try:
            while not handover.ended:
                before = handover
                await self._watch(Step(handover.state, work.order.spis))
                event, why = await acts[handover.state](work)
                handover = handover.on(event, why)
                if handover.state is before.state:
                    if work.tries % SAID_EVERY == SAID_EVERY - 1:
                        log.warning("move %d: still %s: %s", work.order.move, handover.state.value, why)
                    first, most = self._times.again_s
                    await asyncio.sleep(min(most, first * 2.0 ** min(work.tries, 20)))
                    work.tries += 1
                else:
                    work.tries = 0
                self._told(work.order, handover)
        finally:
            if self._keeper is not None and handover.state is not SourceState.HANDED_OVER:
                self._keeper.kept(work.order.spis)
        await self._watch(Step(handover.state, work.order.spis))
        return handover

    # --- there ----------------------------------------------------------------------------------

    async def _offer(self, work: _Work) -> Outcome:
        order = work.order
        try:
            held = await self._steady(order.spis)
            if held is None:
                return await self._not_here(order.spis, otherwise=Event.REFUSED)
            if not held.serving or not held.steady:
                return (
                    Event.REFUSED,
                    "it is not served here" if held.steady else "a CHILD_SA is just changing",
                )
            chain = await self._broker.wait_for(order.spis, held.inbound, timeout=self._times.chain_s)
            chain = chain.with_remote_vips(order.vips)
            work.held = held
            await self._first_numbers(work, held)
        except MobikectlError as error:
            return Event.REFUSED, str(error)
        work.offer = offer = order.offer(chain, held.local, held.remote, held.children)
        return await self._asked(work, OFFER, offer.to_secret(), self._times.offer_s, Stands.PASSIVE)

    async def _steady(self, spis: IkeSpis) -> HeldSa | None:
        """Return the IKE_SA as soon as nothing of it is changing, or as it is after a while."""
        began = time.monotonic()
        while True:
            asked_at = time.monotonic()
            held = await self._control.look(spis)
            waited = time.monotonic() - began
            if held is None or waited > self._times.quiet_s:
                return held
            if held.serving and held.steady and (not held.busy or waited > self._times.freeze_s):
                return held
            await asyncio.sleep(pause(0.01, asked_at))

    async def _over(self, spis: IkeSpis) -> bool:
        """Whether an IKE_SA that is not here was deleted or rekeyed. What tells it may come a moment later."""
        deadline = time.monotonic() + self._times.end_s
        while not self._broker.has_ended(spis):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    async def _not_here(self, spis: IkeSpis, *, otherwise: Event = Event.ABSENT) -> Outcome:
        if await self._over(spis):
            return Event.OVER, "it was deleted or rekeyed meanwhile"
        return otherwise, "charon does not have it any more"

    async def _start(self, work: _Work) -> Outcome:
        order, held = work.order, work.held
        if work.ceded:
            return Event.REFUSED, "its charon died, and who stands by takes it over"
        work.started = True
        try:
            # Up to here it is served again by itself should this process die; from here on only the target can say.
            if held is None:
                start = Start(order.move, order.spis, None, roam=True)
            elif not await self._passivated(work):
                # Our charon lost it: these are its message IDs as far as we saw them, the request to switch included.
                mids = (held.mid_initiator, held.mid_responder)
                start = Start(order.move, order.spis, mids, roam=True, rekey=tuple(held.inbound))
            else:
                start = await self._with_numbers(work, held)
        except (CharonError, NetlinkError, PrivilegeError) as error:
            return Event.REFUSED, str(error)
        work.start = start
        return await self._asked(work, START, start.to_secret(), self._times.start_s, Stands.SERVED)

    async def _asked(
        self, work: _Work, verb: str, payload: SecretBytes, deadline: float, wanted: Stands
    ) -> Outcome:
        order = work.order
        if work.stop:
            return Event.UNCLEAR, "this node stops"
        try:
            answer = await self._transfer.call(
                order.target, verb, payload, token=order.token, deadline=deadline
            )
            standing = Standing.from_secret(answer)
        except MobikectlError as error:
            if verb == START and work.frozen_at is not None:
                work.started = _may_have_arrived(error)
            return _event_of(error), str(error)
        if standing.stands is Stands.SERVED and wanted is Stands.SERVED:
            return Event.SERVED, ""
        if standing.stands is wanted:
            return _GOOD
        return Event.UNCLEAR, standing.note or f"{order.target} says: {standing.stands.value}"

    async def _recall(self, work: _Work) -> Outcome:
        order, start = work.order, work.start
        recall = Recall(order.move, order.spis, since=work.since)
        if start is not None:
            recall = replace(recall, mids=start.mids, roam=start.roam)
        try:
            answer = await self._transfer.call(
                order.target,
                RECALL,
                recall.to_secret(),
                token=order.token,
                deadline=self._times.recall_s,
            )
            stands = Standing.from_secret(answer).stands
        except MobikectlError as error:
            if await self._is_out(order.target, order.address):
                work.unsaid = work.started
                work.returned = True
                return Event.DONE, f"{order.target} is away and serves nothing"
            await self._answer_meanwhile(work)
            return Event.UNCLEAR, str(error)
        if stands is Stands.SERVED:
            if not work.meanwhile:
                return Event.SERVED, ""
            frozen = await self._freeze_again(work)
            return Event.UNCLEAR, "it is to know of that" if frozen else "an exchange is under way here"
        work.returned = stands is Stands.NONE
        return _GOOD if work.returned else (Event.UNCLEAR, f"it is {stands.value} there")

    async def _answer_meanwhile(self, work: _Work) -> None:
        """The target does not say what it serves: answer the client here again, where that can only help.

        Where the target was never reached to start it, it does not serve it. A client that was asked to go there looks
        at both of us in turn, and ends its IKE_SA when nobody answers (strongSwan: after 27 s).
        """
        if work.meanwhile or work.since is not None or work.frozen_at is None:
            return
        waited = time.monotonic() - work.frozen_at
        if work.started and not (work.asked and waited > self._times.meanwhile_s):
            return
        with contextlib.suppress(CharonError):  # it is tried again
            work.meanwhile = await self._control.thaw(work.order.spis)

    async def _freeze_again(self, work: _Work) -> bool:
        """What was answered meanwhile is served at the target: return whether it is frozen here, or gone.

        What was exchanged here since has used message IDs that the target would use again: it is told them.
        """
        try:
            held = await self._control.freeze(work.order.spis)
            if held is not None and not await self._control.passivate(work.order.spis):
                return False
        except (BusyError, CharonError):
            return False
        work.meanwhile = False
        if held is not None:
            work.since = held.mid_initiator, held.mid_responder
        return True

    # --- here -----------------------------------------------------------------------------------

    async def _ask(self, work: _Work) -> Outcome:
        if work.stop:
            return Event.UNCLEAR, "this node stops"
        if work.held is None or not (work.order.ask and work.order.peer_r and work.order.own_r):
            return _GOOD
        try:
            await self._control.ask_to_switch(work.held.ike_id, work.order.address, timeout=self._times.ask_s)
        except (CharonError, MoveError) as error:
            return Event.REFUSED, str(error)
        work.asked = True
        with contextlib.suppress(CharonError):  # what follows finds that out, too
            now = await self._control.look(work.order.spis)
            if now is not None:
                work.held = replace(
                    work.held, mid_initiator=now.mid_initiator, mid_responder=now.mid_responder
                )
        return _GOOD

    async def _freeze(self, work: _Work) -> Outcome:
        deadline = time.monotonic() + self._times.freeze_s
        before = work.held
        while True:
            try:
                held = await self._control.freeze(work.order.spis)
            except BusyError as error:
                if work.stop or time.monotonic() > deadline:
                    return Event.REFUSED, str(error)
                await asyncio.sleep(0.01)
                continue
            except CharonUnreachableError as error:
                # It may be dead. Back again it says whether it still has the IKE_SA; if not, the target starts it.
                if work.stop or work.ceded or time.monotonic() > deadline + self._times.back_s:
                    return Event.UNCLEAR, str(error)
                await asyncio.sleep(0.1)
                continue
            except CharonError as error:
                return Event.UNCLEAR, str(error)
            break
        if held is None:
            return await self._not_here(work.order.spis)
        work.held = held
        work.frozen_at = time.monotonic()
        if before is not None and set(before.children) != set(held.children):
            return Event.REFUSED, "a CHILD_SA was made or rekeyed meanwhile"
        if before is not None and before.remote != held.remote:
            return Event.REFUSED, "its client moved meanwhile"
        return _GOOD

    async def _hold(self, work: _Work) -> Outcome:
        if work.held is None:
            return _GOOD
        await self._put_by(work, work.held)
        await asyncio.sleep(self._times.hold_s)
        exceeded = await self._exceeded(work, work.held)
        if exceeded:
            log.info(
                "of %s more was sent here than was reserved: the target rekeys %d CHILD_SAs",
                work.order.name,
                len(exceeded),
            )
            rekey = Start(work.order.move, work.order.spis, None, roam=False, rekey=exceeded)
            await self._asked(work, START, rekey.to_secret(), self._times.start_s, Stands.SERVED)
        return _GOOD

    async def _put_by(self, work: _Work, held: HeldSa) -> None:
        """Its client came to the target: keep what brings it back, should the target die before it has a standby."""
        order, offer = work.order, work.offer
        if self._keeper is None:
            return
        try:
            if offer is None:
                chain = await self._broker.wait_for(order.spis, held.inbound, timeout=self._times.chain_s)
            else:
                chain = offer.chain
        except NotFoundError as error:
            log.info("of %s nothing is kept: %s", order.name, error)
            return
        # One that was asked comes by a request of its own, any other by its answer to ours.
        ours, theirs = held.mid_initiator + (not work.asked), held.mid_responder + work.asked
        kept = order.offer(
            chain.with_remote_vips(order.vips).counting(ours, theirs),
            Host(order.address, held.local.port),
            held.remote,
            offer.children if offer is not None else held.children,
        )
        self._keeper.handed(order.target, kept, work.last_told)

    async def _exceeded(self, work: _Work, held: HeldSa) -> tuple[int, ...]:
        """Return the CHILD_SAs (inbound SPIs) of which more was sent here than was reserved."""
        found = []
        for inbound, outbound in held.children:
            try:
                state = await self._sequences.read(held.remote.address, outbound) if self._sequences else None
            except (NetlinkError, PrivilegeError):
                continue
            if state is not None and outbound in work.lasts and state.oseq > work.lasts[outbound]:
                found.append(inbound)
        return tuple(found)

    async def _drop(self, work: _Work) -> Outcome:
        try:
            had = await self._control.drop(work.order.spis)
        except CharonError as error:
            return Event.UNCLEAR, str(error)
        self._broker.forget(work.order.spis)
        if self._keeper is not None:
            await self._keeper.dropped(work.order.spis)
        return (Event.DONE, "") if had else (Event.ABSENT, "")

    async def _thaw(self, work: _Work) -> Outcome:
        try:
            had = await self._control.thaw(work.order.spis)
            if had and work.started and not await called_back(self._control, self._broker, work.order.spis):
                log.info("the client of %s does not answer here again yet", work.order.name)
        except CharonError as error:
            return Event.UNCLEAR, str(error)
        if had and work.asked and work.held is not None:
            await self._ask_back(work, work.held)
        return _GOOD if had else await self._not_here(work.order.spis)

    async def _ask_back(self, work: _Work, held: HeldSa) -> None:
        """The client answered that it goes to the target, and sends there since: have it come back."""
        try:
            await self._control.ask_to_switch(held.ike_id, held.local.address, timeout=self._times.ask_s)
            if work.unsaid and not await came_back(
                self._control, self._broker, held.spis, held.mid_responder, times=self._times.call
            ):
                log.info("the client of %s does not come back yet", work.order.name)
        except (CharonError, MoveError) as error:
            log.info("a client that was asked to go is not asked back: %s", error)

    # --- numbers --------------------------------------------------------------------------------

    async def _first_numbers(self, work: _Work, held: HeldSa) -> None:
        if self._sequences is None:
            return
        for _, spi in held.children:
            state = await self._sequences.read(held.remote.address, spi)
            if state is not None:
                work.numbers[spi] = (time.monotonic(), state.oseq)

    async def _passivated(self, work: _Work) -> bool:
        """Have it stay frozen; return whether charon has it. One that died says so as soon as it is back."""
        deadline = time.monotonic() + self._times.back_s
        while True:
            try:
                return await self._control.passivate(work.order.spis)
            except CharonUnreachableError:
                if work.stop or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.1)

    async def _with_numbers(self, work: _Work, held: HeldSa) -> Start:
        numbers, received, rekey = [], [], []
        work.last_told.clear()
        for inbound, outbound in held.children:
            state = await self._sequences.read(held.remote.address, outbound) if self._sequences else None
            at, number = work.numbers.get(outbound, (0.0, 0))
            rate = (state.oseq - number) / max(time.monotonic() - at, 1e-3) if state and at else 0.0
            goes_on = continuity(
                state, packets_per_s=max(rate, 0.0), still_sends_s=self._times.sends_s, window=DEFAULT_WINDOW
            )
            if isinstance(goes_on, Rekey):
                rekey.append(inbound)
                continue
            numbers.append((outbound, goes_on.last))
            work.lasts[outbound] = goes_on.last
            inner = await self._sequences.read(held.local.address, inbound) if self._sequences else None
            highest = 0
            if inner is not None:
                seen = Received.of(inner)
                highest = seen.highest
                received.append((inbound, seen.highest, seen.seen, seen.window))
            per_1000_s = round(max(rate, 0.0) * 1000)
            work.last_told.append(Numbers(inbound, outbound, goes_on.last, highest, per_1000_s))
        return Start(
            work.order.move,
            work.order.spis,
            (held.mid_initiator, held.mid_responder),
            roam=not work.asked,
            numbers=tuple(numbers),
            received=tuple(received),
            rekey=tuple(rekey),
        )


def _event_of(error: MobikectlError) -> Event:
    """Given why a request had no answer, return what that means for the handover."""
    match error:
        case TransferUnreachableError(maybe_done=maybe_done):
            return Event.UNCLEAR if maybe_done else Event.REFUSED
        case TransferRefusedError() | NotFoundError():
            return Event.REFUSED
        case TransferError() | DecodeError():
            return Event.UNCLEAR
        case _:
            return Event.REFUSED  # the store does not tell where the node is


def _may_have_arrived(error: MobikectlError) -> bool:
    """Given why a request had no answer, return whether the other node may have got it all the same."""
    if isinstance(error, TransferUnreachableError):
        return error.maybe_done
    return not isinstance(error, NotFoundError | TransferDeniedError | StoreError)
