"""Address management against its own other half over a bad network: what must hold in every run."""

from __future__ import annotations

from typing import Any

import pytest

from mobikectl.protocol.addrmgmt import AddrMgmtPolicy, ChildPair, Receiving, Routability, SasUpdated, State
from mobikectl.protocol.addrmgmt_peer import AddrMgmtPeer
from mobikectl.protocol.exchange import Endpoint, Message, Pair, Retransmission
from mobikectl.wire.dupont import PeerAddressUpdate, RrCookie, UpdateProtocol

from .protocol_network import I1, I2, I3, R1, R2, R3, RUNS, VICTIM, Network

QUIET_AT, END_AT = 80.0, 500.0
HERE = tuple(ChildPair(UpdateProtocol.ESP, 10 + n, 20 + n) for n in range(3))
THERE = tuple(ChildPair(c.protocol, c.spi_out, c.spi_in) for c in HERE)
MOBILE = {State.STABLE, State.PENDING, State.UPDATING, State.REFUSED}


class World:
    """Two peers that move, one of which may claim an address that is not its own."""

    def __init__(self, seed: int) -> None:
        self.net = net = Network(seed, loss=0.0)
        rng = self.rng = net.rng
        net.loss = rng.choice([0.0, 0.1, 0.3])
        policy = AddrMgmtPolicy(
            routability=Routability.ALWAYS,
            window=rng.choice([2, 2, 4]),
            check_tries=6,
            retransmission=Retransmission(1.0, 1.4, 6.0),
            random_octets=rng.randbytes,
        )
        self.own: dict[str, list[Any]] = {"i": [I1, I2, I3], "r": [R1, R2, R3]}
        self.peers = {
            "i": AddrMgmtPeer([I1], policy, children=HERE),
            "r": AddrMgmtPeer([R1], policy, children=THERE, spi=2),
        }
        for name, peer in self.peers.items():
            net.attach(name, peer, self.own[name])
        net.on_delivery.append(self.delivered)
        net.watchers.append(self.watch)
        self.proved: dict[str, set[Any]] = {"i": {R1}, "r": {I1}}
        """Which addresses of the other side really received a check of this one."""
        self.lying = False
        self.peers["i"].connect(Pair(Endpoint(I1), Endpoint(R1)), 0.0)

    def delivered(self, name: str, message: Message, receive: Any) -> None:
        other = "r" if name == "i" else "i"
        if message.has(RrCookie) and not message.response:
            self.proved[other].add(message.destination.ip)
        receive()

    def watch(self) -> None:
        for name, peer in self.peers.items():
            while (event := peer.next_event()) is not None:
                if isinstance(event, SasUpdated):
                    assert event.pair.remote.ip in self.proved[name], (
                        f"{event.pair.remote} was never verified"
                    )
            done = [n for n in peer._exchanger._answered if n not in peer._exchanger._busy]
            assert not done or max(done) < peer._exchanger.oldest_unanswered + peer.policy.window
            for pair in peer.sa_pairs.values():
                assert pair.remote.ip != VICTIM, "traffic to a third party"

    def move(self, *, everything: bool = True) -> None:
        peer = self.peers["i"]
        if peer.state not in MOBILE or (self.lying and peer.state in {State.PENDING, State.UPDATING}):
            return  # copies of one claim from several unknown sources look like a NAT to the draft's rule
        self.lying = False
        new = Pair(Endpoint(self.rng.choice(self.own["i"])), peer.pair.remote)
        old = peer.pair.local.ip
        if everything:
            delete = [old] if old != new.local.ip and self.rng.random() < 0.5 else []
            peer.update(new, self.net.now, delete=delete)
        else:
            peer.update(new, self.net.now, children=[self.rng.choice(HERE)], ike=False)

    def lie(self) -> None:
        """Claim a third party's address; afterwards go back to an own one."""
        peer = self.peers["i"]
        if peer.state is State.STABLE:
            back = peer.pair
            peer.update(Pair(Endpoint(VICTIM), back.remote), self.net.now)
            peer._pair = back
            self.lying = True
            self.net.at(self.net.now + 40.0, self.move)

    def other_moves(self) -> None:
        peer = self.peers["r"]
        if peer.state in MOBILE:
            peer.update(Pair(Endpoint(self.rng.choice(self.own["r"])), peer.pair.remote), self.net.now)

    def play(self) -> None:
        deeds = [self.move, self.move, lambda: self.move(everything=False), self.lie]
        if self.rng.random() < 0.3:
            deeds = [self.other_moves]
        for _ in range(self.rng.randint(1, 5)):
            self.net.at(self.rng.uniform(8.0, QUIET_AT), self.rng.choice(deeds))
        if self.other_moves not in deeds:
            for later in (60.0, 150.0, 250.0):
                self.net.at(QUIET_AT + later, self.move)
        self.net.run(END_AT)

    def check_end(self) -> None:
        i, r = self.peers["i"], self.peers["r"]
        assert i.state is State.STABLE
        assert r.state is State.STABLE
        assert (i.receiving, r.receiving) == (Receiving.QUIET, Receiving.QUIET)
        assert i.pair == Pair(r.pair.remote, r.pair.local), "the ends disagree on the IKE_SA's pair"
        for here, there in zip(HERE, THERE, strict=True):
            mine, theirs = i.sa_pairs[here], r.sa_pairs[there]
            assert mine == Pair(theirs.remote, theirs.local), "the ends disagree on an IPsec SA's pair"


def one_run(seed: int) -> None:
    world = World(seed)
    try:
        world.play()
        world.check_end()
    except Exception as error:
        error.add_note(f"seed {seed}")
        raise


@pytest.mark.parametrize("part", range(2))
def test_both_ends_agree_for_every_sa_and_nothing_goes_to_unverified_addresses(part: int) -> None:
    for seed in range(part, RUNS, 2):
        one_run(seed)


def test_update_payloads_are_processed_in_order_however_they_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(RUNS):
        world = World(seed)
        world.net.run(60.0)
        r = world.peers["r"]
        first = r._exchanger.oldest_unanswered
        order: list[int] = []
        process = r._process

        def noted(asked: Any, now: float, order: list[int] = order, process: Any = process) -> None:
            order.append(asked.message.message_id)
            process(asked, now)

        monkeypatch.setattr(r, "_process", noted)
        messages = [
            Message(
                request.exchange,
                first + n,
                False,
                Endpoint(I1),
                Endpoint(R1),
                request.payloads,
                *r.spis,
            )
            for n, request in enumerate([update_request(), update_request()])
        ]
        world.rng.shuffle(messages)
        for message in messages:
            r.receive(message, 60.0)
        assert order == [first, first + 1], f"seed {seed}"


def update_request() -> Message:
    peer = AddrMgmtPeer([I1], AddrMgmtPolicy(), children=HERE)
    other = AddrMgmtPeer([R1], AddrMgmtPolicy(), children=THERE, spi=2)
    peer.connect(Pair(Endpoint(I1), Endpoint(R1)), 0.0)
    for _ in range(3):
        for message in peer.send(0.0):
            other.receive(message, 0.0)
        for message in other.send(0.0):
            peer.receive(message, 0.0)
    peer.update(Pair(Endpoint(I1), Endpoint(R1)), 0.0)
    return next(m for m in peer.send(0.0) if m.has(PeerAddressUpdate))
