"""The events of the charon plugin `rmobike`, decoded (docs/rmobike.md lists them)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from mobikectl.errors import DecodeError
from mobikectl.model import Path
from mobikectl.wire.ha_chain import IkeSpis
from mobikectl.wire.notify import Notify

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.charon.session import Event
    from mobikectl.charon.transport import Message
    from mobikectl.model import IpAddress


@dataclass(frozen=True, slots=True)
class Capability:
    """An IKE_SA was established: what its peer can do."""

    ike_id: int
    original_initiator: bool
    mobike: bool
    peer_r: bool
    own_r: bool
    redirect: bool
    nat_local: bool
    nat_remote: bool


@dataclass(frozen=True, slots=True)
class SwitchAcked:
    """The initiator answered the request; whether it follows is another matter."""

    ike_id: int
    token: str


@dataclass(frozen=True, slots=True)
class SwitchDone:
    """The initiator moved the IKE_SA to the address that it was asked to use."""

    ike_id: int
    token: str
    path: Path
    elapsed_ms: int


@dataclass(frozen=True, slots=True)
class SwitchTimeout:
    """The switch is given up.

    `reason`: ``no-answer`` (not even acknowledged), ``no-update`` (acknowledged but not followed: refused,
    or the new address does not work for the initiator), ``ike-sa-gone``.
    """

    ike_id: int
    token: str
    reason: str


@dataclass(frozen=True, slots=True)
class SwitchSuperseded:
    """A newer switch of the same IKE_SA took its place."""

    ike_id: int
    token: str


@dataclass(frozen=True, slots=True)
class SwitchReceived:
    """As initiator: the responder asks for `address`, and it was accepted: an update follows."""

    ike_id: int
    message_id: int
    address: IpAddress


@dataclass(frozen=True, slots=True)
class SwitchRefused:
    """A request to switch was answered but not followed.

    `reason`: ``malformed``, ``address-not-allowed``, ``already-there``, ``too-many``, ``not-announced``,
    ``not-initiator`` (the draft's MUST NOT), ``not-established``.
    """

    ike_id: int
    message_id: int
    address: IpAddress | None
    reason: str


@dataclass(frozen=True, slots=True)
class UpdateDone:
    """As initiator: the IKE_SA uses the wanted path. `cause`: ``switch`` or ``command``."""

    ike_id: int
    token: str
    cause: str
    path: Path


@dataclass(frozen=True, slots=True)
class UpdateFailed:
    """As initiator: the IKE_SA does not use the wanted path.

    `reason`: ``no-answer`` (it stays where it works), ``no-route``, ``superseded``, ``no-mobike``,
    ``ike-sa-gone``, ``ike-sa-replaced``. `path` is the one in use, None when the IKE_SA is gone.
    """

    ike_id: int
    token: str
    cause: str
    reason: str
    path: Path | None


@dataclass(frozen=True, slots=True)
class NotifySeen:
    """A notify of a watched type was received."""

    ike_id: int
    exchange: str
    message_id: int
    request: bool
    original_initiator: bool
    """We are."""
    path: Path
    """The addresses of the packet, from our side."""
    notify: Notify


@dataclass(frozen=True, slots=True)
class NotifyAnswered:
    """The response to a `send_notify` arrived, with these notifies in it."""

    ike_id: int
    token: str
    message_id: int
    notifies: tuple[Notify, ...]


@dataclass(frozen=True, slots=True)
class NotifyFailed:
    """A `send_notify` got no response before its IKE_SA was deleted or replaced. `ike_id` may be an older one."""

    ike_id: int
    token: str


@dataclass(frozen=True, slots=True)
class Redirected:
    """A client was redirected in this exchange. `remote_id` is None in IKE_SA_INIT."""

    ike_id: int
    exchange: str
    remote: IpAddress
    remote_id: str | None
    gateway: str


@dataclass(frozen=True, slots=True)
class Thawed:
    """Nobody took over a frozen IKE_SA in time: this node serves it again (docs/moves.md)."""

    ike_id: int
    spis: IkeSpis


@dataclass(frozen=True, slots=True)
class AddressAcquired:
    """A peer got a virtual IP. ``free``: addresses of the pool that anybody may still have."""

    ike_id: int
    pool: str
    address: IpAddress
    identity: str
    free: int


@dataclass(frozen=True, slots=True)
class AddressReleased:
    """An IKE_SA with a virtual IP ended; the address is kept for its peer. ``online``: IKE_SAs that have it still."""

    ike_id: int
    pool: str
    address: IpAddress
    identity: str
    online: int
    free: int


@dataclass(frozen=True, slots=True)
class PoolExhausted:
    """A peer got no virtual IP: the stock of its pool is empty."""

    ike_id: int
    pool: str
    identity: str


PluginEvent = (
    Capability
    | SwitchAcked
    | SwitchDone
    | SwitchTimeout
    | SwitchSuperseded
    | SwitchReceived
    | SwitchRefused
    | UpdateDone
    | UpdateFailed
    | NotifySeen
    | NotifyAnswered
    | NotifyFailed
    | Redirected
    | Thawed
    | AddressAcquired
    | AddressReleased
    | PoolExhausted
)


def word(message: Message, key: str, default: str | None = None) -> str:
    """Return a text of a message. Raise DecodeError when it is missing and has no default."""
    value = message.get(key)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if value is None and default is not None:
        return default
    raise _malformed(key, "a text", value)


def number(message: Message, key: str) -> int:
    """Return a number of a message. Raise DecodeError when it is none."""
    value = word(message, key)
    if not (value.isascii() and value.isdigit()):
        raise _malformed(key, "a number", value)
    return int(value)


def flag(message: Message, key: str) -> bool:
    """Return a yes or no of a message. Raise DecodeError when it is neither."""
    value = word(message, key)
    if value not in {"yes", "no"}:
        raise _malformed(key, "yes or no", value)
    return value == "yes"


def spi(message: Message, key: str) -> int:
    """Return a number of a message that is written in hexadecimal. Raise DecodeError when it is none."""
    value = word(message, key)
    try:
        return int(value, 16)
    except ValueError as error:
        raise _malformed(key, "an SPI", value) from error


def address(message: Message, key: str) -> IpAddress:
    """Return an address of a message. Raise DecodeError when it is none."""
    value = word(message, key)
    try:
        return ip_address(value)
    except ValueError as error:
        raise _malformed(key, "an IP address", value) from error


def path(message: Message) -> Path:
    """Return the path of a message."""
    return Path(address(message, "local"), address(message, "remote"))


def notify(message: Message) -> Notify:
    """Return the notify of a message. Raise DecodeError when it is malformed or was cut by the plugin."""
    try:
        data = bytes.fromhex(word(message, "data"))
    except ValueError as error:
        raise _malformed("data", "hexadecimal digits", message.get("data")) from error
    if len(data) != number(message, "length"):
        raise _malformed("data", f"{number(message, 'length')} octets", f"{len(data)} octets")
    return Notify(number(message, "type"), data)


def _malformed(key: str, expected: str, found: object) -> DecodeError:
    return DecodeError(
        f"the rmobike plugin sent {key}={found!r:.80}, expected {expected}",
        hint="do its version and mobikectl's match? run: mobikectl plugin status",
    )


def _capability(m: Message) -> Capability:
    names = ("initiator", "mobike", "peer-r", "own-r", "redirect", "nat-local", "nat-remote")
    return Capability(number(m, "ike-id"), *(flag(m, name) for name in names))


def _update_failed(m: Message) -> UpdateFailed:
    in_use = path(m) if "local" in m else None
    return UpdateFailed(number(m, "ike-id"), word(m, "token"), word(m, "cause"), word(m, "reason"), in_use)


def _notify_seen(m: Message) -> NotifySeen:
    return NotifySeen(
        ike_id=number(m, "ike-id"),
        exchange=word(m, "exchange"),
        message_id=number(m, "message-id"),
        request=flag(m, "request"),
        original_initiator=flag(m, "initiator"),
        path=path(m),
        notify=notify(m),
    )


def _notify_answered(m: Message) -> NotifyAnswered:
    sections = [value for key, value in m.items() if key.startswith("notify") and isinstance(value, dict)]
    answers = tuple(notify(section) for section in sections)
    return NotifyAnswered(number(m, "ike-id"), word(m, "token"), number(m, "message-id"), answers)


def _redirected(m: Message) -> Redirected:
    return Redirected(
        ike_id=number(m, "ike-id"),
        exchange=word(m, "exchange"),
        remote=address(m, "remote"),
        remote_id=word(m, "remote-id") if "remote-id" in m else None,
        gateway=word(m, "gateway"),
    )


def _switch_refused(m: Message) -> SwitchRefused:
    wanted = address(m, "address") if "address" in m else None
    return SwitchRefused(number(m, "ike-id"), number(m, "message-id"), wanted, word(m, "reason"))


def _acquired(m: Message) -> AddressAcquired:
    return AddressAcquired(
        number(m, "ike-id"), word(m, "pool"), address(m, "address"), word(m, "identity"), number(m, "free")
    )


def _released(m: Message) -> AddressReleased:
    return AddressReleased(
        number(m, "ike-id"),
        word(m, "pool"),
        address(m, "address"),
        word(m, "identity"),
        number(m, "online"),
        number(m, "free"),
    )


_DECODERS: dict[str, Callable[[Message], PluginEvent]] = {
    "capability": _capability,
    "switch-acked": lambda m: SwitchAcked(number(m, "ike-id"), word(m, "token")),
    "switch-done": lambda m: SwitchDone(
        number(m, "ike-id"), word(m, "token"), path(m), number(m, "elapsed-ms")
    ),
    "switch-timeout": lambda m: SwitchTimeout(number(m, "ike-id"), word(m, "token"), word(m, "reason")),
    "switch-superseded": lambda m: SwitchSuperseded(number(m, "ike-id"), word(m, "token")),
    "switch-received": lambda m: SwitchReceived(
        number(m, "ike-id"), number(m, "message-id"), address(m, "address")
    ),
    "switch-refused": _switch_refused,
    "update-done": lambda m: UpdateDone(number(m, "ike-id"), word(m, "token"), word(m, "cause"), path(m)),
    "update-failed": _update_failed,
    "notify": _notify_seen,
    "notify-answered": _notify_answered,
    "notify-failed": lambda m: NotifyFailed(number(m, "ike-id"), word(m, "token")),
    "redirected": _redirected,
    "thawed": lambda m: Thawed(number(m, "ike-id"), IkeSpis(spi(m, "spi-i"), spi(m, "spi-r"))),
    "address-acquired": _acquired,
    "address-released": _released,
    "pool-exhausted": lambda m: PoolExhausted(number(m, "ike-id"), word(m, "pool"), word(m, "identity")),
}

EVENT_NAMES = tuple(_DECODERS)
"""What `Session.events` is to subscribe to."""


def decode_event(event: Event) -> PluginEvent:
    """Given an event of the plugin's socket, return its meaning. Raise DecodeError when it has none."""
    decoder = _DECODERS.get(event.name)
    if decoder is None:
        raise DecodeError(f"the rmobike plugin sent an event that nobody asked for: {event.name!r:.80}")
    return decoder(event.message)
