"""When a node that does not answer counts as serving nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.cluster.records import Leader, Member, NodeReport, Versioned
from mobikectl.cluster.state import ClusterState
from mobikectl.errors import StoreUnreachableError
from mobikectl.node.fence import Fence, FenceTimes
from mobikectl.policy.cluster import Health

if TYPE_CHECKING:
    from mobikectl.model import IpAddress

THERE = ip_address("198.18.12.1")
TIMES = FenceTimes(silent_s=2.0, patience_s=45.0)


@dataclass
class Around:
    """The store and what is heard. Time goes by where a test says so."""

    member: bool = False
    health: Health = Health.HEALTHY
    answers: bool = False
    store_away: bool = False
    now: float = 100.0
    asked: list[tuple[str, Any]] = field(default_factory=list)

    async def state(self) -> ClusterState:
        if self.store_away:
            raise StoreUnreachableError("nobody answers")
        member = {"gw2": Versioned(Member("gw2", "one"), 1)} if self.member else {}
        report = {"gw2": Versioned(NodeReport("gw2", "one", 1, health=self.health), 1)} if self.member else {}
        return ClusterState(1, Leader("gw1", "one", 7), member, report)

    async def heard(self, node: str, address: IpAddress) -> bool:
        self.asked.append((node, address))
        return self.answers

    def fence(self) -> Fence:
        return Fence(self, self.heard, times=TIMES, clock=lambda: self.now)  # type: ignore[arg-type]


@pytest.fixture
def around() -> Around:
    return Around()


async def test_a_member_may_serve_whether_it_is_heard_or_not(around: Around) -> None:
    around.member = True
    fence = around.fence()
    for _ in range(100):
        assert not await fence.is_out("gw2", THERE)
        around.now += 1
    assert around.asked == []


async def test_a_node_that_nobody_hears_is_out_moments_after_its_lease(around: Around) -> None:
    fence = around.fence()
    assert not await fence.is_out("gw2", THERE)
    around.now += TIMES.silent_s
    assert await fence.is_out("gw2", THERE)
    assert around.asked == [("gw2", THERE)] * 2


async def test_a_charon_that_lives_is_waited_for_until_its_sidecar_can_say_what_it_serves(
    around: Around,
) -> None:
    around.answers = True
    fence = around.fence()
    for _ in range(int(TIMES.patience_s)):
        assert not await fence.is_out("gw2", THERE)
        around.now += 1
    assert await fence.is_out("gw2", THERE)


async def test_silence_counts_anew_when_it_was_broken(around: Around) -> None:
    fence = around.fence()
    await fence.is_out("gw2", THERE)
    around.now += 1
    around.answers = True
    await fence.is_out("gw2", THERE)
    around.answers = False
    around.now += 1
    assert not await fence.is_out("gw2", THERE)


async def test_a_node_that_was_back_has_its_time_anew(around: Around) -> None:
    fence = around.fence()
    await fence.is_out("gw2", THERE)
    around.now += TIMES.silent_s
    around.member = True
    assert not await fence.is_out("gw2", THERE)
    around.member = False
    assert not await fence.is_out("gw2", THERE)


async def test_a_member_that_says_that_its_charon_is_dead_is_out_when_nobody_hears_it(around: Around) -> None:
    around.member, around.health = True, Health.DEAD
    fence = around.fence()
    assert not await fence.is_out("gw2", THERE)
    around.now += TIMES.silent_s
    assert await fence.is_out("gw2", THERE)


async def test_without_the_store_nobody_is_out(around: Around) -> None:
    around.store_away = True
    fence = around.fence()
    for _ in range(100):
        assert not await fence.is_out("gw2", THERE)
        around.now += 1
