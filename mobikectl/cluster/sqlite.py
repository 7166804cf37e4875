"""The embedded store: one SQLite file, shared by all nodes on one machine.

Nothing to install and nothing that can be unreachable but a disk: meant for one gateway with several uplinks, for
several charons on one machine, and for the lab. Nodes on several machines need `mobikectl.cluster.etcd`.

Commits are synchronous (`PRAGMA synchronous = FULL`): a revision that was given out as a fencing token is never given
out again, also not after a power cut. Leases run on the machine's own monotonic clock and end with its boot.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mobikectl.cluster.backend import (
    MAX_ENTRIES,
    MAX_VALUE,
    MIN_TTL_S,
    Change,
    Entry,
    Gap,
    Lease,
    Snapshot,
    check_key,
    check_writes,
    lease_clock,
)
from mobikectl.cluster.sqlite_feed import Feed
from mobikectl.errors import (
    ConfigError,
    LeaseLostError,
    LostRaceError,
    StoreError,
    StoreUnreachableError,
    StoreValueError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from mobikectl.cluster.backend import Condition, Write
    from mobikectl.cluster.settings import SqliteSettings

T = TypeVar("T")

APPLICATION_ID = 0x6D6F6263
"""`PRAGMA application_id` of our files: 'mobc'."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl REAL NOT NULL, deadline REAL NOT NULL);
CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL,
    lease INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_lease ON entries (lease) WHERE lease != 0;
CREATE TABLE IF NOT EXISTS changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, revision INTEGER NOT NULL,
    key TEXT NOT NULL, value BLOB);
