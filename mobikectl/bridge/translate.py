"""Messages of the protocol machines to notifies of the plugin, and back. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobikectl.errors import DecodeError
from mobikectl.protocol.exchange import Delete
from mobikectl.wire import bridge
from mobikectl.wire.bridge import BRIDGE_MARK, BridgeMark, BridgePayload, Part, Spoken
from mobikectl.wire.dialects import DUPONT_06, KIVINEN_00
from mobikectl.wire.dupont import UPDATE_PAYLOAD, PeerAddressUpdate
from mobikectl.wire.notify import Notify

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobikectl.charon.rmobike_events import NotifySeen
    from mobikectl.model import Path
    from mobikectl.protocol.exchange import Payload
    from mobikectl.wire.notify import Dialect

DELETE_PAYLOAD = 42
"""Payload type of Delete (RFC 7296 section 3.2)."""
DELETE_IKE_SA = bytes([1, 0, 0, 0])
"""The body of a Delete payload for the IKE_SA: protocol 1, no SPIs (RFC 7296 section 3.11)."""

MOST_SENT = 20
"""Notifies in a message that we send: for more, the peer's charon answers INVALID_SYNTAX and the IKE_SA ends."""
MOST_OCTETS = 1100
"""All notifies of a message that we send: it must fit into one IKE fragment (1,280 octets by default).

A charon that is built with mediation (Debian's 5.9.8 is) drops fragmented INFORMATIONALs as unencrypted ones
(strongSwan, process_message_job.c), and the unanswered request ends the IKE_SA.
"""
NOTIFY_HEAD = 8
"""Octets of a Notify payload before its data (RFC 7296 section 3.10)."""
MOST_NOTIFIES = 32
"""As many as the plugin can send in one message; of longer ones the rest is not looked at."""
MOST_OPEN = 64
"""Messages whose end has not been seen; the oldest goes first."""
QUIET_S = 0.2
"""A message without BRIDGE_MARK (another implementation's) is complete when nothing of it came for so long."""

DIALECTS: dict[Spoken, Dialect] = {
    Spoken.KIVINEN: KIVINEN_00.joined("kivinen-00-bridged", bridge.CODECS),
    Spoken.DUPONT: DUPONT_06.joined("dupont-06-bridged", bridge.CODECS),
}
"""What each protocol's notifies mean in a bridged message."""

OWN_TYPES: dict[Spoken, frozenset[int]] = {
    Spoken.KIVINEN: frozenset({42000, 42004, 42006}),
    Spoken.DUPONT: frozenset({24801, 24802, 24804}),
}
"""The notify types by which a message without BRIDGE_MARK is known to belong to a protocol."""

WATCHED = frozenset({BRIDGE_MARK, bridge.BRIDGE_PAYLOAD}).union(*OWN_TYPES.values())
"""What every bridge asks the plugin to report: the list is one for all clients of a plugin."""


def to_notifies(spoken: Spoken, payloads: Iterable[Payload], mark: BridgeMark) -> tuple[Notify, ...]:
    """Given a machine's payloads and the mark that ends them, return what the plugin is to send.

    The plugin cannot set a Protocol ID: it is 0 always. Raise DecodeError for a payload that has no form, and
    for more than MOST_SENT notifies or MOST_OCTETS.
    """
    dialect = DIALECTS[spoken]
    notifies = tuple(_bare(dialect, payload) for payload in (*payloads, mark))
    octets = sum(NOTIFY_HEAD + len(notify.data) for notify in notifies)
    if len(notifies) > MOST_SENT or octets > MOST_OCTETS:
        raise DecodeError(
            f"{len(notifies)} notifies of {octets} octets: charon takes {MOST_SENT} of {MOST_OCTETS} at most",
            hint="announce fewer addresses, or update all SAs at once",
        )
    return notifies


