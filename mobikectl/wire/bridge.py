"""The two notifies with which two mobikectl bridges say what the plugin's notify bridge cannot.

The plugin sends notifies in INFORMATIONAL exchanges and adds preset ones to responses. A protocol machine
also needs requests without payloads, other payloads than Notify, and responses that depend on the request.
docs/rmobike.md describes how each is expressed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from mobikectl.wire.notify import NotifyCodec, Source
from mobikectl.wire.reader import Reader, check_unsigned, malformed

DOCUMENT = "docs/rmobike.md"


class Spoken(IntEnum):
    """Which protocol a bridged message belongs to."""

    KIVINEN = 1
    DUPONT = 2


class Part(IntEnum):
    """What a bridged message is."""

    REQUEST = 1
    """All payloads of a request are before this notify."""
    LATER = 2
    """In a response: the machine's answer follows in a request of its own."""
    ANSWER = 3
    """A machine's answer to the request with this message ID; all its payloads are before this notify."""


@dataclass(frozen=True, slots=True)
class BridgeMark:
    """BRIDGE_MARK: the last notify of a bridged message."""

    spoken: Spoken
    part: Part
    message_id: int = 0
    """ANSWER: charon's message ID of the request. Else 0."""

    def __post_init__(self) -> None:
        check_unsigned(self.message_id, 4, "a message ID")

    def to_data(self) -> bytes:
        """Return protocol, part, and the message ID: 6 octets."""
        return bytes([self.spoken, self.part]) + self.message_id.to_bytes(4, "big")

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given 6 octets, return the notify. Raise DecodeError for others."""
        reader = Reader(data, at)
        spoken, part = reader.number(1, "protocol"), reader.number(1, "part")
        if spoken not in Spoken.__members__.values():
            raise malformed(at, "protocol 1 (kivinen) or 2 (dupont)", str(spoken))
        if part not in Part.__members__.values():
            raise malformed(at + 1, "part 1 (request), 2 (later) or 3 (answer)", str(part))
        message_id = reader.number(4, "message ID")
        reader.end("BRIDGE_MARK")
        return cls(Spoken(spoken), Part(part), message_id)


@dataclass(frozen=True, slots=True)
class BridgePayload:
    """BRIDGE_PAYLOAD: a payload that is no Notify: its type and body."""

    type: int
    body: bytes

    def __post_init__(self) -> None:
        check_unsigned(self.type, 1, "a payload type")

    def to_data(self) -> bytes:
        """Return the payload type's octet and the body."""
        return bytes([self.type]) + self.body

    @classmethod
    def from_data(cls, data: bytes, at: int = 0) -> Self:
        """Given an octet or more, return the notify. Raise DecodeError for none."""
        reader = Reader(data, at)
        return cls(reader.number(1, "payload type"), reader.rest())


BRIDGE_MARK = 41043
"""Our choice of the private-use status types; the plugin's SWITCH_TO_IP_ADDRESS is 41042."""
BRIDGE_PAYLOAD = 41044

CODECS: tuple[NotifyCodec, ...] = (
    NotifyCodec(
        "BRIDGE_PAYLOAD",
        BRIDGE_PAYLOAD,
        Source(DOCUMENT, "The bridge"),
        "a payload that is no Notify",
        BridgePayload,
    ),
    NotifyCodec(
        "BRIDGE_MARK",
        BRIDGE_MARK,
        Source(DOCUMENT, "The bridge"),
        "ends a bridged message, and says what it is",
        BridgeMark,
    ),
)
