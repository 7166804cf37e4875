"""Redirection: draft-ietf-ipsecme-ikev2-redirect-01 and what became of it, RFC 5685. The client's role.

The editions differ in what `Edition` tells; everything else is one machine. The gateway's role is
`mobikectl.protocol.redirect_gateway`.
"""

from __future__ import annotations

import secrets
from collections import deque
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
from mobikectl.wire.redirect import (
    Fqdn,
    GatewayIdentity,
    Redirect,
    RedirectAck,
    RedirectedFrom,
    RedirectSupported,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.model import IpAddress

MAX_REDIRECTS = 5
"""RFC 5685: the most redirects that a client follows within `REDIRECT_LOOP_DETECT_PERIOD_S`."""

REDIRECT_LOOP_DETECT_PERIOD_S = 300.0
NONCE_OCTETS = 32


class Edition(Enum):
    """Which document both sides follow.

    draft-01: no nonce in REDIRECT, REDIRECT_ACK in the answer, nothing in IKE_AUTH. RFC 5685: the nonce of
    the request (section 7.2), an empty answer (section 5), redirects in IKE_AUTH too (section 6).
    """

    DRAFT_01 = "draft-ietf-ipsecme-ikev2-redirect-01"
    RFC_5685 = "RFC 5685"


class Kind(Enum):
    """What a request is for."""

    INIT = "IKE_SA_INIT"
    AUTH = "IKE_AUTH"
    REDIRECT = "REDIRECT"


class State(Enum):
    """Where the client is."""

    IDLE = "nothing was started"
    CONNECTING = "IKE_SA_INIT was sent"
    RESOLVING = "the new gateway's name is being resolved"
    AUTHENTICATING = "IKE_AUTH was sent"
    ESTABLISHED = "there is an IKE_SA"
    CLOSED = "there is none, and none is being made"


class Cause(Input):
    """What moves the client."""

    CONNECT = ("connect()", Blame.LOCAL)
    RECONNECT = ("reconnect()", Blame.LOCAL)
    TO_ADDRESS = ("REDIRECT to an address", Blame.REMOTE)
    TO_NAME = ("REDIRECT to a name", Blame.REMOTE)
    FORGED = ("REDIRECT without the nonce of the request", Blame.REMOTE)
    LOOP = ("one redirect too many", Blame.REMOTE)
    RESOLVED = ("resolved()", Blame.LOCAL)
    UNRESOLVED = ("unresolved(), no IKE_SA to stay with", Blame.LOCAL)
    UNRESOLVED_STAY = ("unresolved(), staying with the old IKE_SA", Blame.LOCAL)
    INIT_ANSWERED = ("IKE_SA_INIT response", Blame.REMOTE)
    AUTHENTICATED = ("IKE_AUTH response", Blame.REMOTE)
    SILENT = ("no answer in time, no IKE_SA to stay with", Blame.LOCAL)
    SILENT_STAY = ("no answer in time, staying with the old IKE_SA", Blame.LOCAL)
    DELETED = ("Delete", Blame.REMOTE)
    CLOSE = ("close()", Blame.LOCAL)


S, C = State, Cause
_GOING = (S.CONNECTING, S.AUTHENTICATING)
TABLE: TransitionTable[State, Cause] = TransitionTable(
    "redirect client",
    {
        (S.IDLE, C.CONNECT): S.CONNECTING,
        (S.CLOSED, C.RECONNECT): S.CONNECTING,
        **{(s, C.TO_ADDRESS): S.CONNECTING for s in (*_GOING, S.ESTABLISHED)},
        **{(s, C.TO_NAME): S.RESOLVING for s in (*_GOING, S.ESTABLISHED)},
        (S.CONNECTING, C.FORGED): S.CONNECTING,
        (S.CONNECTING, C.LOOP): S.CLOSED,
        (S.AUTHENTICATING, C.LOOP): S.CLOSED,
        (S.ESTABLISHED, C.LOOP): S.ESTABLISHED,
        (S.RESOLVING, C.RESOLVED): S.CONNECTING,
        (S.RESOLVING, C.UNRESOLVED): S.CLOSED,
        (S.RESOLVING, C.UNRESOLVED_STAY): S.ESTABLISHED,
        (S.CONNECTING, C.INIT_ANSWERED): S.AUTHENTICATING,
        (S.AUTHENTICATING, C.AUTHENTICATED): S.ESTABLISHED,
        **{(s, C.SILENT): S.CLOSED for s in _GOING},
        **{(s, C.SILENT_STAY): S.ESTABLISHED for s in _GOING},
        (S.ESTABLISHED, C.DELETED): S.CLOSED,
        **{(s, C.CLOSE): S.CLOSED for s in (*_GOING, S.RESOLVING, S.ESTABLISHED)},
    },
)


@dataclass(frozen=True, slots=True)
class Connected(Event):
    """There is an IKE_SA with this gateway."""

    gateway: IpAddress


@dataclass(frozen=True, slots=True)
class Redirected(Event):
    """The client goes from one gateway to another."""

    origin: IpAddress
    target: GatewayIdentity


@dataclass(frozen=True, slots=True)
class ResolveName(Event):
    """Resolve this name and call `RedirectClient.resolved` or ``unresolved``."""

    name: Fqdn


@dataclass(frozen=True, slots=True)
class RedirectLoop(Event):
    """The client did not follow: too many redirects in the period."""

    target: GatewayIdentity


@dataclass(frozen=True, slots=True)
class Disconnected(Event):
    """An IKE_SA is gone (``gateway``), or could not be made."""

    gateway: IpAddress


@dataclass(frozen=True, slots=True)
class RedirectPolicy:
    """What the documents leave to the client."""

    edition: Edition = Edition.RFC_5685
    max_redirects: int = MAX_REDIRECTS
    period_s: float = REDIRECT_LOOP_DETECT_PERIOD_S
    retransmission: Retransmission = field(default_factory=lambda: Retransmission(give_up_s=60.0))
    random_octets: Callable[[int], bytes] = secrets.token_bytes


@dataclass(slots=True)
class Session:
    """One IKE_SA, or the attempt to make one."""

    pair: Pair
    exchanger: Exchanger[Kind]
    nonce: bytes


class RedirectClient(Machine[State, Cause]):
    """The client: connects, and goes where gateways send it. ``local``: its endpoint; ``spi``: a fresh SPI."""

    table: ClassVar[TransitionTable[State, Cause]] = TABLE

    def __init__(self, local: Endpoint, policy: RedirectPolicy | None = None, *, spi: int = 1) -> None:
        super().__init__(State.IDLE)
        self.local = local
        self.policy = policy or RedirectPolicy()
        self._spi = spi
        self._session: Session | None = None
        self._old: Session | None = None
        """The IKE_SA that a redirect in mid-session leaves; it lives until the new one is there."""
        self._outbox: list[Message] = []
        self._redirects: deque[float] = deque()
        self._configured: Endpoint | None = None
        self._home: Endpoint | None = None
        """The gateway of the last IKE_SA: where a binding may still be (draft-01 section 3)."""
        self._redirector: IpAddress | None = None

    @property
    def gateway(self) -> IpAddress | None:
        """The gateway of the established IKE_SA (the old one during a redirect), or None."""
        session = self._old if self._state is not State.ESTABLISHED else self._session
        return session.pair.remote.ip if session is not None else None

    # --- what can be asked for

    def connect(self, gateway: Endpoint, now: float) -> None:
        """Given the configured gateway, start. Raise LocalProtocolError when already started."""
        self._go(Cause.CONNECT)
        self._configured = gateway
        self._begin(gateway, None, now)

    def reconnect(self, now: float, *, binding: bool) -> None:
        """Connect again after the IKE_SA is gone.

        ``binding``: there is still state (a Mobile IPv6 binding) at the gateway of the last IKE_SA; then it
        is the one to use, not the configured one (draft-01 section 3). Raise LocalProtocolError.
        """
        target = self._home if binding and self._home is not None else self._configured
        if target is None:
            raise LocalProtocolError("there was no IKE_SA", hint="use connect()")
        self._go(Cause.RECONNECT)
        self._begin(target, None, now)

    def resolved(self, ip: IpAddress, now: float) -> None:
        """Given the address of the name asked for, go there. Raise LocalProtocolError."""
        self._go(Cause.RESOLVED)
        port = self._configured.port if self._configured is not None else 500
        self._begin(Endpoint(ip, port), self._redirector, now)

    def unresolved(self, now: float) -> None:
        """The name has no address. Raise LocalProtocolError."""
        del now
        self._abandon(Cause.UNRESOLVED, Cause.UNRESOLVED_STAY)

    def close(self, now: float) -> None:
        """Delete the IKE_SAs."""
        established = self._state is State.ESTABLISHED
        self._go(Cause.CLOSE)
        for session in (self._old, self._session if established else None):
            if session is not None:
                self._delete(session, now)
        self._session = self._old = None

    def _begin(self, gateway: Endpoint, redirector: IpAddress | None, now: float) -> None:
        exchanger: Exchanger[Kind] = Exchanger(self.policy.retransmission, spis=(self._spi, 0))
        self._spi += 1
        session = Session(Pair(self.local, gateway), exchanger, self.policy.random_octets(NONCE_OCTETS))
        wish = RedirectSupported() if redirector is None else RedirectedFrom(redirector)
        exchanger.open(Kind.INIT, (Nonce(session.nonce), wish), now, exchange=Exchange.IKE_SA_INIT)
        self._session = session

    # --- receiving

    def receive(self, message: Message, now: float) -> None:
        """Given a message and the time, take it in. Raise RemoteProtocolError as `machine` tells."""
        if self._old is not None and self._belongs(message, self._old):
            self._receive_old(message, self._old)
        elif self._session is not None and self._belongs(message, self._session):
            if message.response:
                self._receive_response(message, self._session, now)
            else:
                self._receive_request(message, self._session, now)

    def _belongs(self, message: Message, session: Session) -> bool:
        spi_i, spi_r = session.exchanger.spis
        return message.spi_i == spi_i and spi_r in {0, message.spi_r}

    def _receive_old(self, message: Message, old: Session) -> None:
        """The old IKE_SA while a new one is made: its redirect may be repeated, it may be deleted."""
        if message.response:
            return
        if old.exchanger.admit(message) is Admission.REPEAT:
            self._outbox.append(old.exchanger.repeat(message))
        elif old.exchanger.admit(message) is Admission.NEW:
            self._outbox.append(old.exchanger.respond(message, ()))
            if message.has(Delete):
                self._old = None

    def _receive_response(self, message: Message, session: Session, now: float) -> None:
        redirect = message.first(Redirect)
        if self._state is State.CONNECTING and redirect is not None and not self._genuine(redirect, session):
            self._go(Cause.FORGED)
            return
        request = session.exchanger.close(message)
        if request is None:
            return
        if redirect is not None and self._may_redirect(request):
            self._follow(redirect.gateway, now)
        elif request.kind is Kind.INIT:
            self._go(Cause.INIT_ANSWERED)
            session.exchanger.spis = (message.spi_i, message.spi_r)
            session.exchanger.open(Kind.AUTH, (), now, exchange=Exchange.IKE_AUTH)
        elif request.kind is Kind.AUTH:
            self._established(session, now)

    def _genuine(self, redirect: Redirect, session: Session) -> bool:
        """RFC 5685 section 3: the nonce shows that the sender saw the request."""
        return self.policy.edition is Edition.DRAFT_01 or redirect.nonce == session.nonce

    def _may_redirect(self, request: Request[Kind]) -> bool:
        return request.kind is Kind.INIT or self.policy.edition is Edition.RFC_5685

    def _established(self, session: Session, now: float) -> None:
        self._go(Cause.AUTHENTICATED)
        self._home = session.pair.remote
        self._tell(Connected(session.pair.remote.ip))
        if self._old is not None:
            self._delete(self._old, now)
            self._tell(Disconnected(self._old.pair.remote.ip))
            self._old = None

    def _receive_request(self, message: Message, session: Session, now: float) -> None:
        if message.exchange is not Exchange.INFORMATIONAL:
            return
        admission = session.exchanger.admit(message)
        if admission is Admission.REPEAT:
            self._outbox.append(session.exchanger.repeat(message))
        if admission is not Admission.NEW:
            return
        redirect = message.first(Redirect)
        if self._state is not State.ESTABLISHED:
            raise RemoteProtocolError(
                "an INFORMATIONAL request before IKE_AUTH is done", hint="the gateway is out of step"
            )
        if message.has(Delete):
            self._go(Cause.DELETED)
            self._session = None
            self._tell(Disconnected(session.pair.remote.ip))
        answer: tuple[Payload, ...] = ()
        if redirect is not None and not message.has(Delete):
            answer = (RedirectAck(),) if self.policy.edition is Edition.DRAFT_01 else ()
            self._follow(redirect.gateway, now)
        self._outbox.append(session.exchanger.respond(message, answer))

    def _follow(self, target: GatewayIdentity, now: float) -> None:
        session, established = self._session, self._state is State.ESTABLISHED
        if session is None:
            return
        while self._redirects and self._redirects[0] <= now - self.policy.period_s:
            self._redirects.popleft()
        if len(self._redirects) >= self.policy.max_redirects:
            self._go(Cause.LOOP)
            self._tell(RedirectLoop(target))
            if not established:
                self._session = None
                self._tell(Disconnected(session.pair.remote.ip))
            return
        self._go(Cause.TO_NAME if isinstance(target, Fqdn) else Cause.TO_ADDRESS)
        self._redirects.append(now)
        self._redirector = session.pair.remote.ip
        self._tell(Redirected(self._redirector, target))
        if established:
            self._old = session
        self._session = None
        if isinstance(target, Fqdn):
            self._tell(ResolveName(target))
        else:
            port = self._configured.port if self._configured is not None else 500
            self._begin(Endpoint(target, port), self._redirector, now)

    # --- sending

    def send(self, now: float) -> list[Message]:
        """Given the time, return the messages to send now, in order."""
        if self._session is not None and self._session.exchanger.expired(now):
            self._abandon(Cause.SILENT, Cause.SILENT_STAY)
        out, self._outbox = self._outbox, []
        for session in (self._old, self._session):
            if session is not None:
                out += session.exchanger.due(now, session.pair)
        return out

    def _abandon(self, alone: Cause, stay: Cause) -> None:
        self._go(alone if self._old is None else stay)
        if self._session is not None:
            self._tell(Disconnected(self._session.pair.remote.ip))
        self._session, self._old = self._old, None

    def next_deadline(self) -> float | None:
        """Return when `send` should be called at the latest, or None. After `receive`, call it at once."""
        times = [s.exchanger.deadline() for s in (self._old, self._session) if s is not None]
        return min((t for t in times if t is not None), default=None)

    def _delete(self, session: Session, now: float) -> None:
        """Tell the gateway once that its IKE_SA is gone; if that is lost, it notices by itself."""
        session.exchanger.open(Kind.REDIRECT, (Delete(),), now)
        self._outbox += session.exchanger.due(now, session.pair)