CREATE INDEX IF NOT EXISTS changes_revision ON changes (revision);
"""
READ = "SELECT key, value, revision, lease FROM entries WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
READ_LAST = READ.replace("ORDER BY key", "ORDER BY key DESC")
# What each of these costs must not grow with what is kept. In the order of `seq` SQLite would read all changes for the
# newest (the order is the same: a later revision has a later seq); of both ends in one SELECT it would do so, too; and
# a partial index serves only who says its condition.
CHANGES = """SELECT key, value, revision FROM changes WHERE revision > ? AND key >= ? AND key < ?
    ORDER BY revision, seq"""
KEPT = "SELECT (SELECT min(seq) FROM changes), (SELECT max(seq) FROM changes)"
UNDER_LEASE = "SELECT key FROM entries WHERE lease = ? AND lease != 0"


class SqliteBackend:
    """A `mobikectl.cluster.backend.Backend` on one file. Made inside a running loop; close it."""

    def __init__(self, settings: SqliteSettings) -> None:
        self._settings = settings
        self._calls = _Worker(settings, "store")
        self._watches = _Worker(settings, "store-watch")
        self._feed = Feed(settings, self._look)

    async def read(self, prefix: str, *, last: int | None = None) -> Snapshot:
        """See `Backend.read`."""
        check_key(prefix)
        return await self._calls.run(lambda file: file.read(prefix, last))

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Write]) -> int:
        """See `Backend.commit`."""
        check_writes(conditions, writes)
        revision = await self._calls.run(lambda file: file.commit(conditions, writes))
        self._feed.stir()
        return revision

    async def grant(self, ttl_s: int) -> Lease:
        """See `Backend.grant`."""
        if ttl_s < MIN_TTL_S:
            raise ConfigError(f"a lease of {ttl_s} s is too short", hint=f"{MIN_TTL_S} s or more")
        return await self._calls.run(lambda file: file.grant(ttl_s))

    async def renew(self, lease: int) -> float:
        """See `Backend.renew`."""
        return await self._calls.run(lambda file: file.renew(lease))

    async def revoke(self, lease: int) -> None:
        """See `Backend.revoke`."""
        await self._calls.run(lambda file: file.revoke(lease))
        self._feed.stir()

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Change | Gap, None]:
        """See `Backend.watch`."""
        check_key(prefix)
        async with aclosing(self._feed.watch(prefix, after=after)) as changes:
            async for change in changes:
                yield change

    async def _look(self, prefix: str, after: int) -> tuple[int, list[Change | Gap], float]:
        return await self._watches.run(lambda file: (*file.changes(prefix, after), file.next_end()))

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._feed.close()
        await self._calls.close()
        await self._watches.close()


class _Worker:
    """One thread that owns one connection: SQLite may block on a lock or a disk, the event loop may not."""

    def __init__(self, settings: SqliteSettings, name: str) -> None:
        self._settings = settings
        self._file = _File(settings)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self.closed = False

    async def run(self, call: Callable[[_File], T]) -> T:
        """Given what to do with the file, do it in the thread. Raise StoreError."""
        path, seconds = self._settings.path, self._settings.timeout_s
        if self.closed:
            raise StoreUnreachableError(f"{path}: closed", hint="make a new store")
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(self._pool, self._try, call)
        except TimeoutError as error:
            raise StoreUnreachableError(
                f"{path}: no answer within {seconds:g} s",
                hint="is the disk stuck, or another process holding it?",
            ) from error

    def _try(self, call: Callable[[_File], T]) -> T:
        path = self._settings.path
        try:
            self._file.open()
            return call(self._file)
        except sqlite3.OperationalError as error:
            self._file.close()
            raise StoreUnreachableError(
                f"{path}: {error}", hint="the file must be writable, on a local disk with space left"
            ) from error
        except sqlite3.Error as error:
            self._file.close()
            raise StoreValueError(
                f"{path}: {error}",
                hint="move the file away; it is made anew, desired state must be set again",
            ) from error
        except OSError as error:
            raise StoreUnreachableError(
                f"{path}: {error.strerror}", hint="make its directory writable"
            ) from error

    async def close(self) -> None:
        """Close the connection and end the thread; one that is stuck is left behind after the deadline."""
        if self.closed:
            return
        self.closed = True
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await asyncio.get_running_loop().run_in_executor(self._pool, self._file.close)
        except TimeoutError:
            pass
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)


class _File:
    """The file, as one thread uses it."""

    def __init__(self, settings: SqliteSettings) -> None:
        self._settings = settings
        self._db: sqlite3.Connection | None = None
        self._inode = (0, 0)
        self._boot = ""

    @property
    def db(self) -> sqlite3.Connection:
        """The open connection."""
        if self._db is None:
            raise StoreUnreachableError(f"{self._settings.path}: closed", hint="make a new store")
        return self._db

    def open(self) -> None:
        """Open the file, made when it is not there; open it anew when it was replaced."""
        if self._db is not None and self._inode == self._identity():
            return
        self.close()
        path = self._settings.path
        # A file that is there is not opened but by SQLite: closing any other descriptor of it would end the locks of
        # this process's other connections (POSIX), and who leaves last by those locks deletes the log of the living.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._boot = BOOT_ID.read_text().strip()
        # Below the deadline of the call: a lock that is held for long is told as such.
        db = sqlite3.connect(
            path, timeout=self._settings.timeout_s * 0.8, isolation_level=None, check_same_thread=False
        )
        self._db, self._inode = db, self._identity()
        self._prepare(db)

    def _identity(self) -> tuple[int, int]:
        try:
            status = self._settings.path.stat()
        except FileNotFoundError:
            return (0, 0)
        return (status.st_dev, status.st_ino)

    def _prepare(self, db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA application_id").fetchone()[0] not in {0, APPLICATION_ID}:
            raise sqlite3.DatabaseError("a file of another program")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for statement in SCHEMA.split(";\n"):
            db.execute(statement)
        # A file that was deleted and is made anew must not give out its earlier revisions: they are tokens.
        first = int(time.time() * 1000)
        db.execute("INSERT OR IGNORE INTO meta VALUES ('revision', ?), ('compacted', ?)", (first, first))
        boot = db.execute("SELECT value FROM meta WHERE name = 'boot'").fetchone()
        if boot is None or boot[0] != self._boot:
            db.execute("UPDATE leases SET deadline = -1")
            db.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (self._boot,))
        db.execute("COMMIT")

    def close(self) -> None:
        """Close the connection, if one is open."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _meta(self, name: str) -> int:
        row = self.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        if row is None or not isinstance(row[0], int):
            raise sqlite3.DatabaseError(f"not a store of mobikectl: no {name} in it")
        return row[0]

    @contextmanager
    def _writing(self) -> Iterator[float]:
        """Own the file; yield the time. Leases that ran out are gone, also when a race is lost."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            self._check_machine()
            now = lease_clock()
            for (lease,) in self.db.execute("SELECT id FROM leases WHERE deadline <= ?", (now,)).fetchall():
                self._end(lease)
            yield now
        except LostRaceError:
            self.db.execute("COMMIT")
            raise
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        else:
            self.db.execute("COMMIT")

    def _check_machine(self) -> None:
        boot = self.db.execute("SELECT value FROM meta WHERE name = 'boot'").fetchone()
        if boot != (self._boot,):
            raise StoreError(
                f"{self._settings.path}: another machine uses this file, too",
                hint="the sqlite store is for one machine; use etcd for several",
            )

    def _end(self, lease: int) -> None:
        self.db.execute("DELETE FROM leases WHERE id = ?", (lease,))
        keys = [key for (key,) in self.db.execute(UNDER_LEASE, (lease,))]
        if keys:
            self._apply([(key, None, 0) for key in keys])

    def _apply(self, writes: Sequence[tuple[str, bytes | None, int]]) -> int:
        revision = self._meta("revision") + 1
        self.db.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (revision,))
        for key, value, lease in writes:
            if value is None:
                if not self.db.execute("DELETE FROM entries WHERE key = ?", (key,)).rowcount:
                    continue
            else:
                self.db.execute(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", (key, value, revision, lease)
                )
            self.db.execute(
                "INSERT INTO changes (revision, key, value) VALUES (?, ?, ?)", (revision, key, value)
            )
        self._compact()
        return revision

    def _compact(self) -> None:
        first, last = self.db.execute(KEPT).fetchone()
        history = self._settings.history
        if first is None or last - first < history + max(history // 10, 1):
            return  # some at a time: not each commit has to drop any, and none holds the file for long
        upto = self.db.execute(
            "SELECT revision FROM changes WHERE seq <= ? ORDER BY seq DESC LIMIT 1",
            (last - history,),
        ).fetchone()[0]
        self.db.execute("DELETE FROM changes WHERE revision <= ?", (upto,))
        self.db.execute("UPDATE meta SET value = ? WHERE name = 'compacted'", (upto,))

    def _sweep(self) -> None:
        """Let the leases that ran out end; nothing is written when there are none."""
        if self.db.execute("SELECT 1 FROM leases WHERE deadline <= ? LIMIT 1", (lease_clock(),)).fetchone():
            with self._writing():
                pass

    def next_end(self) -> float:
        """Return when the next lease is over that is not renewed before (seconds of `lease_clock`)."""
        ((deadline,),) = self.db.execute("SELECT min(deadline) FROM leases").fetchall()
        return inf if deadline is None else float(deadline)

    def read(self, prefix: str, last: int | None) -> Snapshot:
        """See `Backend.read`."""
        self._sweep()
        self.db.execute("BEGIN")
        try:
            self._check_machine()
            rows = self.db.execute(
                READ if last is None else READ_LAST,
                (prefix, _end_of(prefix), MAX_ENTRIES + 1 if last is None else last),
            ).fetchall()
            revision = self._meta("revision")
        finally:
            self.db.execute("COMMIT")
        if len(rows) > MAX_ENTRIES:
            raise StoreValueError(
                f"more than {MAX_ENTRIES} entries below {prefix}", hint="who else writes there?"
            )
        ordered = rows if last is None else rows[::-1]
        return Snapshot(revision, tuple(Entry(_key(k), _octets(v), r, lease) for k, v, r, lease in ordered))

    def commit(self, conditions: Sequence[Condition], writes: Sequence[Write]) -> int:
        """See `Backend.commit`."""
        with self._writing():
            for condition in conditions:
                row = self.db.execute(
                    "SELECT revision FROM entries WHERE key = ?", (condition.key,)
                ).fetchone()
                if (row[0] if row else 0) != condition.revision:
                    raise LostRaceError(f"{condition.key}: somebody else was first", hint="read it again")
            for lease in {write.lease for write in writes} - {0}:
                self._require_lease(lease)
            return self._apply([(write.key, write.value, write.lease) for write in writes])

    def _require_lease(self, lease: int) -> float:
        row = self.db.execute("SELECT ttl FROM leases WHERE id = ?", (lease,)).fetchone()
        if row is None:
            raise LeaseLostError(f"lease {lease} ran out or was revoked", hint="stop acting and join again")
        return float(row[0])

    def grant(self, ttl_s: float) -> Lease:
        """See `Backend.grant`."""
        with self._writing() as now:
            cursor = self.db.execute("INSERT INTO leases (ttl, deadline) VALUES (?, ?)", (ttl_s, now + ttl_s))
            return Lease(int(cursor.lastrowid or 0), ttl_s)

    def renew(self, lease: int) -> float:
        """See `Backend.renew`."""
        with self._writing() as now:
            ttl_s = self._require_lease(lease)
            self.db.execute("UPDATE leases SET deadline = ? WHERE id = ?", (now + ttl_s, lease))
            return ttl_s

    def revoke(self, lease: int) -> None:
        """See `Backend.revoke`."""
        with self._writing():
            self._end(lease)

    def changes(self, prefix: str, after: int) -> tuple[int, list[Change | Gap]]:
        """Given a prefix and a revision, return the newest revision and what changed in between."""
        self._sweep()
        self.db.execute("BEGIN")
        try:
            self._check_machine()
            revision = self._meta("revision")
            if revision == after:
                return revision, []
            if after < self._meta("compacted") or after > revision:
                reason = "the store was replaced" if after > revision else "the changes are no longer kept"
                return revision, [Gap(revision, reason)]
            rows = self.db.execute(CHANGES, (after, prefix, _end_of(prefix))).fetchall()
        finally:
            self.db.execute("COMMIT")
        return revision, [Change(_key(k), None if v is None else _octets(v), r) for k, v, r in rows]


def _key(value: object) -> str:
    return value if isinstance(value, str) else repr(value)


def _octets(value: object) -> bytes:
    """Given what a column holds (any type is possible there), return it as a value, cut where it is too long."""
    octets = value if isinstance(value, bytes) else str(value).encode(errors="replace")
    return octets[: MAX_VALUE + 1]


def _end_of(prefix: str) -> str:
    """Given a prefix, return the first text after all that begin with it."""
    if not prefix:
        return chr(0x10FFFF)
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
