"""One that polls feeds all watches of a process: none misses anything, and there are few looks."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from math import inf
from pathlib import Path

import pytest

from mobikectl.cluster.backend import Change, Gap
from mobikectl.cluster.settings import SqliteSettings
from mobikectl.cluster.sqlite_feed import Feed
from mobikectl.errors import StoreUnreachableError, StoreValueError


class Store:
    """What a look sees. ``trouble``: what the next looks raise."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.looks = 0
        self.trouble: list[Exception] = []
        self.replaced = False

    def put(self, key: str) -> None:
        self.changes.append(Change(key, b"x", len(self.changes) + 1))

    async def look(self, prefix: str, after: int) -> tuple[int, list[Change | Gap], float]:
        self.looks += 1
        await asyncio.sleep(0.001)
        if self.trouble:
            raise self.trouble.pop(0)
        now = len(self.changes)
        if after > now:
            return now, [Gap(now, "the store was replaced")], inf
        return now, [c for c in self.changes[after:] if c.key.startswith(prefix)], inf


@pytest.fixture
def store() -> Store:
    return Store()


def feed(store: Store, *, poll_s: float = 0.01, history: int = 100) -> Feed:
    return Feed(
        SqliteSettings(Path("none"), poll_min_s=poll_s, poll_max_s=poll_s, history=history), store.look
    )


async def told(feed: Feed, prefix: str, count: int, *, after: int = 0) -> list[Change | Gap]:
    found: list[Change | Gap] = []
    async with asyncio.timeout(10), aclosing(feed.watch(prefix, after=after)) as changes:
        async for change in changes:
            found.append(change)
            if len(found) == count:
                break
    return found


async def test_many_watches_cost_as_many_looks_as_one(store: Store) -> None:
    fed = feed(store, poll_s=0.05)
    watches = [asyncio.create_task(told(fed, "/a", 5)) for _ in range(20)]
    await asyncio.sleep(0.2)
    before = store.looks
    for _ in range(5):
        store.put("/a/k")
        await asyncio.sleep(0.05)
    assert await asyncio.gather(*watches) == [store.changes] * 20
    assert store.looks - before <= 12
    await fed.close()


async def test_each_is_told_of_its_prefix_from_its_revision_on_wherever_the_others_are(store: Store) -> None:
    fed = feed(store)
    for key in ("/a/1", "/b/1", "/a/2"):
        store.put(key)
    first = asyncio.create_task(told(fed, "/a", 4))
    await asyncio.sleep(0.05)
    store.put("/a/3")
    late = asyncio.create_task(told(fed, "/", 3, after=2))
    store.put("/a/4")
    assert [change.key for change in await first if isinstance(change, Change)] == [
        "/a/1", "/a/2", "/a/3", "/a/4",
    ]  # fmt: skip
    assert [change.key for change in await late if isinstance(change, Change)] == ["/a/2", "/a/3", "/a/4"]
    await fed.close()


async def test_it_looks_only_while_somebody_watches(store: Store) -> None:
    fed = feed(store)
    store.put("/a")
    await told(fed, "/a", 1)
    await asyncio.sleep(0.05)
    looks = store.looks
    await asyncio.sleep(0.1)
    assert store.looks == looks
    store.put("/a")
    assert len(await told(fed, "/a", 2)) == 2, "and begins anew"
    await fed.close()


async def test_what_cannot_be_reached_is_tried_again(store: Store) -> None:
    fed = feed(store)
    store.trouble = [StoreUnreachableError("away") for _ in range(3)]
    store.put("/a")
    assert len(await told(fed, "/a", 1)) == 1
    await fed.close()


async def test_what_is_no_store_is_said_to_all(store: Store) -> None:
    fed = feed(store)
    watches = [asyncio.create_task(told(fed, "/a", 1)) for _ in range(3)]
    await asyncio.sleep(0.05)
    store.trouble = [StoreValueError("another program's")]
    for result in await asyncio.gather(*watches, return_exceptions=True):
        assert isinstance(result, StoreValueError)
    await fed.close()


async def test_a_store_that_is_replaced_is_a_gap_for_all(store: Store) -> None:
    fed = feed(store)
    for _ in range(5):
        store.put("/a")
    watches = [asyncio.create_task(told(fed, "/a", 2, after=5)) for _ in range(3)]
    await asyncio.sleep(0.05)
    store.changes.clear()
    await asyncio.sleep(0.05)
    store.put("/a/new")
    for found in await asyncio.gather(*watches):
        assert isinstance(found[0], Gap)
        assert found[1:] == store.changes
    await fed.close()


async def test_who_does_not_read_for_long_gets_a_gap_and_what_follows(store: Store) -> None:
    fed = feed(store, history=10)
    async with aclosing(fed.watch("/a", after=0)) as slow:
        store.put("/a")
        await anext(slow)
        for _ in range(25):
            store.put("/a")
            await asyncio.sleep(0.02)
        async with asyncio.timeout(10):
            assert isinstance(await anext(slow), Gap)
    await fed.close()


async def test_closing_ends_all_watches(store: Store) -> None:
    fed = feed(store)
    watches = [asyncio.create_task(told(fed, "/a", 1)) for _ in range(3)]
    await asyncio.sleep(0.05)
    await fed.close()
    assert await asyncio.gather(*watches) == [[], [], []]
