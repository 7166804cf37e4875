"""The model of charon's IKE_SAs, kept from events and verified by rare listings.

`SaTracker` is the one owner of the model. Two rules keep it right without polling: every gap in the
events is followed by a listing, and an SA that events touched while a listing was read is asked for
again, because the list may have been the older of the two.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from mobikectl.charon import commands, sa_model
from mobikectl.charon.sa_events import SaEvent, SaEventsDropped, SaModelResynced
from mobikectl.charon.sa_model import Step
from mobikectl.charon.sas import (
    EVENTS,
    OPTIONAL_EVENTS,
    ChildRekey,
    ChildUpDown,
    IkeRekey,
    IkeUpDown,
    log_matters,
    parse_event,
)
from mobikectl.charon.session import Event, EventGap, EventLost, LinkState
from mobikectl.errors import CharonError, CharonTimeoutError
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from mobikectl.charon.sas import Observation
    from mobikectl.charon.session import Session
    from mobikectl.charon.transport import Packet
    from mobikectl.model import IkeSa

_FEW = 16
"""Up to so many SAs are asked for one by one; for more, one listing is cheaper."""
_RACES = 3
"""How often one SA is asked for again because an event came meanwhile, before the events are trusted."""
_SETTLE_S = 0.1
"""Doubts that arise within so many seconds are asked about together."""


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """How the model is kept; times in seconds.

    `verify_s`: between two listings without CHILD_SAs. `children_every`: each so many listings the
    CHILD_SAs are listed too (with many SAs that costs charon much; 0: only after a gap).
    `heartbeat_s`: between two signs of life asked from charon. `retry_s`: before a failed listing is
    tried again. `watch_log`: subscribe to the log for retransmits.
    """

    verify_s: float = 60.0
    children_every: int = 15
    heartbeat_s: float = 5.0
    retry_s: float = 1.0
    list_timeout_s: float = 15.0
    watch_log: bool = True
    feed_limit: int = 20_000


class SaFeed:
    """One reader's view of the events: iterate it. Events that wait are bounded; see SaEventsDropped.

    Use it as a context manager, or call `close`: then the iteration ends.
    """

    def __init__(self, feeds: set[SaFeed], limit: int) -> None:
        self._feeds = feeds
        self._limit = limit
        self._waiting: deque[SaEvent] = deque()
        self._dropped = 0
        self._ready = asyncio.Event()
        self._closed = False
        feeds.add(self)

    def put(self, events: list[SaEvent]) -> None:
        """Add events; when too many wait, drop them all and remember how many."""
        self._waiting.extend(events)
        if len(self._waiting) > self._limit:
            self._dropped += len(self._waiting)
            self._waiting.clear()
        self._ready.set()

    def take(self) -> list[SaEvent]:
        """Return what waits, without waiting. Who only takes does not hear how many were dropped."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def close(self) -> None:
        """End the iteration, after what still waits, and get no more events."""
        self._closed = True
        self._feeds.discard(self)
        self._ready.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SaEvent:
        while True:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                return SaEventsDropped(dropped)
            if self._waiting:
                return self._waiting.popleft()
            if self._closed:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()


