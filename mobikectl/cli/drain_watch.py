"""A drain while it goes on: what left, how, who is still there, and when there is nothing more to wait for."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from mobikectl.cli.history import follow_moves
from mobikectl.cluster.caveats import caveats
from mobikectl.cluster.records import MoveState
from mobikectl.errors import StoreUnreachableError
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from mobikectl.cluster.records import MoveRecord, SaRow
    from mobikectl.cluster.state import ClusterState, Journal
    from mobikectl.cluster.store import Store

LOOK_S = 1.0
"""How often the node's own numbers are looked at; moves come as they happen."""
RESTING = 5.0
"""A look that took so long is followed by a pause of at least so many times that: a large cluster is much to read."""
AGREEING_LOOKS = 3
"""Looks in a row that must find nothing more to come: reports are a moment old."""
AWAY_S = 30.0
"""A node that is no member for so long is not waited for: a sidecar that is started anew is back earlier."""


class End(Enum):
    """How waiting for a drain ended."""

    EMPTY = "empty"
    STUCK = "stuck"
    """Nothing more will leave by itself."""
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    AWAY = "away"
    """The node is no member: nobody tells what it serves."""
    UNDRAINED = "undrained"
    """Somebody ended the drain."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the policy says of a node that is drained."""

    ahead: int
    """IKE_SAs that the plan of now would take away."""
    later: bool
    """Whether a later plan can say something else although nothing is observed."""
    notes: tuple[str, ...] = ()
    """What the plan says of the node."""


@dataclass(slots=True)
class DrainRecord:
    """What was seen of a node's moves since the drain began (or was first looked at)."""

    node: str
    at_start: Mapping[str, str]
    """Key -> peer identity of each IKE_SA that was there."""
    moves: dict[int, MoveRecord] = field(default_factory=dict)

    @classmethod
    def begin(cls, node: str, rows: Iterable[SaRow], journal: Journal) -> DrainRecord:
        """Given the node, its IKE_SAs and the journal, return the record, with what is under way in it."""
        record = cls(node, {row.key: row.peer_id for row in rows})
        for move in journal.moves:
            if not move.value.done:
                record.take(move.value)
        return record

    def take(self, move: MoveRecord) -> bool:
        """Given a move as it is now, keep it; return whether it takes something off the node."""
        if move.source != self.node or move.target == self.node:
            return False
        self.moves[move.number] = move
        return True

    @property
    def pending(self) -> int:
        """IKE_SAs whose move is planned or under way."""
        return sum(len(move.sas) for move in self.moves.values() if not move.done)

    def left(self) -> dict[str, str]:
        """Return key -> mechanism of each IKE_SA that was seen to leave."""
        return {
            key: move.mechanism.word
            for move in self.moves.values()
            if move.state is MoveState.VERIFIED
            for key in move.sas
        }

    def by_mechanism(self) -> dict[str, int]:
        """Return mechanism -> how many left by it, the most first."""
        return dict(Counter(self.left().values()).most_common())

    def last_failure(self, key: str) -> MoveRecord | None:
        """Given an IKE_SA, return its last move that did not end well."""
        failed = [
            move
            for _, move in sorted(self.moves.items())
            if key in move.sas and move.done and move.state not in {MoveState.VERIFIED, MoveState.CANCELLED}
        ]
        return failed[-1] if failed else None


class Display(Protocol):
    """Who shows a drain as it goes on."""

    def moved(self, move: MoveRecord) -> None:
        """Given a move of the node that was appended or changed, show it."""

    def progress(self, remaining: int, total: int, note: str) -> None:
        """Given how many IKE_SAs are still there of how many, and what holds it up, show that."""


@dataclass(slots=True)
class _Patience:
    """Counts looks that agree."""

    stuck: int = 0
    away_since: float | None = None


