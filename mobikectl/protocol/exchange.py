"""Exchanges: message IDs, windows, retransmission and cached responses (RFC 7296 sections 2.1 to 2.3).

charon does all this for real IKE_SAs. The machines need it to be complete by themselves, and to say when
a request was sent over several address pairs, which decides what its response proves (RFC 4555 section 3.7).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from mobikectl.model import IpAddress, Path
from mobikectl.protocol.machine import LocalProtocolError
from mobikectl.wire.notify import NotifyData

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_WINDOW = 64
"""The largest window accepted: bounds what is kept for a peer."""

MAX_PAYLOADS = 256
"""The most payloads of one message that are looked at: bounds the work that a peer can cause."""


class Exchange(IntEnum):
    """Exchange types (RFC 7296 section 3.1)."""

    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An address and a UDP port."""

    ip: IpAddress
    port: int = 4500

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """A pair of endpoints, seen from one side."""

    local: Endpoint
    remote: Endpoint

    def __str__(self) -> str:
        return f"{self.local} -> {self.remote}"

    @property
    def path(self) -> Path:
        """The addresses without the ports."""
        return Path(self.local.ip, self.remote.ip)


@dataclass(frozen=True, slots=True)
class Delete:
    """A Delete payload for the IKE_SA (RFC 7296 section 3.11)."""


@dataclass(frozen=True, slots=True)
class Nonce:
    """A Nonce payload (RFC 7296 section 3.9): 16 to 256 octets."""

    data: bytes


