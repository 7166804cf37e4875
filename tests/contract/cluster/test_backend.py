"""What every backend must do, on SQLite and on real etcds."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from mobikectl.cluster.backend import MAX_VALUE, MAX_WRITES, Change, Condition, Gap, Write
from mobikectl.errors import (
    ConfigError,
    LeaseLostError,
    LostRaceError,
    StoreUnreachableError,
    StoreValueError,
)

if TYPE_CHECKING:
    from mobikectl.cluster.backend import Backend

    from .conftest import MakeBackend

DEADLINE_S = 30.0


async def put(backend: Backend, key: str, value: bytes = b"x", lease: int = 0) -> int:
    return await backend.commit([], [Write(key, value, lease)])


async def take(backend: Backend, prefix: str, after: int, count: int) -> list[Change | Gap]:
    found: list[Change | Gap] = []
    async with asyncio.timeout(DEADLINE_S), aclosing(backend.watch(prefix, after=after)) as changes:
        async for change in changes:
            found.append(change)
            if len(found) == count:
                break
    return found


async def keys(backend: Backend, prefix: str) -> list[str]:
    return [entry.key.removeprefix(prefix) for entry in (await backend.read(prefix)).entries]


async def test_what_was_written_is_read_in_the_order_of_keys(backend: Backend, prefix: str) -> None:
    first = await put(backend, prefix + "b", b"2")
    second = await put(backend, prefix + "a", b"1")
    snapshot = await backend.read(prefix)
    assert [(e.key, e.value, e.revision) for e in snapshot.entries] == [
        (prefix + "a", b"1", second),
        (prefix + "b", b"2", first),
    ]
    assert snapshot.revision >= second > first > 0


async def test_a_read_of_nothing_is_empty_and_has_a_revision(backend: Backend, prefix: str) -> None:
    assert (await backend.read(prefix)).entries == ()


async def test_the_last_entries_are_read_without_the_others(backend: Backend, prefix: str) -> None:
    await backend.commit([], [Write(f"{prefix}{n:03d}", b"") for n in range(20)])
    found = await backend.read(prefix, last=3)
    assert [entry.key for entry in found.entries] == [f"{prefix}{n:03d}" for n in (17, 18, 19)]


async def test_more_entries_than_one_answer_holds_are_all_read(backend: Backend, prefix: str) -> None:
    for part in range(12):
        await backend.commit([], [Write(f"{prefix}{part:02d}-{n:03d}", b"") for n in range(MAX_WRITES)])
    found = await keys(backend, prefix)
    assert len(found) == 12 * MAX_WRITES
    assert found == sorted(found)


async def test_a_condition_holds_only_for_the_revision_that_was_read(backend: Backend, prefix: str) -> None:
    key = prefix + "k"
    first = await backend.commit([Condition(key, 0)], [Write(key, b"1")])
    second = await backend.commit([Condition(key, first)], [Write(key, b"2")])
    for stale in (0, first, second + 1):
        with pytest.raises(LostRaceError):
            await backend.commit([Condition(key, stale)], [Write(key, b"no")])
    assert (await backend.read(key)).entries[0].value == b"2"


async def test_one_condition_that_fails_stops_every_write(backend: Backend, prefix: str) -> None:
    with pytest.raises(LostRaceError):
        await backend.commit(
            [Condition(prefix + "a", 0), Condition(prefix + "b", 7)],
            [Write(prefix + "a", b""), Write(prefix + "c", b"")],
        )
    assert await keys(backend, prefix) == []


async def test_a_deleted_key_is_as_if_it_had_never_been(backend: Backend, prefix: str) -> None:
    key = prefix + "k"
    first = await put(backend, key)
    await backend.commit([Condition(key, first)], [Write(key, None)])
    assert await keys(backend, prefix) == []
    assert await backend.commit([Condition(key, 0)], [Write(key, b"")]) > first


async def test_one_node_sees_what_another_wrote(make_backend: MakeBackend, prefix: str) -> None:
    one, other = await make_backend(), await make_backend()
    await put(one, prefix + "k", b"hello")
    assert (await other.read(prefix)).entries[0].value == b"hello"


async def test_a_key_vanishes_with_its_lease(backend: Backend, prefix: str) -> None:
    lease = await backend.grant(2)
    before = await put(backend, prefix + "k", lease=lease.id)
    assert (await backend.read(prefix)).entries[0].lease == lease.id
    (gone,) = await take(backend, prefix, before, 1)
    assert isinstance(gone, Change)
    assert (gone.key, gone.value) == (prefix + "k", None)
    assert await keys(backend, prefix) == []


async def test_a_renewed_lease_outlives_its_first_time(backend: Backend, prefix: str) -> None:
    kept, left = await backend.grant(2), await backend.grant(2)
    before = await put(backend, prefix + "kept", lease=kept.id)
    await put(backend, prefix + "left", lease=left.id)
    vanished = asyncio.create_task(take(backend, prefix, before + 1, 1))
    while not vanished.done():
        assert await backend.renew(kept.id) >= 2
        await asyncio.wait([vanished], timeout=0.3)
    (change,) = await vanished
    assert isinstance(change, Change)
    assert change.key == prefix + "left"
    assert await keys(backend, prefix) == ["kept"]


async def test_a_lease_that_ran_out_or_was_revoked_is_lost(backend: Backend, prefix: str) -> None:
    lease = await backend.grant(60)
    await put(backend, prefix + "k", lease=lease.id)
    await backend.revoke(lease.id)
    assert await keys(backend, prefix) == []
    with pytest.raises(LeaseLostError):
        await backend.renew(lease.id)
    with pytest.raises(LeaseLostError):
        await put(backend, prefix + "k", lease=lease.id)
    await backend.revoke(lease.id)


async def test_a_lease_shorter_than_the_store_can_hold_is_refused(backend: Backend) -> None:
    with pytest.raises(ConfigError):
        await backend.grant(1)


async def test_a_watch_tells_each_change_once_and_in_order(make_backend: MakeBackend, prefix: str) -> None:
    writer, reader = await make_backend(), await make_backend()
    start = (await reader.read(prefix)).revision
    seen = asyncio.create_task(take(reader, prefix, start, 31))
    for n in range(30):
        await put(writer, f"{prefix}{n:02d}", str(n).encode())
    await writer.commit([], [Write(prefix + "00", None)])
    changes = await seen
    assert [(c.key, c.value) for c in changes if isinstance(c, Change)] == [
        *((f"{prefix}{n:02d}", str(n).encode()) for n in range(30)),
        (prefix + "00", None),
    ]
    revisions = [change.revision for change in changes]
    assert revisions == sorted(set(revisions))


async def test_a_watch_tells_what_changed_before_it_began(backend: Backend, prefix: str) -> None:
    first = await put(backend, prefix + "a")
    second = await put(backend, prefix + "b", b"2")
    assert await take(backend, prefix, first, 1) == [Change(prefix + "b", b"2", second)]


async def test_a_watch_of_one_prefix_says_nothing_of_another(backend: Backend, prefix: str) -> None:
    start = await put(backend, prefix + "other/x")
    await put(backend, prefix + "other/y")
    await put(backend, prefix + "this/z")
    (change,) = await take(backend, prefix + "this/", start, 1)
    assert isinstance(change, Change)
    assert change.key == prefix + "this/z"


async def test_two_watches_see_the_same(backend: Backend, prefix: str) -> None:
    start = (await backend.read(prefix)).revision
    one = asyncio.create_task(take(backend, prefix, start, 2))
    two = asyncio.create_task(take(backend, prefix, start, 2))
    await backend.commit([], [Write(prefix + "a", b""), Write(prefix + "b", b"")])
    assert await one == await two


async def test_too_much_is_refused_before_it_is_sent(backend: Backend, prefix: str) -> None:
    too_much = [
        [Write(prefix + "k", bytes(MAX_VALUE + 1))],
        [Write(prefix + "k" * 600, b"")],
        [Write(prefix + "new\nline", b"")],
        [Write(f"{prefix}{n}", b"") for n in range(MAX_WRITES + 1)],
        [Write(prefix + "k", b"1"), Write(prefix + "k", b"2")],
        [],
    ]
    for writes in too_much:
        with pytest.raises(StoreValueError):
            await backend.commit([], writes)
    await put(backend, prefix + "k", bytes(MAX_VALUE))
    assert len((await backend.read(prefix)).entries[0].value) == MAX_VALUE


async def test_after_close_everything_says_so_and_watches_end(backend: Backend, prefix: str) -> None:
    start = (await backend.read(prefix)).revision
    watch = asyncio.create_task(take(backend, prefix, start, 1))
    await asyncio.sleep(0)
    await backend.close()
    with pytest.raises(StoreUnreachableError):
        await backend.read(prefix)
    async with asyncio.timeout(DEADLINE_S):
        assert await watch == []


async def test_of_many_that_add_one_at_once_none_is_lost(make_backend: MakeBackend, prefix: str) -> None:
    backends = [await make_backend() for _ in range(3)]
    key = prefix + "counter"
    await put(backends[0], key, b"0")

    async def add(backend: Backend, times: int) -> int:
        lost = 0
        while times:
            (entry,) = (await backend.read(key)).entries
            try:
                await backend.commit(
                    [Condition(key, entry.revision)], [Write(key, b"%d" % (int(entry.value) + 1))]
                )
                times -= 1
            except LostRaceError:
                lost += 1
        return lost

    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(add(backend, 10) for backend in backends))
    assert (await backends[0].read(key)).entries[0].value == b"30"
