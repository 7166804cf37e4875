"""All sessions of one charon: made and ended with its IKE_SAs, fed with what the plugin tells."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING

from mobikectl.bridge.events import PeerFault, Ready, Told
from mobikectl.bridge.keeping import keepable_s
from mobikectl.bridge.session import BridgeSession, Reset, SaNow
from mobikectl.bridge.speakers import LATER_WHEN
from mobikectl.bridge.translate import DIALECTS, WATCHED, Assembler, Heard, later
from mobikectl.charon.rmobike import NotifyRule
from mobikectl.charon.rmobike_events import (
    NotifyAnswered,
    NotifyFailed,
    NotifySeen,
    UpdateDone,
    UpdateFailed,
    decode_event,
)
from mobikectl.charon.sa_events import SaDown, SaRekeyed
from mobikectl.charon.session import EventGap, EventLost
from mobikectl.charon.tracker import SaTracker, TrackerConfig
from mobikectl.errors import CharonError, DecodeError
from mobikectl.model import IkeState
from mobikectl.taskgroup import TaskGroup
from mobikectl.wire.bridge import Spoken
from mobikectl.wire.dupont import RrCookie

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.bridge.speakers import BridgeSettings
    from mobikectl.charon.rmobike import Rmobike
    from mobikectl.charon.rmobike_events import PluginEvent
    from mobikectl.charon.session import Event, Session
    from mobikectl.model import IkeSa

logger = logging.getLogger("mobikectl.bridge")

AGAIN_S = 1.0
"""Between two attempts to tell the plugin what to report."""
EVENTS = ("notify", "notify-answered", "notify-failed", "update-done", "update-failed")
STRANGERS = 32
"""Messages on IKE_SAs that the model does not know yet: kept until it does."""
ANSWERS = (NotifyAnswered, NotifyFailed, UpdateDone, UpdateFailed)


def rules(speak: frozenset[Spoken]) -> list[NotifyRule]:
    """Given the protocols, return the rules by which the plugin answers at once, while the message is there."""
    found = []
    for spoken in sorted(speak):
        when = DIALECTS[spoken].number_of(LATER_WHEN[spoken])
        name = f"bridge-{spoken.name.lower()}"
        found.append(NotifyRule(name, "INFORMATIONAL", request=False, notify=later(spoken), when=when))
    if Spoken.DUPONT in speak:
        cookie = DIALECTS[Spoken.DUPONT].encode(RrCookie(bytes(16)))
        found.append(
            NotifyRule(
                "bridge-cookie", "INFORMATIONAL", request=False, notify=cookie, when=cookie.type, echo=True
            )
        )
    return found


class Bridge:
    """The bridge of one charon. `run` owns everything; `tell` hears every event of every session.

    The plugin's list of watched types is one for all of its clients: it is always set to the same list.
    """

    def __init__(
        self,
        charon: Session,
        plugin: Rmobike,
        settings: BridgeSettings,
        *,
        tell: Callable[[Told], None],
        only: Callable[[IkeSa], bool] = lambda _: True,
    ) -> None:
        self._charon, self._plugin, self._settings = charon, plugin, settings
        self._tell, self._only = tell, only
        self._tracker = SaTracker(charon, TrackerConfig(watch_log=False))
        self._sessions: dict[tuple[int, Spoken], BridgeSession] = {}
        self._tasks: dict[BridgeSession, asyncio.Task[None]] = {}
        self._assembler = Assembler()
        self._strangers: deque[Heard] = deque(maxlen=STRANGERS)
        self._prefix = secrets.token_hex(4)
        self._count = 0
        self._listening = False
        self._changed = asyncio.Event()

    def session(self, ike_id: int, spoken: Spoken) -> BridgeSession | None:
        """Return the session of an IKE_SA, or None: the IKE_SA is not there, or the plugin is not."""
        return self._sessions.get((ike_id, spoken)) if self._listening else None

    @property
    def sessions(self) -> tuple[BridgeSession, ...]:
        """All sessions; none while the plugin is away."""
        return tuple(self._sessions.values()) if self._listening else ()

    async def ready(self) -> None:
        """Wait until the plugin listens and each of charon's IKE_SAs has its sessions. Wait for ever."""
        while not (self._listening and self._tracker.in_step and self._complete()):
            await self._changed.wait()

    def _complete(self) -> bool:
        return all(
            (sa.uniqueid, spoken) in self._sessions
            for sa in self._tracker.sas.values()
            for spoken in self._settings.speak
            if self._suits(sa, spoken)
        )

    async def run(self) -> None:
        """Serve until cancelled. Survives restarts of charon; removes its rules when it ends."""
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(self._tracker.run(), name="bridge: IKE_SAs")
                tasks.create_task(self._follow_sas(tasks), name="bridge: changes")
                tasks.create_task(self._follow_plugin(), name="bridge: plugin")
                tasks.create_task(self._assemble(), name="bridge: messages without an end")
        finally:
            await self._leave()

    async def _leave(self) -> None:
        if not (self._settings.serve and self._listening):
            return
        with contextlib.suppress(CharonError):
            for rule in rules(self._settings.speak):
                await self._plugin.remove_rule(rule.name)

    # --- charon's IKE_SAs -------------------------------------------------------------------------

    async def _follow_sas(self, tasks: TaskGroup) -> None:
        with self._tracker.subscribe() as feed:
            async for first in feed:
                # The model is ahead of its events: a rekeying among those that wait must not look like an end.
                for event in (first, *feed.take()):
                    if isinstance(event, SaRekeyed):
                        self._rekeyed(event)
                    elif isinstance(event, SaDown):
                        self._down(event.sa.uniqueid)
                self._level(tasks)
                self._wake()
                for heard in [self._strangers.popleft() for _ in range(len(self._strangers))]:
                    self._deliver(heard)

    def _level(self, tasks: TaskGroup) -> None:
        """Make the sessions those of the IKE_SAs that are there."""
        sas = self._tracker.sas
        for key in [key for key in self._sessions if key[0] not in sas]:
            self._down(key[0])
        for sa in sas.values():
            for spoken in self._settings.speak:
                session = self._sessions.get((sa.uniqueid, spoken))
                if session is not None:
                    if session.sa != sa:
                        session.put(SaNow(sa))
                elif self._suits(sa, spoken):
                    self._start(tasks, sa, spoken)

    def _suits(self, sa: IkeSa, spoken: Spoken) -> bool:
        nat = sa.behind_nat and spoken is Spoken.DUPONT and not self._settings.allow_nat
        return sa.state is IkeState.ESTABLISHED and not nat and self._only(sa)

    def _start(self, tasks: TaskGroup, sa: IkeSa, spoken: Spoken) -> None:
        self._count += 1
        most = self._settings.most_silence_s
        session = BridgeSession(
            spoken,
            sa,
            self._plugin,
            self._settings,
            name=f"bridge-{self._prefix}:{self._count}",
            keepable=lambda sa: keepable_s(self._charon, sa, most),
            tell=self._tell,
        )
        self._sessions[sa.uniqueid, spoken] = session
        self._tasks[session] = tasks.create_task(session.run(), name=f"bridge: {spoken.name} {sa.uniqueid}")
        if self._listening:
            session.tell(Ready())

    def _rekeyed(self, event: SaRekeyed) -> None:
        for spoken in self._settings.speak:
            session = self._sessions.pop((event.old_id, spoken), None)
            if session is not None:
                self._sessions[event.sa.uniqueid, spoken] = session
                session.put(SaNow(event.sa))

    def _down(self, ike_id: int) -> None:
        for spoken in self._settings.speak:
            session = self._sessions.pop((ike_id, spoken), None)
            if session is not None:
                self._tasks.pop(session).cancel()
                session.over("the IKE_SA is gone")

    # --- the plugin -------------------------------------------------------------------------------

    async def _follow_plugin(self) -> None:
        again = False
        async with aclosing(self._plugin.session.events(EVENTS)) as events:
            async for event in events:
                if isinstance(event, EventGap):
                    self._listening = False
                    await self._listen(again=again)
                    again = True
                elif isinstance(event, EventLost):
                    self._lost(event.reason)
                else:
                    self._decode(event)

    async def _listen(self, *, again: bool) -> None:
        """Tell the plugin what to report and to answer; again until it has understood."""
        while not self._listening:
            try:
                await self._plugin.watch(sorted(WATCHED))
                if self._settings.serve:
                    for rule in rules(self._settings.speak):
                        await self._plugin.add_rule(rule)
            except CharonError as error:
                logger.warning("the bridge cannot listen: %s", error)
                await asyncio.sleep(AGAIN_S)
            else:
                self._listening = True
        for session in self._sessions.values():
            if again:
                session.put(Reset("the plugin is there again"))
            session.tell(Ready())
        self._wake()

    def _lost(self, reason: str) -> None:
        self._listening = False
        for session in self._sessions.values():
            session.put(Reset(reason))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _decode(self, event: Event) -> None:
        """A peer can send notifies that cannot be understood: that is its fault, and ends nothing."""
        try:
            self._take(decode_event(event))
        except DecodeError as error:
            ike_id, token = event.message.get("ike-id"), event.message.get("token")
            for session in self._sessions.values():
                if ike_id == str(session.sa.uniqueid).encode():
                    session.tell(PeerFault(error.message))
                if isinstance(token, bytes) and token.startswith(f"{session.name}:".encode()):
                    session.put(Reset("an answer was not understood"))

    def _take(self, event: PluginEvent) -> None:
        if isinstance(event, NotifySeen):
            heard = self._assembler.add(event, time.monotonic())
            if heard is not None:
                self._deliver(heard)
            self._wake()
        elif isinstance(event, ANSWERS):
            for session in self._sessions.values():
                if event.token.startswith(f"{session.name}:"):
                    session.put(event)

    def _deliver(self, heard: Heard) -> None:
        session = self._sessions.get((heard.ike_id, heard.spoken))
        if session is not None:
            session.put(heard)
        elif heard.ike_id not in self._tracker.sas:
            self._strangers.append(heard)

    async def _assemble(self) -> None:
        """Complete the messages of peers that send no mark."""
        while True:
            deadline = self._assembler.next_deadline()
            wait = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            for heard in self._assembler.due(time.monotonic()):
                self._deliver(heard)