Payload: TypeAlias = NotifyData | Delete | Nonce | object
"""A typed notify of `mobikectl.wire`, or one of the few other payloads that the machines look at."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Message:
    """A plaintext IKE message with the addresses and ports that its packet carries at this point of its way."""

    exchange: Exchange
    message_id: int
    response: bool
    source: Endpoint
    destination: Endpoint
    payloads: tuple[Payload, ...] = ()
    spi_i: int = 0
    spi_r: int = 0

    def all(self, kind: type[T]) -> list[T]:
        """Given a payload class, return all payloads of it in order."""
        return [payload for payload in self.payloads[:MAX_PAYLOADS] if isinstance(payload, kind)]

    def first(self, kind: type[T]) -> T | None:
        """Given a payload class, return the first payload of it, or None."""
        return next(iter(self.all(kind)), None)

    def has(self, *kinds: type) -> bool:
        """Whether there is a payload of one of the classes."""
        return any(isinstance(payload, kinds) for payload in self.payloads[:MAX_PAYLOADS])

    @property
    def arrival(self) -> Pair:
        """The pair it arrived over, seen from its receiver."""
        return Pair(self.destination, self.source)


@dataclass(frozen=True, slots=True)
class Retransmission:
    """When an unanswered request is sent again, in seconds."""

    first_s: float = 2.0
    factor: float = 1.8
    longest_s: float = 20.0
    suspect_after: int = 3
    """Transmissions over one pair without an answer after which the path is suspected."""
    give_up_s: float = 300.0
    """RFC 4555 section 3.11 suggests that responders go on for at least five minutes."""

    def wait(self, transmissions: int) -> float:
        """Given how often it was sent already, return how long to wait for an answer, in seconds."""
        return min(self.first_s * self.factor ** min(transmissions - 1, 32), self.longest_s)


KindT = TypeVar("KindT", bound=Enum)


@dataclass(slots=True)
class Request(Generic[KindT]):
    """A request of this side that is not answered yet."""

    kind: KindT
    exchange: Exchange
    message_id: int
    payloads: tuple[Payload, ...]
    via: Pair | None
    """The pair it must be sent over; None: the one that the IKE_SA has at that time."""
    opened_at: float
    next_at: float
    sent_over: list[Pair] = field(default_factory=list)
    """Every pair that it was sent over, in order, without repetition."""
    transmissions: int = 0
    """Since the pair last changed."""
    superseded: bool = False
    """What it asks for is outdated: its response changes nothing (RFC 4555 section 3.5)."""

    def moved(self, now: float) -> None:
        """Send again at once, with fresh timers: the pair has changed."""
        self.next_at, self.transmissions = now, 0

    @property
    def single_pair(self) -> bool:
        """Whether the response proves something about the pair (RFC 4555 section 3.7's exception)."""
        return len(self.sent_over) == 1

    @property
    def single_remote(self) -> bool:
        """Whether it was sent to one destination address only (RFC 4555 section 3.7's exception)."""
        return len({pair.remote for pair in self.sent_over}) == 1


class Admission(Enum):
    """What is to be done with a request of the peer."""

    NEW = "process it"
    REPEAT = "send the response again"
    BUSY = "it is being processed: wait"
    OUTSIDE = "outside the window: drop it"


class Exchanger(Generic[KindT]):
    """Both directions of an IKE_SA's exchanges: own requests and the peer's."""

    def __init__(
        self, retransmission: Retransmission, *, window: int = 1, spis: tuple[int, int] = (0, 0)
    ) -> None:
        if not 1 <= window <= MAX_WINDOW:
            raise LocalProtocolError(f"a window of {window}", hint=f"choose 1 to {MAX_WINDOW}")
        self.retransmission = retransmission
        self.window = window
        self.spis = spis
        self._next_id = 0
        self._open: dict[int, Request[KindT]] = {}
        self._expected = 0
        self._answered: dict[int, tuple[Payload, ...]] = {}
        self._busy: set[int] = set()

    # --- own requests

    @property
    def outstanding(self) -> list[Request[KindT]]:
        """The unanswered requests, oldest first."""
        return list(self._open.values())

    @property
    def free(self) -> bool:
        """Whether the window allows one more request (RFC 7296 section 2.3)."""
        return not self._open or self._next_id < min(self._open) + self.window

    def find(self, kind: KindT) -> Request[KindT] | None:
        """Given a kind, return the newest unanswered request of it, or None."""
        return next((r for r in reversed(self._open.values()) if r.kind is kind), None)

    def open(
        self,
        kind: KindT,
        payloads: tuple[Payload, ...],
        now: float,
        *,
        exchange: Exchange = Exchange.INFORMATIONAL,
        via: Pair | None = None,
    ) -> Request[KindT]:
        """Given a request's kind and payloads, give it the next message ID and return it, to be sent at once.

        Raise LocalProtocolError when the window is full.
        """
        if not self.free:
            raise LocalProtocolError("the request window is full", hint="wait for a response")
        request = Request(kind, exchange, self._next_id, payloads, via, now, now)
        self._next_id += 1
        self._open[request.message_id] = request
        return request

    def due(self, now: float, pair: Pair) -> list[Message]:
        """Given the time and the IKE_SA's pair, return the requests to transmit now."""
        return [self._transmit(r, now, r.via or pair) for r in self._open.values() if r.next_at <= now]

    def _transmit(self, request: Request[KindT], now: float, pair: Pair) -> Message:
        if pair not in request.sent_over:
            request.sent_over.append(pair)
        request.transmissions += 1
        request.next_at = now + self.retransmission.wait(request.transmissions)
        return Message(
            request.exchange,
            request.message_id,
            False,
            pair.local,
            pair.remote,
            request.payloads,
            *self.spis,
        )

    def moved(self, now: float) -> None:
        """The IKE_SA's pair has changed: continue all requests over the new one (RFC 4555 section 3.5)."""
        for request in self._open.values():
            request.via = None
            request.moved(now)

    def close(self, message: Message) -> Request[KindT] | None:
        """Given a response, return the request that it answers and forget it; None when there is none."""
        request = self._open.get(message.message_id)
        if request is None or request.exchange is not message.exchange or not request.sent_over:
            return None
        return self._open.pop(message.message_id)

    def abandon(self) -> None:
        """Forget all unanswered requests: the IKE_SA ends."""
        self._open.clear()

    def deadline(self) -> float | None:
        """When `due` or `expired` will have something next, or None."""
        times = [min(r.next_at, r.opened_at + self.retransmission.give_up_s) for r in self._open.values()]
        return min(times, default=None)

    def expired(self, now: float) -> bool:
        """Whether a request was unanswered for too long: the IKE_SA is dead (RFC 7296 section 2.4)."""
        return any(now >= r.opened_at + self.retransmission.give_up_s for r in self._open.values())

    # --- the peer's requests

    def admit(self, message: Message) -> Admission:
        """Given a request of the peer, return what to do with it. Nothing changes."""
        number = message.message_id
        if number in self._answered:
            return Admission.REPEAT
        if number in self._busy:
            return Admission.BUSY
        if self._expected <= number < self._expected + self.window:
            return Admission.NEW
        return Admission.OUTSIDE

    @property
    def oldest_unanswered(self) -> int:
        """The lowest message ID of the peer's that is not answered yet."""
        return self._expected

    def hold(self, message: Message) -> None:
        """The response will come later: meanwhile drop repetitions of the request."""
        self._busy.add(message.message_id)

    def respond(self, request: Message, payloads: tuple[Payload, ...]) -> Message:
        """Given a request and what to answer, remember the response and return it."""
        number = request.message_id
        self._busy.discard(number)
        self._answered[number] = payloads
        while self._expected in self._answered:
            self._expected += 1
        for old in [n for n in self._answered if n < self._expected - self.window]:
            del self._answered[old]
        return self._response(request, payloads)

    def repeat(self, request: Message) -> Message:
        """Given a repeated request, return the same response, to where this copy came from."""
        return self._response(request, self._answered[request.message_id])

    def _response(self, request: Message, payloads: tuple[Payload, ...]) -> Message:
        return Message(
            request.exchange,
            request.message_id,
            True,
            request.destination,
            request.source,
            payloads,
            *self.spis,
        )


def rotate(request: Request[KindT], pairs: list[Pair], per_pair: int) -> Pair:
    """Given an unanswered request, the pairs to try and tries for each, return the pair for the next try."""
    tried = sum(1 for _ in request.sent_over)
    turn = (request.transmissions // per_pair) if tried else 0
    return pairs[turn % len(pairs)]


CookieSource: TypeAlias = "Callable[[], bytes]"
"""Gives fresh unpredictable octets (8 to 64); the owner passes ``secrets.token_bytes``-like randomness."""
