"""When a node is claimed: nobody hears it, which is looked at before its lease is over if it fell silent."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.cluster.state import Changed
from mobikectl.errors import TransferUnreachableError
from mobikectl.node.failover import Failover, FailoverTimes
from mobikectl.observe.events import EventLog
from mobikectl.policy.silence import LEAST_S
from mobikectl.wire import standby
from mobikectl.wire.ha_chain import IkeSpis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.cluster.records import Claim
    from mobikectl.wire.secret import SecretBytes

SPIS = IkeSpis(7, 8)
DEAD, OWN, CLIENT = (ip_address(f"198.18.{n}.10") for n in (11, 12, 1))
TIMES = FailoverTimes(look_s=0.05, probe_s=0.6, fresh_s=10.0)
"""A look takes 0.9 s."""


@dataclass
class World:
    """A store, an IKE daemon that answers or does not, and a copy of one IKE_SA of the node gw1."""

    members: set[str] = field(default_factory=lambda: {"gw1", "gw2"})
    answers: bool = True
    probed: list[float] = field(default_factory=list)
    claimed: list[tuple[float, Claim]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    copies: dict[IkeSpis, Any] = field(default_factory=dict)
    changes: asyncio.Queue[Changed] = field(default_factory=asyncio.Queue)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    left_at: float = 0.0
    elsewhere: set[IkeSpis] = field(default_factory=set)
    """What gw3 says that it serves."""
    undecided: set[IkeSpis] = field(default_factory=set)
    """What gw1 says that it may have handed over."""
    sidecar: bool = False
    """Only gw1's charon is dead: its sidecar can be asked."""
    busy: bool = False
    """It does not answer."""
    mute: bool = False
    """gw3 does not."""
    moves: list[Any] = field(default_factory=list)
    given_up: list[IkeSpis] = field(default_factory=list)

    # --- the store ---

    async def state(self) -> Any:
        members = {
            name: SimpleNamespace(
                value=SimpleNamespace(transfer="x:1" * (name == "gw3" or (name == "gw1" and self.sidecar)))
            )
            for name in self.members
        }
        return SimpleNamespace(revision=1, members=members, reports={}, claims={})

    async def watch_state(self, *, after: int) -> AsyncIterator[Changed]:
        while True:
            yield await self.changes.get()

    async def claim(self, claims: list[Claim], lease: int) -> None:
        self.claimed += [(time.monotonic(), claim) for claim in claims]
        self.came.set()

    async def withdraw(self, node: str, source: str) -> None:
        return None

    async def journal(self, _: int | None = 1) -> Any:
        return SimpleNamespace(revision=1, moves=[SimpleNamespace(value=move) for move in self.moves])

    async def follow(self, *, after: int) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None

    # --- the copies ---

    def sources(self) -> frozenset[str]:
        return frozenset({"gw1"} if self.copies else ())

    def of(self, _: str) -> dict[IkeSpis, Any]:
        return dict(self.copies)

    async def remember(self) -> int:
        return 0

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def give_up(self, spis: IkeSpis) -> None:
        self.given_up.append(spis)
        self.copies.pop(spis, None)

    # --- the other nodes ---

    async def call(self, node: str, verb: str, payload: SecretBytes, *, deadline: float) -> SecretBytes:
        if node == "gw1":
            if self.busy:
                raise TransferUnreachableError("no answer", maybe_done=True)
            return standby.Testimony(False, frozenset(), frozenset(self.undecided)).to_secret()
        if self.mute:
            raise TransferUnreachableError("no answer", maybe_done=True)
        return standby.Testimony(heard=False, served=frozenset(self.elsewhere)).to_secret()

    # --- what happens ---

    def copy(self, spis: IkeSpis = SPIS) -> None:
        offer = SimpleNamespace(
            name=f"gw1/client#{spis.initiator}",
            local=SimpleNamespace(address=DEAD),
            remote=SimpleNamespace(address=CLIENT),
        )
        self.copies[spis] = SimpleNamespace(offer=offer, lost=False, waiting=False, over=False)

    async def probe(self, _: object) -> bool:
        self.probed.append(time.monotonic())
        if not self.answers:
            await asyncio.sleep(60)
        return True

    async def reports(self, times: int = 3) -> None:
        for _ in range(times):
            self.changes.put_nowait(Changed("reports", "gw1", 2))
            await asyncio.sleep(0.02)

    def lease_is_over(self) -> None:
        self.left_at = time.monotonic()
        self.members.discard("gw1")
        self.changes.put_nowait(Changed("members", "gw1", 3))

    async def is_claimed(self) -> float:
        """Return how long after the end of the lease it was claimed."""
        async with asyncio.timeout(5):
            await self.came.wait()
        return self.claimed[0][0] - self.left_at


