"""The initiator of MOBIKE (RFC 4555): it decides which pair of addresses the IKE_SA and its IPsec SAs use."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from mobikectl.protocol.exchange import Endpoint, Exchange, Exchanger, Message, Pair, Payload, Request, rotate
from mobikectl.protocol.machine import Blame, Input, LocalProtocolError, TransitionTable
from mobikectl.protocol.mobike import (
    NAT_DETECTION,
    Established,
    Kind,
    MobikePeer,
    MobikePolicy,
    PathInUse,
    Reason,
    ReturnRoutability,
    UpdateRefused,
    additional,
)
from mobikectl.wire.mobike import (
    Cookie2,
    MobikeSupported,
    NatDetectionDestinationIp,
    UnacceptableAddresses,
    UnexpectedNatDetected,
    UpdateSaAddresses,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobikectl.model import IpAddress

NATT_PORT = 4500


class State(Enum):
    """Where the initiator is."""

    IDLE = "nothing was started"
    CONNECTING = "IKE_SA_INIT was sent"
    AUTHENTICATING = "IKE_AUTH was sent"
    UNSUPPORTED = "the IKE_SA exists, but the responder does not support MOBIKE"
    STABLE = "both ends use the pair"
    PENDING = "an update waits for the request window (pending_update)"
    UPDATING = "UPDATE_SA_ADDRESSES was sent"
    REFUSED = "the update was not carried out: local policy decides"
    CLOSED = "the IKE_SA is gone"


class Cause(Input):
    """What moves the initiator."""

    CONNECT = ("connect()", Blame.LOCAL)
    INIT_ANSWERED = ("IKE_SA_INIT response", Blame.REMOTE)
    AUTH_MOBIKE = ("IKE_AUTH response with MOBIKE_SUPPORTED", Blame.REMOTE)
    AUTH_PLAIN = ("IKE_AUTH response without MOBIKE_SUPPORTED", Blame.REMOTE)
    AUTH_NAT = ("UNEXPECTED_NAT_DETECTED in IKE_AUTH", Blame.REMOTE)
    AUTH_NAT_AGAIN = ("UNEXPECTED_NAT_DETECTED in IKE_AUTH on every try", Blame.REMOTE)
    CHANGE = ("update()", Blame.LOCAL)
    SENT = ("the window allows the update request", Blame.LOCAL)
    ANSWERED = ("the update was carried out", Blame.REMOTE)
    SUPERSEDED = ("a superseded update was answered", Blame.REMOTE)
    NAT = ("UNEXPECTED_NAT_DETECTED", Blame.REMOTE)
    NAT_AGAIN = ("UNEXPECTED_NAT_DETECTED on every try", Blame.REMOTE)
    UNACCEPTABLE = ("UNACCEPTABLE_ADDRESSES", Blame.REMOTE)
    KEEP = ("keep()", Blame.LOCAL)
    MAPPING = ("the NAT mapping has changed", Blame.REMOTE)
    LIST = ("the peer's address list", Blame.REMOTE)
    LIST_NAT = ("a NAT changed the addresses of the peer's list", Blame.REMOTE)
    UPDATE_ASKED = ("UPDATE_SA_ADDRESSES request", Blame.REMOTE)
    CLOSE = ("close()", Blame.LOCAL)
    DELETED = ("Delete", Blame.REMOTE)
    COOKIE2 = ("COOKIE2 that differs", Blame.REMOTE)
    TIMEOUT = ("no answer in time", Blame.LOCAL)


S, C = State, Cause
_MOBILE = (S.STABLE, S.PENDING, S.UPDATING, S.REFUSED)

TABLE: TransitionTable[State, Cause] = TransitionTable(
    "MOBIKE initiator",
    {
        (S.IDLE, C.CONNECT): S.CONNECTING,
        (S.IDLE, C.CLOSE): S.CLOSED,
        (S.CONNECTING, C.INIT_ANSWERED): S.AUTHENTICATING,
        (S.CONNECTING, C.CLOSE): S.CLOSED,
        (S.CONNECTING, C.TIMEOUT): S.CLOSED,
        (S.AUTHENTICATING, C.AUTH_MOBIKE): S.STABLE,
        (S.AUTHENTICATING, C.AUTH_PLAIN): S.UNSUPPORTED,
        (S.AUTHENTICATING, C.AUTH_NAT): S.CONNECTING,
        (S.AUTHENTICATING, C.AUTH_NAT_AGAIN): S.CLOSED,
        (S.AUTHENTICATING, C.CLOSE): S.CLOSED,
        (S.AUTHENTICATING, C.TIMEOUT): S.CLOSED,
        (S.UNSUPPORTED, C.CLOSE): S.CLOSED,
        (S.UNSUPPORTED, C.DELETED): S.CLOSED,
        **{(s, C.CHANGE): S.PENDING for s in _MOBILE},
        **{(s, C.LIST): s for s in _MOBILE},
        **{(s, C.LIST_NAT): s for s in _MOBILE},
        **{(s, C.SUPERSEDED): s for s in _MOBILE},
        **{(s, c): S.CLOSED for s in _MOBILE for c in (C.CLOSE, C.DELETED, C.COOKIE2, C.TIMEOUT)},
        (S.STABLE, C.MAPPING): S.PENDING,
        (S.PENDING, C.SENT): S.UPDATING,
        (S.UPDATING, C.ANSWERED): S.STABLE,
        (S.UPDATING, C.NAT): S.PENDING,
        (S.UPDATING, C.NAT_AGAIN): S.REFUSED,
        (S.UPDATING, C.UNACCEPTABLE): S.REFUSED,
        (S.REFUSED, C.KEEP): S.STABLE,
    },
)


class MobikeInitiator(MobikePeer[State, Cause]):
    """The initiator's machine.

    ``own``: this side's addresses; ``spi``: a fresh IKE SPI. `connect` starts; then `update` moves.
    """

    table: ClassVar[TransitionTable[State, Cause]] = TABLE
    list_input = Cause.LIST
    nat_input = Cause.LIST_NAT
    closes: ClassVar[dict[Reason, Input]] = {
        Reason.LOCAL: Cause.CLOSE,
        Reason.DELETED: Cause.DELETED,
        Reason.COOKIE2: Cause.COOKIE2,
        Reason.TIMEOUT: Cause.TIMEOUT,
        Reason.NAT: Cause.AUTH_NAT_AGAIN,
    }

    def __init__(self, own: Iterable[IpAddress], policy: MobikePolicy | None = None, *, spi: int = 1) -> None:
        super().__init__(State.IDLE, own, policy or MobikePolicy(), None, (spi, 0))
        self._candidates: list[Pair] = []
        self._init_tries = 0
        self._update_tries = 0
        self._agreed: Pair | None = None
        """The pair of the last update that was answered well."""
        self._unsettled = False
        """A superseded update may have been carried out since `_agreed`."""
        self._verified: set[IpAddress] = set()
        self._mapping: tuple[bytes, ...] = ()
        self._probe: Pair | None = None

    # --- what can be asked for

    def connect(self, candidates: Sequence[Pair], now: float) -> None:
        """Given the pairs to try, best first, start (section 3.1). Raise LocalProtocolError."""
        if not candidates:
            raise LocalProtocolError("no pair to connect over", hint="give at least one")
        self._go(Cause.CONNECT)
        self._candidates = list(candidates)
        self._begin(now)

    def update(self, pair: Pair, now: float, *, suspect_nat: bool = False) -> None:
        """Given the new pair, move the IKE_SA and its IPsec SAs to it (section 3.5).

        ``suspect_nat`` enables UDP encapsulation at once. Raise LocalProtocolError when there is no
        IKE_SA with MOBIKE.
        """
        self._go(Cause.CHANGE)
        self._update_tries = 0
        self._change(pair, now)
        if suspect_nat and self.natt and self._sa_pair == pair:
            self.encapsulated = True

    def keep(self, now: float) -> None:
        """After a refusal, go on with the pair used before (section 3.5). Raise LocalProtocolError."""
        if self._agreed is None:
            raise LocalProtocolError("there is no earlier pair", hint="connect first")
        if self._unsettled:
            self.update(self._agreed, now)
            return
        self._go(Cause.KEEP)
        self._pair = self._sa_pair = self._agreed
        self._unverified_since = None
        self._exchanger.moved(now)

    def probe(self, pair: Pair, now: float) -> None:
        """Given a pair, test it without moving anything (section 3.10); `Alive` tells when it answers."""
        self._require_mobike()
        running = self._exchanger.find(Kind.PROBE)
        if running is None:
            self._probe = pair
        else:
            running.via = pair
            running.moved(now)

    def _require_mobike(self) -> None:
        if self._state not in _MOBILE:
            raise LocalProtocolError(
                f"no MOBIKE in state {self._state.name}", hint="wait for Established(mobike)"
            )

    # --- the initial exchanges

    def _begin(self, now: float) -> None:
        self._pair = self._candidates[0]
        self._exchanger = Exchanger(self.policy.retransmission, window=self.policy.window, spis=self.spis)
        hashes = self._hashes(self._pair, self.spis) if self.policy.nat_traversal else []
        self._exchanger.open(Kind.INIT, tuple(hashes), now, exchange=Exchange.IKE_SA_INIT)

    def _mine(self, message: Message) -> bool:
        if self._state is State.CONNECTING:
            return message.response and message.spi_i == self.spis[0]
        return super()._mine(message)

    def _receive_request(self, message: Message, now: float) -> None:
        if (
            self._state is not State.AUTHENTICATING
        ):  # the responder repeats what overtook its IKE_AUTH response
            super()._receive_request(message, now)

    def _init_answered(self, message: Message, now: float) -> None:
        self._go(Cause.INIT_ANSWERED)
        self.spis = self._exchanger.spis = (message.spi_i, message.spi_r)
        self.natt = self.policy.nat_traversal and message.has(*NAT_DETECTION)
        self._pair = message.arrival
        if self.natt:
            self._examine_nat(message, self.spis)
            self._mapping = tuple(n.digest for n in message.all(NatDetectionDestinationIp))
            self._pair = Pair(
                Endpoint(self._pair.local.ip, NATT_PORT), Endpoint(self._pair.remote.ip, NATT_PORT)
            )
        payloads: list[Payload] = [MobikeSupported(self._capability()), *self._no_nats(self._pair)]
        payloads += [additional(ip) for ip in self.own if ip != self._pair.local.ip]
        self._exchanger.open(Kind.AUTH, tuple(payloads), now, exchange=Exchange.IKE_AUTH)

    def _capability(self) -> bytes:
        return b""

    def _auth_answered(self, message: Message, now: float) -> None:
        if message.has(UnexpectedNatDetected):
            self._init_tries += 1
            if self._init_tries > self.policy.nat_retries:
                self._shut(Reason.NAT)
                return
            self._go(Cause.AUTH_NAT)
            self.spis = (self.spis[0] + 1, 0)
            self._begin(now)
            return
        mobike = message.has(MobikeSupported)
        self._go(Cause.AUTH_MOBIKE if mobike else Cause.AUTH_PLAIN)
        self._sa_pair = self._agreed = self._pair
        self._verified.add(self.pair.remote.ip)
        self._learn_addresses(message)
        self._tell(Established(mobike))
        self._tell(PathInUse(self.pair))

    # --- updates

    def _change(self, pair: Pair, now: float) -> None:
        """The first steps of section 3.5: the IKE_SA moves, and the IPsec SAs unless they must wait."""
        for request in self._exchanger.outstanding:
            if request.kind is Kind.UPDATE:
                request.superseded = self._unsettled = True
        self._pair = pair
        self._exchanger.moved(now)
        routability = self.policy.return_routability
        verified = pair.remote.ip in self._verified
        if routability is ReturnRoutability.BEFORE and not verified:
            return
        if self._sa_pair != pair:
            self._sa_pair = pair
            self._tell(PathInUse(pair))
        self._limit(pair.remote, now, waits=routability is ReturnRoutability.AFTER and not verified)

    def _fill(self, now: float) -> None:
        if self._state is State.CONNECTING:
            self._try_candidates(now)
            return
        if self._state is State.PENDING and self._exchanger.free:
            self._go(Cause.SENT)
            payloads: list[Payload] = [
                UpdateSaAddresses(),
                *self._nat_detection(self.pair),
                *self._no_nats(self.pair),
            ]
            if self.policy.return_routability is not ReturnRoutability.SKIP:
                payloads.append(self._cookie())
            if self._list_due:
                payloads += self._address_list(self.pair)
            request = self._exchanger.open(Kind.UPDATE, tuple(payloads), now)
            if self._list_due:
                self._list_due, self._list_request = False, request.message_id
        super()._fill(now)
        if self._probe is not None and self._exchanger.free:
            payloads = [*self._nat_detection(self._probe), self._cookie()]
            self._exchanger.open(Kind.PROBE, tuple(payloads), now, via=self._probe)
            self._probe = None

    def _try_candidates(self, now: float) -> None:
        for request in self._exchanger.outstanding:
            if request.next_at <= now:
                request.via = rotate(request, self._candidates, 1)

    def _answered(self, request: Request[Kind], message: Message, now: float) -> None:
        if request.kind is Kind.INIT:
            self._init_answered(message, now)
        elif request.kind is Kind.AUTH:
            self._auth_answered(message, now)
        else:
            if request.kind is Kind.UPDATE:
                self._update_answered(request, message, now)
            super()._answered(request, message, now)
            if request.kind in {Kind.LIVENESS, Kind.PROBE}:
                self._sign_of_life(request, message, now)

    def _update_answered(self, request: Request[Kind], message: Message, now: float) -> None:
        if request.superseded:
            self._go(Cause.SUPERSEDED)
        elif message.has(UnexpectedNatDetected):
            self._update_tries += 1
            if self._update_tries > self.policy.nat_retries:
                self._go(Cause.NAT_AGAIN)
                self._tell(UpdateRefused(self.pair, Reason.NAT))
            else:
                self._go(Cause.NAT)
        elif message.has(UnacceptableAddresses):
            self._go(Cause.UNACCEPTABLE)
            self._tell(UpdateRefused(self.pair, Reason.UNACCEPTABLE))
        else:
            self._go(Cause.ANSWERED)
            self._settle(request, message, now)

    def _settle(self, request: Request[Kind], message: Message, now: float) -> None:
        del now
        self._update_tries = 0
        self._prove(request)
        if self._sa_pair != self._pair:
            self._sa_pair = self.pair
            self._tell(PathInUse(self.pair))
        self._agreed, self._unsettled, self._unverified_since = self._pair, False, None
        if self.natt and message.has(*NAT_DETECTION):
            self._examine_nat(message, self.spis)
            self._mapping = tuple(n.digest for n in message.all(NatDetectionDestinationIp))

    def _prove(self, request: Request[Kind]) -> None:
        """A response with the right COOKIE2 verifies the one address that the request went to."""
        if request.single_remote and any(isinstance(p, Cookie2) for p in request.payloads):
            remote = request.sent_over[0].remote
            self._verified.add(remote.ip)
            self._verify(remote)

    def _sign_of_life(self, request: Request[Kind], message: Message, now: float) -> None:
        """Liveness and path tests verify addresses, and show changed NAT mappings (section 3.8)."""
        self._prove(request)
        seen = tuple(n.digest for n in message.all(NatDetectionDestinationIp))
        same_path = request.kind is Kind.LIVENESS and request.single_pair
        if self.local_nat and same_path and seen and seen != self._mapping and self._state is State.STABLE:
            self._go(Cause.MAPPING)
            self._mapping = seen
            self._change(self.pair, now)

    def _update_requested(self, message: Message, now: float) -> bool:
        del message, now
        self._go(Cause.UPDATE_ASKED)  # no state has it: only the initiator sends UPDATE_SA_ADDRESSES
        return False
