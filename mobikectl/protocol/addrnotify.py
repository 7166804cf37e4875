"""Address notification (draft-kivinen-mobike-protocol-00).

Both ends are alike: each announces its own addresses (one table) and follows the other's (another). The
IKE_SA and all its IPsec SAs share the address in use (section 4).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, ClassVar

from mobikectl.protocol.exchange import (
    Admission,
    Delete,
    Endpoint,
    Exchange,
    Exchanger,
    Message,
    Pair,
    Payload,
    Request,
    Retransmission,
)
from mobikectl.protocol.machine import (
    Blame,
    Event,
    Input,
    LocalProtocolError,
    Machine,
    RemoteProtocolError,
    TransitionTable,
)
from mobikectl.wire.kivinen import DisconnectNotify, Ipv4AddressChange, Ipv6AddressChange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mobikectl.model import IpAddress

LEAST_ADDRESSES = 4
"""Section 3: a receiver must be able to process at least so many notifications."""

CHANGES = (Ipv4AddressChange, Ipv6AddressChange)


class Kind(Enum):
    """What a request is for."""

    NOTIFY = "address notification"
    DISCONNECT = "DISCONNECT_NOTIFY"
    DPD = "dead peer detection"


class State(Enum):
    """Where this side is with the peer's addresses."""

    SETTLED = "the address in use works, as far as is known"
    CHECKING = "the traffic has moved; dead peer detection runs"
    SEARCHING = "dead peer detection runs before the traffic moves"
    AWAY = "the peer said that it is disconnected"
    CLOSED = "the IKE_SA is gone"


class Cause(Input):
    """What moves the follower."""

    NEW_CHECKED = ("a new preferred address that dead peer detection found working before", Blame.REMOTE)
    NEW_UNCHECKED = ("a new preferred address that was never used", Blame.REMOTE)
    NEW_FAILED = ("a new preferred address whose last dead peer detection failed", Blame.REMOTE)
    SAME = ("a list whose preferred address is in use already", Blame.REMOTE)
    OLD = ("a notification older than one already processed", Blame.REMOTE)
    DOUBT = ("an indirect indication", Blame.LOCAL)
    REPLIED = ("an address that was tried replied", Blame.REMOTE)
    EXHAUSTED = ("no address replied", Blame.LOCAL)
    PEER_AWAY = ("DISCONNECT_NOTIFY, allowed", Blame.REMOTE)
    PEER_REJECTED = ("DISCONNECT_NOTIFY, rejected", Blame.REMOTE)
    AWAY_OVER = ("the peer is away for longer than it said", Blame.LOCAL)
    DELETED = ("Delete", Blame.REMOTE)
    CLOSE = ("close()", Blame.LOCAL)


S, C = State, Cause
_LIVE = (S.SETTLED, S.CHECKING, S.SEARCHING, S.AWAY)
TABLE: TransitionTable[State, Cause] = TransitionTable(
    "address follower",
    {
        **{(s, C.NEW_CHECKED): S.SETTLED for s in _LIVE},
        **{(s, C.NEW_UNCHECKED): S.CHECKING for s in _LIVE},
        **{(s, C.NEW_FAILED): S.SEARCHING for s in _LIVE},
        **{(s, C.OLD): s for s in _LIVE},
        **{(s, C.PEER_AWAY): S.AWAY for s in _LIVE},
        **{(s, c): S.CLOSED for s in _LIVE for c in (C.PEER_REJECTED, C.DELETED, C.CLOSE)},
        (S.SETTLED, C.SAME): S.SETTLED,
        (S.CHECKING, C.SAME): S.CHECKING,
        (S.SEARCHING, C.SAME): S.SEARCHING,
        (S.AWAY, C.SAME): S.SETTLED,
        (S.SETTLED, C.DOUBT): S.SEARCHING,
        (S.CHECKING, C.DOUBT): S.CHECKING,
        (S.SEARCHING, C.DOUBT): S.SEARCHING,
        (S.CHECKING, C.REPLIED): S.SETTLED,
        (S.SEARCHING, C.REPLIED): S.SETTLED,
        (S.CHECKING, C.EXHAUSTED): S.CLOSED,
        (S.SEARCHING, C.EXHAUSTED): S.CLOSED,
        (S.AWAY, C.AWAY_OVER): S.SEARCHING,
    },
)


class Announcing(Enum):
    """Where this side is with its own addresses."""

    QUIET = "the peer knows them"
    WANTED = "a notification waits for the request window"
    SENT = "a notification was sent"
    LEAVING = "a disconnect waits for the request window"
    LEFT = "DISCONNECT_NOTIFY was sent"
    ABSENT = "the peer keeps the IKE_SA for later"


