"""The life of one move of the journal as its source sees it: what was seen goes in, the next record comes out. Pure.

    planned -> requested -> acknowledged -> moved -> verified
                                  | refused | timed out | rolling back -> rolled back

A move is *requested* when the journal says so, and only then is anything done. Every end is told from where the IKE_SAs
are, never from an answer alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from mobikectl.cluster.records import MoveState, NodeIntent, peer_of
from mobikectl.errors import NotFoundError
from mobikectl.model import IkeState
from mobikectl.policy.cluster import Mechanism, Reason
from mobikectl.switch import moves as switch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from mobikectl.cluster.records import MoveRecord, Pin
    from mobikectl.errors import MobikectlError
    from mobikectl.model import IkeSa
    from mobikectl.policy.cluster_settings import BalanceSettings

LIVE = frozenset({IkeState.ESTABLISHED, IkeState.REKEYING})
"""States of an IKE_SA that is there."""

Steps = tuple[tuple[MoveState, str], ...]
"""Transitions that follow, each with what there is to say about it."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What operators want, as far as it stops a move that was planned before."""

    paused: bool = False
    intent: NodeIntent = field(default_factory=NodeIntent)
    """Of this node."""
    pins: Mapping[str, Pin] = field(default_factory=dict)


class Place(Enum):
    """Where an IKE_SA of a move is."""

    SOURCE = "source"
    TARGET = "target"
    ELSEWHERE = "elsewhere"
    """On a third address of this node."""
    GONE = "gone"


def leaves(move: MoveRecord) -> bool:
    """Given a move, return whether its client is to make a new IKE_SA, so that the one here goes away."""
    return move.mechanism in {Mechanism.REDIRECT, Mechanism.RECONNECT}


def carries(move: MoveRecord) -> bool:
    """Given a move, return whether the IKE_SA's state is to be carried over to another node."""
    return move.source != move.target and not leaves(move)


def place_of(move: MoveRecord, sa: IkeSa | None) -> Place:
    """Given a move and one of its IKE_SAs as it is now, return where it is."""
    if sa is None or sa.state not in LIVE:
        return Place.GONE
    if leaves(move) or carries(move) or sa.path.local == move.source_address:
        return Place.SOURCE
    return Place.TARGET if sa.path.local == move.target_address else Place.ELSEWHERE


def obstacle(
    move: MoveRecord,
    sas: Sequence[IkeSa | None],
    behind: Collection[str],
    wishes: Wishes,
    settings: BalanceSettings,
    *,
    redirects: int,
    can_carry: bool,
) -> Steps:
    """Given a planned move and how things are now, return how it ends without being begun; empty: begin it.

    ``sas``: its IKE_SAs. ``behind``: the names of all IKE_SAs at their peer's address. ``redirects``: how often the
    most redirected of its clients was, in the last 300 s. What will be no different next time is refused, the rest
    cancelled.
    """
    places = {place_of(move, sa) for sa in sas}
    if places == {Place.TARGET}:
        return _cancelled("it is there already")
    if Place.GONE in places:
        return _cancelled("the IKE_SA is gone")
    if places != {Place.SOURCE} or (leaves(move) and any(sa and _strayed(move, sa) for sa in sas)):
        return _cancelled(f"it is no longer served at {move.source_address}")
    for key in move.sas:
        pin = wishes.pins.get(key) or wishes.pins.get(peer_of(key))
        if pin is not None and pin.node != move.target:
            return _cancelled(f"{key} was pinned")
    if move.mechanism is Mechanism.IMPLICIT and set(behind) != set(move.sas):
        return _cancelled("others came to or left its peer's address, which is steered as a whole")
    if move.mechanism is Mechanism.REDIRECT and redirects >= settings.redirects:
        return _cancelled(
            f"its client was redirected {redirects} times in 300 s; more would end it (RFC 5685 section 7)"
        )
    return _not_allowed(move, wishes, settings, can_carry=can_carry)


def _not_allowed(move: MoveRecord, wishes: Wishes, settings: BalanceSettings, *, can_carry: bool) -> Steps:
    by_operator = wishes.intent.mechanisms
    if move.reason is Reason.DRAIN and by_operator and move.mechanism not in by_operator:
        return _refused(f"{move.mechanism.word} is not what the operator allowed for this drain")
    allowed = settings.mechanisms | (by_operator if move.reason is Reason.DRAIN else frozenset())
    if move.mechanism is Mechanism.RECONNECT and move.mechanism not in allowed:
        return _refused("reconnect interrupts, and is not allowed here")
    if carries(move) and not can_carry:
        return _refused("this node carries no IKE_SAs over to others")
    return ()


def _strayed(move: MoveRecord, sa: IkeSa) -> bool:
    return sa.path.local != move.source_address


def _cancelled(note: str) -> Steps:
    return ((MoveState.CANCELLED, note),)


def _refused(note: str) -> Steps:
    return ((MoveState.REFUSED, note),)