class SaTracker:
    """Keeps the model of one charon's IKE_SAs while `run` runs.

    Read `sas`, subscribe to what changes, ask for one SA afresh with `refresh`, wait with `until`.
    `role_of`: given an IKE_SA's number, returns whether it was initiated here, None when that is not known. charon's
    own flag says who initiated the last rekeying, which may be the responder, and goes along when such an IKE_SA is
    carried over to another node.
    """

    def __init__(
        self,
        session: Session,
        config: TrackerConfig | None = None,
        *,
        role_of: Callable[[int], bool | None] | None = None,
    ) -> None:
        self._session = session
        self._role_of = role_of or (lambda _uniqueid: None)
        self._config = config or TrackerConfig()
        self._sas: dict[int, IkeSa] = {}
        self._snapshot: Mapping[int, IkeSa] = MappingProxyType({})
        self._feeds: set[SaFeed] = set()
        self._in_step = False
        self._listing = asyncio.Lock()
        self._touched: set[int] = set()
        self._doubtful: set[int] = set()
        self._gap: str | None = None
        self._gaps = 0
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._last_error: CharonError | None = None

    # --- what is known --------------------------------------------------------------------------

    @property
    def sas(self) -> Mapping[int, IkeSa]:
        """The IKE_SAs by number: a read-only snapshot that later events do not change."""
        if self._snapshot is _STALE:
            self._snapshot = MappingProxyType(dict(self._sas))
        return self._snapshot

    @property
    def in_step(self) -> bool:
        """Whether events come and a listing agreed since the last gap.

        While it is False, `sas` holds what was known last: charon may be restarting, and its SAs may
        still be in the kernel.
        """
        return self._in_step and self._session.status.state is LinkState.UP

    @property
    def last_error(self) -> CharonError | None:
        """Why the last listing failed; None when it did not."""
        return self._last_error

    def subscribe(self) -> SaFeed:
        """Return a reader of all events from now on."""
        return SaFeed(self._feeds, self._config.feed_limit)

    async def until(self, true: Callable[[SaTracker], bool], timeout: float) -> None:
        """Wait until `true` of this tracker holds. Raise CharonTimeoutError after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not true(self):
                    await self._changed.wait()
        except TimeoutError as error:
            raise CharonTimeoutError(
                f"the IKE_SAs did not become what was waited for within {timeout:g} s"
            ) from error

    def know_role(self, uniqueid: int, *, original_initiator: bool) -> IkeSa | None:
        """Given who initiated an IKE_SA, which may be told after it is known, return it if that corrects the model."""
        known = self._sas.get(uniqueid)
        if known is None or known.original_initiator is original_initiator:
            return None
        corrected = replace(known, original_initiator=original_initiator)
        self._apply(Step(changes={uniqueid: corrected}))
        return corrected

    # --- asking charon --------------------------------------------------------------------------

    async def refresh(self, uniqueid: int) -> IkeSa | None:
        """Ask charon for one IKE_SA with its CHILD_SAs and counters, put it into the model, return it.

        None: it does not exist (any more). Raises what `Session.stream` raises.
        """
        async with self._listing:
            for _ in range(_RACES):
                self._touched.clear()
                listed = await commands.list_sas(
                    self._session, ike_id=uniqueid, timeout=self._config.list_timeout_s
                )
                if uniqueid not in self._touched:
                    break
            listed = self._with_roles(listed)
            step = sa_model.resync(self._sas, listed, with_children=True, within={uniqueid})
            self._doubtful.discard(uniqueid)
            self._apply(step)
        return self._sas.get(uniqueid)

    async def resync(self, reason: str = "asked for", *, with_children: bool = True) -> SaModelResynced:
        """List all IKE_SAs, put the model in step, and return (and emit) what was different.

        Raises what `Session.stream` raises; the model is then as before.
        """
        async with self._listing:
            gaps = self._gaps
            self._touched.clear()
            listed = await commands.list_sas(
                self._session, children=with_children, timeout=self._config.list_timeout_s
            )
            listed = self._with_roles(listed)
            step = sa_model.resync(
                self._sas, listed, with_children=with_children, touched=frozenset(self._touched)
            )
            resynced = SaModelResynced(reason, tuple(step.differences))
            step.events.append(resynced)
            if gaps == self._gaps and self._gap is not None:
                self._gap = None
                self._in_step = True
            self._last_error = None
            told = {sa.uniqueid for sa in listed if with_children or sa.uniqueid in self._sas}
            self._doubtful -= told - self._touched
            self._apply(step)
        return resynced

    # --- keeping it -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the model until cancelled. Reconnects by itself.

        Raise CharonRefusedError (in an ExceptionGroup) when charon lacks the events that are needed.
        """
        async with TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="charon events")
            tasks.create_task(self._verify(), name="charon listing")
            tasks.create_task(self._follow_status(), name="charon status")
            tasks.create_task(self._session.watch(self._config.heartbeat_s), name="charon heartbeat")

    async def _follow(self) -> None:
        optional = (*OPTIONAL_EVENTS, "log") if self._config.watch_log else OPTIONAL_EVENTS
        async with aclosing(self._session.events(EVENTS, optional=optional, keep=_keep)) as items:
            async for item in items:
                match item:
                    case Event(name=name, message=message):
                        for seen in parse_event(name, message):
                            self._apply(sa_model.observe(self._sas, self._with_role(seen)))
                    case EventLost():
                        self._out_of_step()
                    case EventGap(reason=reason):
                        self._out_of_step()
                        self._gap = reason
                        self._gaps += 1
                        self._wake.set()

    async def _follow_status(self) -> None:
        """Wake those who wait for `in_step`: it depends on the session too."""
        status = self._session.status
        while True:
            status = await self._session.status_after(status)
            self._tell_changed()

    def _out_of_step(self) -> None:
        self._in_step = False
        self._tell_changed()

    async def _verify(self) -> None:
        """List after each gap at once, doubtful SAs soon, and everything now and then."""
        due = time.monotonic() + self._config.verify_s
        listings = 0
        while True:
            await self._woken(due - time.monotonic())
            try:
                if self._gap is not None:
                    await self._after_gap(self._gap)
                elif time.monotonic() >= due:
                    listings += 1
                    every = self._config.children_every
                    await self.resync("verification", with_children=every > 0 and listings % every == 0)
                else:
                    await asyncio.sleep(_SETTLE_S)
                    await self._ask_doubtful()
                    continue
            except CharonError as error:
                self._last_error = error
                await asyncio.sleep(self._config.retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
                self._wake.set()
                continue
            due = time.monotonic() + self._config.verify_s

    async def _woken(self, seconds: float) -> None:
        if not self._doubtful:
            try:
                async with asyncio.timeout(max(0.0, seconds)):
                    await self._wake.wait()
            except TimeoutError:
                return
        self._wake.clear()

    async def _after_gap(self, reason: str) -> None:
        """First the IKE_SAs, which is quick, then with their CHILD_SAs."""
        await self.resync(reason, with_children=False)
        await self.resync("children", with_children=True)

    async def _ask_doubtful(self) -> None:
        doubtful = sorted(self._doubtful)
        if len(doubtful) > _FEW:
            childless = any(not sa.children for number in doubtful if (sa := self._sas.get(number)))
            self._doubtful.difference_update(doubtful)
            await self.resync("many changes", with_children=childless)
            return
        for uniqueid in doubtful:
            self._doubtful.discard(uniqueid)
            await self.refresh(uniqueid)

    def _with_roles(self, listed: list[IkeSa]) -> list[IkeSa]:
        return [self._in_its_role(sa) for sa in listed]

    def _with_role(self, seen: Observation) -> Observation:
        match seen:
            case IkeUpDown(sa=sa) | ChildUpDown(sa=sa) | ChildRekey(sa=sa):
                return replace(seen, sa=self._in_its_role(sa))
            case IkeRekey(old=old):
                return replace(seen, old=self._in_its_role(old))
            case _:
                return seen

    def _in_its_role(self, sa: IkeSa) -> IkeSa:
        role = self._role_of(sa.uniqueid)
        return sa if role is None or role is sa.original_initiator else replace(sa, original_initiator=role)

    def _apply(self, step: Step) -> None:
        for uniqueid, sa in step.changes.items():
            self._touched.add(uniqueid)
            if sa is None:
                self._sas.pop(uniqueid, None)
            else:
                self._sas[uniqueid] = sa
        if step.doubtful:
            self._doubtful |= step.doubtful
            self._wake.set()
        if step.changes:
            self._snapshot = _STALE
        if step.events:
            for feed in self._feeds:
                feed.put(step.events)
        if step.events or step.changes:
            self._tell_changed()

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


_STALE: Mapping[int, IkeSa] = MappingProxyType({})


def _keep(packet: Packet) -> bool:
    return packet.name != "log" or log_matters(packet.payload)
