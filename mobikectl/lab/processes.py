"""Processes that a lab started: known by pid and start time, ended through a pidfd, never by name.

Every process carries the lab's name in its environment (`MARK`). That finds the ones a crash left
between their start and their record, and proves that they are ours.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "MOBIKECTL_LAB"
"""Environment variable whose value is the lab's name."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for all time: a pid alone is reused."""

    pid: int
    start: int
    """Start time in clock ticks since boot (field 22 of /proc/PID/stat)."""


def identify(pid: int) -> ProcessId | None:
    """Given a pid, return who it is now; None when there is no such process or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in {"Z", "X"} else ProcessId(pid, int(fields[19]))


def marked(lab: str) -> list[ProcessId]:
    """Given a lab's name, return the living processes that carry its mark."""
    wanted = f"{MARK}={lab}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0") and (who := identify(int(entry.name))):
                found.append(who)
    return found


def send_signal(who: ProcessId, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; return False when it is gone (or its pid is another's now)."""
    with _open(who) as fd:
        if fd is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, number)
            return True
    return False


def end_all(processes: list[ProcessId], *, grace: float = 3.0) -> list[ProcessId]:
    """End processes: SIGTERM, and SIGKILL for those alive after `grace` seconds. Return who was alive.

    Returns when all are gone (a zombie counts as gone: its parent reaps it).
    """
    with contextlib.ExitStack() as stack:
        alive = [(who, fd) for who in processes if (fd := stack.enter_context(_open(who))) is not None]
        for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
            for _, fd in alive:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, number)
            waiting = _wait_gone([fd for _, fd in alive], wait)
            if not waiting:
                break
        return [who for who, _ in alive]


def _wait_gone(fds: list[int], seconds: float) -> set[int]:
    deadline = time.monotonic() + seconds
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    waiting = set(fds)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poller.poll(left * 1000):
            poller.unregister(fd)
            waiting.discard(fd)
    return waiting


@contextlib.contextmanager
def _open(who: ProcessId) -> Iterator[int | None]:
    """A pidfd of the process, or None when it is gone."""
    try:
        fd = os.pidfd_open(who.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd if identify(who.pid) == who else None
    finally:
        os.close(fd)
