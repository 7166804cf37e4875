"""Carries IKE_SAs over to other nodes, for the executor of this node's moves (`mobikectl.node.carrying.Carrier`)."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from mobikectl.cluster.records import FINAL, TRANSITIONS, MoveState
from mobikectl.errors import MobikectlError
from mobikectl.node.handing import Order
from mobikectl.node.room import Room
from mobikectl.policy.cluster import Mechanism
from mobikectl.protocol.handover import Handover, SourceState
from mobikectl.taskgroup import TaskGroup
from mobikectl.wire.ha_chain import IkeSpis

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mobikectl.cluster.records import MoveRecord
    from mobikectl.model import IkeSa
    from mobikectl.node.control import Notes
    from mobikectl.node.handing import Handing
    from mobikectl.node.room import Place
    from mobikectl.node.steps import Steps

log = logging.getLogger(__name__)

REKEYED_AT_MOST: Final = 3
"""So often a handover begins anew because its IKE_SA was rekeyed meanwhile."""
SUCCESSOR_S: Final = 1.0
"""charon told its HA peer of a rekeying, and tells of it over VICI so much later at most."""
_OFFERED: Final = frozenset({SourceState.ASKING, SourceState.KEPT, SourceState.RECALLING})
"""What follows an offer that was answered or waited for in vain. How long that took tells how crowded it is: it is
work of the two nodes, and waits for no client."""
_OUT: Final = "out/"


class Courses:
    """How long the handovers of each move were in which state: for the journal. Hand `told` to the handing.

    A handover gives up its place as soon as its client has come: what follows is only waiting.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[tuple[int, IkeSpis], tuple[SourceState, float]] = {}
        self._places: dict[tuple[int, IkeSpis], Place] = {}
        self._longest: dict[int, dict[SourceState, float]] = {}

    def begin(self, order: Order, place: Place) -> None:
        """An IKE_SA is handed over from now on, and has this place."""
        self._since[order.move, order.spis] = (SourceState.OFFERING, self._clock())
        self._places[order.move, order.spis] = place

    def told(self, order: Order, handover: Handover) -> None:
        """Given where a handover is now, note how long it was where it was."""
        now, key = self._clock(), (order.move, order.spis)
        state, since = self._since.pop(key, (handover.state, now))
        longest = self._longest.setdefault(order.move, {})
        longest[state] = max(longest.get(state, 0.0), now - since)
        if not handover.ended:
            self._since[key] = (handover.state, now)
        if (place := self._places.get(key)) is not None:
            if state is SourceState.OFFERING and handover.state in _OFFERED:
                place.took(now - since, good=handover.state is SourceState.ASKING)
            elif handover.state is SourceState.HOLDING:
                place.leave()

    def end(self, move: int) -> str:
        """Given a move that has ended, return its steps with their milliseconds; of several IKE_SAs the longest."""
        for known in (self._since, self._places):
            for key in [key for key in known if key[0] == move]:
                del known[key]
        steps = self._longest.pop(move, {})
        return ", ".join(f"{state.value} {1000 * seconds:.0f} ms" for state, seconds in steps.items())


