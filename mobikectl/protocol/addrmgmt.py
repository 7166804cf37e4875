"""Address management (draft-dupont-ikev2-addrmgmt-06): peer address sets and updates per SA.

Both ends are alike once the IKE_SA is there: each updates its addresses (one table) and receives the
other's updates (another). It works only while NAT traversal is not active (section 3.2).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_network
from typing import TYPE_CHECKING

from mobikectl.protocol.exchange import Message, Pair, Payload, Retransmission
from mobikectl.protocol.machine import (
    Blame,
    Event,
    Input,
    LocalProtocolError,
    RemoteProtocolError,
    TransitionTable,
)
from mobikectl.wire.dupont import (
    PeerAddressDestination,
    PeerAddressOperation,
    PeerAddressSource,
    PeerAddressUpdate,
    UpdateProtocol,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mobikectl.model import IpAddress

COOKIE_OCTETS = 32
AMBIGUOUS = tuple(
    ip_network(net)
    for net in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/3",
        "::/127",
        "fe80::/10",
        "fec0::/10",
        "fc00::/7",
        "ff00::/8",
    )
)
"""Networks whose addresses mean something else elsewhere: not for notifications (section 3.3)."""


class Kind(Enum):
    """What a request is for."""

    INIT = "IKE_SA_INIT"
    AUTH = "IKE_AUTH"
    UPDATE = "peer address update"
    SET = "peer address set"
    CHECK = "return routability check"
    DELETE = "Delete"


class State(Enum):
    """Where this side is with its own updates."""

    IDLE = "nothing was started"
    CONNECTING = "IKE_SA_INIT was sent"
    AUTHENTICATING = "IKE_AUTH was sent"
    NEGOTIATING = "IKE_SA_INIT was answered"
    STABLE = "the peer knows the primary address"
    PENDING = "an update waits for its turn"
    UPDATING = "an update was sent"
    REFUSED = "the peer did not carry the update out"
    NAT_TRAVERSAL = "a peer is behind a NAT: both must use NAT traversal instead"
    CLOSED = "the IKE_SA is gone"


class Cause(Input):
    """What moves it."""

    CONNECT = ("connect()", Blame.LOCAL)
    INIT_REQUEST = ("IKE_SA_INIT request", Blame.REMOTE)
    INIT_ANSWERED = ("IKE_SA_INIT response", Blame.REMOTE)
    INIT_NAT = ("NAT_PREVENTION that does not match", Blame.REMOTE)
    AUTH_REQUEST = ("IKE_AUTH request", Blame.REMOTE)
    AUTH_ANSWERED = ("IKE_AUTH response", Blame.REMOTE)
    CHANGE = ("update()", Blame.LOCAL)
    SENT = ("the update is sent", Blame.LOCAL)
    CONFIRMED = ("the update was carried out", Blame.REMOTE)
    DECLINED = ("the update was not carried out", Blame.REMOTE)
    SUPERSEDED = ("an outdated update was answered", Blame.REMOTE)
    KEEP = ("keep()", Blame.LOCAL)
    BEHIND_NAT = ("the peer has moved behind a NAT", Blame.REMOTE)
    CLOSE = ("close()", Blame.LOCAL)
    DELETED = ("Delete", Blame.REMOTE)
    COOKIE = ("RR_COOKIE that differs", Blame.REMOTE)
    TIMEOUT = ("no answer in time", Blame.LOCAL)


S, C = State, Cause
MOBILE = (S.STABLE, S.PENDING, S.UPDATING, S.REFUSED)
TABLE: TransitionTable[State, Cause] = TransitionTable(
    "address management",
    {
        (S.IDLE, C.CONNECT): S.CONNECTING,
        (S.IDLE, C.INIT_REQUEST): S.NEGOTIATING,
        (S.IDLE, C.INIT_NAT): S.IDLE,
        (S.NEGOTIATING, C.INIT_REQUEST): S.NEGOTIATING,
        (S.NEGOTIATING, C.INIT_NAT): S.NEGOTIATING,
        (S.NEGOTIATING, C.AUTH_REQUEST): S.STABLE,
        (S.CONNECTING, C.INIT_NAT): S.CONNECTING,
        (S.CONNECTING, C.INIT_ANSWERED): S.AUTHENTICATING,
        (S.CONNECTING, C.TIMEOUT): S.CLOSED,
        (S.AUTHENTICATING, C.AUTH_ANSWERED): S.STABLE,
        (S.AUTHENTICATING, C.TIMEOUT): S.CLOSED,
        **{(s, C.CHANGE): S.PENDING for s in MOBILE},
        **{(s, C.SUPERSEDED): s for s in MOBILE},
        **{(s, C.BEHIND_NAT): S.NAT_TRAVERSAL for s in MOBILE},
        **{(s, c): S.CLOSED for s in MOBILE for c in (C.CLOSE, C.DELETED, C.COOKIE, C.TIMEOUT)},
        (S.PENDING, C.SENT): S.UPDATING,
        (S.UPDATING, C.CONFIRMED): S.STABLE,
        (S.UPDATING, C.DECLINED): S.REFUSED,
        (S.REFUSED, C.KEEP): S.STABLE,
        (S.NAT_TRAVERSAL, C.CLOSE): S.CLOSED,
        (S.NAT_TRAVERSAL, C.DELETED): S.CLOSED,
    },
)


class Receiving(Enum):
    """Where this side is with the peer's updates."""

    QUIET = "nothing is being processed"
    CHECKING = "a return routability check runs before the reply"


