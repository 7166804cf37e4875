"""The leader's work: look at the store, decide, write down what is to be done.

Thin: what is decided is said by `mobikectl.cluster.decisions`.

Everything that it writes carries its fencing token. Store away: nothing is decided, it is tried again with growing
pauses until the leadership is over; what it remembers of the reports then makes old ones count as old.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobikectl.cluster.backend import Backoff, Gap, lease_clock
from mobikectl.cluster.decisions import Decision, Memory, decide, record_of
from mobikectl.cluster.failovers import grants
from mobikectl.cluster.node_settings import Balance
from mobikectl.cluster.orders import OrderBook, answers
from mobikectl.cluster.reading import Observed, Reading, read_view
from mobikectl.cluster.records import MoveState, Versioned
from mobikectl.cluster.state import Changed
from mobikectl.cluster.store import MAX_MOVES
from mobikectl.errors import FencedError, LeaseLostError, LostRaceError, StoreError
from mobikectl.policy.cluster_settings import BalanceSettings
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from mobikectl.cluster.leader import Leadership
    from mobikectl.cluster.store import Store

log = logging.getLogger(__name__)

TOGETHER_S = 0.1
"""Changes that come within this time are looked at together."""
KEEP_MOVES = 2_000
"""Moves that the journal keeps."""
TRIM_S = 60.0
RESTING = 5.0
"""A look that took so long is followed by a pause of at least so many times that."""
WORTH_A_LOOK = frozenset({"intents", "cluster", "members", "orders", "pins"})
"""Kinds of changes below ``state/`` that are answered at once; reports come all the time."""


Tell = Callable[[str, str, Mapping[str, object]], None]
"""Where the decider says what it does: a word for programs, a line for people, details."""


@dataclass(frozen=True, slots=True)
class DeciderSettings:
    """How it decides."""

    policy: BalanceSettings = field(default_factory=BalanceSettings)
    balance: Balance = Balance.AUTO


def _silent(_name: str, _text: str, _data: Mapping[str, object]) -> None:
    pass


class Decider:
    """Decides while its node leads: hand `lead` to `mobikectl.cluster.leader.Election.run`."""

    def __init__(
        self,
        store: Store,
        settings: DeciderSettings,
        *,
        tell: Tell = _silent,
        clock: Callable[[], float] = lease_clock,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.decision: Decision | None = None
        """Of the last round; None while this node does not lead."""
        self.error: StoreError | None = None
        """Why the last round did not come to its end."""
        self._store = store
        self._settings = settings
        self._tell = tell
        self._clock = clock
        self._wall = wall
        self._wake = asyncio.Event()
        self._claims = asyncio.Event()

    async def lead(self, leadership: Leadership) -> None:
        """Given the leadership, decide until it is over. Raise LeaseLostError or FencedError in an ExceptionGroup."""
        self._tell(
            "leading", f"this node decides, with token {leadership.token}", {"token": leadership.token}
        )
        try:
            async with TaskGroup() as tasks:
                watching = [
                    tasks.create_task(self._watch_state()),
                    tasks.create_task(self._watch_journal()),
                    tasks.create_task(self._fail_over(leadership)),
                ]
                await self._rounds(leadership)
                for task in watching:
                    task.cancel()
        finally:
            self.decision = None
            self.error = None
            self._tell("led", "this node decides no longer", {})

    async def _rounds(self, leadership: Leadership) -> None:
        wait = Backoff(0.2, self._settings.policy.interval_s)
        observed, memory, book = Observed(), Memory(), OrderBook()
        trimmed_at = self._clock()
        while True:
            began = self._clock()
            self._wake.clear()
            try:
                reading = await read_view(
                    self._store,
                    self._settings.policy,
                    now=began,
                    observed=observed,
                    relieving=memory.relieving,
                    wary=True,
                )
                observed = reading.observed
                if reading.state.claims:
                    self._claims.set()
                obeyed = await self._obey(reading, book, leadership)
                book = book.looked(reading)
                if obeyed:
                    continue  # what was ordered is on its way: the plan has to know
                decision = decide(
                    reading,
                    memory,
                    self._settings.policy,
                    self._settings.balance,
                    token=leadership.token,
                )
                self._note(decision)
                await self._carry_out(decision, reading, leadership)
                memory = decision.memory
                if self._clock() - trimmed_at > TRIM_S:
                    trimmed_at = self._clock()
                    await self._store.trim(KEEP_MOVES, token=leadership.token)
            except (LeaseLostError, FencedError):
                raise
            except StoreError as error:
                self._fail(error)
                await asyncio.sleep(wait.next())
                continue
            self.error = None
            wait.reset()
            await self._pause(began, decision.next_at)

    async def _carry_out(self, decision: Decision, reading: Reading, leadership: Leadership) -> None:
        for cancel in decision.cancel:
            record = cancel.move.value.to(MoveState.CANCELLED, at=self._wall(), note=cancel.why)
            try:
                await self._store.update(cancel.move, record)
            except (LeaseLostError, FencedError):
                raise
            except LostRaceError:
                continue  # its node began it at this moment, or gave it up
            self._tell("move-cancelled", f"move {record.number}: {cancel.why}", {"move": record.number})
        records = [record_of(move, reading, at=self._wall()) for move in decision.moves]
        for start in range(0, len(records), MAX_MOVES):
            chunk = records[start : start + MAX_MOVES]
            stored = await self._store.append(chunk, token=leadership.token)
            for versioned, move in zip(stored, decision.moves[start:], strict=False):
                number = versioned.value.number
                self._tell("move-planned", f"move {number}: {move.explain()}", {"move": number})

    async def _fail_over(self, leadership: Leadership) -> None:
        """Give the IKE_SAs of dead nodes to those that claim them, at once: this waits for no plan and no pause."""
        wait = Backoff(0.1, self._settings.policy.interval_s)
        self._claims.set()
        while True:
            await self._claims.wait()
            self._claims.clear()
            try:
                await self._grant(leadership)
            except (LeaseLostError, FencedError):
                raise
            except StoreError as error:
                log.info("claims wait: %s", error)
                self._claims.set()
                await asyncio.sleep(wait.next())
            else:
                wait.reset()

    async def _grant(self, leadership: Leadership) -> None:
        state = await self._store.state()
        if not state.claims:
            return
        granted = grants(state, await self._store.journal(), at=self._wall())
        for start in range(0, len(granted), MAX_MOVES):
            stored = await self._store.append(granted[start : start + MAX_MOVES], token=leadership.token)
            for versioned in stored:
                move = versioned.value
                text = f"move {move.number}: {move.sas[0]} goes on at {move.target}: {move.steps[0].note}"
                self._tell("failover", text, {"move": move.number})

    async def _obey(self, reading: Reading, book: OrderBook, leadership: Leadership) -> bool:
        """Answer the operators' orders; return whether any was answered with a move."""
        obeyed = False
        for answer in answers(reading, book, self._settings.policy, at=self._wall()):
            order = answer.order.value
            try:
                if answer.move is None:
                    await self._store.refuse(answer.order, answer.refused, token=leadership.token)
                    text = f"{order.sa} does not go to {order.node}: {answer.refused}"
                    self._tell("order-refused", text, {"sa": order.sa})
                    continue
                (stored,) = await self._store.append(
                    [answer.move], token=leadership.token, order=answer.order
                )
            except (LeaseLostError, FencedError):
                raise
            except LostRaceError:
                continue  # withdrawn at this moment
            obeyed = True
            number = stored.value.number
            text = f"move {number}: {order.sa} to {order.node}: {stored.value.steps[0].note}"
            self._tell("move-planned", text, {"move": number})
        for forgotten in book.forgotten(reading):
            with contextlib.suppress(LostRaceError):
                await self._store.end_order(forgotten)
        return obeyed

    def _note(self, decision: Decision) -> None:
        before = self.decision.notes + self.decision.plan.notes if self.decision else ()
        self.decision = decision
        for note in decision.notes + decision.plan.notes:
            if note not in before:
                log.info("plan: %s", note)

    def _fail(self, error: StoreError) -> None:
        if self.error is None:
            self._tell("store-lost", f"nothing is decided: {error}", {})
        self.error = error

    async def _pause(self, began: float, next_at: float) -> None:
        """Wait until there is something to look at: a change, a deadline, or new reports."""
        now = self._clock()
        least = max(TOGETHER_S, RESTING * (now - began))
        until = max(min(next_at, now + self._settings.policy.interval_s), now + least)
        await asyncio.sleep(least)
        try:
            async with asyncio.timeout(max(until - self._clock(), 0)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _watch_state(self) -> None:
        async def follow() -> None:
            after = (await self._store.state()).revision
            async with aclosing(self._store.watch_state(after=after)) as changes:
                async for change in changes:
                    if isinstance(change, Gap) or change.kind == "claims":
                        self._claims.set()
                    if isinstance(change, Gap) or (
                        isinstance(change, Changed) and change.kind in WORTH_A_LOOK
                    ):
                        self._wake.set()

        await self._again(follow)

    async def _watch_journal(self) -> None:
        async def follow() -> None:
            after = (await self._store.journal(1)).revision
            async with aclosing(self._store.follow(after=after)) as moves:
                async for move in moves:
                    if not isinstance(move, Versioned) or move.value.done:
                        self._wake.set()

        await self._again(follow)

    async def _again(self, follow: Callable[[], Awaitable[None]]) -> None:
        """Do it for ever: a watch only makes the next look come sooner."""
        wait = Backoff(1.0, 30.0)
        while True:
            try:
                await follow()
            except StoreError as error:
                log.debug("watch: %s", error)
            await asyncio.sleep(wait.next())