class HandoverCarrier:
    """Carries out and settles the moves of the journal that are handovers.

    ``r_of``: given an IKE_SA, who announced SWITCH_TO_IP_ADDRESS: the peer, we. ``gone``: told the unique id of an
    IKE_SA that was handed over, so that the model of the IKE_SAs is in step again. ``courses``: told by the handing
    what becomes of each. ``find``: given a name, returns the IKE_SA as it is now: a rekeying gave it other SPIs.
    """

    def __init__(
        self,
        handing: Handing,
        notes: Notes,
        *,
        r_of: Callable[[IkeSa], tuple[bool, bool]],
        gone: Callable[[int], Awaitable[object]],
        courses: Courses | None = None,
        find: Callable[[str], IkeSa | None] = lambda _name: None,
        room: Room | None = None,
    ) -> None:
        self._find = find
        self._courses = courses or Courses()
        self._room = room or Room()
        self._handing = handing
        self._notes = notes
        self._r_of = r_of
        self._gone = gone

    async def carry(self, move: MoveRecord, sas: Sequence[IkeSa]) -> Steps:
        """Given a requested move and its IKE_SAs, hand them over; return what happened, the last a final state."""
        orders = [self._order(move, name, sa) for name, sa in zip(move.sas, sas, strict=True)]
        try:
            self._notes.note(_OUT + str(move.number), _written(orders))
        except MobikectlError as error:
            return ((MoveState.REFUSED, error.message),)

        async def one(order: Order) -> Handover:
            async with self._room.place() as place:
                for _ in range(REKEYED_AT_MOST):
                    self._courses.begin(order, place)
                    ended = await self._handing.hand_over(order)
                    now = await self._rekeyed(order) if ended.state is SourceState.OVER else None
                    if now is None:
                        return ended
                    at = orders.index(order)
                    orders[at] = order = self._order(move, order.name, now)
                    self._notes.note(_OUT + str(move.number), _written(orders))
                return replace(ended, state=SourceState.KEPT, why="it was rekeyed again and again")

        ended = await _each(one, tuple(orders))
        await self._in_step(sas, ended)
        self._notes.note(_OUT + str(move.number), None)
        return told(move, ended, self._courses.end(move.number))

    async def settle(self, move: MoveRecord, sas: Sequence[IkeSa | None]) -> Steps:
        """Given a move that a restart interrupted, see to it that one node serves each IKE_SA.

        Return what happened, the last a final state.
        """
        written = self._notes.notes.get(_OUT + str(move.number))
        if written is not None:
            orders = _read(written)
        else:
            orders = [
                self._order(move, name, sa) for name, sa in zip(move.sas, sas, strict=True) if sa is not None
            ]
        if not orders:
            return (
                (MoveState.TIMED_OUT, "nothing is known of it any more, here or in the HA broker's notes"),
            )
        ended = await _each(self._handing.settle, orders)
        there = {IkeSpis(sa.initiator_spi, sa.responder_spi) for sa in sas if sa is not None}
        if there - {order.spis for order in orders}:
            # One that is over goes on here with other SPIs.
            ended = [
                replace(each, state=SourceState.KEPT) if each.state is SourceState.OVER else each
                for each in ended
            ]
        await self._in_step([sa for sa in sas if sa is not None], ended)
        self._notes.note(_OUT + str(move.number), None)
        return told(move, ended)

    async def _rekeyed(self, order: Order) -> IkeSa | None:
        """Given an IKE_SA that is over, return the one that took its place; None: none did."""
        deadline = time.monotonic() + SUCCESSOR_S
        while True:
            now = self._find(order.name)
            if now is not None and IkeSpis(now.initiator_spi, now.responder_spi) != order.spis:
                return now
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(0.02)

    def _order(self, move: MoveRecord, name: str, sa: IkeSa) -> Order:
        peer_r, own_r = self._r_of(sa)
        return Order(
            move.number,
            move.token,
            name,
            IkeSpis(sa.initiator_spi, sa.responder_spi),
            move.target,
            move.target_address,
            peer_r=peer_r,
            own_r=own_r,
            ask=move.mechanism is Mechanism.NOTIFY,
            vips=sa.remote_vips,
        )

    async def _in_step(self, sas: Sequence[IkeSa], ended: Sequence[Handover]) -> None:
        if all(each.state is SourceState.KEPT and not each.seen for each in ended):
            return
        for sa in sas:
            try:
                await self._gone(sa.uniqueid)
            except MobikectlError as error:
                log.info("IKE_SA %d cannot be asked for: %s", sa.uniqueid, error)


async def _each(work: Callable[[Order], Awaitable[Handover]], orders: Sequence[Order]) -> list[Handover]:
    async with TaskGroup() as tasks:
        running = [tasks.create_task(_one(work, order)) for order in orders]
    return [task.result() for task in running]


async def _one(work: Callable[[Order], Awaitable[Handover]], order: Order) -> Handover:
    return await work(order)


def told(move: MoveRecord, ended: Sequence[Handover], course: str = "") -> Steps:
    """Given a move, how its handovers ended and what took how long, return the transitions of the journal. Pure."""
    over = [each for each in ended if each.state is SourceState.HANDED_OVER]
    why = next((each.why for each in ended if each.state is not SourceState.HANDED_OVER), "")
    if len(over) == len(ended):
        return _from(
            move.state,
            (MoveState.MOVED, f"its client came to {move.target}" + (f": {course}" if course else "")),
            (MoveState.VERIFIED, f"{move.target} serves it; dropped here without a word to the client"),
        )
    if any(each.state is SourceState.OVER for each in ended):
        return _from(move.state, (MoveState.TIMED_OUT, f"it ended here by itself: {why}"))
    if any(each.state is SourceState.LOST for each in ended):
        return _from(move.state, (MoveState.TIMED_OUT, f"its charon lost it: {why}"))
    if over:
        return _from(move.state, (MoveState.TIMED_OUT, f"{len(over)} of {len(ended)} handed over: {why}"))
    if all(not each.seen or each.seen == (SourceState.OFFERING,) for each in ended):
        return _from(move.state, (MoveState.REFUSED, why))
    back = "it is served here again" + (f": {course}" if course else "")
    return _from(move.state, (MoveState.ROLLING_BACK, why), (MoveState.ROLLED_BACK, back))


def _from(state: MoveState, *steps: tuple[MoveState, str]) -> Steps:
    """Given where the journal is, return those of the steps that can follow there, in order, up to a final one."""
    taken: list[tuple[MoveState, str]] = []
    for following, note in steps:
        if following in TRANSITIONS[state]:
            taken.append((following, note))
            state = following
    if state not in FINAL:
        taken.append((MoveState.TIMED_OUT, steps[-1][1]))
    return tuple(taken)


def _written(orders: Sequence[Order]) -> str:
    rows = [
        [each.move, each.token, each.name, each.spis[0], each.spis[1], each.target, str(each.address)]
        for each in orders
    ]
    return json.dumps(rows)


def _read(text: str) -> list[Order]:
    return [
        Order(move, token, name, IkeSpis(initiator, responder), target, ip_address(address))
        for move, token, name, initiator, responder, target, address in json.loads(text)
    ]