class ReceiveCause(Input):
    """What moves the receiver."""

    ACCEPTED = ("a request whose addresses need no check", Blame.REMOTE)
    UNPROVEN = ("a request with an address to check", Blame.REMOTE)
    CHECKED = ("the new address replied", Blame.REMOTE)
    FAILED = ("only another known address replied", Blame.REMOTE)
    NAT_FOUND = ("only the unknown source of the request replied", Blame.REMOTE)


R, RC = Receiving, ReceiveCause
RECEIVE_TABLE: TransitionTable[Receiving, ReceiveCause] = TransitionTable(
    "address management receiver",
    {
        (R.QUIET, RC.ACCEPTED): R.QUIET,
        (R.QUIET, RC.UNPROVEN): R.CHECKING,
        (R.CHECKING, RC.CHECKED): R.QUIET,
        (R.CHECKING, RC.FAILED): R.QUIET,
        (R.CHECKING, RC.NAT_FOUND): R.QUIET,
    },
)


class Routability(Enum):
    """When a new peer address is checked (sections 3.4, 3.5 and 4)."""

    ALWAYS = "unless it replied before"
    UNPROVEN = "when the request does not come from it, and nothing authorizes it"
    NEVER = "only where the draft says REQUIRED: a request from an unknown address"


def authorize_none(ip: IpAddress) -> bool:
    """Authorize no address: the default of `AddrMgmtPolicy.authorized`."""
    del ip
    return False


@dataclass(frozen=True, slots=True)
class AddrMgmtPolicy:
    """What the draft leaves to each side."""

    routability: Routability = Routability.UNPROVEN
    authorized: Callable[[IpAddress], bool] = authorize_none
    """Addresses that need no check because something else proves them (section 4)."""
    check_tries: int = 4
    """Transmissions of a check to the new address before the other addresses are asked."""
    window: int = 2
    """At least 2: one place is kept for return routability checks, so that two updates cannot block each other."""
    retransmission: Retransmission = field(default_factory=Retransmission)
    random_octets: Callable[[int], bytes] = secrets.token_bytes


@dataclass(frozen=True, slots=True)
class ChildPair:
    """A pair of IPsec SAs: the SPI of this side's inbound SA and of the peer's.

    SAs of one ``bundle`` are nested and updated together (appendix B).
    """

    protocol: UpdateProtocol
    spi_in: int
    spi_out: int
    bundle: int | None = None


@dataclass(frozen=True, slots=True)
class SasUpdated(Event):
    """These SAs use the pair from now on; the IKE_SA too if ``ike``.

    ``spd``: whether the SPD entries follow (the O bit was not set).
    """

    pair: Pair
    ike: bool
    children: tuple[ChildPair, ...]
    spd: bool


@dataclass(frozen=True, slots=True)
class PeerSet(Event):
    """The peer's address set has changed."""

    addresses: frozenset[IpAddress]


@dataclass(frozen=True, slots=True)
class UpdateDeclined(Event):
    """The peer answered without carrying the update out."""


