"""The file is locked, replaced, foreign, broken or full of nonsense."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import aclosing, asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import pytest

import mobikectl.cluster.sqlite as module
from mobikectl.cluster.backend import Change, Gap, Write
from mobikectl.cluster.settings import SqliteSettings
from mobikectl.cluster.sqlite import SqliteBackend
from mobikectl.cluster.store import Store
from mobikectl.errors import ConfigError, LeaseLostError, StoreError, StoreUnreachableError, StoreValueError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

P = "/mobikectl/faults/"
DEADLINE_S = 30.0


@asynccontextmanager
async def opened(path: Path, **more: Any) -> AsyncIterator[SqliteBackend]:
    backend = SqliteBackend(SqliteSettings(path, **more))
    try:
        yield backend
    finally:
        await backend.close()


async def put(backend: SqliteBackend, key: str, lease: int = 0) -> int:
    return await backend.commit([], [Write(P + key, b"x", lease)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cluster.db"


async def test_a_file_that_another_holds_is_unreachable_until_it_lets_go(path: Path) -> None:
    async with opened(path, timeout_s=0.5) as backend:
        await put(backend, "k")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StoreUnreachableError, match="locked"):
                await put(backend, "k")
            other.execute("ROLLBACK")
        await put(backend, "k")


async def test_a_watch_sees_what_its_own_process_writes_at_once(path: Path) -> None:
    async with opened(path, poll_min_s=9.0, poll_max_s=10.0) as backend:
        before = await put(backend, "k")
        async with asyncio.timeout(DEADLINE_S / 6), aclosing(backend.watch(P, after=before)) as changes:
            seen = asyncio.create_task(anext(changes))
            await asyncio.sleep(0.2)  # it has looked, and would look again in nine seconds
            await put(backend, "l")
            change = await seen
        assert isinstance(change, Change)
        assert change.key == P + "l"


async def test_a_watch_sees_the_end_of_a_lease_when_it_is_over(path: Path) -> None:
    async with opened(path, poll_min_s=9.0, poll_max_s=10.0) as backend:
        lease = await backend.grant(2)
        before = await put(backend, "k", lease.id)
        async with asyncio.timeout(DEADLINE_S / 6), aclosing(backend.watch(P, after=before)) as changes:
            change = await anext(changes)
        assert isinstance(change, Change)
        assert (change.key, change.value) == (P + "k", None)


async def test_a_file_that_is_made_anew_gives_out_greater_revisions_and_watches_see_a_gap(path: Path) -> None:
    async with opened(path) as one, opened(path) as other:
        before = await put(one, "k")
        async with aclosing(other.watch(P, after=before)) as changes:
            waiting = asyncio.ensure_future(anext(changes))
            await put(one, "seen")
            assert isinstance(await waiting, Change)
            for file in path.parent.glob("cluster.db*"):
                file.unlink()
            after = await put(one, "new")
            assert after > before
            async with asyncio.timeout(DEADLINE_S):
                assert isinstance(await anext(changes), Gap)
        assert [entry.key for entry in (await other.read(P)).entries] == [P + "new"]


async def test_a_watch_that_fell_behind_what_is_kept_sees_a_gap(path: Path) -> None:
    async with opened(path, history=5) as backend:
        start = (await backend.read(P)).revision
        for n in range(30):
            last = await put(backend, str(n))
        async with asyncio.timeout(DEADLINE_S), aclosing(backend.watch(P, after=start)) as changes:
            gap = await anext(changes)
            assert gap == Gap(last, "the changes are no longer kept")
            await put(backend, "later")
            change = await anext(changes)
            assert isinstance(change, Change)
            assert change.key == P + "later"


async def test_leases_do_not_outlive_the_machines_boot(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(path) as backend:
        lease = await backend.grant(300)
        await put(backend, "leased", lease.id)
        await put(backend, "kept")
    (tmp_path / "boot").write_text("another boot\n")
    monkeypatch.setattr(module, "BOOT_ID", tmp_path / "boot")
    async with opened(path) as backend:
        assert [entry.key for entry in (await backend.read(P)).entries] == [P + "kept"]
        with pytest.raises(LeaseLostError):
            await backend.renew(lease.id)


async def test_two_machines_on_one_file_are_told_that_this_cannot_work(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(path) as here:
        await put(here, "k")
        (tmp_path / "boot").write_text("another machine\n")
        monkeypatch.setattr(module, "BOOT_ID", tmp_path / "boot")
        async with opened(path) as there:
            await put(there, "k")
            for call in (put(here, "k"), here.read(P), here.grant(5)):
                with pytest.raises(StoreError, match="another machine"):
                    await call


async def test_the_file_can_be_read_by_its_owner_alone(path: Path) -> None:
    async with opened(path) as backend:
        await put(backend, "k")
        assert path.stat().st_mode & 0o077 == 0


async def test_a_directory_that_is_missing_is_unreachable(path: Path) -> None:
    async with opened(path / "nowhere" / "cluster.db") as backend:
        with pytest.raises(StoreUnreachableError):
            await backend.read(P)


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
async def test_a_file_that_is_no_database_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    async with opened(path) as backend:
        with pytest.raises(StoreValueError, match=r"cluster\.db"):
            await backend.read(P)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "harm",
    [
        "PRAGMA application_id = 7",
        "DELETE FROM meta",
        "UPDATE meta SET value = 'many' WHERE name = 'revision'",
        "DROP TABLE entries; CREATE TABLE entries (other)",
        "DROP TABLE leases; CREATE VIEW leases AS SELECT 1",
    ],
)
async def test_a_database_of_somebody_else_is_an_error_and_no_crash(path: Path, harm: str) -> None:
    async with opened(path) as backend:
        await put(backend, "k")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.executescript(harm)
    async with opened(path) as backend:
        for call in (backend.read(P), put(backend, "k")):
            try:
                await call
            except StoreError:
                continue
            assert harm == "DELETE FROM meta", "only an empty table can be filled anew"


async def test_values_of_other_types_are_broken_values(path: Path) -> None:
    async with opened(path) as backend:
        store = Store(backend, "faults")
        await put(backend, "state/members/gw1")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("UPDATE entries SET value = 17")
            other.execute("INSERT INTO entries VALUES ('/mobikectl/faults/state/leader', 1.5, 3, 0)")
            other.execute("INSERT INTO entries VALUES (?, zeroblob(1000000), 4, 0)", (f"{P}state/cluster",))
        assert len((await store.state()).broken) == 3


@pytest.mark.parametrize("wrong", [{"timeout_s": 0}, {"poll_min_s": 1, "poll_max_s": 0.5}, {"history": 0}])
def test_settings_that_cannot_work_are_refused(path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SqliteSettings(path, **wrong)


VISITOR = """
import asyncio, sys
from pathlib import Path
from mobikectl.cluster.backend import Write
from mobikectl.cluster.settings import SqliteSettings
from mobikectl.cluster.sqlite import SqliteBackend

async def visit():
    backend = SqliteBackend(SqliteSettings(Path(sys.argv[1])))
    await backend.commit([], [Write(sys.argv[2], b"visitor")])
    print(*(entry.key for entry in (await backend.read("/")).entries))
    await backend.close()

asyncio.run(visit())
"""


async def visit(path: Path, key: str) -> list[str]:
    """Have another process come, write a key, and go; return the keys that it saw."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", VISITOR, str(path), key, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(DEADLINE_S):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode().split()


async def test_processes_that_come_and_go_leave_the_same_store_to_those_who_stay(path: Path) -> None:
    async with opened(path) as backend:
        before = await put(backend, "first")
        async with aclosing(backend.watch(P, after=before)) as changes:
            await put(backend, "second")
            await anext(changes)  # now this process has two connections
            assert await visit(path, P + "a") == [P + "a", P + "first", P + "second"]
            await put(backend, "third")
            assert await visit(path, P + "b") == [P + "a", P + "b", P + "first", P + "second", P + "third"]
            keys = [entry.key for entry in (await backend.read(P)).entries]
    assert keys == [P + "a", P + "b", P + "first", P + "second", P + "third"]
