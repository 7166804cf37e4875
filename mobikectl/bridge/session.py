"""One machine on one IKE_SA: its requests go out through the plugin, what the peer sends comes in.

charon owns the exchanges: message IDs, retransmission, and the (empty) response. The message IDs of a machine
are therefore counted here, each side for itself. docs/rmobike.md tells what of a machine's wishes the plugin
cannot express, and what happens instead.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mobikectl.bridge.events import (
    Delivered,
    NotBridged,
    NotSent,
    Over,
    PeerBack,
    PeerFault,
    Refused,
    Restarted,
    Told,
)
from mobikectl.bridge.speakers import LATER_WHEN, at_rest, is_away, is_closed, pair_of, start
from mobikectl.bridge.translate import OWN_TYPES, Heard, read_mark, to_notifies, to_payloads
from mobikectl.charon.rmobike import PluginRefusedError
from mobikectl.charon.rmobike_events import NotifyAnswered, NotifyFailed, UpdateDone, UpdateFailed
from mobikectl.errors import CharonError, CharonTimeoutError, DecodeError
from mobikectl.protocol.addrnotify import Moved
from mobikectl.protocol.exchange import Delete, Endpoint, Exchange, Message
from mobikectl.protocol.machine import LocalProtocolError, RemoteProtocolError
from mobikectl.wire.bridge import BridgeMark, Part
from mobikectl.wire.dupont import RrCookie
from mobikectl.wire.kivinen import DisconnectNotify

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mobikectl.bridge.speakers import BridgeSettings
    from mobikectl.charon.rmobike import Rmobike
    from mobikectl.model import IkeSa, Path
    from mobikectl.protocol.exchange import Payload
    from mobikectl.protocol.machine import Event
    from mobikectl.wire.bridge import Spoken

INBOX = 256
BACKLOG = 8
"""Requests of the peer that wait because the machine has not answered the ones before."""
EARLY = 4
ASK_S = 10.0
SHORTEST_S = 0.05
"""The machine is asked again at most so often."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Something to ask the machine for: called with it and the time; `done` gets the outcome."""

    call: Callable[[Any, float], None]
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class SaNow:
    """The IKE_SA as it is now."""

    sa: IkeSa


@dataclass(frozen=True, slots=True)
class Reset:
    """Begin anew: events may have been missed."""

    reason: str


Item = Heard | NotifyAnswered | NotifyFailed | UpdateDone | UpdateFailed | Ask | SaNow | Reset


@dataclass(slots=True)
class _Flight:
    """What is under way; given up as a whole when the machine begins anew."""

    tokens: dict[str, Message] = field(default_factory=dict)
    """Requests in charon's hands."""
    handed: set[int] = field(default_factory=set)
    later: dict[int, Message] = field(default_factory=dict)
    """Requests whose answer follows, by charon's message ID."""
    early: dict[int, tuple[Payload, ...]] = field(default_factory=dict)
    moving: str = ""
    """The token of the update that must be done before `held` can be sent."""
    held: dict[int, Message] = field(default_factory=dict)
    asked: dict[int, Heard] = field(default_factory=dict)
    """The peer's requests that the machine has not answered yet."""
    backlog: deque[Heard] = field(default_factory=lambda: deque(maxlen=BACKLOG))

    @property
    def empty(self) -> bool:
        return not (self.tokens or self.later or self.moving or self.held or self.asked or self.backlog)


