"""Which planned moves may begin now: in the plan's order, so many at a time, one for each peer address. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobikectl.policy.cluster import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.cluster.records import MoveRecord, Versioned
    from mobikectl.model import IpAddress


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one node does at a time."""

    moves: int = 64
    """Moves that are under way: their steering routes and redirects become few batches."""
    redirects_of_one_address: int = 16
    """Redirects under way of clients behind one address. Whatever steers is alone there."""


@dataclass(frozen=True, slots=True)
class _Running:
    peer: IpAddress | None
    steers: bool


class Queue:
    """The planned moves of one node, and those that are under way."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._waiting: dict[int, Versioned[MoveRecord]] = {}
        self._running: dict[int, _Running] = {}
        self._drain_from = 0.0
        self._sorted = True

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many are under way."""
        return len(self._running)

    def put(self, move: Versioned[MoveRecord]) -> None:
        """Given a planned move, have it wait for its turn."""
        self._sorted = self._sorted and move.value.number > max(self._waiting, default=0)
        self._waiting[move.value.number] = move

    def drop(self, number: int) -> None:
        """Given a move's number: it is not to begin any more."""
        self._waiting.pop(number, None)

    def clear(self) -> None:
        """Forget what waits: the journal is read anew."""
        self._waiting.clear()

    def done(self, number: int) -> None:
        """Given a move that was taken: it needs its place no longer."""
        self._running.pop(number, None)

    def take(
        self,
        now: float,
        peer: Callable[[MoveRecord], IpAddress | None],
        steers: Callable[[MoveRecord], bool],
        rate_per_s: float | None,
    ) -> tuple[list[Versioned[MoveRecord]], float | None]:
        """Return the moves that begin now, and when to ask again although nothing changed (None: only then).

        ``peer`` tells a move's peer address, ``steers`` whether it changes the route to it, and ``rate_per_s`` how many
        IKE_SAs a drain may move in a second (None: any number).
        """
        if not self._sorted:
            self._waiting = dict(sorted(self._waiting.items()))
            self._sorted = True
        begun: list[Versioned[MoveRecord]] = []
        again: float | None = None
        for number, move in self._waiting.items():
            if len(self._running) >= self._limits.moves:
                break
            drains = move.value.reason is Reason.DRAIN and rate_per_s is not None
            if drains and now < self._drain_from:
                again = self._drain_from
                continue
            place = _Running(peer(move.value), steers(move.value))
            if not self._free(place):
                continue
            self._running[number] = place
            if drains and rate_per_s:
                self._drain_from = max(now, self._drain_from) + len(move.value.sas) / rate_per_s
            begun.append(move)
        for move in begun:
            del self._waiting[move.value.number]
        return begun, again

    def _free(self, place: _Running) -> bool:
        if place.peer is None:
            return True
        there = [other for other in self._running.values() if other.peer == place.peer]
        if place.steers:
            return not there
        return len(there) < self._limits.redirects_of_one_address and not any(o.steers for o in there)
