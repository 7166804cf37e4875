"""Redirection (draft-ietf-ipsecme-ikev2-redirect-01, RFC 5685): the gateway's role towards one client."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from mobikectl.protocol.exchange import (
    Admission,
    Delete,
    Endpoint,
    Exchange,
    Exchanger,
    Message,
    Nonce,
    Pair,
    Payload,
    Retransmission,
)
from mobikectl.protocol.machine import Blame, Event, Input, LocalProtocolError, Machine, TransitionTable
from mobikectl.protocol.redirect import Edition, Kind
from mobikectl.wire.redirect import (
    GatewayIdentity,
    Redirect,
    RedirectAck,
    RedirectedFrom,
    RedirectSupported,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.model import IpAddress


class State(Enum):
    """Where the gateway is with this client."""

    LISTENING = "no state is kept"
    NEGOTIATING = "IKE_SA_INIT was answered"
    ESTABLISHED = "there is an IKE_SA"
    WANTED = "a redirect waits for the request window"
    REDIRECTING = "REDIRECT was sent"
    REDIRECTED = "REDIRECT was acknowledged: the client sets up its new IKE_SA"
    CLOSED = "the IKE_SA is gone"


class Cause(Input):
    """What moves the gateway."""

    INIT_SERVED = ("IKE_SA_INIT request to serve", Blame.REMOTE)
    INIT_REDIRECTED = ("IKE_SA_INIT request to redirect", Blame.REMOTE)
    INIT_REFUSED = ("IKE_SA_INIT request to an anycast address without REDIRECT_SUPPORTED", Blame.REMOTE)
    AUTH_SERVED = ("IKE_AUTH request to serve", Blame.REMOTE)
    AUTH_REDIRECTED = ("IKE_AUTH request to redirect", Blame.REMOTE)
    REDIRECT = ("redirect()", Blame.LOCAL)
    SENT = ("the window allows the redirect", Blame.LOCAL)
    ACKNOWLEDGED = ("the redirect was acknowledged", Blame.REMOTE)
    NOT_UNDERSTOOD = ("an answer without REDIRECT_ACK", Blame.REMOTE)
    GRACE_OVER = ("the client did not delete its IKE_SA in time", Blame.LOCAL)
    DELETED = ("Delete", Blame.REMOTE)
    TIMEOUT = ("no answer in time", Blame.LOCAL)
    CLOSE = ("close()", Blame.LOCAL)


S, C = State, Cause
_LIVE = (S.ESTABLISHED, S.WANTED, S.REDIRECTING, S.REDIRECTED)
TABLE: TransitionTable[State, Cause] = TransitionTable(
    "redirect gateway",
    {
        (S.LISTENING, C.INIT_SERVED): S.NEGOTIATING,
        (S.LISTENING, C.INIT_REDIRECTED): S.LISTENING,
        (S.LISTENING, C.INIT_REFUSED): S.LISTENING,
        (S.NEGOTIATING, C.INIT_SERVED): S.NEGOTIATING,
        (S.NEGOTIATING, C.INIT_REDIRECTED): S.LISTENING,
        (S.NEGOTIATING, C.INIT_REFUSED): S.LISTENING,
        (S.NEGOTIATING, C.AUTH_SERVED): S.ESTABLISHED,
        (S.NEGOTIATING, C.AUTH_REDIRECTED): S.LISTENING,
        (S.ESTABLISHED, C.REDIRECT): S.WANTED,
        (S.WANTED, C.SENT): S.REDIRECTING,
        (S.REDIRECTING, C.ACKNOWLEDGED): S.REDIRECTED,
        (S.REDIRECTING, C.NOT_UNDERSTOOD): S.ESTABLISHED,
        (S.REDIRECTED, C.GRACE_OVER): S.CLOSED,
        (S.REDIRECTING, C.TIMEOUT): S.CLOSED,
        **{(s, C.DELETED): S.CLOSED for s in _LIVE},
        **{(s, C.CLOSE): S.CLOSED for s in _LIVE},
    },
)


def serve(client: Endpoint, redirected_from: IpAddress | None) -> None:
    """Redirect nobody: the default choice."""
    del client, redirected_from


@dataclass(frozen=True, slots=True)
class GatewayPolicy:
    """What the documents leave to the gateway."""

    edition: Edition = Edition.RFC_5685
    choose: Callable[[Endpoint, IpAddress | None], GatewayIdentity | None] = serve
    """At IKE_SA_INIT: given the client and the gateway that sent it here, where it should go (None: stay)."""
    choose_authenticated: Callable[[Endpoint, IpAddress | None], GatewayIdentity | None] = serve
    """The same at IKE_AUTH, when the client is known (RFC 5685 section 6)."""
    anycast: frozenset[IpAddress] = frozenset()
    """Addresses that the gateway shares with others (section 4)."""
    grace_s: float = 60.0
    """How long an acknowledged redirect may take before the gateway deletes the IKE_SA (RFC 5685 section 5)."""
    retransmission: Retransmission = field(default_factory=Retransmission)


@dataclass(frozen=True, slots=True)
class ClientServed(Event):
    """There is an IKE_SA with the client."""

    client: Endpoint
    redirected_from: IpAddress | None


@dataclass(frozen=True, slots=True)
class ClientRedirected(Event):
    """The client was sent to another gateway."""

    client: Endpoint
    target: GatewayIdentity


@dataclass(frozen=True, slots=True)
class RedirectNotUnderstood(Event):
    """The client answered a redirect, but not as its document says."""


@dataclass(frozen=True, slots=True)
class AnycastRefused(Event):
    """A client that cannot be redirected came to an anycast address and was not answered."""

    client: Endpoint


@dataclass(frozen=True, slots=True)
class ClientGone(Event):
    """The IKE_SA is gone."""

    cause: Cause


class RedirectGateway(Machine[State, Cause]):
    """A gateway towards one client. ``unicast``: its own address; ``spi``: a fresh SPI."""

    table: ClassVar[TransitionTable[State, Cause]] = TABLE

    def __init__(self, unicast: IpAddress, policy: GatewayPolicy | None = None, *, spi: int = 2) -> None:
        super().__init__(State.LISTENING)
        self.unicast = unicast
        self.policy = policy or GatewayPolicy()
        self._spi = spi
        self._pair: Pair | None = None
        self._exchanger: Exchanger[Kind] = Exchanger(self.policy.retransmission)
        self._supports = False
        self._from: IpAddress | None = None
        self._target: GatewayIdentity | None = None
        self._grace_until: float | None = None
        self._outbox: list[Message] = []

    @property
    def can_redirect(self) -> bool:
        """Whether the client said that it can be redirected (section 3)."""
        return self._supports

    def redirect(self, target: GatewayIdentity, now: float) -> None:
        """Given a gateway, send the client there in mid-session (section 5).

        Raise LocalProtocolError when there is no IKE_SA, or the client does not support it.
        """
        del now
        if not self._supports:
            raise LocalProtocolError(
                "the client did not send REDIRECT_SUPPORTED",
                hint="use another mechanism (draft-01 section 3)",
            )
        self._go(Cause.REDIRECT)
        self._target = target

    def close(self, now: float) -> None:
        """Delete the IKE_SA."""
        self._end(Cause.CLOSE)
        self._say_delete(now)

    # --- receiving

    def receive(self, message: Message, now: float) -> None:
        """Given a message and the time, take it in. Raise RemoteProtocolError as `machine` tells."""
        if message.exchange is Exchange.IKE_SA_INIT and not message.response and message.message_id == 0:
            if self._state in {State.LISTENING, State.NEGOTIATING}:
                self._receive_init(message)
            return
        if (message.spi_i, message.spi_r) != self._exchanger.spis:
            return
        if self._state is State.CLOSED:
            self._receive_late(message)
            return
        if message.response:
            self._receive_response(message, now)
        else:
            self._receive_request(message)

    def _receive_late(self, message: Message) -> None:
        """After the end only the answer to the own Delete and repeated requests matter."""
        if message.response:
            self._exchanger.close(message)
        elif self._exchanger.admit(message) is Admission.REPEAT:
            self._outbox.append(self._exchanger.repeat(message))

    def _receive_init(self, message: Message) -> None:
        origin = message.first(RedirectedFrom)
        supports = origin is not None or message.has(RedirectSupported)
        redirected_from = origin.gateway if origin is not None else None
        anycast = message.destination.ip in self.policy.anycast
        if anycast and not supports:
            self._go(Cause.INIT_REFUSED)
            self._tell(AnycastRefused(message.source))
            return
        target = self.policy.choose(message.source, redirected_from) if supports else None
        if anycast and target is None:
            target = self.unicast
        nonce = message.first(Nonce)
        if target is not None:
            self._go(Cause.INIT_REDIRECTED)
            echo = nonce.data if nonce is not None and self.policy.edition is Edition.RFC_5685 else b""
            self._reply(message, (Redirect(target, echo),), (message.spi_i, 0))
            self._tell(ClientRedirected(message.source, target))
            return
        self._go(Cause.INIT_SERVED)
        self._supports, self._from = supports, redirected_from
        if self._exchanger.spis[0] != message.spi_i:
            self._exchanger = Exchanger(self.policy.retransmission, spis=(message.spi_i, self._spi))
            self._spi += 1
        self._outbox.append(self._exchanger.respond(message, ()))

    def _receive_request(self, message: Message) -> None:
        admission = self._exchanger.admit(message)
        if admission is Admission.REPEAT:
            self._outbox.append(self._exchanger.repeat(message))
        elif admission is Admission.NEW and message.exchange is Exchange.IKE_AUTH:
            self._receive_auth(message)
        elif admission is Admission.NEW and message.exchange is Exchange.INFORMATIONAL:
            if message.has(Delete):
                self._end(Cause.DELETED)
                self._exchanger.abandon()
            self._outbox.append(self._exchanger.respond(message, ()))

    def _receive_auth(self, message: Message) -> None:
        target = None
        if self._supports and self.policy.edition is Edition.RFC_5685:
            target = self.policy.choose_authenticated(message.source, self._from)
        if target is not None:
            self._go(Cause.AUTH_REDIRECTED)
            self._outbox.append(self._exchanger.respond(message, (Redirect(target),)))
            self._tell(ClientRedirected(message.source, target))
            return
        self._go(Cause.AUTH_SERVED)
        self._pair = message.arrival
        self._outbox.append(self._exchanger.respond(message, ()))
        self._tell(ClientServed(message.source, self._from))

    def _receive_response(self, message: Message, now: float) -> None:
        request = self._exchanger.close(message)
        if request is None or request.kind is not Kind.REDIRECT or self._target is None:
            return
        if self.policy.edition is Edition.DRAFT_01 and not message.has(RedirectAck):
            self._go(Cause.NOT_UNDERSTOOD)
            self._tell(RedirectNotUnderstood())
            return
        self._go(Cause.ACKNOWLEDGED)
        self._grace_until = now + self.policy.grace_s
        self._tell(ClientRedirected(message.source, self._target))

    def _reply(self, request: Message, payloads: tuple[Payload, ...], spis: tuple[int, int]) -> None:
        self._outbox.append(
            Message(
                request.exchange,
                request.message_id,
                True,
                request.destination,
                request.source,
                payloads,
                *spis,
            )
        )

    # --- sending

    def send(self, now: float) -> list[Message]:
        """Given the time, return the messages to send now, in order."""
        if self._state is State.REDIRECTED and self._grace_until is not None and now >= self._grace_until:
            self._end(Cause.GRACE_OVER)
            self._say_delete(now)
        if self._state is State.REDIRECTING and self._exchanger.expired(now):
            self._end(Cause.TIMEOUT)
        if self._state is State.CLOSED and self._exchanger.expired(now):
            self._exchanger.abandon()
        if self._state is State.WANTED and self._target is not None:
            self._go(Cause.SENT)
            self._exchanger.open(Kind.REDIRECT, (Redirect(self._target),), now)
        out, self._outbox = self._outbox, []
        if self._pair is not None and not self._exchanger.expired(now):
            out += self._exchanger.due(now, self._pair)
        return out

    def next_deadline(self) -> float | None:
        """Return when `send` should be called at the latest, or None. After `receive`, call it at once."""
        if self._state is State.REDIRECTED:
            return self._grace_until
        return self._exchanger.deadline()

    def _end(self, cause: Cause) -> None:
        self._go(cause)
        self._tell(ClientGone(cause))

    def _say_delete(self, now: float) -> None:
        """Tell the client, again and again until it answers or is given up."""
        self._exchanger.abandon()
        if self._pair is not None:
            self._exchanger.open(Kind.REDIRECT, (Delete(),), now)