class AnnounceCause(Input):
    """What moves the announcer."""

    NOTIFY = ("notify()", Blame.LOCAL)
    NOTIFY_SENT = ("the window allows the notification", Blame.LOCAL)
    ACKNOWLEDGED = ("the newest notification was acknowledged", Blame.REMOTE)
    SUPERSEDED = ("an outdated notification was acknowledged", Blame.REMOTE)
    DISCONNECT = ("disconnect()", Blame.LOCAL)
    DISCONNECT_SENT = ("the window allows the disconnect", Blame.LOCAL)
    ALLOWED = ("the disconnect was acknowledged", Blame.REMOTE)


A, AC = Announcing, AnnounceCause
ANNOUNCE_TABLE: TransitionTable[Announcing, AnnounceCause] = TransitionTable(
    "address announcer",
    {
        **{(s, AC.NOTIFY): A.WANTED for s in Announcing},
        **{(s, AC.DISCONNECT): A.LEAVING for s in (A.QUIET, A.WANTED, A.SENT)},
        (A.WANTED, AC.NOTIFY_SENT): A.SENT,
        (A.SENT, AC.ACKNOWLEDGED): A.QUIET,
        **{(s, AC.SUPERSEDED): s for s in Announcing},
        (A.LEAVING, AC.DISCONNECT_SENT): A.LEFT,
        (A.LEFT, AC.ALLOWED): A.ABSENT,
    },
)


def allow_always(seconds: int) -> bool:
    """Allow every disconnect: the default of `NotifyPolicy.allow_disconnect`."""
    del seconds
    return True


@dataclass(frozen=True, slots=True)
class NotifyPolicy:
    """What the draft leaves to each side."""

    tries_per_address: int = 3
    """Transmissions to one address before the next one is tried (section 2)."""
    recheck: bool = False
    """Whether an address that replied earlier is checked again (section 2: it may be left out)."""
    most_addresses: int = 16
    """How many notifications of one message are processed: at least 4 (section 3)."""
    allow_disconnect: Callable[[int], bool] = allow_always
    """Given the seconds, whether the peer may disconnect and keep the IKE_SA (section 5)."""
    window: int = 1
    retransmission: Retransmission = field(default_factory=Retransmission)


