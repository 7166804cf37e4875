"""Messages between the sidecars of a cluster that carry IKE_SAs over: sans-IO.

A connection begins with a HELLO from the side that opened it and the WELCOME that answers it. Then come requests from
that side, each with a number of its choice, and answers with the number of their request, in any order.

    0        4         5      6            10       18        19          19+n
    +--------+---------+------+------------+--------+---------+-----------+---------+
    | length | version | kind | number     | token  | n       | verb (n)  | payload |
    +--------+---------+------+------------+--------+---------+-----------+---------+

``length`` counts what follows it; all numbers are in network byte order. ``token`` is the fencing token under which a
request acts (0: it needs none). What a payload means is the business of the verb; it may be key material, so it
is a `SecretBytes` and in no error.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from enum import IntEnum

from mobikectl.errors import DecodeError
from mobikectl.wire.reader import Reader, check_unsigned, impossible, malformed
from mobikectl.wire.secret import SecretBytes

VERSION = 1
MAX_FRAME = 1 << 18
"""Octets that ``length`` may say: an IKE_SA with all that belongs to it takes some thousand."""
MAX_GREETING = 1 << 10
"""Octets that ``length`` may say before the other side is known."""
MAX_TEXT = 300
"""Characters of a refusal's words that are kept."""

_LENGTH = 4
_HEAD = 1 + 1 + 4 + 8 + 1
_VERB = re.compile(r"[a-z][a-z0-9-]{0,30}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,63}")
_INSTANCE = re.compile(r"[!-~]{1,80}")


EMPTY = SecretBytes(b"")


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    WELCOME = 2
    REQUEST = 3
    ANSWER = 4
    REFUSAL = 5


@dataclass(frozen=True, slots=True)
class Frame:
    """One message."""

    kind: Kind
    number: int = 0
    verb: str = ""
    token: int = 0
    payload: SecretBytes = EMPTY


def encode(frame: Frame) -> bytes:
    """Given a frame, return its octets. Raise DecodeError: a field is out of range, or the whole is too long."""
    check_unsigned(frame.number, 4, "number")
    check_unsigned(frame.token, 8, "token")
    if frame.verb and not _VERB.fullmatch(frame.verb):
        raise impossible("a verb of small letters, digits and '-'", repr(frame.verb[:40]))
    verb = frame.verb.encode()
    length = _HEAD + len(verb) + len(frame.payload)
    if length > MAX_FRAME:
        raise impossible(f"a frame of at most {MAX_FRAME} octets", f"{length}")
    head = struct.pack("!IBBIQB", length, VERSION, frame.kind, frame.number, frame.token, len(verb))
    return head + verb + frame.payload.reveal()


def decode(octets: bytes) -> Frame:
    """Given what follows a frame's length, return the frame. Raise DecodeError."""
    reader = Reader(octets)
    version = reader.number(1, "version")
    if version != VERSION:
        raise malformed(0, f"version {VERSION}", f"{version}", hint="run the same mobikectl on all nodes")
    kind = reader.number(1, "kind")
    if kind not in set(Kind):
        raise malformed(1, f"a kind from 1 to {max(Kind)}", f"{kind}")
    number, token = reader.number(4, "number"), reader.number(8, "token")
    raw = reader.take(reader.number(1, "length of the verb"), "verb")
    verb = raw.decode("ascii", "replace")
    if verb and not _VERB.fullmatch(verb):
        raise malformed(_HEAD, "a verb of small letters, digits and '-'", repr(verb[:40]))
    return Frame(Kind(kind), number, verb, token, SecretBytes(reader.rest()))


class Deframer:
    """Cuts a stream into frames.

    ``limit``: octets that a frame may have; it can be raised when the other side is known.
    """

    __slots__ = ("_buffer", "limit")

    def __init__(self, limit: int = MAX_GREETING) -> None:
        self.limit = limit
        self._buffer = bytearray()

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return bool(self._buffer)

    def feed(self, octets: bytes) -> None:
        """Given what was received, keep it; `take` gives the frames in it."""
        self._buffer += octets

    def take(self) -> Frame | None:
        """Return the next frame, None: it is not complete. Raise DecodeError: it is none, or longer than the limit."""
        if len(self._buffer) < _LENGTH:
            return None
        length = int.from_bytes(self._buffer[:_LENGTH], "big")
        if not _HEAD <= length <= self.limit:
            raise malformed(0, f"a frame of {_HEAD} to {self.limit} octets", f"{length}")
        end = _LENGTH + length
        if len(self._buffer) < end:
            return None
        octets = bytes(self._buffer[_LENGTH:end])
        del self._buffer[:end]
        return decode(octets)


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who a side says to be: HELLO and WELCOME. The certificate must say the same name."""

    cluster: str
    node: str
    instance: str


def encode_greeting(greeting: Greeting) -> SecretBytes:
    """Given a greeting, return its payload. Raise DecodeError: it has no names in it."""
    _check_greeting(greeting)
    return SecretBytes(f"{greeting.cluster}\n{greeting.node}\n{greeting.instance}".encode())


def decode_greeting(payload: SecretBytes) -> Greeting:
    """Given the payload of a HELLO or WELCOME, return the greeting. Raise DecodeError."""
    parts = payload.reveal().decode("ascii", "replace").split("\n")
    if len(parts) != 3:
        raise impossible("three lines of greeting", f"{len(parts)}")
    greeting = Greeting(*parts)
    _check_greeting(greeting)
    return greeting


def _check_greeting(greeting: Greeting) -> None:
    for name, layout in ((greeting.cluster, _NAME), (greeting.node, _NAME), (greeting.instance, _INSTANCE)):
        if not layout.fullmatch(name):
            raise impossible("a name of printable ASCII", repr(name[:80]))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was not carried out: the error's class, its words, and what can be done."""

    kind: str
    message: str
    hint: str = ""


def encode_refusal(refusal: Refusal) -> SecretBytes:
    """Given a refusal, return its payload; words too long are cut."""
    return SecretBytes(
        json.dumps([refusal.kind[:60], refusal.message[:MAX_TEXT], refusal.hint[:MAX_TEXT]]).encode()
    )


def decode_refusal(payload: SecretBytes) -> Refusal:
    """Given the payload of a REFUSAL, return it; control characters become '?'. Raise DecodeError."""
    try:
        texts = json.loads(payload.reveal())
    except (ValueError, RecursionError):
        raise DecodeError("a refusal that is not JSON", expected="three texts") from None
    if not (isinstance(texts, list) and len(texts) == 3 and all(isinstance(text, str) for text in texts)):
        raise DecodeError("a refusal that is not three texts", expected="three texts")
    return Refusal(*("".join(c if c.isprintable() else "?" for c in text[:MAX_TEXT]) for text in texts))
