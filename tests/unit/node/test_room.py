"""Room for so many handovers at once as the pace says."""

from __future__ import annotations

import asyncio

from mobikectl.node.room import Place, Room
from mobikectl.policy.pace import Pace, PaceSettings


class Crowd:
    """Tasks that want in and stay until they are told to go."""

    def __init__(self, room: Room, tasks: asyncio.TaskGroup) -> None:
        self.room = room
        self.inside: dict[int, Place] = {}
        self.order: list[int] = []
        self._go: dict[int, asyncio.Event] = {}
        self._tasks = tasks

    async def comes(self, *names: int) -> list[asyncio.Task[None]]:
        tasks = [self._tasks.create_task(self._be(name)) for name in names]
        await settled()
        return tasks

    async def goes(self, name: int) -> None:
        self._go[name].set()
        await settled()

    async def _be(self, name: int) -> None:
        async with self.room.place() as place:
            self.order.append(name)
            self.inside[name] = place
            self._go[name] = asyncio.Event()
            await self._go[name].wait()
        del self.inside[name]

    async def all_go(self) -> None:
        while self.inside:
            for name in list(self.inside):
                await self.goes(name)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def room(first: int = 2, most: int = 8) -> Room:
    return Room(Pace(PaceSettings(first=first, most=most)))


async def test_no_more_are_let_in_than_the_pace_says() -> None:
    async with asyncio.TaskGroup() as tasks:
        crowd = Crowd(room(), tasks)
        await crowd.comes(1, 2, 3, 4)
        assert sorted(crowd.inside) == [1, 2]
        await crowd.goes(1)
        assert sorted(crowd.inside) == [2, 3]
        await crowd.all_go()
    assert crowd.order == [1, 2, 3, 4], "who came first is let in first"
    assert crowd.room.inside == 0


async def test_who_only_waits_gives_up_its_place_once() -> None:
    async with asyncio.TaskGroup() as tasks:
        crowd = Crowd(room(), tasks)
        await crowd.comes(1, 2, 3, 4)
        crowd.inside[1].leave()
        crowd.inside[1].leave()
        await settled()
        assert sorted(crowd.inside) == [1, 2, 3]
        await crowd.goes(1)
        assert sorted(crowd.inside) == [2, 3]
        await crowd.all_go()


async def test_as_the_pace_grows_more_are_let_in() -> None:
    async with asyncio.TaskGroup() as tasks:
        crowd = Crowd(room(), tasks)
        await crowd.comes(1, 2, 3, 4, 5)
        crowd.inside[1].took(0.1)
        await settled()
        assert sorted(crowd.inside) == [1, 2, 3]
        await crowd.all_go()


async def test_after_the_pace_shrank_nobody_is_let_in_until_enough_have_gone() -> None:
    async with asyncio.TaskGroup() as tasks:
        crowd = Crowd(room(first=4), tasks)
        await crowd.comes(1, 2, 3, 4, 5, 6)
        crowd.inside[1].took(0.1)
        await settled()
        crowd.inside[2].took(9.0)
        assert crowd.room.pace.at_once == 2
        await crowd.goes(1)
        await crowd.goes(2)
        assert sorted(crowd.inside) == [3, 4, 5]
        await crowd.goes(3)
        assert sorted(crowd.inside) == [4, 5]
        await crowd.all_go()


async def test_what_fails_at_once_says_nothing_and_what_fails_late_makes_it_shrink() -> None:
    async with asyncio.TaskGroup() as tasks:
        crowd = Crowd(room(first=4), tasks)
        await crowd.comes(1, 2)
        crowd.inside[1].took(0.5)
        before = crowd.room.pace
        crowd.inside[1].took(0.001, good=False)
        assert crowd.room.pace == before
        crowd.inside[2].took(6.0, good=False)
        assert crowd.room.pace.at_once < before.at_once
        await crowd.all_go()


async def test_who_is_cancelled_while_waiting_takes_no_place() -> None:
    async with asyncio.TaskGroup() as tasks:
        crowd = Crowd(room(first=1), tasks)
        (_,) = await crowd.comes(1)
        (waits,) = await crowd.comes(2)
        (next_,) = await crowd.comes(3)
        waits.cancel()
        await settled()
        await crowd.goes(1)
        assert sorted(crowd.inside) == [3]
        await crowd.all_go()
        await next_
    assert crowd.room.inside == 0


async def test_who_is_cancelled_as_it_is_let_in_passes_its_place_on() -> None:
    async with asyncio.TaskGroup() as tasks:
        crowd = Crowd(room(first=1), tasks)
        await crowd.comes(1)
        (waits,) = await crowd.comes(2)
        await crowd.comes(3)
        crowd.inside[1].leave()
        waits.cancel()
        await settled()
        assert sorted(crowd.inside) == [1, 3]
        await crowd.all_go()
    assert crowd.room.inside == 0
