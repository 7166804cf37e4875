"""Keeping what this process has in its memory out of core dumps, swap and other processes' debuggers."""

from __future__ import annotations

import ctypes
import os
import resource

PR_SET_DUMPABLE = 4
MCL_FUTURE, MCL_ONFAULT = 2, 4
MLOCK_ONFAULT = 1
CAP_IPC_LOCK = 14

_LIBC = ctypes.CDLL(None, use_errno=True)


def protect_process() -> tuple[str, ...]:
    """Forbid core dumps and debuggers without privilege, and lock all memory of our own, that of later included.

    Return what could not be done, a sentence each. Python moves objects around and clears nothing, so that
    single buffers cannot be protected: it is all of it or nothing. What is mapped from files (programs and
    libraries, most of a process) holds no keys and stays evictable.
    """
    failed = []
    if _LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        failed.append(f"core dumps cannot be forbidden: {os.strerror(ctypes.get_errno())}")
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if not may_lock_memory():
        failed.append("memory cannot be locked, so that keys may get into swap: give CAP_IPC_LOCK")
    elif _LIBC.mlockall(MCL_FUTURE | MCL_ONFAULT) != 0 or not all(
        _LIBC.mlock2(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MLOCK_ONFAULT) == 0
        for start, end in _own_memory()
    ):
        failed.append(f"memory cannot be locked: {os.strerror(ctypes.get_errno())}")
    return tuple(failed)


def _own_memory() -> list[tuple[int, int]]:
    """Return the mappings that are written to and come from no file: heaps and stacks."""
    found = []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:  # noqa: PTH123 - a file of the kernel's
        for line in maps:
            place, rights, _, _, inode, *name = line.split(maxsplit=5)
            special = bool(name) and name[0].startswith("[v")  # [vvar], [vdso]
            if rights.startswith("rw") and inode == "0" and not special:
                start, _, end = place.partition("-")
                found.append((int(start, 16), int(end, 16)))
    return found


def may_lock_memory() -> bool:
    """Return whether memory may be locked without a limit.

    With a limit, `protect_process` would make later allocations fail, which ends a Python program.
    """
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - a file of the kernel's
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> CAP_IPC_LOCK & 1)
    return False


def lock_pages(address: int, length: int) -> bool:
    """Given a mapping, keep it in memory. Return whether that worked."""
    done: int = _LIBC.mlock(ctypes.c_void_p(address), ctypes.c_size_t(length))
    return done == 0
