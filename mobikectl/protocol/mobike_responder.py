"""The responder of MOBIKE (RFC 4555): it follows the initiator's updates, and verifies them first."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from mobikectl.protocol.exchange import Endpoint, Exchange, Exchanger, Message, Pair, Payload, Request, rotate
from mobikectl.protocol.machine import Blame, Input, LocalProtocolError, RemoteProtocolError, TransitionTable
from mobikectl.protocol.mobike import (
    NAT_DETECTION,
    Established,
    Kind,
    MobikePeer,
    MobikePolicy,
    PathInUse,
    Reason,
    ReturnRoutability,
    UnexpectedNat,
    additional,
)
from mobikectl.wire.mobike import MobikeSupported, NoNatsAllowed, UnexpectedNatDetected

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobikectl.model import IpAddress

MAX_HALF_OPEN = 8
TRIES_PER_PAIR = 2


class State(Enum):
    """Where the responder is."""

    LISTENING = "nothing has arrived"
    NEGOTIATING = "IKE_SA_INIT was answered"
    UNSUPPORTED = "the IKE_SA exists, but one side does not support MOBIKE"
    STABLE = "the initiator's address is verified, or trusted by policy"
    CHECKING = "the return routability of the initiator's address is being checked"
    CLOSED = "the IKE_SA is gone"


class Cause(Input):
    """What moves the responder."""

    INIT = ("IKE_SA_INIT request", Blame.REMOTE)
    AUTH_MOBIKE = ("IKE_AUTH request with MOBIKE_SUPPORTED", Blame.REMOTE)
    AUTH_PLAIN = ("IKE_AUTH request without MOBIKE_SUPPORTED", Blame.REMOTE)
    AUTH_NAT = ("IKE_AUTH request whose addresses were changed", Blame.REMOTE)
    UPDATE = ("UPDATE_SA_ADDRESSES from an address to verify", Blame.REMOTE)
    UPDATE_TRUSTED = ("UPDATE_SA_ADDRESSES from an address that needs no check", Blame.REMOTE)
    UPDATE_OLD = ("UPDATE_SA_ADDRESSES older than one already processed", Blame.REMOTE)
    UPDATE_UNACCEPTABLE = ("UPDATE_SA_ADDRESSES with addresses that policy refuses", Blame.REMOTE)
    NAT = ("a request whose addresses were changed", Blame.REMOTE)
    LIST = ("the peer's address list", Blame.REMOTE)
    CHECKED = ("the return routability check succeeded", Blame.REMOTE)
    CHECK_AGAIN = ("a return routability response that proves nothing", Blame.REMOTE)
    RECHECK = ("the address is to be verified again", Blame.LOCAL)
    SOURCE_LOST = ("the own address in use went away", Blame.LOCAL)
    CLOSE = ("close()", Blame.LOCAL)
    DELETED = ("Delete", Blame.REMOTE)
    COOKIE2 = ("COOKIE2 that differs", Blame.REMOTE)
    TIMEOUT = ("no answer in time", Blame.LOCAL)


S, C = State, Cause
_MOBILE = (S.STABLE, S.CHECKING)

TABLE: TransitionTable[State, Cause] = TransitionTable(
    "MOBIKE responder",
    {
        (S.LISTENING, C.INIT): S.NEGOTIATING,
        (S.LISTENING, C.CLOSE): S.CLOSED,
        (S.NEGOTIATING, C.INIT): S.NEGOTIATING,
        (S.NEGOTIATING, C.AUTH_MOBIKE): S.STABLE,
        (S.NEGOTIATING, C.AUTH_PLAIN): S.UNSUPPORTED,
        (S.NEGOTIATING, C.AUTH_NAT): S.LISTENING,
        (S.NEGOTIATING, C.CLOSE): S.CLOSED,
        (S.UNSUPPORTED, C.CLOSE): S.CLOSED,
        (S.UNSUPPORTED, C.DELETED): S.CLOSED,
        **{(s, C.UPDATE): S.CHECKING for s in _MOBILE},
        **{(s, C.UPDATE_TRUSTED): S.STABLE for s in _MOBILE},
        **{
            (s, c): s
            for s in _MOBILE
            for c in (C.UPDATE_OLD, C.UPDATE_UNACCEPTABLE, C.NAT, C.LIST, C.SOURCE_LOST)
        },
        **{(s, c): S.CLOSED for s in _MOBILE for c in (C.CLOSE, C.DELETED, C.COOKIE2, C.TIMEOUT)},
        (S.STABLE, C.RECHECK): S.CHECKING,
        (S.CHECKING, C.CHECKED): S.STABLE,
        (S.CHECKING, C.CHECK_AGAIN): S.CHECKING,
    },
)


@dataclass(frozen=True, slots=True)
class _HalfOpen:
    """An IKE_SA_INIT that was answered."""

    natt: bool
    spis: tuple[int, int]
    response: tuple[Payload, ...]


class MobikeResponder(MobikePeer[State, Cause]):
    """The responder's machine. ``own``: this side's addresses; ``spi``: a fresh IKE SPI."""

    table: ClassVar[TransitionTable[State, Cause]] = TABLE
    list_input = Cause.LIST
    nat_input = Cause.NAT
    closes: ClassVar[dict[Reason, Input]] = {
        Reason.LOCAL: Cause.CLOSE,
        Reason.DELETED: Cause.DELETED,
        Reason.COOKIE2: Cause.COOKIE2,
        Reason.TIMEOUT: Cause.TIMEOUT,
    }

    def __init__(
        self,
        own: Iterable[IpAddress],
        policy: MobikePolicy | None = None,
        *,
        spi: int = 2,
        mobike: bool = True,
    ) -> None:
        super().__init__(State.LISTENING, own, policy or MobikePolicy(), None, (0, spi))
        self.mobike = mobike
        self._next_spi = spi
        self._half_open: dict[int, _HalfOpen] = {}
        self._last_update_id = -1
        self._verified: Endpoint | None = None
        self._verified_at = 0.0
        self._search: list[Pair] = []
        """Pairs to announce the own addresses over when the current one may not work (section 3.6)."""

    def own_changed(self, own: Iterable[IpAddress], now: float) -> None:
        """Given this side's addresses, announce them; leave an address that went away.

        RFC 4555 sections 3.5 (the exception) and 3.6. Raise LocalProtocolError without MOBIKE, or when no
        address is left.
        """
        own = tuple(own)
        self._require_mobike()
        if not own:
            raise LocalProtocolError("no own address is left", hint="wait for one, or close")
        if self.pair.local.ip not in own:
            self._leave_source(own, now)
        self.announce(own, now)

    def _leave_source(self, own: tuple[IpAddress, ...], now: float) -> None:
        self._go(Cause.SOURCE_LOST)
        pair, remotes = self.pair, [self.pair.remote.ip, *sorted(self.peer_addresses, key=str)]
        self._search = [
            Pair(Endpoint(mine, pair.local.port), Endpoint(theirs, pair.remote.port))
            for theirs in dict.fromkeys(remotes)
            for mine in own
            if mine.version == theirs.version
        ]
        if not self._search:
            return
        self._pair = self._search[0]
        self._exchanger.moved(now)
        current = self._sa_pair
        if self.policy.responder_exception and current is not None:
            mine = next((ip for ip in own if ip.version == current.remote.ip.version), None)
            if mine is not None:
                self._sa_pair = Pair(Endpoint(mine, current.local.port), current.remote)
                self._tell(PathInUse(self._sa_pair))

    def _require_mobike(self) -> None:
        if self._state not in _MOBILE:
            raise LocalProtocolError(
                f"no MOBIKE in state {self._state.name}", hint="wait for Established(mobike)"
            )

    # --- the initial exchanges

    def _mine(self, message: Message) -> bool:
        if self._state in {State.LISTENING, State.NEGOTIATING}:
            return not message.response
        return super()._mine(message)

    def _receive_request(self, message: Message, now: float) -> None:
        if self._state not in {State.LISTENING, State.NEGOTIATING}:
            super()._receive_request(message, now)
        elif message.exchange is Exchange.IKE_SA_INIT and message.message_id == 0:
            self._answer_init(message)
        elif message.exchange is Exchange.IKE_AUTH and message.spi_i in self._half_open:
            self._answer_auth(message, self._half_open[message.spi_i], now)

    def _answer_init(self, message: Message) -> None:
        self._go(Cause.INIT)
        half = self._half_open.get(message.spi_i)
        if half is None:
            spis = (message.spi_i, self._next_spi)
            self._next_spi += 1
            natt = self.policy.nat_traversal and message.has(*NAT_DETECTION)
            hashes = self._hashes(message.arrival, spis) if self.policy.nat_traversal else []
            half = _HalfOpen(natt, spis, tuple(hashes))
            while len(self._half_open) >= MAX_HALF_OPEN:
                del self._half_open[next(iter(self._half_open))]
            self._half_open[message.spi_i] = half
        self._outbox.append(_reply(message, half.response, half.spis))

    def _answer_auth(self, message: Message, half: _HalfOpen, now: float) -> None:
        if (message.spi_i, message.spi_r) != half.spis or message.message_id != 1:
            return
        self.natt = half.natt
        claimed = message.first(NoNatsAllowed)
        mobike = self.mobike and message.has(MobikeSupported)
        if mobike and not half.natt and self._changed_on_the_way(message, claimed):
            self._go(Cause.AUTH_NAT)
            del self._half_open[message.spi_i]
            self._outbox.append(_reply(message, (UnexpectedNatDetected(),), half.spis))
            return
        self._go(Cause.AUTH_MOBIKE if mobike else Cause.AUTH_PLAIN)
        self.spis, self._pair = half.spis, message.arrival
        self._half_open.clear()
        self._sa_pair, self._verified, self._verified_at = self._pair, self._pair.remote, now
        self._exchanger = Exchanger(self.policy.retransmission, window=self.policy.window, spis=self.spis)
        self._learn_addresses(message)
        answer: list[Payload] = [MobikeSupported()] if mobike else []
        if mobike:
            self._note_capability(message)
            answer += [additional(ip) for ip in self.own if ip != self._pair.local.ip]
        for number in (0, 1):
            earlier = Message(Exchange.IKE_SA_INIT, number, False, message.source, message.destination)
            self._exchanger.respond(earlier, tuple(answer) if number else half.response)
        self._outbox.append(_reply(message, tuple(answer), self.spis))
        self._tell(Established(mobike))
        self._tell(PathInUse(self._pair))

    def _changed_on_the_way(self, message: Message, claimed: NoNatsAllowed | None) -> bool:
        """NO_NATS_ALLOWED in the first IKE_AUTH request (section 3.9)."""
        if claimed is None:
            raise RemoteProtocolError(
                "IKE_AUTH with MOBIKE but without NO_NATS_ALLOWED though NAT Traversal is not enabled",
                hint="RFC 4555 section 3.9 demands it: the peer's implementation is wrong",
            )
        source, destination = message.source, message.destination
        if claimed == NoNatsAllowed(source.ip, destination.ip, source.port, destination.port):
            return False
        self._tell(UnexpectedNat(claimed, message.arrival))
        return True

    def _answer(self, message: Message, now: float) -> tuple[Payload, ...]:
        arrival = message.arrival
        if self._search and arrival.local.ip in self.own and arrival not in self._search:
            self._search.append(arrival)  # a request came this way, so a NAT on it is open
        return super()._answer(message, now)

    def _note_capability(self, message: Message) -> None:
        """Extensions look here at MOBIKE_SUPPORTED's data; RFC 4555 section 4.2.1 ignores it."""

    # --- updates

    def _update_requested(self, message: Message, now: float) -> bool:
        """Given an UPDATE_SA_ADDRESSES request, carry it out unless it is old; return whether acceptable."""
        if message.message_id < self._last_update_id:
            self._go(Cause.UPDATE_OLD)
            return True
        arrival = message.arrival
        if not self.policy.acceptable(arrival.path):
            self._go(Cause.UPDATE_UNACCEPTABLE)
            return False
        routability = self.policy.return_routability
        trusted = routability is ReturnRoutability.SKIP or arrival.remote == self._verified
        self._go(Cause.UPDATE_TRUSTED if trusted else Cause.UPDATE)
        self._last_update_id = message.message_id
        for request in self._exchanger.outstanding:
            if request.kind is Kind.CHECK:
                request.superseded = True
        if arrival != self._pair or self._search:
            self._pair, self._search = arrival, []
            self._exchanger.moved(now)
        if self.natt and message.has(*NAT_DETECTION):
            self._examine_nat(message, self.spis)
        if trusted or routability is ReturnRoutability.AFTER:
            self._use(arrival)
        self._limit(arrival.remote, now, waits=not trusted and routability is ReturnRoutability.AFTER)
        return True

    def _use(self, pair: Pair) -> None:
        if self._sa_pair != pair:
            self._sa_pair = pair
            self._tell(PathInUse(pair))

    def _fill(self, now: float) -> None:
        interval = self.policy.recheck_s
        if self._state is State.STABLE and interval is not None and now >= self._verified_at + interval:
            self._go(Cause.RECHECK)
        if self._state is State.CHECKING and self._exchanger.free and not self._check_runs():
            self._exchanger.open(Kind.CHECK, (self._cookie(),), now)
        super()._fill(now)
        if self._search:
            for request in self._exchanger.outstanding:
                if request.kind is Kind.ANNOUNCE and request.next_at <= now:
                    request.via = rotate(request, self._search, TRIES_PER_PAIR)

    def _check_runs(self) -> bool:
        return any(r.kind is Kind.CHECK and not r.superseded for r in self._exchanger.outstanding)

    def next_deadline(self) -> float | None:
        """Return when `send` should be called at the latest, or None. After `receive`, call it at once."""
        deadline = super().next_deadline()
        if self._state is not State.STABLE or self.policy.recheck_s is None:
            return deadline
        recheck = self._verified_at + self.policy.recheck_s
        return recheck if deadline is None else min(deadline, recheck)

    def _answered(self, request: Request[Kind], message: Message, now: float) -> None:
        if request.kind is Kind.CHECK:
            self._check_answered(request, now)
        if request.kind is Kind.ANNOUNCE and self._search:
            self._search = []
            if message.arrival != self._pair:
                self._pair = message.arrival
                self._exchanger.moved(now)
            if self.policy.responder_exception and self._sa_pair is not None:
                self._use(Pair(message.arrival.local, self._sa_pair.remote))
        super()._answered(request, message, now)

    def _check_answered(self, request: Request[Kind], now: float) -> None:
        if self._state is not State.CHECKING:
            return
        if request.superseded or not request.single_remote:
            self._go(Cause.CHECK_AGAIN)
            return
        self._go(Cause.CHECKED)
        self._verified, self._verified_at = self.pair.remote, now
        self._unverified_since = None
        self._use(self.pair)
        self._verify(self.pair.remote)


def _reply(request: Message, payloads: tuple[Payload, ...], spis: tuple[int, int]) -> Message:
    return Message(
        request.exchange, request.message_id, True, request.destination, request.source, payloads, *spis
    )
