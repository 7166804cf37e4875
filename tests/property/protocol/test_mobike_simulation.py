"""MOBIKE and r-mobike against their own other halves over a bad network: what must hold in every run."""

from __future__ import annotations

from typing import Any

import pytest

from mobikectl.protocol.exchange import Endpoint, Message, Pair, Retransmission
from mobikectl.protocol.mobike import (
    MobikePolicy,
    PathSuspect,
    PeerAddresses,
    ReturnRoutability,
    UpdateRefused,
)
from mobikectl.protocol.mobike_initiator import State as InitiatorState
from mobikectl.protocol.mobike_responder import State as ResponderState
from mobikectl.protocol.rmobike import Asking, Following, RMobikeInitiator, RMobikeResponder
from mobikectl.wire.mobike import Cookie2, UpdateSaAddresses

from .protocol_network import I1, I2, I3, R1, R2, R3, RUNS, VICTIM, Network

QUIET_AT, CALM_AT, END_AT = 150.0, 600.0, 800.0
LIMIT = 15.0


class World:
    """One run: hosts, what the owner of the initiator does, and the ledger of what was seen."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.net = net = Network(seed, loss=Network(seed, loss=0).rng.choice([0.0, 0.1, 0.3]))
        rng = self.rng = net.rng
        self.natt = rng.random() < 0.7
        self.routability = rng.choice(list(ReturnRoutability))
        policy = MobikePolicy(
            return_routability=self.routability,
            unverified_limit_s=LIMIT,
            nat_traversal=self.natt,
            window=rng.choice([1, 1, 2, 3]),
            retransmission=Retransmission(1.0, 1.5, 8.0, suspect_after=4),
            random_octets=rng.randbytes,
        )
        self.own_i, self.own_r = [I1, I2, I3][: rng.randint(1, 3)], [R1, R2, R3][: rng.randint(1, 3)]
        self.initiator = RMobikeInitiator(self.own_i, policy)
        self.responder = RMobikeResponder(self.own_r, policy)
        net.attach("i", self.initiator, [I1, I2, I3])
        net.attach("r", self.responder, [R1, R2, R3])
        if self.natt and rng.random() < 0.6:
            net.nat.inside = set(rng.sample(self.own_i, rng.randint(1, len(self.own_i))))
        net.tamper = self.tamper
        net.on_delivery.append(self.delivered)
        net.watchers.append(self.watch)
        self.spoof = self.source_lost = False
        self.last_applied = -1
        self.asked_of: set[Endpoint] = set()
        """Where the network really delivered requests with a COOKIE2 to the initiator, and to the responder."""
        self.reached: set[Any] = set()
        self.first: Pair | None = None
        self.victim_since: float | None = None
        self.initiator.connect(
            [Pair(Endpoint(a, 500), Endpoint(b, 500)) for a in self.own_i for b in self.own_r], 0.0
        )

    # --- the world around

    def tamper(self, message: Message) -> Message:
        """An attacker on the path gives an update the address of a third party."""
        if self.spoof and message.has(UpdateSaAddresses):
            self.spoof = False
            return Message(
                message.exchange,
                message.message_id,
                False,
                Endpoint(VICTIM, 4500),
                message.destination,
                message.payloads,
                message.spi_i,
                message.spi_r,
            )
        return message

    def delivered(self, name: str, message: Message, receive: Any) -> None:
        if message.has(Cookie2) and not message.response:
            self.asked_of.add(message.destination) if name == "i" else self.reached.add(
                message.destination.ip
            )
        before = self.responder._pair
        receive()
        if name == "r" and message.has(UpdateSaAddresses) and before not in {None, self.responder._pair}:
            assert message.message_id > self.last_applied, "an update was applied out of order"
            self.last_applied = message.message_id

    def alternatives(self) -> list[Pair]:
        alive = [ip for ip in self.own_i if ip not in self.net.dead]
        remotes = sorted(self.initiator.peer_addresses or {self.initiator.pair.remote.ip}, key=str)
        ports = self.initiator.pair
        return [
            Pair(Endpoint(a, ports.local.port), Endpoint(b, ports.remote.port))
            for a in alive
            for b in remotes
        ]

    def move(self, *, away: bool = True) -> None:
        if self.initiator.state not in MOBILE:
            return
        pairs = [p for p in self.alternatives() if not away or p != self.initiator.pair]
        if pairs:
            self.initiator.update(self.rng.choice(pairs), self.net.now)

    def watch(self) -> None:
        """Policy of the initiator's owner, and the invariants that hold all the time."""
        while (event := self.initiator.next_event()) is not None:
            gone = isinstance(event, PeerAddresses) and event.current_gone
            if (
                isinstance(event, PeerAddresses)
                and not gone
                and event.source != self.initiator.pair.remote.ip
            ):
                self.initiator.update(self.initiator.pair, self.net.now)
            refused = isinstance(event, UpdateRefused) and self.initiator.state is InitiatorState.REFUSED
            # a switch under way finds its way back alone
            silent = isinstance(event, PathSuspect) and event.pair == self.initiator.pair
            if gone or refused or (silent and self.initiator.following is not Following.MOVING):
                self.move()
        while self.responder.next_event() is not None:
            pass
        self.check_third_party()

    def check_third_party(self) -> None:
        for machine in (self.initiator, self.responder):
            assert machine.sa_pair is None or not machine.closed
        if self.first is None:
            self.first = self.responder.sa_pair
        target = self.responder.sa_pair
        now = self.net.now
        if target is None or not self.responder.may_send_esp(now):
            self.victim_since = None
            return
        if self.routability is ReturnRoutability.BEFORE:
            assert self.first is not None
            known = target.remote == self.first.remote
            assert known or target.remote in self.asked_of, f"traffic to {target.remote}, never verified"
            mine = self.initiator.sa_pair
            if mine is not None:
                assert mine.remote.ip in self.reached | {self.first.local.ip}, f"traffic to {mine.remote}"
        elif self.routability is ReturnRoutability.AFTER and target.remote.ip == VICTIM:
            self.victim_since = now if self.victim_since is None else self.victim_since
            assert now - self.victim_since <= LIMIT, "traffic to a third party for longer than allowed"

    def kill(self, own: list[Any]) -> None:
        alive = [ip for ip in own if ip not in self.net.dead]
        if len(alive) < 2:
            return
        lost = self.rng.choice(alive)
        self.net.dead.add(lost)
        self.tell_own(own)

    def tell_own(self, own: list[Any]) -> None:
        left = [ip for ip in own if ip not in self.net.dead]
        now = self.net.now
        if own is self.own_r and self.responder.state in {ResponderState.STABLE, ResponderState.CHECKING}:
            self.source_lost = self.source_lost or self.responder.pair.local.ip not in left
            self.responder.own_changed(left, now)
        elif own is self.own_i and self.initiator.state in MOBILE:
            self.initiator.announce(left, now)
            if self.initiator.pair.local.ip not in left:
                self.move()

    def block(self) -> None:
        pairs = [frozenset((a, b)) for a in self.own_i for b in self.own_r if self.net.works(a, b)]
        if len(pairs) > 1:
            self.net.blocked.add(self.rng.choice(pairs))

    def unblock(self) -> None:
        self.net.blocked.clear()

    def revive(self) -> None:
        self.net.dead.clear()
        self.tell_own(self.own_r)
        self.tell_own(self.own_i)

    def ask(self) -> None:
        if self.responder.asking in {Asking.READY, Asking.AWAITING}:
            self.responder.switch(self.rng.choice(self.own_r), self.net.now)

    def attack(self) -> None:
        """One update, and soon another one that the attacker changes."""
        self.move()

        def again() -> None:
            self.spoof = True
            self.move()

        self.net.at(self.net.now + self.rng.uniform(0.0, 4.0), again)

    def liveness(self) -> None:
        if self.initiator.state in MOBILE:
            self.initiator.check_liveness(self.net.now)

    # --- the run

    def play(self) -> None:
        deeds = [
            self.move,
            lambda: self.kill(self.own_i),
            lambda: self.kill(self.own_r),
            self.block,
            self.revive,
            self.net.nat.remap,
            self.ask,
            self.attack,
        ]
        for _ in range(self.rng.randint(2, 9)):
            self.net.at(self.rng.uniform(2.0, QUIET_AT - 10), self.rng.choice(deeds))
        self.net.at(QUIET_AT, self.settle)
        self.net.at(CALM_AT, self.calm)
        when = 10.0
        while when < CALM_AT + 30.0:
            self.net.at(when, self.liveness)
            when += 15.0
        self.net.run(END_AT)

    def settle(self) -> None:
        self.spoof = False
        self.unblock()
        self.revive()

    def calm(self) -> None:
        """No more loss: what is under way ends, so that the ends can be compared."""
        self.net.loss = 0.0

    def check_end(self) -> None:
        """A working pair exists since QUIET_AT: both ends must use the same one, and it must work."""
        i, r = self.initiator, self.responder
        assert (i.state, r.state) == (InitiatorState.STABLE, ResponderState.STABLE)
        mine, theirs = i.sa_pair, r.sa_pair
        assert mine is not None
        assert theirs is not None
        assert mine == i.pair
        assert theirs == r.pair or self.source_lost, (
            "only the search after a lost source moves the IKE_SA alone"
        )
        assert theirs == Pair(mine.remote, self.net.nat.outside_of(mine.local)), (
            "the ends disagree on the pair"
        )
        assert self.net.works(mine.local.ip, mine.remote.ip)
        assert i.may_send_esp(END_AT)
        assert r.may_send_esp(END_AT)


MOBILE = (InitiatorState.STABLE, InitiatorState.PENDING, InitiatorState.UPDATING, InitiatorState.REFUSED)


def one_run(seed: int) -> World:
    world = World(seed)
    try:
        world.play()
        world.check_end()
    except Exception as error:
        error.add_note(f"seed {seed}")
        raise
    return world


@pytest.mark.parametrize("part", range(4))
def test_both_ends_agree_on_a_working_pair_and_nobody_else_is_flooded(part: int) -> None:
    for seed in range(part, RUNS, 4):
        one_run(seed)
