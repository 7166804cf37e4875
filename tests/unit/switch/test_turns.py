"""One at a time, whoever waits and whoever comes meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from mobikectl.switch.turns import OneByOne


async def test_who_comes_between_the_end_of_one_and_the_turn_of_the_next_waits_too() -> None:
    turns: OneByOne[str] = OneByOne()
    inside, most = 0, 0

    async def one() -> None:
        nonlocal inside, most
        async with turns.alone("sa"):
            inside += 1
            most = max(most, inside)
            for _ in range(3):
                await asyncio.sleep(0)
            inside -= 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(one())
            await asyncio.sleep(0)
    assert most == 1


async def test_others_need_not_wait() -> None:
    turns: OneByOne[str] = OneByOne()
    async with turns.alone("one"), asyncio.timeout(1), turns.alone("other"):
        assert turns.taken("one")
        assert turns.taken("other")


async def test_what_nobody_wants_is_not_remembered_however_it_ended() -> None:
    turns: OneByOne[str] = OneByOne()

    async def fail() -> None:
        async with turns.alone("sa"):
            await asyncio.sleep(0)
            raise OSError

    failing, waiting = asyncio.create_task(fail()), asyncio.create_task(fail())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(OSError):  # noqa: PT011 - any will do
        await failing
    await asyncio.wait([waiting])
    assert not turns.taken("sa")
    assert not len(turns)
