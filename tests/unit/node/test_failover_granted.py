"""A failover that was granted to this node is begun, or ended: nobody else does either."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.cluster.records import Claim, ClaimRow, MoveRecord, MoveState, MoveStep, Versioned
from mobikectl.errors import FencedError, LostRaceError, StoreUnreachableError
from mobikectl.node.failover import Failover
from mobikectl.observe.events import EventLog
from mobikectl.policy.cluster import Mechanism, Reason
from mobikectl.wire.ha_chain import IkeSpis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

A, B = (ip_address(f"198.18.{n}.10") for n in (11, 12))
GRANTED = MoveRecord(
    token=5,
    sas=("gw1/client#7",),
    source="gw1",
    target="gw2",
    mechanism=Mechanism.NOTIFY,
    reason=Reason.FAILOVER,
    source_address=A,
    target_address=B,
    steps=(MoveStep(MoveState.PLANNED, 1.0, "gw1 is dead"),),
    number=3,
    spis="00000000000000070000000000000008",
)


@dataclass
class World:
    """The store, with one failover granted to gw2, and the copies of gw2."""

    lease: int | None = 1
    stored: Versioned[MoveRecord] = field(default_factory=lambda: Versioned(GRANTED, 1))
    troubles: list[Exception | Callable[[Versioned[MoveRecord]], Exception]] = field(default_factory=list)
    started: int = 0

    async def state(self) -> Any:
        return SimpleNamespace(revision=1, members={}, reports={}, claims={})

    async def journal(self, _: int | None = 1) -> Any:
        return SimpleNamespace(revision=1, moves=(self.stored,))

    async def follow(self, *, after: int) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None

    async def watch_state(self, *, after: int) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None

    async def move(self, _: int) -> Versioned[MoveRecord]:
        return self.stored

    async def update(self, move: Versioned[MoveRecord], record: MoveRecord) -> Versioned[MoveRecord]:
        if self.troubles:
            trouble = self.troubles.pop(0)
            if callable(trouble):
                self.stored = Versioned(record, self.stored.revision + 1)
                trouble = trouble(self.stored)
            raise trouble
        if move.revision != self.stored.revision:
            raise LostRaceError("it was changed")
        self.stored = Versioned(record, self.stored.revision + 1)
        return self.stored

    # --- the copies ---

    def sources(self) -> frozenset[str]:
        return frozenset()

    def find(self, _: object) -> Any:
        return SimpleNamespace(lost=False, over=False)

    async def start(self, _: object, begun: Callable[[], None]) -> str | None:
        self.started += 1
        begun()
        return None

    async def remember(self) -> int:
        return 0

    async def run(self) -> None:
        await asyncio.Event().wait()

    notes: dict[str, str] = field(default_factory=dict)

    # --- what happens ---

    async def ends(self) -> MoveState:
        failover: Any = Failover(
            "gw2", self, self, None, None, self, EventLog(), probe=None, lease=lambda: self.lease,  # type: ignore[arg-type]
            address_for=lambda _: B, gone=None,  # type: ignore[arg-type]
        )  # fmt: skip
        running = asyncio.create_task(failover.run())
        try:
            async with asyncio.timeout(5):
                while not self.stored.value.done:  # noqa: ASYNC110 (the store is told, nobody else)
                    await asyncio.sleep(0.02)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return self.stored.value.state


@pytest.fixture
def world() -> World:
    return World()


async def test_it_is_begun_at_once(world: World) -> None:
    assert await world.ends() is MoveState.VERIFIED
    assert world.started == 1


async def test_it_is_begun_as_soon_as_this_node_is_a_member_again(world: World) -> None:
    world.lease = None
    asyncio.get_running_loop().call_later(0.3, setattr, world, "lease", 2)
    assert await world.ends() is MoveState.VERIFIED
    assert world.started == 1


async def test_it_is_begun_as_soon_as_the_store_is_back(world: World) -> None:
    world.troubles = [StoreUnreachableError("away"), StoreUnreachableError("away")]
    assert await world.ends() is MoveState.VERIFIED


async def test_it_is_begun_where_the_store_took_that_and_its_answer_was_lost(world: World) -> None:
    world.troubles = [lambda _: StoreUnreachableError("away")]
    assert await world.ends() is MoveState.VERIFIED
    assert world.started == 1


async def test_one_of_a_leader_that_was_replaced_is_cancelled_so_that_it_is_granted_anew(
    world: World,
) -> None:
    world.troubles = [FencedError("another leads")]
    assert await world.ends() is MoveState.CANCELLED
    assert world.started == 0
    assert replace(world.stored.value, steps=GRANTED.steps) == GRANTED


def at_its_source(world: World) -> Failover:
    return Failover(
        "gw1", world, world, None, None, world, EventLog(), probe=None, lease=lambda: 1,  # type: ignore[arg-type]
        address_for=lambda _: A, gone=None,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "left"),
    [
        (MoveState.PLANNED, True),
        (MoveState.REQUESTED, True),
        (MoveState.VERIFIED, True),
        (MoveState.CANCELLED, False),
        (MoveState.TIMED_OUT, False),
    ],
)
async def test_its_source_knows_that_it_is_left_to_who_stands_by(
    world: World, state: MoveState, left: bool
) -> None:
    world.stored = Versioned(replace(GRANTED, steps=(*GRANTED.steps, MoveStep(state, 2.0))), 2)
    assert await at_its_source(world).is_left(IkeSpis(7, 8)) is left
    assert not await at_its_source(world).is_left(IkeSpis(7, 9)), "another one is not"


async def test_its_source_knows_that_it_is_claimed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Claim("gw2", "gw1", "not a member", (ClaimRow(IkeSpis(7, 9).hex, "gw1/client#8", A, B),))

    async def state() -> Any:
        return SimpleNamespace(claims={"gw2": Versioned(claim, 1)})

    monkeypatch.setattr(world, "state", state)
    assert await at_its_source(world).is_left(IkeSpis(7, 9))
    claim = replace(claim, source="gw3")
    assert not await at_its_source(world).is_left(IkeSpis(7, 9))


async def test_one_that_came_back_since_is_its_sources_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = (MoveStep(MoveState.PLANNED, 1.0), MoveStep(MoveState.VERIFIED, 2.0))
    back = replace(
        GRANTED,
        number=4,
        source="gw2",
        target="gw1",
        reason=Reason.DRAIN,
        steps=came,
        sas=("gw2/client#1",),
        spis="",
    )

    async def journal(_: int | None = 1) -> Any:
        return SimpleNamespace(
            revision=1, moves=(Versioned(replace(GRANTED, steps=came), 2), Versioned(back, 3))
        )

    monkeypatch.setattr(world, "journal", journal)
    assert not await at_its_source(world).is_left(IkeSpis(7, 8))