def taken(move: MoveRecord, steps: Iterable[tuple[MoveState, str]], at: float) -> MoveRecord:
    """Given a move and the transitions that follow, return it with them. Raise ValueError: there is none such."""
    for state, note in steps:
        move = move.to(state, at=at, note=note)
    return move


_PROGRESS = {
    switch.MoveState.REQUESTED: MoveState.ACKNOWLEDGED,
    switch.MoveState.MOVED: MoveState.MOVED,
    switch.MoveState.VERIFIED: MoveState.VERIFIED,
    switch.MoveState.UNDOING: MoveState.ROLLING_BACK,
    switch.MoveState.UNDONE: MoveState.ROLLED_BACK,
}
"""What a step of the switch on this host is in the journal."""


def told(move: MoveRecord, record: switch.Move, wall: Callable[[float], float]) -> MoveRecord:
    """Given a requested move of one IKE_SA and what this host's executor did, return it with those steps.

    ``wall`` turns the executor's times into those of the journal. Of a client that is to leave, *moved* is the last
    that is seen from here: whether it arrived is to be looked up.
    """
    for step in record.steps[1:]:
        at = wall(step.at)
        if leaves(move) and step.state is switch.MoveState.VERIFIED:
            break
        if step.state in _PROGRESS:
            move = move.to(_PROGRESS[step.state], at=at, note=step.note)
        elif step.state is switch.MoveState.FAILED:
            for state, note in _failed(move.state, record.blame, step.note):
                move = move.to(state, at=at, note=note)
    return move


def _failed(state: MoveState, blame: switch.Blame, note: str) -> Steps:
    """It failed and was not undone: nothing had changed, or it cannot be undone."""
    if state in {MoveState.ROLLING_BACK, MoveState.MOVED}:
        return ((MoveState.TIMED_OUT, note),)
    if blame is switch.Blame.PEER:
        return ((MoveState.REFUSED, note),)
    if blame is switch.Blame.HOST:
        return ((MoveState.ROLLING_BACK, note), (MoveState.ROLLED_BACK, "nothing was changed"))
    return ((MoveState.TIMED_OUT, note),)


def impossible(error: MobikectlError) -> Steps:
    """Given why a requested move could not even be tried, return how it ends."""
    if isinstance(error, NotFoundError):
        return ((MoveState.TIMED_OUT, f"it went away before it was asked: {error.message}"),)
    return ((MoveState.REFUSED, error.message),)


def never_begun(why: str) -> Steps:
    """Given why a requested move was not begun after all, return its end."""
    return ((MoveState.ROLLING_BACK, why), (MoveState.ROLLED_BACK, "it was never begun"))


def rolled_back(places: Collection[Place], why: str) -> Steps:
    """Given where the IKE_SAs of a move that did not verify are in the end, return how it ends."""
    if set(places) == {Place.SOURCE}:
        return ((MoveState.ROLLING_BACK, why), (MoveState.ROLLED_BACK, "it is where it was"))
    return ((MoveState.ROLLING_BACK, why), (MoveState.TIMED_OUT, _where(places)))


def arrival(move: MoveRecord, arrived: bool | None) -> Steps:
    """Given a move whose client left, and whether the target saw it (None: it does not tell), return how it ends."""
    if arrived is None:
        return ((MoveState.VERIFIED, f"it left for {move.target}, which does not tell of its IKE_SAs"),)
    if arrived:
        return ((MoveState.VERIFIED, f"it was seen at {move.target}"),)
    return ((MoveState.TIMED_OUT, f"it left, and was not seen at {move.target}"),)


def interrupted(move: MoveRecord, places: Collection[Place], arrived: bool | None = None) -> Steps:
    """Given a begun move that a restart found, and where its IKE_SAs are now, return how it ends.

    ``arrived``: of clients that left, as for `arrival`. It is never begun again: who is where, that is what counts.
    """
    state, where = move.state, set(places)
    if state is MoveState.ROLLING_BACK:
        if where == {Place.SOURCE}:
            return ((MoveState.ROLLED_BACK, "found where it was, after a restart"),)
        return ((MoveState.TIMED_OUT, f"after a restart: {_where(places)}"),)
    if leaves(move) and where == {Place.GONE}:
        left = () if state is MoveState.MOVED else ((MoveState.MOVED, "it left while this node restarted"),)
        return (*left, *arrival(move, arrived))
    if where == {Place.TARGET}:
        came = () if state is MoveState.MOVED else ((MoveState.MOVED, "found after a restart"),)
        return (*came, (MoveState.VERIFIED, "it is at the target after a restart"))
    if where == {Place.SOURCE}:
        return (
            (MoveState.ROLLING_BACK, "a restart interrupted it"),
            (MoveState.ROLLED_BACK, "it is where it was"),
        )
    return ((MoveState.TIMED_OUT, f"after a restart: {_where(places)}"),)


def _where(places: Collection[Place]) -> str:
    found = list(places)
    return ", ".join(f"{found.count(place)} {place.value}" for place in Place if place in found)
