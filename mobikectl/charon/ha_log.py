"""The broker's memory that survives the broker: records in two memory files (memfd_create(2)).

Whoever holds the files' descriptors keeps them alive; they have no name in any file system. One of the two
is current; `rewrite` fills the other and then makes it current by one write, so that being killed at any
moment leaves a whole log. Their pages are locked and left out of core dumps while the broker lives.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import zlib
from typing import TYPE_CHECKING, Final

from mobikectl.charon.protect import lock_pages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MAGIC: Final = b"mHAlog1\0"
_HEADER: Final = len(_MAGIC) + 8
_RECORD: Final = 8
"""Octets before a record: its length, written last, and its CRC-32."""
_STEP: Final = 1 << 18
MAX_LOG: Final = 1 << 29
MAX_RECORD: Final = 1 << 16


class LogFullError(Exception):
    """There is no room for a record: rewrite the log, or stop recording."""


class HaLog:
    """Records, appended one at a time.

    Given the two descriptors (of `create`, or handed over by the process before; owned from now on).
    """

    def __init__(self, fds: tuple[int, int]) -> None:
        self._files = tuple(_File(fd) for fd in fds)
        self._current = max(self._files, key=lambda each: each.generation)

    @classmethod
    def create(cls) -> HaLog:
        """Return a new, empty log."""
        first, second = (
            os.memfd_create(f"mobikectl-ha-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING) for name in "ab"
        )
        log = cls((first, second))
        log.rewrite(())
        return log

    @property
    def fds(self) -> tuple[int, ...]:
        """The two descriptors, for whoever holds them over a restart."""
        return tuple(each.fd for each in self._files)

    @property
    def size(self) -> int:
        """Octets in use."""
        return self._current.end

    @property
    def locked(self) -> bool:
        """Whether its pages stay in memory (not in swap)."""
        return all(each.locked for each in self._files)

    def records(self) -> Iterator[bytes]:
        """Yield every whole record in order."""
        return self._current.records()

    def append(self, record: bytes) -> None:
        """Given a record, write it down. Raise LogFullError when there is no room."""
        self._current.append(record)

    def rewrite(self, records: Iterable[bytes]) -> None:
        """Given all records that count, write them down in place of all others. Raise LogFullError."""
        other = next(each for each in self._files if each is not self._current)
        other.clear()
        for record in records:
            other.append(record)
        other.set_generation(self._current.generation + 1)
        self._current, old = other, self._current
        old.clear()

    def close(self) -> None:
        """Let go of the files; the holder's descriptors keep them."""
        for each in self._files:
            each.close()


class _File:
    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.locked = True
        self._map: mmap.mmap | None = None
        size = os.fstat(fd).st_size
        self._resize(max(size, _STEP))
        if self._view[: len(_MAGIC)] != _MAGIC:
            self._view[: len(_MAGIC)] = _MAGIC
            self.set_generation(0)
        self.end = _HEADER
        for record in self.records():
            self.end += _RECORD + len(record)

    @property
    def _view(self) -> mmap.mmap:
        assert self._map is not None  # noqa: S101 - set by _resize, which the constructor calls
        return self._map

    @property
    def generation(self) -> int:
        return int.from_bytes(self._view[len(_MAGIC) : _HEADER], "big")

    def set_generation(self, generation: int) -> None:
        self._view[len(_MAGIC) : _HEADER] = generation.to_bytes(8, "big")

    def _resize(self, size: int) -> None:
        self.close_map()
        os.ftruncate(self.fd, size)
        self._map = mmap.mmap(self.fd, size)
        self._map.madvise(mmap.MADV_DONTDUMP)
        where = ctypes.c_char.from_buffer(self._map)
        self.locked = lock_pages(ctypes.addressof(where), size) and self.locked
        del where

    def records(self) -> Iterator[bytes]:
        at = _HEADER
        while at + _RECORD <= len(self._view):
            length = int.from_bytes(self._view[at : at + 4], "big")
            record = self._view[at + _RECORD : at + _RECORD + length]
            if not 0 < length <= MAX_RECORD or len(record) != length:
                return
            if zlib.crc32(record) != int.from_bytes(self._view[at + 4 : at + 8], "big"):
                return
            yield record
            at += _RECORD + length

    def append(self, record: bytes) -> None:
        if not 0 < len(record) <= MAX_RECORD:
            raise LogFullError(f"a record of {len(record)} octets")
        end = self.end + _RECORD + len(record)
        if end + _RECORD > len(self._view):
            if end + _STEP > MAX_LOG:
                raise LogFullError(f"the log has {self.end} octets")
            self._resize(min(MAX_LOG, max(2 * len(self._view), end + _STEP)))
        self._view[self.end + 4 : end] = zlib.crc32(record).to_bytes(4, "big") + record
        self._view[self.end : self.end + 4] = len(record).to_bytes(4, "big")
        self.end = end

    def clear(self) -> None:
        """Forget all, the octets too: the pages go back to the kernel."""
        self.close_map()
        os.ftruncate(self.fd, 0)
        self._resize(_STEP)
        self._view[: len(_MAGIC)] = _MAGIC
        self.end = _HEADER

    def close_map(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None

    def close(self) -> None:
        self.close_map()
        os.close(self.fd)
