"""What both roles of MOBIKE share (RFC 4555): policy, events, address lists, liveness, NAT detection.

The roles are `mobikectl.protocol.mobike_initiator` and `mobikectl.protocol.mobike_responder`.
"""

from __future__ import annotations

import secrets
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
from mobikectl.protocol.machine import Event, Input, InputT, Machine, RemoteProtocolError, StateT
from mobikectl.wire.mobike import (
    AdditionalIp4Address,
    AdditionalIp6Address,
    Cookie2,
    NatDetectionDestinationIp,
    NatDetectionSourceIp,
    NoAdditionalAddresses,
    NoNatsAllowed,
    UnacceptableAddresses,
    UnexpectedNatDetected,
    UpdateSaAddresses,
    nat_detection_hash,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mobikectl.model import IpAddress, Path

COOKIE_OCTETS = 16
MAX_UNVERIFIED = 256
ADDRESS_LIST = (AdditionalIp4Address, AdditionalIp6Address, NoAdditionalAddresses)
NAT_DETECTION = (NatDetectionSourceIp, NatDetectionDestinationIp)


class ReturnRoutability(Enum):
    """When the peer's new address is verified (RFC 4555 section 3.7)."""

    BEFORE = "before the IPsec SAs are updated"
    AFTER = "immediately after"
    SKIP = "not at all: the peer is expected to be well-behaved"


def any_path(path: Path) -> bool:
    """Accept every path: the default of `MobikePolicy.acceptable`."""
    del path
    return True


@dataclass(frozen=True, slots=True)
class MobikePolicy:
    """What RFC 4555 leaves to local policy."""

    return_routability: ReturnRoutability = ReturnRoutability.BEFORE
    unverified_limit_s: float = 20.0
    """With AFTER: how long IPsec traffic may go to an address that is not verified yet, then it is held."""
    recheck_s: float | None = None
    """Verify the current address again this often ('continuously during the connection')."""
    nat_traversal: bool = True
    """Whether NAT Traversal is supported; without it NO_NATS_ALLOWED protects the addresses (section 3.9)."""
    nat_retries: int = 5
    """New requests after UNEXPECTED_NAT_DETECTED before giving up (section 3.9)."""
    acceptable: Callable[[Path], bool] = any_path
    """Which pairs the responder accepts in UPDATE_SA_ADDRESSES (section 3.5)."""
    responder_exception: bool = True
    """Whether the responder moves the IPsec SAs when its source address goes away (section 3.5)."""
    window: int = 1
    retransmission: Retransmission = field(default_factory=Retransmission)
    random_octets: Callable[[int], bytes] = secrets.token_bytes
    """Makes COOKIE2 unpredictable (section 4.2.5)."""


class Kind(Enum):
    """What a request is for."""

    INIT = "IKE_SA_INIT"
    AUTH = "IKE_AUTH"
    UPDATE = "UPDATE_SA_ADDRESSES"
    ANNOUNCE = "additional addresses"
    CHECK = "return routability check"
    LIVENESS = "dead peer detection"
    PROBE = "path test"
    SWITCH = "SWITCH_TO_IP_ADDRESS"


class Reason(Enum):
    """Why an IKE_SA was closed or an update was not carried out."""

    LOCAL = "closed by this side"
    DELETED = "the peer deleted the IKE_SA"
    COOKIE2 = "COOKIE2 came back changed (section 3.7)"
    TIMEOUT = "a request was not answered"
    NAT = "UNEXPECTED_NAT_DETECTED on every try (section 3.9)"
    UNACCEPTABLE = "UNACCEPTABLE_ADDRESSES (section 3.5)"


@dataclass(frozen=True, slots=True)
class Established(Event):
    """The IKE_SA exists; ``mobike`` says whether both support it."""

    mobike: bool


@dataclass(frozen=True, slots=True)
class PathInUse(Event):
    """The IPsec SAs use this pair from now on."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class PathSuspect(Event):
    """A request was transmitted several times over the pair without an answer (section 3.5)."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class UpdateRefused(Event):
    """An update was not carried out: choose another pair, keep the old one or close (section 3.5)."""

    pair: Pair
    reason: Reason


@dataclass(frozen=True, slots=True)
class PeerAddresses(Event):
    """The peer announced its addresses; ``current_gone``: the one in use is no longer among them.

    ``source``: where the list came from. When that is not the address in use, the responder may already
    send from there (section 3.5's exception): an update brings both ends to one pair again.
    """

    addresses: frozenset[IpAddress]
    current_gone: bool
    source: IpAddress


@dataclass(frozen=True, slots=True)
class Verified(Event):
    """A return routability check of the peer's endpoint succeeded (section 3.7)."""

    remote: Endpoint


@dataclass(frozen=True, slots=True)
class Alive(Event):
    """The peer answered a liveness check or a path test.

    ``proven``: the request went over ``pair`` alone, so that the answer proves that it works.
    """

    pair: Pair
    proven: bool
    probe: bool


@dataclass(frozen=True, slots=True)
class AnnounceFailed(Event):
    """The address list could not be announced: a NAT is in the way (section 3.9)."""


@dataclass(frozen=True, slots=True)
class UnexpectedNat(Event):
    """A request of the peer was refused: its addresses were changed on the way. For logs only (section 3.9)."""

    claimed: NoNatsAllowed
    seen: Pair


@dataclass(frozen=True, slots=True)
class Closed(Event):
    """The IKE_SA is gone."""

    reason: Reason


class MobikePeer(Machine[StateT, InputT]):
    """One end of an IKE_SA with MOBIKE: what initiator and responder have in common.

    ``pair`` is the IKE_SA's, ``sa_pair`` the IPsec SAs'; both seen from this side.
    """

    closes: ClassVar[dict[Reason, Input]]
    """Which input each reason to close is."""
    list_input: ClassVar[Input]
    nat_input: ClassVar[Input]

    def __init__(
        self,
        initial: StateT,
        own: Iterable[IpAddress],
        policy: MobikePolicy,
        pair: Pair | None,
        spis: tuple[int, int],
    ) -> None:
        super().__init__(initial)
        self.policy = policy
        self.own = tuple(own)
        self._pair = pair
        self._sa_pair: Pair | None = None
        self.spis = spis
        self.peer_addresses: frozenset[IpAddress] = frozenset()
        self.natt = False
        """Both ends support NAT Traversal."""
        self.local_nat = False
        self.remote_nat = False
        self.encapsulated = False
        """UDP encapsulation of ESP is enabled."""
        self._exchanger: Exchanger[Kind] = Exchanger(policy.retransmission, window=policy.window, spis=spis)
        self._outbox: list[Message] = []
        self._list_due = False
        self._list_request: int | None = None
        self._list_tries = 0
        self._last_list_id = -1
        self._liveness_due = False
        self._unverified_since: float | None = None
        self._unverified: dict[IpAddress, float] = {}
        """Since when each address waits for its first successful check: going there again gains no time."""
        self.closed = False

    # --- what is known

    @property
    def pair(self) -> Pair:
        """The IKE_SA's pair."""
        if self._pair is None:
            raise RemoteProtocolError("there is no IKE_SA yet", hint="wait for IKE_AUTH")
        return self._pair

    @property
    def sa_pair(self) -> Pair | None:
        """The IPsec SAs' pair, or None before there are any."""
        return self._sa_pair

    def may_send_esp(self, now: float) -> bool:
        """Whether IPsec traffic may be sent to `sa_pair` now, or is held until the address is verified."""
        if self.closed or self._sa_pair is None:
            return False
        return self._unverified_since is None or now < self._unverified_since + self.policy.unverified_limit_s

    def is_evidence(self, arrival: Pair) -> bool:
        """Given the pair that an IPsec packet came over, return whether it shows that the peer is in step.

        RFC 4555 section 3.12: only packets with the addresses that should be employed do.
        """
        return arrival == self._sa_pair

    # --- what can be asked for

    def announce(self, own: Iterable[IpAddress], now: float) -> None:
        """Given all addresses of this side, tell the peer (section 3.6). Raise LocalProtocolError."""
        self._require_mobike()
        self.own = tuple(own)
        self._announce_again(now)

    def check_liveness(self, now: float) -> None:
        """Ask for a sign of life over the current pair (section 3.12)."""
        del now
        self._require_mobike()
        self._liveness_due = True

    def close(self, now: float) -> None:
        """Delete the IKE_SA."""
        del now
        self._shut(Reason.LOCAL)

    def _require_mobike(self) -> None:
        raise NotImplementedError

    def _announce_again(self, now: float) -> None:
        del now
        self._list_due, self._list_request, self._list_tries = True, None, 0

    # --- receiving

    def receive(self, message: Message, now: float) -> None:
        """Given a message and the time, take it in.

        Raise RemoteProtocolError when the peer must not have sent it; then the state is what it was.
        Messages of other IKE_SAs and late or repeated ones are dropped or answered as before.
        """
        if self.closed or not self._mine(message):
            return
        if message.response:
            self._receive_response(message, now)
        else:
            self._receive_request(message, now)

    def _mine(self, message: Message) -> bool:
        return (message.spi_i, message.spi_r) == self.spis

    def _receive_request(self, message: Message, now: float) -> None:
        admission = self._exchanger.admit(message)
        if admission is Admission.REPEAT:
            self._outbox.append(self._exchanger.repeat(message))
        elif admission is Admission.NEW and message.exchange is Exchange.INFORMATIONAL:
            answer = self._answer(message, now)
            self._outbox.append(self._exchanger.respond(message, answer))

    def _answer(self, message: Message, now: float) -> tuple[Payload, ...]:
        if message.has(Delete):
            self._shut(Reason.DELETED)
            return ()
        answer: list[Payload] = []
        updates = message.has(UpdateSaAddresses, *ADDRESS_LIST)
        if updates and self._prohibited(message):
            answer.append(UnexpectedNatDetected())
        else:
            if message.has(UpdateSaAddresses) and not self._update_requested(message, now):
                answer.append(UnacceptableAddresses())
            if message.has(*ADDRESS_LIST):
                self._list_received(message)
            answer += self._answer_more(message, now)
        if self.natt and message.has(*NAT_DETECTION):
            answer += self._nat_detection(message.arrival)
        return (*answer, *message.all(Cookie2))

    def _answer_more(self, message: Message, now: float) -> list[Payload]:
        del message, now
        return []

    def _update_requested(self, message: Message, now: float) -> bool:
        raise NotImplementedError

    def _prohibited(self, message: Message) -> bool:
        """NO_NATS_ALLOWED (section 3.9): whether the addresses were changed on the way."""
        claimed = message.first(NoNatsAllowed)
        if claimed is None:
            if self.natt:
                return False
            raise RemoteProtocolError(
                "an address update without NO_NATS_ALLOWED though NAT Traversal is not enabled",
                hint="RFC 4555 section 3.9 demands it: the peer's implementation is wrong",
            )
        seen = NoNatsAllowed(
            message.source.ip, message.destination.ip, message.source.port, message.destination.port
        )
        if claimed == seen:
            return False
        self._go(self.nat_input)  # type: ignore[arg-type]  # the subclass's own inputs
        self._tell(UnexpectedNat(claimed, message.arrival))
        return True

    def _list_received(self, message: Message) -> None:
        self._go(self.list_input)  # type: ignore[arg-type]
        if message.message_id < self._last_list_id:
            return
        self._last_list_id = message.message_id
        self._learn_addresses(message)
        gone = self.pair.remote.ip not in self.peer_addresses
        self._tell(PeerAddresses(self.peer_addresses, gone, message.source.ip))

    def _learn_addresses(self, message: Message) -> None:
        listed: set[IpAddress] = {n.address for n in message.all(AdditionalIp4Address)}
        listed |= {n.address for n in message.all(AdditionalIp6Address)}
        self.peer_addresses = frozenset({message.source.ip} | listed)

    def _receive_response(self, message: Message, now: float) -> None:
        request = self._exchanger.close(message)
        if request is None:
            return
        if request.exchange is Exchange.INFORMATIONAL and not self._cookie_intact(request, message):
            self._shut(Reason.COOKIE2)
            return
        self._answered(request, message, now)

    def _cookie_intact(self, request: Request[Kind], message: Message) -> bool:
        """COOKIE2 (section 3.7); an error response has it only 'possibly' (section 3.5)."""
        sent = [p for p in request.payloads if isinstance(p, Cookie2)]
        got = message.all(Cookie2)
        if not got and message.has(UnacceptableAddresses, UnexpectedNatDetected):
            return True
        return got == sent

    def _answered(self, request: Request[Kind], message: Message, now: float) -> None:
        if request.kind in {Kind.LIVENESS, Kind.PROBE}:
            pair = message.arrival if request.kind is Kind.PROBE else self.pair
            self._tell(Alive(pair, request.single_pair, request.kind is Kind.PROBE))
        self._list_answered(request, message, now)

    def _list_answered(self, request: Request[Kind], message: Message, now: float) -> None:
        if request.message_id != self._list_request:
            return
        self._list_request = None
        several_sources = len({pair.local for pair in request.sent_over}) > 1
        if message.has(UnexpectedNatDetected):
            self._list_tries += 1
            if self._list_tries > self.policy.nat_retries:
                self._tell(AnnounceFailed())
            else:
                self._list_due = True
        elif several_sources or message.has(UnacceptableAddresses):
            tries = self._list_tries
            self._announce_again(now)
            self._list_tries = tries

    # --- sending

    def send(self, now: float) -> list[Message]:
        """Given the time, return the messages to send now, in order."""
        if not self.closed and self._exchanger.expired(now):
            self._shut(Reason.TIMEOUT)
        if not self.closed:
            self._fill(now)
            self._suspect(now)
        out, self._outbox = self._outbox, []
        if not self.closed and self._pair is not None:
            out += self._exchanger.due(now, self._pair)
        return out

    def next_deadline(self) -> float | None:
        """Return when `send` should be called at the latest, or None. After `receive`, call it at once."""
        return None if self.closed else self._exchanger.deadline()

    def _fill(self, now: float) -> None:
        """Open the requests that are wanted and that the window allows."""
        if self._list_due and self._exchanger.free and self._pair is not None:
            self._list_due = False
            payloads = (*self._address_list(self.pair), *self._no_nats(self.pair))
            self._list_request = self._exchanger.open(Kind.ANNOUNCE, payloads, now).message_id
        if self._liveness_due and self._exchanger.free:
            self._liveness_due = False
            payloads = (*self._nat_detection(self.pair), self._cookie())
            self._exchanger.open(Kind.LIVENESS, payloads, now)

    def _suspect(self, now: float) -> None:
        limit = self.policy.retransmission.suspect_after
        for request in self._exchanger.outstanding:
            if request.next_at <= now and request.transmissions == limit:
                self._tell(PathSuspect(request.via or self.pair))

    def _limit(self, remote: Endpoint, now: float, *, waits: bool) -> None:
        """Given where IPsec traffic goes, hold it after a while when the address is not verified."""
        if not waits:
            self._unverified_since = None
            return
        while remote.ip not in self._unverified and len(self._unverified) >= MAX_UNVERIFIED:
            del self._unverified[next(iter(self._unverified))]
        self._unverified_since = self._unverified.setdefault(remote.ip, now)

    def _verify(self, remote: Endpoint) -> None:
        self._unverified.pop(remote.ip, None)
        self._tell(Verified(remote))

    def _shut(self, reason: Reason) -> None:
        self._go(self.closes[reason])  # type: ignore[arg-type]
        self.closed = True
        if reason in {Reason.LOCAL, Reason.COOKIE2} and self._sa_pair is not None and self._exchanger.free:
            request = self._exchanger.open(Kind.LIVENESS, (Delete(),), 0.0)
            self._outbox += [
                m for m in self._exchanger.due(0.0, self.pair) if m.message_id == request.message_id
            ]
        self._sa_pair = None
        self._tell(Closed(reason))

    # --- payloads

    def _cookie(self) -> Cookie2:
        return Cookie2(self.policy.random_octets(COOKIE_OCTETS))

    def _nat_detection(self, pair: Pair) -> list[Payload]:
        """Given the pair that the message is sent over, return both NAT detection notifies, if supported."""
        if not self.natt:
            return []
        return self._hashes(pair, self.spis)

    def _hashes(self, pair: Pair, spis: tuple[int, int]) -> list[Payload]:
        source = nat_detection_hash(*spis, pair.local.ip, pair.local.port)
        destination = nat_detection_hash(*spis, pair.remote.ip, pair.remote.port)
        return [NatDetectionSourceIp(source), NatDetectionDestinationIp(destination)]

    def _no_nats(self, pair: Pair) -> list[Payload]:
        """Given the pair, return what protects the addresses when NAT Traversal is not enabled (section 3.9)."""
        if self.natt:
            return []
        return [NoNatsAllowed(pair.local.ip, pair.remote.ip, pair.local.port, pair.remote.port)]

    def _address_list(self, pair: Pair) -> list[Payload]:
        """Given the pair that the list is sent over, return the other addresses of this side (section 3.6)."""
        others = [ip for ip in self.own if ip != pair.local.ip]
        return [additional(ip) for ip in others] or [NoAdditionalAddresses()]

    def _examine_nat(self, message: Message, spis: tuple[int, int]) -> None:
        """Given a message with NAT detection, enable or disable NAT Traversal (sections 3.5, 3.8)."""
        sources = message.all(NatDetectionSourceIp)
        destinations = message.all(NatDetectionDestinationIp)
        if not (sources and destinations):
            return
        here, there = message.destination, message.source
        self.remote_nat = not any(n.matches(*spis, there.ip, there.port) for n in sources)
        self.local_nat = not any(n.matches(*spis, here.ip, here.port) for n in destinations)
        self.encapsulated = self.local_nat or self.remote_nat


def additional(ip: IpAddress) -> Payload:
    """Given an address, return its ADDITIONAL_IP4_ADDRESS or ADDITIONAL_IP6_ADDRESS (section 4.2.2)."""
    return AdditionalIp4Address(ip) if isinstance(ip, IPv4Address) else AdditionalIp6Address(ip)
