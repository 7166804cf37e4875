"""Address notification against its own other half over a bad network: what must hold in every run."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from mobikectl.protocol.addrnotify import AddressNotifyPeer, Announcing, NotifyPolicy, State
from mobikectl.protocol.exchange import Message, Pair, Retransmission
from mobikectl.wire.kivinen import Ipv4AddressChange

from .protocol_network import I1, I2, I3, R1, R2, R3, RUNS, Network

QUIET_AT, END_AT = 80.0, 400.0


class World:
    """Two peers that change their addresses; each keeps at least one that works."""

    def __init__(self, seed: int) -> None:
        self.net = net = Network(seed, loss=0.0)
        rng = self.rng = net.rng
        net.loss = rng.choice([0.0, 0.1, 0.2])
        policy = NotifyPolicy(
            tries_per_address=8,
            recheck=rng.random() < 0.5,
            window=rng.choice([1, 2, 3]),
            retransmission=Retransmission(1.0, 1.3, 4.0),
        )
        self.own: dict[str, list[Any]] = {"i": [I1, I2, I3], "r": [R1, R2, R3]}
        self.peers = {
            "i": AddressNotifyPeer(self.own["i"], self.own["r"], policy),
            "r": AddressNotifyPeer(self.own["r"], self.own["i"], policy),
        }
        for name, peer in self.peers.items():
            net.attach(name, peer, self.own[name])
        net.on_delivery.append(self.delivered)
        self.newest = {"i": -1, "r": -1}

    def delivered(self, name: str, message: Message, receive: Any) -> None:
        peer = self.peers[name]
        before = peer.peer
        receive()
        if message.has(Ipv4AddressChange) and peer.peer != before:
            assert message.message_id > self.newest[name], "a list was applied out of order"
            self.newest[name] = message.message_id
        known = {*self.own["i"], *self.own["r"]}
        assert peer.pair.remote.ip in known & set(self.own["r" if name == "i" else "i"])

    def change(self, name: str) -> None:
        peer, own = self.peers[name], list(self.own[name])
        if peer.state is State.CLOSED:
            return
        self.rng.shuffle(own)
        alive = own[: self.rng.randint(1, 3)]
        self.net.dead = (self.net.dead - set(own)) | (set(own) - set(alive))
        peer.notify(alive, self.net.now)

    def away(self, name: str) -> None:
        peer = self.peers[name]
        if peer.announcing in {Announcing.QUIET, Announcing.SENT} and peer.state is not State.CLOSED:
            peer.disconnect(30, self.net.now)
            self.net.at(self.net.now + 20.0, lambda: self.change(name))

    def doubt(self, name: str) -> None:
        if self.peers[name].state in {State.SETTLED, State.CHECKING, State.SEARCHING}:
            self.peers[name].doubt(self.net.now)

    def play(self) -> None:
        mover = self.rng.choice(["i", "r"])
        for _ in range(self.rng.randint(1, 6)):
            deed = self.rng.choice([self.change, self.change, self.away, self.doubt])
            self.net.at(self.rng.uniform(1.0, QUIET_AT - 30.0), partial(deed, mover))
        self.net.at(QUIET_AT, lambda: self.doubt("i"))
        self.net.at(QUIET_AT, lambda: self.doubt("r"))
        self.net.run(END_AT)

    def check_end(self) -> None:
        i, r = self.peers["i"], self.peers["r"]
        closed = State.CLOSED in {i.state, r.state}
        if closed:
            return
        assert i.state is State.SETTLED
        assert r.state is State.SETTLED
        assert i.pair == Pair(r.pair.remote, r.pair.local), "the ends disagree on the pair"
        assert self.net.works(i.pair.local.ip, i.pair.remote.ip)


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
def test_the_ends_agree_on_a_working_pair_or_the_ike_sa_ends(part: int) -> None:
    ended = sum(
        State.CLOSED in {p.state for p in one_run(seed).peers.values()} for seed in range(part, RUNS, 2)
    )
    assert ended <= RUNS // 20, "too many IKE SAs ended though an address worked all the time"
