"""A call to the sqlite store costs no more when more is kept: counted in instructions of SQLite, not in time."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import aclosing
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.cluster.backend import MAX_WRITES, Condition, Write
from mobikectl.cluster.settings import SqliteSettings
from mobikectl.cluster.sqlite import SqliteBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Call = Callable[[SqliteBackend], Awaitable[object]]

P = "/mobikectl/work/"
KEPT = 20 * MAX_WRITES
"""Keys, and as many changes: below the history, so that none of them is dropped."""
DEADLINE_S = 30.0


class Counter:
    """Counts the instructions of all connections."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter()
    connect = sqlite3.connect

    def counted(*args: Any, **more: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **more)
        db.set_progress_handler(counter, 1)
        return db

    monkeypatch.setattr(sqlite3, "connect", counted)
    return counter


@pytest.fixture
async def backend(tmp_path: Path, counter: Counter) -> AsyncIterator[SqliteBackend]:
    # It looks when there is something to look at, and not now and then.
    made = SqliteBackend(SqliteSettings(tmp_path / "cluster.db", poll_min_s=9.0, poll_max_s=9.0))
    yield made
    await made.close()


async def put(backend: SqliteBackend) -> None:
    await backend.commit([Condition(P + "none", 0)], [Write(P + "k", b"x")])


async def look(backend: SqliteBackend) -> None:
    before = await backend.commit([], [Write(P + "k", b"y")])
    await backend.commit([], [Write(P + "k", b"x")])
    async with asyncio.timeout(DEADLINE_S), aclosing(backend.watch(P, after=before)) as changes:
        async for _ in changes:
            return


async def read(backend: SqliteBackend) -> None:
    await backend.read(P + "k")


async def read_the_last(backend: SqliteBackend) -> None:
    await backend.read(P, last=5)


async def hold_a_lease(backend: SqliteBackend) -> None:
    lease = await backend.grant(5)
    await backend.commit([], [Write(P + "leased", b"x", lease.id)])
    await backend.renew(lease.id)
    await backend.revoke(lease.id)


async def fill(backend: SqliteBackend) -> None:
    for start in range(0, KEPT, MAX_WRITES):
        writes = [Write(f"{P}a/{i:05}", bytes(100)) for i in range(start, start + MAX_WRITES)]
        await backend.commit([], writes)


@pytest.mark.parametrize("call", [put, look, read, read_the_last, hold_a_lease])
async def test_a_call_costs_as_much_in_a_full_store_as_in_an_empty_one(
    backend: SqliteBackend, counter: Counter, call: Call
) -> None:
    async def cost() -> int:
        before = counter.count
        await call(backend)
        return counter.count - before

    await call(backend)  # makes the file
    empty = await cost()
    await fill(backend)
    full = await cost()
    assert 0 < full <= 2 * empty + 100


async def test_no_commit_has_to_drop_very_many_changes_at_once(tmp_path: Path, counter: Counter) -> None:
    backend = SqliteBackend(SqliteSettings(tmp_path / "cluster.db", history=1000))
    costs: list[int] = []
    for _ in range(150):
        before = counter.count
        await backend.commit([], [Write(f"{P}{key}", bytes(100)) for key in range(20)])
        costs.append(counter.count - before)
    await backend.close()
    assert max(costs[1:]) < 3 * median(costs)