class BridgeSession:
    """Owns one machine. Feed it with `put`; it lives while `run` runs."""

    def __init__(
        self,
        spoken: Spoken,
        sa: IkeSa,
        plugin: Rmobike,
        settings: BridgeSettings,
        *,
        name: str,
        keepable: Callable[[IkeSa], Awaitable[int]],
        tell: Callable[[Told], None],
    ) -> None:
        """``name``: begins its tokens. ``keepable``: for how many seconds a silent peer's IKE_SA is kept."""
        self.spoken, self.sa, self.name = spoken, sa, name
        self._plugin, self._settings = plugin, settings
        self._keepable_of, self._tell_owner = keepable, tell
        self._inbox: asyncio.Queue[Item] = asyncio.Queue(INBOX)
        self._keepable = 0
        self._count = 0
        self._ended = False
        self._begin()

    def _begin(self) -> None:
        begun = start(self.spoken, self.sa, self._settings, lambda seconds: seconds <= self._keepable)
        self.machine, self._peer_id, self._window = begun.machine, begun.peer_id, begun.window
        self._flight = _Flight()
        self._moved_on = False

    def put(self, item: Item) -> None:
        """Give it something to take in. When too much waits, all of it is dropped and the machine begins anew."""
        if self._inbox.full():
            self._refuse_waiting("too much waits")
            self._inbox.put_nowait(Reset("too much waited"))
        self._inbox.put_nowait(item)

    def _refuse_waiting(self, reason: str) -> None:
        while not self._inbox.empty():
            dropped = self._inbox.get_nowait()
            if isinstance(dropped, Ask) and not dropped.done.done():
                dropped.done.set_exception(LocalProtocolError(reason, hint="try again"))

    async def ask(self, call: Callable[[Any, float], None]) -> None:
        """Given what to call with the machine and the time, have it called. Raises what it raises."""
        if self._ended:
            raise LocalProtocolError("the session is over", hint="the IKE_SA is gone")
        ask = Ask(call, asyncio.get_running_loop().create_future())
        self.put(ask)
        try:
            async with asyncio.timeout(ASK_S):
                await ask.done
        except TimeoutError as error:
            raise CharonTimeoutError("the bridge is busy with the plugin", hint="is charon hung?") from error

    def tell(self, event: Event) -> None:
        """Report an event of this session."""
        self._tell_owner(Told(self.sa.uniqueid, self.spoken, event))

    async def run(self) -> None:
        """Serve the machine until cancelled."""
        try:
            while True:
                await self._pump()
                item = await self._next()
                if item is not None:
                    await self._take(item)
        finally:
            self._ended = True
            self._tell_rest()
            self._refuse_waiting("the session is over")

    async def _next(self) -> Item | None:
        deadline = self.machine.next_deadline()
        if deadline is None:
            return await self._inbox.get()
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), SHORTEST_S)):
                return await self._inbox.get()
        except TimeoutError:
            return None

    async def _pump(self) -> None:
        machine = self.machine
        for message in machine.send(time.monotonic()):
            if self.machine is machine:
                await self._perform(message)
        self._tell_rest()
        await self._follow()
        if is_closed(self.machine):
            self._begin()
            self.tell(Restarted("the machine came to its end"))

    def _tell_rest(self) -> None:
        while (event := self.machine.next_event()) is not None:
            self._moved_on = self._moved_on or isinstance(event, Moved)
            self.tell(event)

    async def _follow(self) -> None:
        """The machine went to an address that it knows to work, without a request over it: move the IKE_SA there."""
        moved_on, self._moved_on = self._moved_on, False
        if not (moved_on and self.sa.original_initiator and at_rest(self.machine)) or self._flight.moving:
            return
        pair = self.machine.pair
        target = replace(self.sa.path, local=pair.local.ip, remote=pair.remote.ip)
        if target != self.sa.path:
            try:
                await self._start_move(target)
            except CharonError as error:
                self.restart(error.code if isinstance(error, PluginRefusedError) else error.message)

    def restart(self, reason: str) -> None:
        """Give up what is under way."""
        self._tell_rest()
        self._begin()
        self.tell(Restarted(reason))

    # --- what the machine wants -------------------------------------------------------------------

    async def _perform(self, message: Message) -> None:
        try:
            if message.response:
                await self._answer(message)
            else:
                await self._request(message)
        except PluginRefusedError as error:
            self.restart(error.code)
        except (CharonError, DecodeError) as error:
            self.restart(error.message)

    async def _answer(self, message: Message) -> None:
        """Send what the machine answers, unless charon's response said it already."""
        heard = self._flight.asked.pop(message.message_id, None)
        if heard is None:
            return
        kind = LATER_WHEN[self.spoken]
        if any(isinstance(payload, kind) for payload in to_payloads(self.spoken, heard.notifies)):
            payloads = message.payloads
            if self.spoken.name == "KIVINEN" and message.has(Delete):
                payloads = (*payloads, DisconnectNotify(self._keepable))
            mark = BridgeMark(self.spoken, Part.ANSWER, heard.message_id)
            await self._send(to_notifies(self.spoken, payloads, mark), self._token())
        if self._flight.backlog:
            await self._hear_request(self._flight.backlog.popleft())

    async def _request(self, message: Message) -> None:
        flight = self._flight
        if message.message_id in flight.handed or message.message_id in flight.held:
            return
        wanted = message.arrival
        target = replace(self.sa.path, local=wanted.remote.ip, remote=wanted.local.ip)
        if target != self.sa.path:
            if self.sa.original_initiator:
                await self._move(target, message)
                return
            if not message.payloads or message.has(RrCookie):
                self.tell(NotSent(target))
                return
        await self._hand_over(message)

    async def _move(self, target: Path, message: Message) -> None:
        """The request is to go over another path: move the IKE_SA there first."""
        self._flight.held[message.message_id] = message
        if not self._flight.moving:
            await self._start_move(target)

    async def _start_move(self, target: Path) -> None:
        token = self._flight.moving = self._token()
        try:
            await self._plugin.update_addresses(
                self.sa.uniqueid, local=target.local, remote=target.remote, token=token
            )
        except PluginRefusedError as error:
            if error.code != "already-there":
                raise
            await self._moved()

    async def _moved(self) -> None:
        held, self._flight.held = self._flight.held, {}
        self._flight.moving = ""
        for message in held.values():
            await self._hand_over(message)

    async def _hand_over(self, message: Message) -> None:
        token = self._token()
        self._flight.handed.add(message.message_id)
        self._flight.tokens[token] = message
        mark = BridgeMark(self.spoken, Part.REQUEST)
        await self._send(to_notifies(self.spoken, message.payloads, mark), token)

    async def _send(self, notifies: tuple[Any, ...], token: str) -> None:
        await self._plugin.send_notify(self.sa.uniqueid, notifies, token=token)

    def _token(self) -> str:
        self._count += 1
        return f"{self.name}:{self._count}"

    # --- what comes in ----------------------------------------------------------------------------

    async def _take(self, item: Item) -> None:
        try:
            await self._take_in(item)
        except (RemoteProtocolError, DecodeError) as error:
            self.tell(PeerFault(error.message))
        except PluginRefusedError as error:
            self.restart(error.code)
        except CharonError as error:
            self.restart(error.message)

    async def _take_in(self, item: Item) -> None:
        match item:
            case Heard():
                await self._hear(item)
            case NotifyAnswered():
                self._answered(item)
            case NotifyFailed(token=token):
                if self._flight.tokens.pop(token, None) is not None:
                    self.restart("a request was not answered")
            case UpdateDone(token=token, path=path):
                if token == self._flight.moving:
                    self.sa = replace(self.sa, path=path)
                    await self._moved()
            case UpdateFailed(token=token, reason=reason):
                if token == self._flight.moving:
                    self.restart(f"the move failed: {reason}")
            case SaNow(sa=sa):
                self._now(sa)
            case Reset(reason=reason):
                self.restart(reason)
            case Ask(call=call, done=done):
                self._asked(call, done)

    def _asked(self, call: Callable[[Any, float], None], done: asyncio.Future[None]) -> None:
        self._refresh()
        if done.done():
            return
        try:
            call(self.machine, time.monotonic())
        except LocalProtocolError as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    def _now(self, sa: IkeSa) -> None:
        moved = sa.path != self.sa.path
        self.sa = sa
        if moved and is_away(self.machine):
            self._begin()
            self.tell(PeerBack())

    def _refresh(self) -> None:
        """Begin anew where somebody else moved the IKE_SA and nothing is under way.

        A responder's machine may have another idea of the peer's address: the peer's next message corrects it.
        """
        believed, real = self.machine.pair, pair_of(self.sa.path)
        stale = believed.local != real.local or (self.sa.original_initiator and believed != real)
        if stale and self._flight.empty and at_rest(self.machine):
            self._begin()

    async def _hear(self, heard: Heard) -> None:
        if heard.mark is not None and heard.mark.part is Part.ANSWER:
            payloads = to_payloads(self.spoken, heard.notifies)
            message = self._flight.later.pop(heard.mark.message_id, None)
            if message is not None:
                self._feed_answer(message, payloads)
            elif self._flight.tokens and len(self._flight.early) < EARLY:
                self._flight.early[heard.mark.message_id] = payloads
        elif self._settings.serve:
            self._refresh()
            if len(self._flight.asked) < self._window:
                await self._hear_request(heard)
            else:
                self._flight.backlog.append(heard)

    async def _hear_request(self, heard: Heard) -> None:
        payloads = to_payloads(self.spoken, heard.notifies)
        if any(isinstance(payload, DisconnectNotify) for payload in payloads):
            self._keepable = await self._keepable_of(self.sa)
        path, number = heard.path, self._peer_id
        message = Message(
            Exchange.INFORMATIONAL,
            number,
            False,
            Endpoint(path.remote),
            Endpoint(path.local),
            payloads,
            *self.machine.spis,
        )
        away = is_away(self.machine)
        self.machine.receive(message, time.monotonic())
        self._flight.asked[number] = heard
        self._peer_id += 1
        if away and not is_away(self.machine):
            self.tell(PeerBack())

    def _answered(self, answer: NotifyAnswered) -> None:
        message = self._flight.tokens.pop(answer.token, None)
        if message is None:
            return
        mark = read_mark(answer.notifies)
        if mark is not None and mark.part is Part.LATER:
            self._flight.later[answer.message_id] = message
            early = self._flight.early.pop(answer.message_id, None)
            if early is not None:
                self._feed_answer(self._flight.later.pop(answer.message_id), early)
            return
        own = [notify for notify in answer.notifies if notify.type in OWN_TYPES[self.spoken]]
        if not own and message.has(LATER_WHEN[self.spoken]):
            self.restart(NotBridged.REASON)
            self.tell(NotBridged())
            return
        self._feed_answer(message, to_payloads(self.spoken, own))

    def _feed_answer(self, request: Message, payloads: tuple[Payload, ...]) -> None:
        if request.has(DisconnectNotify) and any(isinstance(payload, Delete) for payload in payloads):
            most = [payload.seconds for payload in payloads if isinstance(payload, DisconnectNotify)]
            self.tell(Refused(most[0] if most else 0))
        path = self.sa.path
        answer = Message(
            request.exchange,
            request.message_id,
            True,
            Endpoint(path.remote),
            Endpoint(path.local),
            payloads,
            *self.machine.spis,
        )
        self.machine.receive(answer, time.monotonic())
        self.tell(Delivered())

    def over(self, reason: str) -> None:
        """The session ends: say so."""
        self.tell(Over(reason))