def _bare(dialect: Dialect, payload: Payload) -> Notify:
    if isinstance(payload, Delete):
        payload = BridgePayload(DELETE_PAYLOAD, DELETE_IKE_SA)
    elif isinstance(payload, PeerAddressUpdate):
        payload = BridgePayload(UPDATE_PAYLOAD, payload.to_body())
    notify = dialect.encode(payload)  # type: ignore[arg-type]  # encode() refuses what is no typed notify
    return Notify(notify.type, notify.data)


def to_payloads(spoken: Spoken, notifies: Iterable[Notify]) -> tuple[Payload, ...]:
    """Given a message's notifies, return its payloads for the machine, without marks and unknown types.

    Raise DecodeError when one is malformed.
    """
    dialect = DIALECTS[spoken]
    typed = (dialect.decode(notify) for notify in notifies)
    return tuple(
        _payload(item) if isinstance(item, BridgePayload) else item
        for item in typed
        if item is not None and not isinstance(item, BridgeMark)
    )


def _payload(carried: BridgePayload) -> Payload:
    if carried.type == UPDATE_PAYLOAD:
        return PeerAddressUpdate.from_body(carried.body, 1)
    if carried.type == DELETE_PAYLOAD and carried.body == DELETE_IKE_SA:
        return Delete()
    raise DecodeError(
        f"a bridged payload of type {carried.type} is not of this protocol", hint="ignore the message"
    )


@dataclass(frozen=True, slots=True)
class Heard:
    """A whole message of the peer's.

    ``mark`` is None when another implementation sent it, or the mark itself could not be read.
    """

    ike_id: int
    message_id: int
    """charon's."""
    path: Path
    spoken: Spoken
    notifies: tuple[Notify, ...]
    mark: BridgeMark | None


@dataclass(slots=True)
class _Open:
    path: Path
    due: float
    notifies: list[Notify] = field(default_factory=list)


class Assembler:
    """Puts the notifies of one message together again: the plugin reports them one by one."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[int, int], _Open] = OrderedDict()

    def add(self, seen: NotifySeen, now: float) -> Heard | None:
        """Given a notify of an INFORMATIONAL request and the time, return the message that it completes."""
        if seen.exchange != "INFORMATIONAL" or not seen.request:
            return None
        key = (seen.ike_id, seen.message_id)
        message = self._open.setdefault(key, _Open(seen.path, now))
        message.due = now + QUIET_S
        if len(message.notifies) < MOST_NOTIFIES:
            message.notifies.append(seen.notify)
        if seen.notify.type == BRIDGE_MARK:
            return self._finish(key)
        while len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)
        return None

    def due(self, now: float) -> list[Heard]:
        """Given the time, return the messages that are taken as complete because nothing more came."""
        ready = [key for key, message in self._open.items() if message.due <= now]
        return [heard for key in ready if (heard := self._finish(key)) is not None]

    def next_deadline(self) -> float | None:
        """When `due` has something, or None."""
        return min((message.due for message in self._open.values()), default=None)

    def _finish(self, key: tuple[int, int]) -> Heard | None:
        message = self._open.pop(key)
        mark = read_mark(message.notifies)
        spoken = mark.spoken if mark is not None else _guess(message.notifies)
        if spoken is None:
            return None
        return Heard(*key, message.path, spoken, tuple(message.notifies), mark)


def read_mark(notifies: Iterable[Notify]) -> BridgeMark | None:
    """Given a message's notifies, return its mark, or None when there is none that can be read."""
    for notify in notifies:
        if notify.type == BRIDGE_MARK:
            try:
                return BridgeMark.from_data(notify.data)
            except DecodeError:
                return None
    return None


def later(spoken: Spoken) -> Notify:
    """Return the mark that a preset rule adds to the response: the machine's answer follows."""
    return DIALECTS[spoken].encode(BridgeMark(spoken, Part.LATER))


def _guess(notifies: Iterable[Notify]) -> Spoken | None:
    for notify in notifies:
        for spoken, types in OWN_TYPES.items():
            if notify.type in types:
                return spoken
    return None
