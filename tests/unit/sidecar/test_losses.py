"""What a move cost the peer's packets: ESP numbers that were passed over, and when nobody can say."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import NotFoundError
from mobikectl.model import ChildSa, ChildState, IkeSa, IkeState, IpAddress, Path
from mobikectl.netlink.xfrm import IPPROTO_ESP, KernelSa, ReplayState, SaMode
from mobikectl.observe.events import Event, EventLog, Source
from mobikectl.sidecar import losses
from mobikectl.sidecar.losses import Losses, Taken, lost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GATEWAY = ip_address("198.18.9.1")
A, B = ip_address("198.18.1.2"), ip_address("198.18.2.2")


@pytest.mark.parametrize(
    ("before", "after", "packets"),
    [
        ({1: Taken(100, 90)}, {1: Taken(110, 100)}, 0),
        ({1: Taken(100, 90)}, {1: Taken(110, 97)}, 3),
        ({1: Taken(100, 90), 2: Taken(5, 5)}, {1: Taken(110, 98), 2: Taken(9, 6)}, 5),
        # one that other packets had overtaken comes late
        ({1: Taken(100, 99)}, {1: Taken(110, 110)}, 0),
        # one of two has no traffic
        ({1: Taken(100, 90), 2: Taken(0, 0)}, {1: Taken(110, 100), 2: Taken(0, 0)}, 0),
    ],
)
def test_numbers_that_were_passed_over_are_packets_that_did_not_arrive(
    before: dict[int, Taken], after: dict[int, Taken], packets: int
) -> None:
    assert lost(before, after) == packets


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({}, {}, id="nothing is told"),
        pytest.param({1: Taken(100, 90)}, {}, id="it cannot be read any more"),
        pytest.param({1: Taken(100, 90)}, {2: Taken(9, 9)}, id="the CHILD_SA was rekeyed"),
        pytest.param({1: Taken(100, 90)}, {1: Taken(100, 90)}, id="no packet came"),
        pytest.param({1: Taken(100, 90)}, {1: Taken(110, 7)}, id="its packets are counted anew"),
        pytest.param({1: Taken(100, 90)}, {1: Taken(3, 93)}, id="its numbers begin anew"),
    ],
)
def test_what_cannot_be_known_is_not_told(before: dict[int, Taken], after: dict[int, Taken]) -> None:
    assert lost(before, after) is None


class World:
    """A kernel with one inbound SA, and an IKE_SA that has it."""

    def __init__(self) -> None:
        self.sa: IkeSa | None = IkeSa(
            7,
            "home",
            IkeState.ESTABLISHED,
            Path(A, GATEWAY),
            children=(ChildSa(1, "net", ChildState.INSTALLED, spi_in=0xC1),),
        )
        self.highest, self.packets, self.window = 100, 90, 32
        self.reads = asyncio.Semaphore(0)
        self.events = EventLog()

    def find(self, uniqueid: int) -> IkeSa | None:
        return self.sa if uniqueid == 7 else None

    async def get(self, daddr: IpAddress, spi: int) -> KernelSa:
        self.reads.release()
        if self.sa is None or daddr != self.sa.path.local or spi != 0xC1:
            raise NotFoundError("no such SA")
        replay = ReplayState(0, self.highest, 0, self.window)
        return KernelSa(GATEWAY, daddr, spi, IPPROTO_ESP, 1, SaMode.TUNNEL, 0, self.packets, replay=replay)

    def step(self, state: str, mechanism: str = "route") -> None:
        data = {
            "move": 3,
            "ike_sa": 7,
            "connection": "home",
            "before": "a",
            "after": "b",
            "mechanism": mechanism,
        }
        self.events.record(Source.ACTION, f"move-{state}", "...", data=data)

    def told(self) -> list[Event]:
        return [event for event in self.events.recent() if event.name == "move-loss"]

    @asynccontextmanager
    async def watched(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Losses]:
        monkeypatch.setattr(losses, "SETTLE_S", 0.01)
        watch = Losses(self, self.find, self.events)
        task = asyncio.create_task(watch.run())
        await asyncio.sleep(0)
        yield watch
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    async def read(self) -> None:
        async with asyncio.timeout(5):
            await self.reads.acquire()

    async def says(self) -> Event:
        async with asyncio.timeout(5):
            async for event in self.events.follow(backlog=100):
                if event.name == "move-loss":
                    return event
        raise AssertionError


async def test_a_move_is_told_with_what_it_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with world.watched(monkeypatch):
        world.step("planned")
        await world.read()
        world.highest, world.packets = 160, 143
        assert world.sa is not None
        world.sa = IkeSa(7, "home", IkeState.ESTABLISHED, Path(B, GATEWAY), children=world.sa.children)
        world.step("verified")
        event = await world.says()
    assert event.text == "home[7] a => b: 7 packets of the peer did not arrive"
    assert (event.data["lost_packets"], event.data["outcome"]) == (7, "verified")


async def test_packets_that_come_late_by_the_old_path_are_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with world.watched(monkeypatch):
        world.step("planned")
        await world.read()
        world.highest, world.packets = 160, 143
        world.step("verified")
        await asyncio.sleep(0)
        world.packets = 150
        assert (await world.says()).data["lost_packets"] == 0


async def test_nothing_is_told_where_the_kernel_keeps_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.window = 0
    async with world.watched(monkeypatch) as watch:
        world.step("planned")
        await world.read()
        world.packets += 10
        world.step("verified")
        await asyncio.sleep(0.05)
        assert (world.told(), watch._before) == ([], {})


async def test_an_ike_sa_that_leaves_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with world.watched(monkeypatch):
        world.step("planned", "redirect")
        world.step("verified", "redirect")
        await asyncio.sleep(0.05)
    assert world.reads.locked()


async def test_an_ike_sa_that_goes_away_meanwhile_is_not_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with world.watched(monkeypatch):
        world.step("planned")
        await world.read()
        world.sa = None
        world.step("failed")
        await asyncio.sleep(0.05)
    assert not world.told()


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "WATCHED", 5)
    world = World()
    async with world.watched(monkeypatch) as watch:
        for number in range(20):
            data = {"move": number, "ike_sa": 7, "mechanism": "route"}
            world.events.record(Source.ACTION, "move-planned", "...", data=data)
        for _ in range(20):
            await world.read()
        await asyncio.sleep(0)
        assert len(watch._before) == 5
