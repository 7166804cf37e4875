"""Nothing that the netlink benchmark waits for can hold it for ever, and what did not come is named."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path(__file__).parents[3] / "benchmarks" / "netlink.py"


@pytest.fixture(scope="module")
def module() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("benchmarks_netlink", FILE)
    assert spec is not None
    assert spec.loader is not None
    path = [*sys.path]
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]
        sys.path[:] = path


@pytest.fixture
def bench(module: Any) -> Iterator[Any]:
    before = signal.getsignal(signal.SIGALRM)
    yield module
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


async def test_what_does_not_come_is_named(bench: Any) -> None:
    with pytest.raises(bench.BenchmarkError, match=r"seeing change 3: not within 0\.01 s"):
        await bench.within("seeing change 3", asyncio.Event().wait(), 0.01)


async def test_a_phase_that_takes_too_long_is_named(bench: Any) -> None:
    with pytest.raises(bench.BenchmarkError, match=r"dumps: not done within 0\.01 s"):
        async with bench.phase("dumps", 0.01):
            await asyncio.Event().wait()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def hold(pid: int) -> None:
    """Wait for a process as the library does."""
    os.waitpid(pid, 0)


async def test_a_wait_that_holds_the_event_loop_is_ended(
    bench: Any, sleeper: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "GRACE_S", 0.05)
    began = time.monotonic()
    with pytest.raises(bench.BenchmarkError, match="dumps: the event loop was held"):
        async with bench.phase("dumps", 0.05):
            hold(sleeper)
    assert time.monotonic() - began < 30


async def test_nobody_looks_for_a_change_any_more_when_its_cause_failed(bench: Any) -> None:
    async def seen() -> float:
        await asyncio.Event().wait()
        return 0.0

    with pytest.raises(RuntimeError, match="no cause"):
        async with bench.looking(seen()) as task:
            raise RuntimeError("no cause")
    assert task.cancelled()


async def test_a_process_that_does_not_end_is_killed(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.within, "__defaults__", (0.05,))
    process = await asyncio.create_subprocess_exec("sleep", "60")
    await bench.gone(process, "the sleeper")
    assert process.returncode == -signal.SIGKILL


def test_a_child_that_the_library_forks_ends_by_sigterm_and_does_not_go_on_as_a_copy(bench: Any) -> None:
    script = f"""
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("bench", {str(FILE)!r})
bench = sys.modules["bench"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)
signal.signal(signal.SIGTERM, bench.ended_by(os.getpid()))
child = os.fork()
if child == 0:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    except BaseException:
        os._exit(7)  # where the event loop's copy would go on
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os.kill(os.getpid(), signal.SIGTERM)
signal.pause()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "143", done.stderr
    assert done.returncode == 143
