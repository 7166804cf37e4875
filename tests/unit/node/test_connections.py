"""The names of charon's connections are asked for once by many."""

from __future__ import annotations

import asyncio

import pytest

from mobikectl.errors import CharonUnreachableError
from mobikectl.node.connections import FRESH_S, Connections


class Charon:
    def __init__(self) -> None:
        self.asked = 0
        self.now = 100.0
        self.names = frozenset({"vpn"})
        self.down = False

    async def ask(self) -> frozenset[str]:
        self.asked += 1
        await asyncio.sleep(0.01)
        if self.down:
            raise CharonUnreachableError("charon is down")
        return self.names

    def connections(self) -> Connections:
        return Connections(self.ask, clock=lambda: self.now)


async def test_many_that_want_to_know_at_once_ask_once() -> None:
    charon = Charon()
    known = charon.connections()
    assert await asyncio.gather(*(known.names() for _ in range(50))) == [frozenset({"vpn"})] * 50
    assert charon.asked == 1


async def test_after_a_while_it_is_asked_again() -> None:
    charon = Charon()
    known = charon.connections()
    await known.names()
    charon.names = frozenset({"vpn", "new"})
    charon.now += FRESH_S / 2
    assert "new" not in await known.names()
    charon.now += FRESH_S
    assert "new" in await known.names()


async def test_an_error_comes_to_all_that_asked_and_the_next_asks_again() -> None:
    charon = Charon()
    charon.down = True
    known = charon.connections()
    found = await asyncio.gather(*(known.names() for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, CharonUnreachableError) for each in found)
    charon.down = False
    assert await known.names() == charon.names
    assert charon.asked == 2


async def test_one_that_waits_no_longer_takes_nothing_from_the_others() -> None:
    charon = Charon()
    known = charon.connections()
    first, second = (asyncio.create_task(known.names()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == charon.names
    with pytest.raises(asyncio.CancelledError):
        await first
