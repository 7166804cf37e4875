"""Whatever an authenticated peer sends, a machine goes on or blames the peer; it never fails otherwise."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from mobikectl.protocol.addrmgmt import ChildPair
from mobikectl.protocol.addrmgmt_peer import AddrMgmtPeer
from mobikectl.protocol.addrnotify import AddressNotifyPeer
from mobikectl.protocol.exchange import Delete, Endpoint, Exchange, Message, Nonce, Pair
from mobikectl.protocol.machine import RemoteProtocolError
from mobikectl.protocol.mobike import MobikePolicy
from mobikectl.protocol.redirect import RedirectClient
from mobikectl.protocol.redirect_gateway import RedirectGateway
from mobikectl.protocol.rmobike import RMobikeInitiator, RMobikeResponder
from mobikectl.wire import dupont, kivinen, mobike, redirect, rmobike

from .protocol_network import I1, I2, R1, R2, RUNS, VICTIM

ADDRESSES = (I1, I2, R1, R2, VICTIM)
PAIR = Pair(Endpoint(I1, 500), Endpoint(R1, 500))


def payload(rng: Random) -> Any:
    ip = rng.choice(ADDRESSES)
    identities: list[redirect.GatewayIdentity] = [ip, redirect.Fqdn("gw.example.org")]
    operation = rng.choice(list(dupont.PeerAddressOperation))
    return rng.choice(
        [
            mobike.UpdateSaAddresses(),
            mobike.NoAdditionalAddresses(),
            mobike.AdditionalIp4Address(ip),
            mobike.Cookie2(rng.randbytes(8)),
            mobike.NoNatsAllowed(ip, R1, 500, 4500),
            mobike.NatDetectionSourceIp(rng.randbytes(20)),
            mobike.NatDetectionDestinationIp(rng.randbytes(20)),
            mobike.MobikeSupported(rng.choice([b"", b"R", b"x"])),
            mobike.UnacceptableAddresses(),
            mobike.UnexpectedNatDetected(),
            rmobike.SwitchToIpAddress(ip),
            redirect.Redirect(rng.choice(identities)),
            redirect.RedirectedFrom(ip),
            redirect.RedirectSupported(),
            kivinen.Ipv4AddressChange(ip),
            kivinen.DisconnectNotify(rng.choice([0, 60])),
            dupont.PeerAddressSource(ip, operation),
            dupont.PeerAddressDestination(ip, operation),
            dupont.PeerAddressUpdate(all_sas=rng.random() < 0.5),
            dupont.PeerAddressUpdate(protocol=dupont.UpdateProtocol.ESP, spis=(rng.choice([11, 21, 99]),)),
            dupont.RrCookie(rng.randbytes(16)),
            dupont.NatPrevention(rng.randbytes(20)),
            Nonce(rng.randbytes(32)),
            Delete() if rng.random() < 0.05 else object(),
        ]
    )


def machines(seed: int) -> list[tuple[Any, Any]]:
    """Pairs of halves; the first one of each is then attacked in the other's name."""
    policy = MobikePolicy(nat_traversal=seed % 2 == 0, window=1 + seed % 3)
    initiator, responder = RMobikeInitiator([I1, I2], policy), RMobikeResponder([R1, R2], policy)
    initiator.connect([PAIR], 0.0)
    client, gateway = RedirectClient(PAIR.local), RedirectGateway(R1)
    client.connect(PAIR.remote, 0.0)
    one = AddrMgmtPeer([I1, I2], children=[ChildPair(dupont.UpdateProtocol.ESP, 11, 21)])
    other = AddrMgmtPeer([R1], spi=2)
    one.connect(PAIR, 0.0)
    notifying = AddressNotifyPeer([I1, I2], [R1, R2]), AddressNotifyPeer([R1, R2], [I1, I2])
    return [(initiator, responder), (client, gateway), (one, other), notifying]


@pytest.mark.parametrize("part", range(2))
def test_a_machine_never_fails_but_by_blaming_the_peer(part: int) -> None:
    for seed in range(part, RUNS, 2):
        rng = Random(seed)
        for halves in machines(seed):
            sent: list[Message] = []
            for _ in range(rng.randint(0, 4)):
                for a, b in (halves, halves[::-1]):
                    for message in a.send(0.0):
                        sent.append(message)
                        b.receive(message, 0.0)
            attack(rng, rng.choice(halves), sent, seed)


def attack(rng: Random, machine: Any, seen: list[Message], seed: int) -> None:
    now = 0.0
    for _ in range(30):
        now += rng.choice([0.0, 1.0, 20.0])
        spis = [(m.spi_i, m.spi_r) for m in seen[-2:]] or [(1, 2)]
        message = Message(
            rng.choice([*list(Exchange), Exchange.INFORMATIONAL, Exchange.INFORMATIONAL]),
            rng.randint(0, 5),
            rng.random() < 0.4,
            Endpoint(rng.choice(ADDRESSES), rng.choice([500, 4500])),
            Endpoint(rng.choice(ADDRESSES), rng.choice([500, 4500])),
            tuple(payload(rng) for _ in range(rng.randint(0, 5))),
            *rng.choice(spis),
        )
        try:
            machine.receive(message, now)
        except RemoteProtocolError:
            pass
        except Exception as error:
            error.add_note(f"seed {seed}, {machine}")
            raise
        seen += machine.send(now)