@asynccontextmanager
async def at_work(world: World) -> AsyncIterator[None]:
    failover = Failover(
        "gw2", world, world, world, None, world, EventLog(), probe=world.probe, lease=lambda: 1,  # type: ignore[arg-type]
        address_for=lambda _: OWN, gone=None, times=TIMES,  # type: ignore[arg-type]
    )  # fmt: skip
    running = asyncio.create_task(failover.run())
    await asyncio.sleep(0.05)
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def world() -> World:
    world = World()
    world.copy()
    return world


async def test_a_node_that_reports_is_not_looked_for(world: World) -> None:
    async with at_work(world):
        await world.reports(20)
    assert world.probed == []


async def test_one_that_fell_silent_and_is_not_heard_is_claimed_without_another_look(world: World) -> None:
    async with at_work(world):
        await world.reports()
        world.answers = False
        await asyncio.sleep(LEAST_S + 1.5)
        assert world.probed, "it is looked for before its lease is over"
        assert not world.claimed, "and nothing is claimed before"
        world.lease_is_over()
        assert await world.is_claimed() < TIMES.probe_s, "a look takes longer"


async def test_one_whose_lease_ends_at_once_is_looked_for_then(world: World) -> None:
    async with at_work(world):
        await world.reports()
        world.answers = False
        world.lease_is_over()
        assert await world.is_claimed() >= TIMES.probe_s
        assert world.probed


async def test_one_that_fell_silent_and_is_heard_keeps_what_it_serves(world: World) -> None:
    async with at_work(world):
        await world.reports()
        await asyncio.sleep(LEAST_S + 0.5)
        world.lease_is_over()
        await asyncio.sleep(1.0)
        assert world.probed
        assert not world.claimed


async def test_what_came_since_the_last_look_is_looked_for_anew(world: World) -> None:
    async with at_work(world):
        await world.reports()
        world.answers = False
        await asyncio.sleep(LEAST_S + 0.5)
        world.copy(IkeSpis(9, 9))
        world.lease_is_over()
        assert await world.is_claimed() >= TIMES.probe_s
        assert len(world.claimed[0][1].rows) == 2


async def test_what_another_node_serves_is_claimed_once_that_one_does_not_any_more(world: World) -> None:
    """A sidecar whose charon is dead may tell it again meanwhile."""
    world.answers = False
    world.members.add("gw3")
    world.elsewhere = {SPIS}
    async with at_work(world):
        world.lease_is_over()
        async with asyncio.timeout(5):
            while not world.given_up:  # noqa: ASYNC110 - it has no events
                await asyncio.sleep(0.01)
        world.elsewhere = set()
        world.copy()
        async with asyncio.timeout(5):
            while not any(claim.rows for _, claim in world.claimed):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


def its_charon_is_dead(world: World) -> None:
    """gw1 tells that its charon lost what it served."""
    world.sidecar = True
    for copy in world.copies.values():
        copy.lost = True


async def test_what_a_dead_charon_served_is_claimed_when_its_sidecar_was_asked(world: World) -> None:
    """It may be handing it over, and stops doing so."""
    its_charon_is_dead(world)
    world.busy = True
    async with at_work(world):
        await asyncio.sleep(0.5)
        assert not world.claimed
        world.busy = False
        await world.is_claimed()
        assert len(world.claimed[0][1].rows) == 1


async def test_what_its_sidecar_may_have_handed_over_is_claimed_when_that_is_decided(world: World) -> None:
    other = IkeSpis(9, 9)
    world.copy(other)
    its_charon_is_dead(world)
    world.undecided = {SPIS}
    async with at_work(world):
        await world.is_claimed()
        assert [row.spis for _, claim in world.claimed for row in claim.rows][-1:] == [other.hex]
        await asyncio.sleep(0.5)
        assert {row.spis for _, claim in world.claimed for row in claim.rows} == {other.hex}
        world.undecided.clear()
        async with asyncio.timeout(5):
            while len(world.claimed[-1][1].rows) < 2:  # noqa: ASYNC110 - it has no events
                await asyncio.sleep(0.01)
    assert SPIS in world.copies, "the copy of it is kept all the time"


async def test_what_was_on_its_way_to_a_node_that_does_not_answer_is_claimed_when_it_does(
    world: World,
) -> None:
    """It may serve it: its charon goes on while its sidecar is restarted."""
    world.answers = False
    world.members.add("gw3")
    world.mute = True
    to_gw3 = {"source": "gw1", "target": "gw3", "sas": ["gw1/client#7"], "done": False, "reason": None}
    world.moves = [SimpleNamespace(**to_gw3, number=1, state=None)]
    world.copy(IkeSpis(9, 9))
    async with at_work(world):
        world.members.discard("gw1")
        world.changes.put_nowait(Changed("members", "gw1", 3))
        await world.is_claimed()
        assert [row.key for row in world.claimed[0][1].rows] == ["gw1/client#9"]
        world.mute = False
        async with asyncio.timeout(10):
            while len(world.claimed[-1][1].rows) < 2:  # noqa: ASYNC110 - it has no events
                await asyncio.sleep(0.01)
