"""How loaded this node is, as far as the kernel knows: processors and memory, smoothed; and rates from counters.

Pure functions and two thin readers of /proc. What charon knows (IKE_SAs, bytes of CHILD_SAs) is added by its caller.
Sources: proc(5), /proc/stat and /proc/meminfo.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
MAX_READ = 64 << 10
"""Octets of a file of /proc that are read: what is needed stands in its first lines."""


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Ticks that all processors spent since boot."""

    busy: int
    total: int


def parse_stat(text: str) -> CpuTimes | None:
    """Given /proc/stat, return what its first line says; None when it is not understood.

    ``guest`` is contained in ``user``, so it is not added again; time that the hypervisor took (``steal``) is busy.
    """
    words = text.partition("\n")[0].split()
    if len(words) < 5 or words[0] != "cpu" or not all(word.isdecimal() for word in words[1:]):
        return None
    ticks = [int(word) for word in words[1:9]]
    idle = sum(ticks[3:5])  # idle and iowait
    return CpuTimes(sum(ticks) - idle, sum(ticks))


def parse_meminfo(text: str) -> float | None:
    """Given /proc/meminfo, return the share of memory in use (0 to 1); None when it is not understood."""
    sizes = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdecimal():
            sizes[name] = int(number[0])
    total, available = sizes.get("MemTotal", 0), sizes.get("MemAvailable")
    if total <= 0 or available is None:
        return None
    return min(max(1 - available / total, 0.0), 1.0)


def cpu_share(before: CpuTimes, after: CpuTimes) -> float | None:
    """Given two readings, return the share of processor time in use between them; None when no time went by."""
    total = after.total - before.total
    if total <= 0:
        return None
    return min(max((after.busy - before.busy) / total, 0.0), 1.0)


def rate(before: int, after: int, seconds: float) -> float | None:
    """Given two readings of a counter and the seconds between, return its rate per second.

    None when it cannot be told: no time went by, or the counter began anew (a rekeyed CHILD_SA's does).
    """
    if seconds <= 0 or after < before:
        return None
    return (after - before) / seconds


@dataclass(frozen=True, slots=True)
class Smoothed:
    """A value whose past fades: half of it within the half-life, however irregular the readings come (EWMA)."""

    value: float
    at: float

    def then(self, value: float | None, at: float, *, half_life_s: float) -> Smoothed:
        """Given a reading (None: none could be had) and when, return the smoothed value then."""
        if value is None or at <= self.at:
            return self
        old = 0.5 ** ((at - self.at) / half_life_s)
        return Smoothed(self.value * old + value * (1 - old), at)


def smooth(before: Smoothed | None, value: float | None, at: float, *, half_life_s: float) -> Smoothed | None:
    """Given what was known (None: nothing yet) and a reading, return what is known now."""
    if before is None:
        return None if value is None else Smoothed(value, at)
    return before.then(value, at, half_life_s=half_life_s)


@dataclass(frozen=True, slots=True)
class HostLoad:
    """Processors and memory of this node."""

    times: CpuTimes | None = None
    cpu: Smoothed | None = None
    memory: Smoothed | None = None

    def then(
        self, times: CpuTimes | None, memory: float | None, at: float, *, half_life_s: float = 10.0
    ) -> HostLoad:
        """Given new readings and when (monotonic seconds), return what is known now."""
        share = None if self.times is None or times is None else cpu_share(self.times, times)
        return HostLoad(
            times or self.times,
            smooth(self.cpu, share, at, half_life_s=half_life_s),
            smooth(self.memory, memory, at, half_life_s=half_life_s),
        )


def read_times(proc: Path = PROC) -> CpuTimes | None:
    """Return the processors' times; None when the kernel does not tell them."""
    text = _read(proc / "stat")
    return None if text is None else parse_stat(text)


def read_memory(proc: Path = PROC) -> float | None:
    """Return the share of memory in use; None when the kernel does not tell it."""
    text = _read(proc / "meminfo")
    return None if text is None else parse_meminfo(text)


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_READ).decode(errors="replace")
    except OSError:
        return None
