"""Builds machines in every state and carries messages between two of them without a network."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mobikectl.protocol.exchange import Endpoint, Exchange, Message, Pair, Payload
from mobikectl.protocol.mobike import MobikePolicy
from mobikectl.protocol.mobike_initiator import MobikeInitiator
from mobikectl.protocol.mobike_responder import MobikeResponder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mobikectl.protocol.machine import Event

T = TypeVar("T")

I1, I2, I3 = (IPv4Address(f"198.18.0.{n}") for n in (1, 2, 3))
R1, R2, R3 = (IPv4Address(f"198.18.1.{n}") for n in (1, 2, 3))
VICTIM = IPv4Address("198.18.9.9")
I6, R6 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8:1::1")


def current(value: T) -> T:
    """Return what is given. What is asserted of it is not taken to hold after the machine went on."""
    return value


class Peer(Protocol):
    def receive(self, message: Message, now: float) -> None: ...
    def send(self, now: float) -> list[Message]: ...
    def next_event(self) -> Event | None: ...


def pair(local: Any, remote: Any, port: int = 4500) -> Pair:
    return Pair(Endpoint(local, port), Endpoint(remote, port))


def fixed_octets(count: int) -> bytes:
    return b"c" * count


def counting_octets() -> Callable[[int], bytes]:
    state = iter(range(1, 1 << 30))
    return lambda count: next(state).to_bytes(count, "big")


def policy(**changes: Any) -> MobikePolicy:
    return MobikePolicy(**{"random_octets": counting_octets(), **changes})


def events(machine: Peer) -> list[Event]:
    found = []
    while (event := machine.next_event()) is not None:
        found.append(event)
    return found


def told(machine: Peer, kind: type) -> list[Any]:
    return [event for event in events(machine) if isinstance(event, kind)]


def pump(
    a: Peer, b: Peer, now: float = 0.0, change: Callable[[Message], Message | None] | None = None
) -> list[Message]:
    """Carry messages both ways until both are quiet; ``change`` may alter or drop (None) each."""
    carried: list[Message] = []
    for _ in range(100):
        quiet = True
        for sender, receiver in ((a, b), (b, a)):
            for message in sender.send(now):
                seen = message if change is None else change(message)
                if seen is not None:
                    quiet = False
                    carried.append(seen)
                    receiver.receive(seen, now)
        if quiet:
            return carried
    raise AssertionError("the machines never become quiet")


def answer(request: Message, *payloads: Payload, spis: tuple[int, int] | None = None) -> Message:
    """The response to a request, with the given payloads."""
    spi_i, spi_r = spis or (request.spi_i, request.spi_r)
    return Message(
        request.exchange,
        request.message_id,
        True,
        request.destination,
        request.source,
        payloads,
        spi_i,
        spi_r,
    )


def request_to(machine: Any, number: int, *payloads: Payload, over: Pair | None = None) -> Message:
    """An INFORMATIONAL request of the machine's peer."""
    way = over or machine.pair
    return Message(Exchange.INFORMATIONAL, number, False, way.remote, way.local, payloads, *machine.spis)


def without(message: Message, *kinds: type) -> Message:
    kept = tuple(p for p in message.payloads if not isinstance(p, kinds))
    return dataclasses.replace(message, payloads=kept)


def from_source(message: Message, ip: Any, port: int | None = None) -> Message:
    """The message as a NAT (or an attacker) on the way changes it."""
    return dataclasses.replace(message, source=Endpoint(ip, message.source.port if port is None else port))


def established(
    initiator_policy: MobikePolicy | None = None,
    responder_policy: MobikePolicy | None = None,
    *,
    own_i: Iterable[Any] = (I1, I2),
    own_r: Iterable[Any] = (R1, R2),
    mobike: bool = True,
    change: Callable[[Message], Message | None] | None = None,
) -> tuple[MobikeInitiator, MobikeResponder]:
    """Both machines after IKE_AUTH, quiet, events fetched."""
    initiator = MobikeInitiator(own_i, initiator_policy or policy())
    responder = MobikeResponder(own_r, responder_policy or policy(), mobike=mobike)
    initiator.connect([pair(I1, R1, 500)], 0.0)
    pump(initiator, responder, change=change)
    events(initiator), events(responder)
    return initiator, responder
