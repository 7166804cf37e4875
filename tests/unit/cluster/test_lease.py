"""When a lease is over for its holder: before it can be over for the store, whatever happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from mobikectl.cluster.lease import HeldLease, hold
from mobikectl.cluster.settings import SqliteSettings
from mobikectl.cluster.sqlite import SqliteBackend
from mobikectl.cluster.store import Store
from mobikectl.errors import FencedError, LeaseLostError, LostRaceError, StoreUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DEADLINE_S = 30.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(SqliteBackend(SqliteSettings(tmp_path / "cluster.db")))
    yield store
    await store.close()


def test_a_lease_is_over_before_its_time_counted_from_before_it_was_asked_for() -> None:
    clock = Clock()
    held = HeldLease(7, 10.0, 100.0, clock=clock)
    clock.now = 107.9
    assert held.require() == 7
    clock.now = 108.0
    assert not held.alive
    with pytest.raises(LeaseLostError):
        held.require()


def test_a_lease_that_was_given_up_stays_so() -> None:
    held = HeldLease(7, 10.0, 100.0, clock=Clock())
    held.lose()
    with pytest.raises(LeaseLostError):
        held.require()


async def test_a_process_that_stood_still_learns_it_before_it_renews(store: Store) -> None:
    clock = Clock()
    lease = await store.grant(60)
    held = HeldLease(lease.id, 0.3, clock.now, clock=clock)
    keeping = asyncio.create_task(held.keep(store))
    await asyncio.sleep(0)
    clock.now += 0.3
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(keeping, DEADLINE_S)


async def test_an_answer_that_comes_after_the_time_is_over_does_not_bring_it_back() -> None:
    clock = Clock()

    class Slow:
        async def renew(self, lease: int) -> float:
            clock.now += 9.0
            return 10.0

    held = HeldLease(1, 10.0, clock.now - 3.4, clock=clock)
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(held.keep(Slow()), DEADLINE_S)  # type: ignore[arg-type]


async def test_a_renewal_counts_from_before_it_was_sent_however_long_its_answer_took() -> None:
    clock = Clock()
    renewed = asyncio.Event()

    class Slow:
        async def renew(self, lease: int) -> float:
            clock.now += 3.0
            renewed.set()
            return 10.0

    held = HeldLease(1, 10.0, clock.now - 3.4, clock=clock)
    sent_at = clock.now
    keeping = asyncio.create_task(held.keep(Slow()))  # type: ignore[arg-type]
    await asyncio.wait_for(renewed.wait(), DEADLINE_S)
    await asyncio.sleep(0)
    assert held.ends_at == sent_at + 8.0
    keeping.cancel()


async def test_a_store_that_is_away_for_a_moment_does_not_end_the_lease() -> None:
    away = [StoreUnreachableError("away"), StoreUnreachableError("away")]
    renewed = asyncio.Event()

    class Flaky:
        async def renew(self, lease: int) -> float:
            if away:
                raise away.pop()
            renewed.set()
            return 60.0

    clock = Clock()
    held = HeldLease(1, 60.0, clock.now - 20.0, clock=clock)
    keeping = asyncio.create_task(held.keep(Flaky()))  # type: ignore[arg-type]
    async with asyncio.timeout(DEADLINE_S):
        await renewed.wait()
    await asyncio.sleep(0)
    assert held.ends_at == clock.now + 48.0
    keeping.cancel()


async def test_work_under_a_lease_is_cancelled_when_the_lease_is_revoked(store: Store) -> None:
    ended = []

    async def work(held: HeldLease, claimed: int) -> None:
        await store.revoke(held.require())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(claimed)
            raise

    async def claim(lease: int) -> int:
        return 17

    await asyncio.wait_for(hold(store, 2, claim, work), DEADLINE_S)
    assert ended == [17]


async def test_the_lease_is_given_back_when_the_work_is_done_or_the_race_was_lost(store: Store) -> None:
    leases = []

    async def claim(lease: int) -> None:
        leases.append(lease)

    async def lose(lease: int) -> None:
        leases.append(lease)
        raise LostRaceError("late")

    async def work(held: HeldLease, _claimed: None) -> None:
        await store.renew(held.require())

    await hold(store, 60, claim, work)
    with pytest.raises(LostRaceError):
        await hold(store, 60, lose, work)
    for lease in leases:
        with pytest.raises(LeaseLostError):
            await store.renew(lease)


async def test_what_a_fence_stops_ends_the_work_and_a_mistake_in_it_is_not_hidden(store: Store) -> None:
    async def claim(lease: int) -> None:
        return None

    async def fenced(held: HeldLease, _claimed: None) -> None:
        raise FencedError("old")

    async def wrong(held: HeldLease, _claimed: None) -> None:
        raise ZeroDivisionError

    await hold(store, 60, claim, fenced)
    with pytest.raises(ExceptionGroup) as group:
        await hold(store, 60, claim, wrong)
    assert group.group_contains(ZeroDivisionError)
