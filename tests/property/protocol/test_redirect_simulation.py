"""Redirection against its own other half over a bad network: what must hold in every run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.protocol.exchange import Endpoint, Exchange, Message, Retransmission
from mobikectl.protocol.redirect import Edition, RedirectClient, Redirected, RedirectPolicy, State
from mobikectl.protocol.redirect_gateway import GatewayPolicy, RedirectGateway
from mobikectl.protocol.redirect_gateway import State as GatewayState
from mobikectl.wire.redirect import Redirect

from .protocol_network import I1, R1, R2, R3, RUNS, VICTIM, Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.model import IpAddress

END_AT = 500.0


class Front:
    """A gateway with one machine per IKE_SA, found by the initiator's SPI."""

    def __init__(self, ip: Any, policy: GatewayPolicy, spi: int) -> None:
        self.ip, self.policy, self.spi = ip, policy, spi
        self.machines: dict[int, RedirectGateway] = {}

    def receive(self, message: Message, now: float) -> None:
        machine = self.machines.get(message.spi_i)
        if machine is None:
            self.spi += 1
            machine = self.machines[message.spi_i] = RedirectGateway(self.ip, self.policy, spi=self.spi)
        machine.receive(message, now)

    def send(self, now: float) -> list[Message]:
        return [message for machine in self.machines.values() for message in machine.send(now)]

    def next_deadline(self) -> float | None:
        return min((d for m in self.machines.values() if (d := m.next_deadline()) is not None), default=None)


def _always(there: IpAddress | None) -> Callable[[Endpoint, IpAddress | None], IpAddress | None]:
    return lambda client, origin: there


class World:
    """A client, three gateways that send it around, and an attacker who forges redirects without the nonce."""

    def __init__(self, seed: int) -> None:
        self.net = net = Network(seed, loss=0.0)
        rng = self.rng = net.rng
        net.loss = rng.choice([0.0, 0.1, 0.3])
        self.edition = rng.choice(list(Edition))
        quick = Retransmission(1.0, 1.4, 6.0, give_up_s=60.0)
        self.loop = rng.random() < 0.2
        target = {R1: R2, R2: R3, R3: R1}
        self.gateways: dict[Any, Front] = {}
        for n, ip in enumerate((R1, R2, R3)):
            there = target[ip] if self.loop or (n < 2 and rng.random() < 0.4) else None
            policy = GatewayPolicy(
                edition=self.edition,
                choose=_always(there),
                retransmission=quick,
                grace_s=90.0,
            )
            self.gateways[ip] = Front(ip, policy, 1000 * (n + 1))
            net.attach(str(ip), self.gateways[ip], [ip])
        self.client = RedirectClient(
            Endpoint(I1, 500),
            RedirectPolicy(edition=self.edition, retransmission=quick, random_octets=rng.randbytes),
        )
        net.attach("client", self.client, [I1])
        net.watchers.append(self.watch)
        net.on_delivery.append(self.delivered)
        self.followed: list[float] = []
        self.client.connect(Endpoint(R1, 500), 0.0)

    def delivered(self, name: str, message: Message, receive: Any) -> None:
        if message.exchange is Exchange.IKE_SA_INIT and name != "client" and self.edition is Edition.RFC_5685:
            forged = Message(
                message.exchange,
                0,
                True,
                message.destination,
                message.source,
                (Redirect(VICTIM, b"x" * 16),),
                message.spi_i,
            )
            self.net.at(self.net.now, lambda: self.client.receive(forged, self.net.now))
        receive()

    def watch(self) -> None:
        while (event := self.client.next_event()) is not None:
            if isinstance(event, Redirected):
                assert event.target != VICTIM, "a forged redirect was followed"
                self.followed.append(self.net.now)
        recent = [t for t in self.followed if t > self.net.now - 300.0]
        assert len(recent) <= 5, "too many redirects were followed"

    def send_away(self) -> None:
        here, session = self.client.gateway, self.client._session
        if here is None or session is None or self.client.state is not State.ESTABLISHED:
            return
        machine = self.gateways[here].machines[session.exchanger.spis[0]]
        if machine.state is GatewayState.ESTABLISHED:
            machine.redirect(self.rng.choice([ip for ip in self.gateways if ip != here]), self.net.now)

    def play(self) -> None:
        for _ in range(self.rng.randint(0, 3)):
            self.net.at(self.rng.uniform(10.0, 100.0), self.send_away)
        self.net.run(END_AT)

    def check_end(self) -> None:
        assert self.client.state in {State.ESTABLISHED, State.CLOSED}, "neither progress nor failure"
        if self.loop:
            assert self.client.state is State.CLOSED
        if self.client.state is State.ESTABLISHED:
            assert self.client.gateway in self.gateways
            assert self.client._session is not None
            spis = self.client._session.exchanger.spis
            gateway = self.gateways[self.client.gateway].machines[spis[0]]
            assert gateway._exchanger.spis == spis
            assert gateway.state is GatewayState.ESTABLISHED, "the ends disagree"


def one_run(seed: int) -> World:
    world = World(seed)
    try:
        world.play()
        world.check_end()
    except Exception as error:
        error.add_note(f"seed {seed}")
        raise
    return world


@pytest.mark.parametrize("part", range(2))
def test_the_client_ends_at_a_gateway_or_fails_and_follows_no_forged_redirect(part: int) -> None:
    worlds = [one_run(seed) for seed in range(part, RUNS, 2)]
    assert sum(w.client.state is State.ESTABLISHED for w in worlds) > len(worlds) * 3 // 5
