"""What differs between the two protocols: how their machines begin on an IKE_SA that is there already."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobikectl.protocol import addrmgmt, addrnotify
from mobikectl.protocol.addrmgmt import AddrMgmtPolicy, ChildPair, Routability
from mobikectl.protocol.addrmgmt_peer import AddrMgmtPeer
from mobikectl.protocol.addrnotify import AddressNotifyPeer, NotifyPolicy
from mobikectl.protocol.exchange import Endpoint, Exchange, Message, Pair, Retransmission
from mobikectl.wire.bridge import Spoken
from mobikectl.wire.dupont import PeerAddressSource, UpdateProtocol
from mobikectl.wire.kivinen import DisconnectNotify

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.model import IkeSa, Path

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """What a bridge does, and how patiently.

    charon itself sends unanswered requests again; ``retransmission`` only says when a machine looks for
    another address.
    """

    speak: frozenset[Spoken] = frozenset({Spoken.KIVINEN})
    serve: bool = True
    """Follow the peers' messages and answer them. Else only this side's own requests are carried out."""
    most_silence_s: int = DAY_S
    """The longest planned silence that is allowed, if charon's timers allow it."""
    routability: Routability = Routability.ALWAYS
    """When draft-dupont's RR_COOKIE check is made."""
    allow_nat: bool = False
    """Speak draft-dupont where NAT traversal is active, which its section 3.2 rules out."""
    tries: int = 3
    retransmission: Retransmission = field(default_factory=lambda: Retransmission(first_s=4.0, factor=1.5))


@dataclass(frozen=True, slots=True)
class Start:
    """A machine at the beginning of a session.

    ``peer_id``: the message ID that it expects in the peer's first request.
    """

    machine: AddressNotifyPeer | AddrMgmtPeer
    peer_id: int
    window: int


LATER_WHEN: dict[Spoken, type] = {Spoken.KIVINEN: DisconnectNotify, Spoken.DUPONT: PeerAddressSource}
"""Requests with such a notify are answered later: the answer depends on what the request says."""


def start(spoken: Spoken, sa: IkeSa, settings: BridgeSettings, allow: Callable[[int], bool]) -> Start:
    """Given an IKE_SA, return a machine that begins on it.

    ``allow``: given seconds, whether the peer may be silent for so long.
    """
    if spoken is Spoken.KIVINEN:
        policy = NotifyPolicy(
            tries_per_address=settings.tries, allow_disconnect=allow, retransmission=settings.retransmission
        )
        return Start(AddressNotifyPeer([sa.path.local], [sa.path.remote], policy), 0, policy.window)
    return _address_management(sa, settings)


def pair_of(path: Path) -> Pair:
    """Given a path, return it as the machines want it: their ports are 4500 always."""
    return Pair(Endpoint(path.local), Endpoint(path.remote))


def _address_management(sa: IkeSa, settings: BridgeSettings) -> Start:
    """Lead a machine through the initial exchanges, which charon has made already."""
    policy = AddrMgmtPolicy(
        routability=settings.routability,
        check_tries=settings.tries,
        retransmission=settings.retransmission,
    )
    pair = pair_of(sa.path)
    machine = AddrMgmtPeer([sa.path.local], policy, children=_children(sa), spi=1)
    here, there = pair.local, pair.remote
    if sa.original_initiator:
        machine.connect(pair, 0.0)
        for number, exchange in enumerate((Exchange.IKE_SA_INIT, Exchange.IKE_AUTH)):
            machine.send(0.0)
            machine.receive(Message(exchange, number, True, there, here, (), 1, 2), 0.0)
    else:
        for number, exchange in enumerate((Exchange.IKE_SA_INIT, Exchange.IKE_AUTH)):
            machine.receive(Message(exchange, number, False, there, here, (), 2, number), 0.0)
            machine.send(0.0)
    while machine.next_event() is not None:
        pass
    return Start(machine, 0 if sa.original_initiator else 2, policy.window)


def _children(sa: IkeSa) -> tuple[ChildPair, ...]:
    return tuple(
        ChildPair(
            UpdateProtocol.AH if child.protocol == "AH" else UpdateProtocol.ESP, child.spi_in, child.spi_out
        )
        for child in sa.children
    )


def at_rest(machine: AddressNotifyPeer | AddrMgmtPeer) -> bool:
    """Whether nothing would be lost if the machine began anew."""
    if isinstance(machine, AddressNotifyPeer):
        return machine.state is addrnotify.State.SETTLED
    return machine.state is addrmgmt.State.STABLE and machine.receiving is addrmgmt.Receiving.QUIET


def is_away(machine: AddressNotifyPeer | AddrMgmtPeer) -> bool:
    """Whether the peer announced a silence that is not over."""
    return machine.state is addrnotify.State.AWAY


def is_closed(machine: AddressNotifyPeer | AddrMgmtPeer) -> bool:
    """Whether the machine takes the IKE_SA for gone."""
    return machine.state in {addrnotify.State.CLOSED, addrmgmt.State.CLOSED, addrmgmt.State.NAT_TRAVERSAL}