class DrainWatch:
    """Waits until a node is empty, or until nothing more is to come."""

    def __init__(
        self,
        store: Store,
        record: DrainRecord,
        display: Display,
        outlook: Callable[[], Awaitable[Outlook]],
    ) -> None:
        self._store = store
        self._record = record
        self._display = display
        self._outlook = outlook
        self._patience = _Patience()

    async def run(self, journal: Journal) -> End:
        """Given the journal as the record began with it, wait; return how it ended. Cancel it to stop waiting."""
        async with TaskGroup() as tasks:
            following = tasks.create_task(self._follow(journal))
            try:
                while True:
                    began = asyncio.get_running_loop().time()
                    end = await self._look()
                    if end is not None:
                        return end
                    took = asyncio.get_running_loop().time() - began
                    await asyncio.sleep(max(LOOK_S, RESTING * took))
            finally:
                following.cancel()

    async def _follow(self, journal: Journal) -> None:
        async for move in follow_moves(self._store, journal):
            if self._record.take(move.value):
                self._display.moved(move.value)

    async def _look(self) -> End | None:
        try:
            state = await self._store.state()
        except StoreUnreachableError:
            self._say(None, "the store is not reachable: no move is begun; waiting for it")
            return None
        if not state.intent(self._record.node).value.drained:
            return End.UNDRAINED
        if self._record.node not in state.members:
            return self._away()
        self._patience.away_since = None
        report = state.reports.get(self._record.node)
        remaining = report.value.ike_sas if report else None
        if remaining == 0 and not self._record.pending:
            self._say(0, "")
            return End.EMPTY
        return await self._stuck(state, remaining)

    async def _stuck(self, state: ClusterState, remaining: int | None) -> End | None:
        held = caveats(state)
        if held or remaining is None or self._record.pending:
            self._patience.stuck = 0
            self._say(remaining, held[0] if held else "")
            return None
        outlook = await self._outlook()
        self._say(remaining, outlook.notes[0] if outlook.notes and not outlook.ahead else "")
        if outlook.ahead or outlook.later:
            self._patience.stuck = 0
            return None
        self._patience.stuck += 1
        return End.STUCK if self._patience.stuck >= AGREEING_LOOKS else None

    def _away(self) -> End | None:
        now = asyncio.get_running_loop().time()
        if self._patience.away_since is None:
            self._patience.away_since = now
        self._say(None, f"{self._record.node} is not there: its sidecar is away or its lease ran out")
        return End.AWAY if now - self._patience.away_since >= AWAY_S else None

    def _say(self, remaining: int | None, note: str) -> None:
        total = len(self._record.at_start)
        left = sum(1 for key in self._record.left() if key in self._record.at_start)
        shown = total - left if remaining is None else remaining
        self._display.progress(shown, max(total, shown), note)


@dataclass(frozen=True, slots=True)
class Stay:
    """An IKE_SA that is still on the node."""

    key: str
    peer_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a drain, as far as it was seen."""

    node: str
    end: End
    at_start: int
    left: Mapping[str, int]
    """Mechanism -> how many were verified to be elsewhere."""
    otherwise: int
    """Were there at the start, are there no more, and no move of the journal took them: ended by their peers."""
    came: int
    """Are there now and were not at the start."""
    under_way: int
    stays: tuple[Stay, ...] | None
    """None: the node does not tell."""
    notes: tuple[str, ...] = ()


def summarize(
    record: DrainRecord,
    end: End,
    rows: Iterable[SaRow] | None,
    why: Mapping[str, str],
    notes: tuple[str, ...],
) -> Summary:
    """Given the record, the node's IKE_SAs now (None: unknown) and why each stays, return what became of the drain."""
    left = record.left()
    now = None if rows is None else {row.key: row.peer_id for row in rows}
    there = now or {}
    return Summary(
        node=record.node,
        end=end,
        at_start=len(record.at_start),
        left=record.by_mechanism(),
        otherwise=0 if now is None else sum(1 for k in record.at_start if k not in there and k not in left),
        came=sum(1 for key in there if key not in record.at_start),
        under_way=record.pending,
        stays=None
        if now is None
        else tuple(Stay(key, peer, _why(record, why, key)) for key, peer in sorted(there.items())),
        notes=notes,
    )


def _why(record: DrainRecord, why: Mapping[str, str], key: str) -> str:
    failed = record.last_failure(key)
    said = [why.get(key, "")]
    if failed is not None:
        step = failed.steps[-1]
        said.insert(
            0, f"{failed.mechanism.word}: {step.state.value}" + (f" ({step.note})" if step.note else "")
        )
    return "; ".join(part for part in said if part) or "not told"
