"""Payloads out of charon's log at encoding level 3: what it generated and parsed, before and after encryption."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mobikectl.wire.ike import Payload, PayloadType

_LINE = re.compile(r"(\d\d)\[ENC\] (.*)")
_DUMP = re.compile(r"\s+(\d+): ((?:[0-9A-F]{2} )+)")
_MESSAGE = re.compile(r"(generating|parsed) (\w+) (request|response) (\d+) \[")


@dataclass
class LoggedMessage:
    """A message that charon sent or received, with its Notify payloads in order."""

    sent: bool
    exchange: str
    response: bool
    message_id: int
    notifies: list[Payload] = field(default_factory=list)


@dataclass
class _Thread:
    sending: LoggedMessage | None = None
    received: list[bytes] = field(default_factory=list)
    wanted: str = ""
    """What the next dump is: ``sent`` or ``received`` notify, or nothing of interest."""
    dump: bytearray | None = None
    dump_is: str = ""


def _notify(octets: bytes) -> Payload:
    size = int.from_bytes(octets[2:4], "big")
    return Payload(PayloadType.N, octets[4:size], octets[1] >= 0x80, octets[1] & 0x7F)


def read_log(text: str) -> list[LoggedMessage]:
    """Given the log, return the messages in the order in which charon began or finished them."""
    messages: list[LoggedMessage] = []
    threads: dict[str, _Thread] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        thread = threads.setdefault(found[1], _Thread())
        said = found[2]
        dumped = _DUMP.match(said)
        if dumped and thread.dump is not None:
            thread.dump += bytes.fromhex(dumped[2])
            continue
        _finish(thread)
        if begun := _MESSAGE.match(said):
            message = LoggedMessage(begun[1] == "generating", begun[2], begun[3] == "response", int(begun[4]))
            messages.append(message)
            if message.sent:
                thread.sending = message
            else:
                message.notifies = [_notify(octets) for octets in thread.received]
                thread.received = []
        elif said == "generating payload of type NOTIFY":
            thread.wanted = "sent"
        elif said.startswith("generating payload of type "):
            thread.wanted = ""
        elif re.match(r"parsing NOTIFY payload, \d+ bytes left", said):
            thread.wanted = "received"
        elif said.startswith(("generated data for this payload", "parsing payload from")) and thread.wanted:
            thread.dump, thread.dump_is, thread.wanted = bytearray(), thread.wanted, ""
    for thread in threads.values():
        _finish(thread)
    return messages


def _finish(thread: _Thread) -> None:
    if thread.dump is None:
        return
    octets = bytes(thread.dump)
    thread.dump = None
    if thread.dump_is == "sent" and thread.sending is not None:
        thread.sending.notifies.append(_notify(octets))
    elif thread.dump_is == "received":
        thread.received.append(octets)
