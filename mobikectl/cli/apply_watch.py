"""Following what an operator's `apply` set going, until it has come to its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobikectl.cli.history import follow_moves
from mobikectl.cluster.decisions import URGENT
from mobikectl.cluster.records import MoveState
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.cluster.records import MoveRecord
    from mobikectl.cluster.state import Journal
    from mobikectl.cluster.store import Store


@dataclass(slots=True)
class Applied:
    """The moves that were begun after the order."""

    expected: int
    """IKE_SAs that were to be moved when the order was given."""
    moves: dict[int, MoveRecord] = field(default_factory=dict)

    @property
    def sas(self) -> int:
        """IKE_SAs in moves that were not cancelled."""
        return sum(len(m.sas) for m in self.moves.values() if m.state is not MoveState.CANCELLED)

    @property
    def under_way(self) -> int:
        """Moves that have not ended."""
        return sum(1 for move in self.moves.values() if not move.done)

    def count(self, state: MoveState) -> int:
        """Given a state, return how many IKE_SAs' moves are in it."""
        return sum(len(move.sas) for move in self.moves.values() if move.state is state)

    @property
    def good(self) -> bool:
        """Whether all that began was verified, and something did."""
        return bool(self.moves) and all(move.state is MoveState.VERIFIED for move in self.moves.values())


class ApplyWatch:
    """Waits for the moves of an order.

    The leader carries it out in rounds and does not say which is the last: it is over when as many IKE_SAs as were to
    be moved have been, or when all moves ended and no new one came for ``quiet_s``; and without success when nothing
    happened for ``patience_s``.
    """

    def __init__(
        self,
        store: Store,
        applied: Applied,
        *,
        quiet_s: float,
        patience_s: float,
        show: Callable[[MoveRecord], None],
    ) -> None:
        self._store = store
        self._applied = applied
        self._quiet_s = quiet_s
        self._patience_s = patience_s
        self._show = show
        self._news = asyncio.Event()

    async def run(self, journal: Journal) -> None:
        """Given the journal as it was before the order, return when there is nothing more to wait for."""
        async with TaskGroup() as tasks:
            following = tasks.create_task(self._follow(journal))
            try:
                while (seconds := self._wait_s()) is not None:
                    self._news.clear()
                    async with asyncio.timeout(seconds):
                        await self._news.wait()
            except TimeoutError:
                pass
            finally:
                following.cancel()

    async def _follow(self, journal: Journal) -> None:
        last = max((move.value.number for move in journal.moves), default=0)
        async for versioned in follow_moves(self._store, journal):
            move = versioned.value
            if move.number > last and move.reason not in URGENT:
                self._applied.moves[move.number] = move
                self._show(move)
                self._news.set()

    def _wait_s(self) -> float | None:
        """Return how long the next change is waited for; None: the order has been carried out."""
        applied = self._applied
        if not applied.moves or applied.under_way:
            return self._patience_s
        return None if applied.sas >= applied.expected else self._quiet_s