@dataclass(frozen=True, slots=True)
class Moved(Event):
    """IKE_SA and IPsec SAs use this pair from now on (section 4)."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class PeerAway(Event):
    """The peer is disconnected; it expects to be back after so many seconds."""

    seconds: int


@dataclass(frozen=True, slots=True)
class DisconnectAllowed(Event):
    """The peer keeps the IKE_SA while this side is away."""


@dataclass(frozen=True, slots=True)
class Gone(Event):
    """The IKE_SA and all its IPsec SAs are deleted."""

    cause: Cause


class AddressNotifyPeer(Machine[State, Cause]):
    """One end of an IKE_SA that follows the draft.

    ``own`` and ``peer``: the addresses known when the IKE_SA was made, most preferred first; the first
    two carried the initial exchanges.
    """

    table: ClassVar[TransitionTable[State, Cause]] = TABLE

    def __init__(
        self,
        own: Iterable[IpAddress],
        peer: Iterable[IpAddress],
        policy: NotifyPolicy | None = None,
        *,
        port: int = 4500,
        spis: tuple[int, int] = (1, 2),
    ) -> None:
        super().__init__(State.SETTLED)
        self.policy = policy or NotifyPolicy()
        if self.policy.most_addresses < LEAST_ADDRESSES:
            raise LocalProtocolError("most_addresses is too small", hint="section 3 demands at least 4")
        self.port = port
        self.own, self.peer = tuple(own), tuple(peer)
        if not self.own or not self.peer:
            raise LocalProtocolError("an address set is empty", hint="give both sides at least one address")
        self.announcing = Announcing.QUIET
        self._local, self._current = self.own[0], self.peer[0]
        self.spis = spis
        self._exchanger: Exchanger[Kind] = Exchanger(
            self.policy.retransmission, window=self.policy.window, spis=spis
        )
        self._checked: dict[IpAddress, bool] = {self._current: True}
        """The result of the last dead peer detection of each address."""
        self._order: list[IpAddress] = []
        self._tried = 0
        self._last_list_id = -1
        self._away_until: float | None = None
        self._disconnect_s = 0
        self._newest: int | None = None
        self._outbox: list[Message] = []

    @property
    def pair(self) -> Pair:
        """What IKE_SA and IPsec SAs use (section 4)."""
        return self._pair_to(self._current)

    def may_send_esp(self) -> bool:
        """Whether traffic may be sent: not while the peer is away, nor when the IKE_SA is gone."""
        return self._state not in {State.AWAY, State.CLOSED}

    def _pair_to(self, ip: IpAddress) -> Pair:
        local = self._local
        if local.version != ip.version:
            local = next((own for own in self.own if own.version == ip.version), local)
        return Pair(Endpoint(local, self.port), Endpoint(ip, self.port))

    # --- what can be asked for

    def notify(self, own: Iterable[IpAddress], now: float) -> None:
        """Given all own addresses, most preferred first, tell the peer (section 3). Raise LocalProtocolError."""
        own = tuple(own)
        if not own:
            raise LocalProtocolError("no address to announce", hint="use disconnect() (section 5)")
        self._require_live()
        self.announcing = ANNOUNCE_TABLE.next(self.announcing, AnnounceCause.NOTIFY)
        self._newest = None
        self.own, self._local = own, own[0]
        self._exchanger.moved(now)

    def disconnect(self, seconds: int, now: float) -> None:
        """Given for how long, say that no address is left (section 5). Raise LocalProtocolError."""
        del now
        self._require_live()
        self.announcing = ANNOUNCE_TABLE.next(self.announcing, AnnounceCause.DISCONNECT)
        self._newest, self._disconnect_s = None, seconds

    def doubt(self, now: float) -> None:
        """An indirect indication (ICMP, silence): check the address in use (section 2)."""
        self._go(Cause.DOUBT)
        if not self._order:
            self._search(self._current, now)

    def seen(self, source: IpAddress, now: float) -> None:
        """Given the source of a packet: another one than expected is only an indirect indication."""
        if source != self._current and self._state is State.SETTLED:
            self.doubt(now)

    def close(self, now: float) -> None:
        """Delete the IKE_SA."""
        self._end(Cause.CLOSE)
        if self._exchanger.free:
            self._exchanger.open(Kind.DPD, (Delete(),), now)
            self._outbox += self._exchanger.due(now, self.pair)

    def _require_live(self) -> None:
        if self._state is State.CLOSED:
            raise LocalProtocolError("the IKE_SA is gone", hint="make a new one")

    # --- receiving

    def receive(self, message: Message, now: float) -> None:
        """Given a message and the time, take it in. Raise RemoteProtocolError as `machine` tells."""
        if self._state is State.CLOSED or (message.spi_i, message.spi_r) != self.spis:
            return
        if message.response:
            self._receive_response(message, now)
            return
        admission = self._exchanger.admit(message)
        if admission is Admission.REPEAT:
            self._outbox.append(self._exchanger.repeat(message))
        elif admission is Admission.NEW and message.exchange is Exchange.INFORMATIONAL:
            self._outbox.append(self._exchanger.respond(message, self._answer(message, now)))

    def _answer(self, message: Message, now: float) -> tuple[Payload, ...]:
        disconnect = message.first(DisconnectNotify)
        if message.has(Delete):
            self._end(Cause.DELETED)
        elif disconnect is not None and message.has(*CHANGES):
            raise RemoteProtocolError(
                "DISCONNECT_NOTIFY together with addresses", hint="section 5: it is a separate exchange"
            )
        elif disconnect is not None:
            return self._peer_leaves(disconnect, message, now)
        elif message.has(*CHANGES):
            self._list_received(message, now)
        return ()

    def _peer_leaves(self, disconnect: DisconnectNotify, message: Message, now: float) -> tuple[Payload, ...]:
        if message.message_id < self._last_list_id:
            self._go(Cause.OLD)
            return ()
        if not self.policy.allow_disconnect(disconnect.seconds):
            self._end(Cause.PEER_REJECTED)
            return (Delete(),)
        self._go(Cause.PEER_AWAY)
        self._last_list_id = message.message_id
        self._away_until = now + disconnect.seconds
        self._order = []
        self._tell(PeerAway(disconnect.seconds))
        return ()

    def _list_received(self, message: Message, now: float) -> None:
        if message.message_id < self._last_list_id:
            self._go(Cause.OLD)
            return
        changes = [p for p in message.payloads if isinstance(p, CHANGES)][: self.policy.most_addresses]
        listed = tuple(dict.fromkeys(change.address for change in changes))
        usable = [ip for ip in listed if any(own.version == ip.version for own in self.own)]
        if not usable:
            raise RemoteProtocolError(
                "no announced address is of a family that this side has", hint="ignore it"
            )
        preferred = usable[0]
        cause = self._judge(preferred)
        self._go(cause)
        self._last_list_id = message.message_id
        self.peer = tuple(usable)
        self._away_until = None
        self._checked = {ip: ok for ip, ok in self._checked.items() if ip in self.peer}
        if cause is Cause.NEW_CHECKED or cause is Cause.NEW_UNCHECKED:
            self._use(preferred, now)
        self._order = []
        if self._state in {State.CHECKING, State.SEARCHING}:
            self._search(preferred, now)

    def _judge(self, preferred: IpAddress) -> Cause:
        """Section 2: when the traffic moves at once, and when dead peer detection comes first."""
        if preferred == self._current:
            return Cause.SAME
        result = self._checked.get(preferred)
        if result is False:
            return Cause.NEW_FAILED
        return Cause.NEW_CHECKED if result and not self.policy.recheck else Cause.NEW_UNCHECKED

    def _receive_response(self, message: Message, now: float) -> None:
        request = self._exchanger.close(message)
        if request is None:
            return
        if request.kind is not Kind.DPD:
            self._announced(request, message)
        if self._state in {State.CHECKING, State.SEARCHING}:
            source = message.source.ip
            if source in self._order[: self._tried + 1]:
                self._go(Cause.REPLIED)
                self._checked[source] = True
                self._order = []
                self._use(source, now)

    def _announced(self, request: Request[Kind], message: Message) -> None:
        if request.message_id != self._newest:
            cause = AnnounceCause.SUPERSEDED
        elif request.kind is Kind.NOTIFY:
            cause = AnnounceCause.ACKNOWLEDGED
        else:
            if message.has(Delete):
                self._end(Cause.DELETED)
                return
            cause = AnnounceCause.ALLOWED
            self._tell(DisconnectAllowed())
        self.announcing = ANNOUNCE_TABLE.next(self.announcing, cause)
        if message.has(*CHANGES):
            raise RemoteProtocolError(
                "addresses inside an acknowledgement", hint="section 3 forbids them: they were ignored"
            )

    def _use(self, ip: IpAddress, now: float) -> None:
        if ip != self._current:
            self._current = ip
            self._exchanger.moved(now)
            self._tell(Moved(self.pair))

    # --- dead peer detection over all addresses

    def _search(self, first: IpAddress, now: float) -> None:
        """Given the address to begin with, try it and then the others in the peer's order (section 2)."""
        usable = [ip for ip in self.peer if any(own.version == ip.version for own in self.own)]
        self._order = list(dict.fromkeys([first, *usable]))
        self._tried = 0
        for request in self._exchanger.outstanding[:1]:
            request.moved(now)

    def send(self, now: float) -> list[Message]:
        """Given the time, return the messages to send now, in order."""
        if self._state is State.AWAY and self._away_until is not None and now >= self._away_until:
            self._go(Cause.AWAY_OVER)
            self._away_until = None
            self._search(self._current, now)
        if self._state not in {State.CLOSED, State.AWAY}:
            self._suspect(now)
            self._announce(now)
            self._detect(now)
        out, self._outbox = self._outbox, []
        if self._state not in {State.CLOSED, State.AWAY}:
            out += self._exchanger.due(now, self.pair)
        return out

    def _suspect(self, now: float) -> None:
        """A request without an answer is an indirect indication too."""
        if self._state is not State.SETTLED:
            return
        for request in self._exchanger.outstanding[:1]:
            if request.next_at <= now and request.transmissions >= self.policy.tries_per_address:
                self.doubt(now)

    def _announce(self, now: float) -> None:
        if not self._exchanger.free:
            return
        if self.announcing is Announcing.WANTED:
            self.announcing = ANNOUNCE_TABLE.next(self.announcing, AnnounceCause.NOTIFY_SENT)
            payloads = tuple(change(ip) for ip in self.own)
            self._newest = self._exchanger.open(Kind.NOTIFY, payloads, now).message_id
        elif self.announcing is Announcing.LEAVING:
            self.announcing = ANNOUNCE_TABLE.next(self.announcing, AnnounceCause.DISCONNECT_SENT)
            disconnect = DisconnectNotify(self._disconnect_s)
            self._newest = self._exchanger.open(Kind.DISCONNECT, (disconnect,), now).message_id

    def _detect(self, now: float) -> None:
        """Retransmit one message to one address after the other, each with fresh timers (section 2)."""
        if self._state not in {State.CHECKING, State.SEARCHING}:
            return
        running = self._exchanger.outstanding
        request = running[0] if running else self._exchanger.open(Kind.DPD, (), now)
        if request.next_at <= now and request.transmissions >= self.policy.tries_per_address:
            self._checked[self._order[self._tried]] = False
            self._tried += 1
            if self._tried == len(self._order):
                self._end(Cause.EXHAUSTED)
                return
            request.moved(now)
        request.via = self._pair_to(self._order[self._tried])

    def next_deadline(self) -> float | None:
        """Return when `send` should be called at the latest, or None. After `receive`, call it at once."""
        if self._state is State.CLOSED:
            return None
        return self._away_until if self._state is State.AWAY else self._exchanger.deadline()

    def _end(self, cause: Cause) -> None:
        self._go(cause)
        self._tell(Gone(cause))


def change(ip: IpAddress) -> Payload:
    """Given an address, return its IPV4_ADDRESS_CHANGE or IPV6_ADDRESS_CHANGE (section 3)."""
    return Ipv4AddressChange(ip) if isinstance(ip, IPv4Address) else Ipv6AddressChange(ip)
