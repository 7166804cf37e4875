"""IKE messages as charon's log tells them: what a peer sees after decryption. Pure, but for reading the file.

charon logs each message twice: its payloads (subsystem ENC: ``generating``, ``parsed``) and its way (NET: ``sending``,
``received``). The lines of one message carry the same thread's number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mobikectl.wire import bridge
from mobikectl.wire.dialects import EVERY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mobikectl.lab.instance import Lab

LINE = re.compile(r"^\S+ (?P<thread>\d+)\[(?:ENC|NET|IKE)\] (?P<text>.*)$")
WAY = re.compile(r"(?P<verb>sending|received) packet: from (?P<source>\S+) to (?P<target>\S+) \(\d+ bytes\)")
CONTENT = re.compile(
    r"(?P<verb>generating|parsed) (?P<exchange>\S+) (?P<kind>request|response) (?P<number>\d+) \[ (?P<payloads>.*)\]"
)
ASKED = re.compile(r"peer of IKE_SA \S+ asks to switch to (\S+)")
"""What the rmobike plugin says of a SWITCH_TO_IP_ADDRESS that was received: the address is in its data."""
PAYLOAD = re.compile(r"N\((?:\((?P<number>\d+)\)|(?P<name>[A-Z0-9_]+))\)")
SWITCH = "N(SWITCH_TO_IP_ADDRESS)"
KNOWN = EVERY.joined("lab", bridge.CODECS)
NAMES = {
    "MOBIKE_SUP": "MOBIKE_SUPPORTED",
    "ADD_4_ADDR": "ADDITIONAL_IP4_ADDRESS",
    "ADD_6_ADDR": "ADDITIONAL_IP6_ADDRESS",
    "NO_ADD_ADDR": "NO_ADDITIONAL_ADDRESSES",
    "UPD_SA_ADDR": "UPDATE_SA_ADDRESSES",
    "NATD_S_IP": "NAT_DETECTION_SOURCE_IP",
    "NATD_D_IP": "NAT_DETECTION_DESTINATION_IP",
}
"""charon's short names of notifies, and those of the documents."""


@dataclass(frozen=True, slots=True)
class Message:
    """An IKE message as one side saw it. Addresses with their ports, as charon writes them: ``198.18.1.1[4500]``."""

    outgoing: bool
    local: str
    remote: str
    exchange: str
    response: bool
    number: int
    """The message ID."""
    payloads: tuple[str, ...]
    """``N(NAME)`` for notifies, charon's short names for others."""

    @property
    def shape(self) -> str:
        """What a document says of a message: the way, the exchange and the payloads, without its message ID."""
        kind = "response" if self.response else "request"
        inside = "".join(f" {payload}" for payload in self.payloads)
        return f"{'-->' if self.outgoing else '<--'} {self.remote} {self.exchange} {kind} {{{inside} }}"

    def __str__(self) -> str:
        way, remote, exchange, kind, inside = self.shape.split(" ", 4)
        return f"{self.local} {way} {remote} {exchange} {kind} {self.number} {inside}"


def read_messages(log: str) -> list[Message]:
    """Given lines of a charon's log, return the messages that it sent and received, in their order.

    What was sent again is told once. What is no line of a message is passed over.
    """
    found: list[Message] = []
    ways: dict[str, tuple[str, str]] = {}
    unsent: dict[str, re.Match[str]] = {}
    last: dict[str, int] = {}
    for line in log.splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        thread, text = match["thread"], match["text"]
        if way := WAY.match(text):
            if way["verb"] == "received":
                ways[thread] = (way["target"], way["source"])
            elif content := unsent.pop(thread, None):
                found.append(_message(content, way["source"], way["target"], outgoing=True))
        elif content := CONTENT.match(text):
            if content["verb"] == "generating":
                unsent[thread] = content
            elif thread in ways:
                last[thread] = len(found)
                found.append(_message(content, *ways.pop(thread), outgoing=False))
        elif (asked := ASKED.match(text)) and thread in last:
            found[last[thread]] = _with_address(found[last[thread]], asked[1])
    return found


def _message(content: re.Match[str], local: str, remote: str, *, outgoing: bool) -> Message:
    payloads = tuple(PAYLOAD.sub(_name, payload) for payload in content["payloads"].split())
    response = content["kind"] == "response"
    return Message(outgoing, local, remote, content["exchange"], response, int(content["number"]), payloads)


def _name(payload: re.Match[str]) -> str:
    if payload["name"]:
        return f"N({NAMES.get(payload['name'], payload['name'])})"
    codec = KNOWN.codec(int(payload["number"]))
    return f"N({codec.name})" if codec else payload[0]


def _with_address(message: Message, address: str) -> Message:
    told = tuple(
        f"{payload[:-1]}({address}))" if payload == SWITCH else payload for payload in message.payloads
    )
    return replace(message, payloads=told)


def without(messages: Iterable[Message], unwanted: Callable[[Message], bool]) -> list[Message]:
    """Given messages, leave out the exchanges whose request is unwanted: the request and its response."""
    left, dropped = [], set()
    for message in messages:
        exchange = (message.outgoing is not message.response, message.number)
        if not message.response and unwanted(message):
            dropped.add(exchange)
        elif not (message.response and exchange in dropped):
            left.append(message)
    return left


def difference(messages: Sequence[Message], expected: Sequence[str]) -> str:
    """Given messages and the shapes that a document gives them, return the first difference; empty: there is none."""
    for number, wanted in enumerate(expected, 1):
        got = messages[number - 1].shape if number <= len(messages) else "nothing"
        if got != wanted:
            return f"message {number}: expected {wanted}, got {got}"
    return "" if len(messages) == len(expected) else f"one too many: {messages[len(expected)].shape}"


def log_end(lab: Lab, node: str) -> int:
    """Given a node, return where its charon's log ends now, for `messages_since`."""
    return (lab.record.node_dir(node) / "charon.log").stat().st_size


def messages_since(lab: Lab, node: str, start: int) -> list[Message]:
    """Given a node and a place in its charon's log, return the messages that were logged after it."""
    with (lab.record.node_dir(node) / "charon.log").open("rb") as log:
        log.seek(start)
        return read_messages(log.read().decode(errors="replace"))
