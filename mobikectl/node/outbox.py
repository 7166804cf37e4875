"""What became of moves, on its way into the journal: kept until the store has it, however long it is away.

It holds at most what was under way when the store went away: nothing is begun while it is `behind`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobikectl.cluster.backend import Backoff
from mobikectl.cluster.records import MoveState
from mobikectl.errors import LostRaceError, StoreError, StoreValueError
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.cluster.records import MoveRecord, Versioned
    from mobikectl.cluster.store import Store

log = logging.getLogger(__name__)

WRITERS = 4
"""Records that are written at the same time."""


@dataclass(slots=True)
class _Letter:
    stored: Versioned[MoveRecord]
    wanted: MoveRecord
    doubtful: bool = False
    """What the store has is not known: read it first."""


class Outbox:
    """Writes the outcomes of this node's moves. ``sent`` gets each as it is stored; None: given up."""

    def __init__(self, store: Store, sent: Callable[[int, Versioned[MoveRecord] | None], None]) -> None:
        self._store = store
        self._sent = sent
        self._letters: dict[int, _Letter] = {}
        self._waiting: deque[int] = deque()
        self._some = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._failing = False

    @property
    def behind(self) -> bool:
        """Whether the store did not take the last outcome: nothing new should be begun."""
        return self._failing

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, stored: Versioned[MoveRecord], wanted: MoveRecord, *, doubtful: bool = False) -> None:
        """Given a move as it is stored (``doubtful``: perhaps otherwise) and as it is now, have that written."""
        self._letters[wanted.number] = _Letter(stored, wanted, doubtful)
        self._waiting.append(wanted.number)
        self._some.set()
        self._empty.clear()

    async def run(self) -> None:
        """Write what is put in, for ever."""
        async with TaskGroup() as tasks:
            for _ in range(WRITERS):
                tasks.create_task(self._write())

    async def flush(self, timeout: float) -> bool:
        """Write what is left (while `run` does not), at most for so many seconds; return whether all was."""
        try:
            async with asyncio.timeout(timeout), TaskGroup() as tasks:
                writer = tasks.create_task(self._write())
                await self._empty.wait()
                writer.cancel()
        except TimeoutError:
            return False
        return True

    async def _write(self) -> None:
        wait = Backoff()
        while True:
            while not self._waiting:
                self._some.clear()
                await self._some.wait()
            number = self._waiting.popleft()
            letter = self._letters.get(number)
            if letter is None:
                continue
            try:
                stored = await self._deliver(letter)
            except asyncio.CancelledError:
                self._waiting.append(number)
                raise
            except LostRaceError:
                letter.doubtful = True
                self._waiting.append(number)
            except StoreValueError as error:
                log.warning("move %d: its outcome cannot be recorded: %s", number, error)
                self._drop(number, None)
            except StoreError as error:
                if not self._failing:
                    log.warning("outcomes of moves wait for the store: %s", error)
                self._failing = letter.doubtful = True
                self._waiting.append(number)
                await asyncio.sleep(wait.next())
            else:
                self._failing = False
                wait.reset()
                self._drop(number, stored)

    async def _deliver(self, letter: _Letter) -> Versioned[MoveRecord] | None:
        """Write one outcome; return the move as stored, None when the journal says something else, or nothing.

        Where it turns out that a move was never requested, it stays planned.
        """
        wanted = letter.wanted
        if letter.doubtful:
            found = await self._store.move(wanted.number)
            if found is None:
                return None
            if found.value.steps == wanted.steps or found.value.state is MoveState.PLANNED:
                return found
            if found.value.steps != wanted.steps[: len(found.value.steps)]:
                log.warning("move %d: somebody else ended it (%s)", wanted.number, found.value.state.value)
                return None
            letter.stored, letter.doubtful = found, False
        return await self._store.update(letter.stored, wanted)

    def _drop(self, number: int, stored: Versioned[MoveRecord] | None) -> None:
        del self._letters[number]
        if not self._letters:
            self._empty.set()
        self._sent(number, stored)
