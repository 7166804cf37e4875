"""What a store must be able to do: keys with revisions, leases, conditional commits and watches.

`mobikectl.cluster.store.Store` says what the keys mean; a backend only keeps them. One contract
(tests/contract/cluster) holds for every backend:

- Each commit gets a *revision*: a number above all earlier ones, for the whole store and for ever.
- A key remembers the revision of the commit that wrote it last. A condition compares with that, so that
  nobody can overwrite what they have not read.
- A key written under a *lease* vanishes when the lease runs out. Time is the store's own: nodes never compare
  their clocks.
- A watch delivers each change once and in order, also over a lost connection. Where it cannot, it says so with
  a `Gap`, and its reader must read anew.

The names are etcd's (etcd API reference v3, "KV", "Lease", "Watch").
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mobikectl.errors import StoreValueError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

MAX_KEY = 512
"""Octets of a key."""
MAX_VALUE = 64 << 10
"""Octets of a value, both written and read."""
MAX_ENTRIES = 100_000
"""Entries of one read: a store with more below one prefix is not used by mobikectl alone."""
MAX_WRITES = 100
"""Writes of one commit (etcd's --max-txn-ops is 128 unless configured)."""
MIN_TTL_S = 2
"""The shortest lease: etcd grants none below its own election timeout."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it was read."""

    key: str
    value: bytes
    revision: int
    """Of the commit that wrote it last."""
    lease: int = 0
    """The lease that it lives under; 0: none."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a read found, at one revision of the whole store."""

    revision: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """That a key was last written at this revision; 0: that it does not exist."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Write:
    """A key to be written (``value`` None: deleted) when every condition holds."""

    key: str
    value: bytes | None
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """A key was written, or vanished (``value`` None: deleted, or its lease ran out)."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Changes before ``revision`` were lost: read anew. Changes after it follow."""

    revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as granted."""

    id: int
    ttl_s: float
    """Seconds that it lasts from now, unless renewed."""


class Backend(Protocol):
    """A store. Every call ends within the deadline that the backend was made with.

    Values are handed out as they are, cut after `MAX_VALUE` + 1 octets: judging them is the reader's.

    All raise StoreUnreachableError (no answer in time; whether a commit took effect is then unknown),
    StoreDeniedError and, for keys or values outside the bounds above, StoreValueError.
    """

    async def read(self, prefix: str, *, last: int | None = None) -> Snapshot:
        """Given a prefix, return the entries below it in the order of their keys (``last``: only the last so many)."""

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Write]) -> int:
        """Given conditions and writes, do all of the writes at once and return the commit's revision.

        Raise LostRaceError: a condition does not hold, nothing was written; LeaseLostError: a lease is gone.
        """

    async def grant(self, ttl_s: int) -> Lease:
        """Given seconds (at least `MIN_TTL_S`), return a new lease."""

    async def renew(self, lease: int) -> float:
        """Given a lease, start its time anew and return how many seconds it lasts. Raise LeaseLostError."""

    async def revoke(self, lease: int) -> None:
        """Given a lease, end it: its keys vanish at once. One that is gone already is no error."""

    def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Change | Gap, None]:
        """Given a prefix and a revision that was read, return what changes later, for ever.

        It waits while the store is unreachable, and raises only what waiting cannot mend (StoreDeniedError).
        """

    async def close(self) -> None:
        """Give back connections and threads. Watches end."""


def check_key(key: str) -> bytes:
    """Given a key, return its octets. Raise StoreValueError: too long, empty, or unprintable."""
    octets = key.encode(errors="replace")
    if not 0 < len(octets) <= MAX_KEY or not key.isprintable():
        raise StoreValueError(
            f"a store key of {len(octets)} octets, or with unprintable characters, cannot be used",
            hint=f"names are printable and short: {MAX_KEY} octets with the cluster's prefix",
        )
    return octets


def check_writes(conditions: Sequence[Condition], writes: Sequence[Write]) -> None:
    """Given what is to be committed, return when it is within the bounds. Raise StoreValueError."""
    for condition in conditions:
        check_key(condition.key)
    for write in writes:
        check_key(write.key)
        if write.value is not None and len(write.value) > MAX_VALUE:
            raise StoreValueError(
                f"{write.key}: a value of {len(write.value)} octets is above {MAX_VALUE}",
                hint="this would not be readable by the other nodes; nothing was written",
            )
    if not 0 < len(writes) <= MAX_WRITES or len({write.key for write in writes}) != len(writes):
        raise StoreValueError(
            f"{len(writes)} writes in one commit: 1 to {MAX_WRITES}, each of another key, are possible",
            hint="write in several commits",
        )


def lease_clock() -> float:
    """Return seconds of this machine's monotonic clock that also counts while it is suspended (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class Backoff:
    """Waiting times that double from ``first_s`` to ``most_s``, spread by half so that nodes do not come in step."""

    first_s: float = 0.1
    most_s: float = 2.0
    _next_s: float = 0.0

    def next(self) -> float:
        """Return how many seconds to wait now."""
        self._next_s = min(max(self._next_s * 2, self.first_s), self.most_s)
        return self._next_s * random.uniform(0.5, 1.0)  # noqa: S311 (nothing secret)

    def reset(self) -> None:
        """Start with the shortest again: something worked."""
        self._next_s = 0.0