@dataclass(frozen=True, slots=True)
class Declined(Event):
    """An update of the peer was not carried out: its new address did not reply."""

    address: IpAddress


@dataclass(frozen=True, slots=True)
class BehindNat(Event):
    """The peer has moved behind a NAT: NAT traversal must be used by both (section 3.5)."""


@dataclass(frozen=True, slots=True)
class NatFound(Event):
    """IKE_SA_INIT arrived with changed addresses though NAT traversal is not wanted (appendix C)."""


@dataclass(frozen=True, slots=True)
class Ended(Event):
    """The IKE_SA is gone."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Wanted:
    """An update that this side wants."""

    pair: Pair
    children: tuple[ChildPair, ...] | None
    """None: all SAs."""
    ike: bool
    only: bool
    delete: tuple[IpAddress, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request of the peer asks for, checked for form."""

    message: Message
    source: IpAddress | None
    """The peer's address that it marked."""
    destination: IpAddress | None
    """This side's address that it marked."""
    added: tuple[IpAddress, ...]
    deleted: tuple[IpAddress, ...]
    updates: tuple[PeerAddressUpdate, ...]


def ambiguous(ip: IpAddress) -> bool:
    """Whether the address must not be in a notification (section 3.3)."""
    return any(ip in net for net in AMBIGUOUS if net.version == ip.version)


def require_global(addresses: Iterable[IpAddress]) -> None:
    """Raise LocalProtocolError for an address that must not be in a notification (section 3.3)."""
    for ip in addresses:
        if ambiguous(ip):
            raise LocalProtocolError(
                f"{ip} is ambiguous", hint="announce only global addresses (section 3.3)"
            )


def update_payloads(wanted: Wanted) -> tuple[PeerAddressUpdate, ...]:
    """Given the update that is wanted, return its payloads: one per protocol (appendix B)."""
    if wanted.children is None:
        return (PeerAddressUpdate(all_sas=True, only=wanted.only),)
    payloads = [PeerAddressUpdate(only=wanted.only)] if wanted.ike else []
    for protocol in (UpdateProtocol.ESP, UpdateProtocol.AH):
        spis = tuple(child.spi_in for child in wanted.children if child.protocol is protocol)
        if spis:
            payloads.append(PeerAddressUpdate(only=wanted.only, protocol=protocol, spis=spis))
    return tuple(payloads)


def marks(pair: Pair) -> tuple[Payload, Payload]:
    """Given the pair, return the notifications that every message with an alternate address carries (3.3)."""
    mark = PeerAddressOperation.MARK
    return PeerAddressSource(pair.local.ip, mark), PeerAddressDestination(pair.remote.ip, mark)


def with_bundles(chosen: Iterable[ChildPair], every: Iterable[ChildPair]) -> tuple[ChildPair, ...]:
    """Given chosen children, return them and all that are nested with them (appendix B)."""
    chosen = tuple(chosen)
    bundles = {child.bundle for child in chosen if child.bundle is not None}
    return tuple(child for child in every if child in chosen or child.bundle in bundles)


def read_request(message: Message) -> Asked:
    """Given a request about addresses, return what it asks for. Raise RemoteProtocolError."""
    operation = PeerAddressOperation
    sources, destinations = message.all(PeerAddressSource), message.all(PeerAddressDestination)
    updates = tuple(message.all(PeerAddressUpdate))
    if not sources or not destinations:
        raise RemoteProtocolError(
            "an address message without a notification for each peer", hint="section 3.3 demands both"
        )
    if any(ambiguous(notify.address) for notify in (*sources, *destinations)):
        raise RemoteProtocolError("an ambiguous address in a notification", hint="section 3.3 forbids it")
    marked = [n.address for n in sources if n.operation is operation.MARK]
    marked_here = [n.address for n in destinations if n.operation is operation.MARK]
    if len(marked) > 1 or len(marked_here) > 1 or (updates and not marked):
        raise RemoteProtocolError("not exactly one marked address per peer", hint="appendix A: one primary")
    return Asked(
        message,
        marked[0] if marked else None,
        marked_here[0] if marked_here else None,
        tuple(n.address for n in sources if n.operation is operation.ADD),
        tuple(n.address for n in sources if n.operation is operation.DELETE),
        updates,
    )
