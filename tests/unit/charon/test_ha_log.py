"""The broker's memory, and who keeps it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobikectl.charon import ha_log
from mobikectl.charon.ha_holder import Keeper, SystemdStore, open_holder
from mobikectl.charon.ha_log import HaLog, LogFullError
from mobikectl.errors import SidecarError

if TYPE_CHECKING:
    from collections.abc import Iterator


def reopened(log: HaLog) -> list[bytes]:
    first, second = log.fds
    again = HaLog((os.dup(first), os.dup(second)))
    try:
        return list(again.records())
    finally:
        again.close()


@pytest.fixture
def log() -> Iterator[HaLog]:
    log = HaLog.create()
    yield log
    log.close()


def test_what_was_written_is_there_for_the_next_process(log: HaLog) -> None:
    for number in range(100):
        log.append(b"record %d" % number)
    assert reopened(log) == [b"record %d" % number for number in range(100)]


def test_a_log_grows_as_needed(log: HaLog) -> None:
    big = os.urandom(60_000)
    for _ in range(50):
        log.append(big)
    assert reopened(log) == [big] * 50


def test_a_rewritten_log_has_only_what_counts_and_gives_the_rest_back(log: HaLog) -> None:
    for _ in range(50):
        log.append(b"secret" * 9_000)
    log.rewrite([b"one", b"two"])
    log.append(b"three")
    assert reopened(log) == [b"one", b"two", b"three"]
    assert sum(os.fstat(fd).st_size for fd in log.fds) < 1 << 20
    assert not any(b"secret" in os.pread(fd, 1 << 20, 0) for fd in log.fds)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=20), st.integers(0, 400))
def test_a_record_that_was_being_written_is_left_out_and_the_others_are_whole(
    records: list[bytes], cut: int
) -> None:
    log = HaLog.create()
    for record in records:
        log.append(record)
    fd = max(log.fds, key=lambda each: os.pread(each, 8, 8))
    end = min(16 + cut, log.size)
    os.pwrite(fd, bytes(log.size - end), end)
    kept = reopened(log)
    assert kept == records[: len(kept)]
    log.close()


def test_killed_while_rewriting_the_log_before_counts(log: HaLog) -> None:
    log.append(b"old")

    def until_killed() -> Iterator[bytes]:
        yield b"new"
        assert reopened(log) == [b"old"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log.rewrite(until_killed())
    assert reopened(log) == [b"old"]
    log.rewrite([b"new"])
    assert reopened(log) == [b"new"]


def test_more_than_the_limit_is_refused(log: HaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ha_log, "MAX_LOG", 1 << 20)
    with pytest.raises(LogFullError):
        log.rewrite(bytes(60_000) for _ in range(100))
    with pytest.raises(LogFullError):
        log.append(b"")
    assert reopened(log) == []


# --- the keeper -------------------------------------------------------------------------------------


def test_a_keeper_hands_over_what_a_killed_process_left(tmp_path: Path) -> None:
    path = tmp_path / "keeper.sock"
    script = f"""
import os, signal
from pathlib import Path
from mobikectl.charon.ha_holder import Keeper
from mobikectl.charon.ha_log import HaLog
keeper, log = Keeper(Path({str(path)!r})), HaLog.create()
for name, fd in zip("ab", log.fds):
    keeper.put(name, fd)
log.append(b"a record")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=False, cwd="/")
    assert done.returncode == -signal.SIGKILL
    assert path.stat().st_mode & 0o777 == 0o700
    keeper = Keeper(path)
    held = keeper.take()
    log = HaLog((held["a"], held["b"]))
    assert list(log.records()) == [b"a record"]
    log.close()
    keeper.end()


def test_what_is_put_again_replaces_what_was_put_before(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "keeper.sock")
    for text in (b"first", b"second"):
        reading, writing = os.pipe()
        os.write(writing, text)
        keeper.put("pipe", reading)
        os.close(reading)
        os.close(writing)
    keeper.close()
    keeper = Keeper(tmp_path / "keeper.sock")
    held = keeper.take()
    assert os.read(held["pipe"], 10) == b"second"
    keeper.end()


def test_a_keeper_ends_when_no_broker_comes(tmp_path: Path) -> None:
    path = tmp_path / "keeper.sock"
    subprocess.run(
        [sys.executable, "-m", "mobikectl.charon.ha_keeper", str(path), "1.5"],
        check=True,
        timeout=60,
        cwd="/",
    )
    Keeper(path).close()
    deadline = time.monotonic() + 30
    while path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_keeper_ends_when_it_is_told_to(tmp_path: Path) -> None:
    Keeper(tmp_path / "keeper.sock").end()
    deadline = time.monotonic() + 30
    while (tmp_path / "keeper.sock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_keeper_leaves_the_first_alone(tmp_path: Path) -> None:
    path = tmp_path / "keeper.sock"
    keeper = Keeper(path)
    reading, writing = os.pipe()
    keeper.put("pipe", reading)
    subprocess.run(
        [sys.executable, "-m", "mobikectl.charon.ha_keeper", str(path)], check=True, timeout=60, cwd="/"
    )
    assert "pipe" in Keeper(path).take()
    os.close(writing)
    keeper.end()


@pytest.mark.netns  # needs root to become another user
def test_nobody_else_gets_anything_from_a_keeper(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    path = tmp_path / "keeper.sock"
    keeper = Keeper(path)
    reading, writing = os.pipe()
    keeper.put("pipe", reading)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and directory != Path("/"):
            directory.chmod(0o755)
    path.chmod(0o777)  # so that only the keeper's own check is left
    script = f"""
import os, socket
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect({str(path)!r})
sock.settimeout(10)
try:
    sock.send(b"take")
    print(socket.recv_fds(sock, 64, 1))
except OSError as error:
    print(error)
"""
    done = subprocess.run(
        ["python3", "-c", script], capture_output=True, text=True, timeout=60, check=False, cwd="/"
    )
    assert "(b'pipe'" not in done.stdout
    assert "(b'', [], " in done.stdout or "Broken pipe" in done.stdout or "reset" in done.stdout, done
    os.close(writing)
    keeper.end()


# --- systemd ----------------------------------------------------------------------------------------


def test_systemds_store_gives_what_it_was_given(tmp_path: Path) -> None:
    import socket

    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    store = open_holder(environ={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert isinstance(store, SystemdStore)
    reading, writing = os.pipe()
    store.put("port", reading)
    message, fds, _, _ = socket.recv_fds(manager, 1000, 1)
    assert message.split(b"\n") == [b"FDSTORE=1", b"FDPOLL=0", b"FDNAME=mobikectl-ha-port"]
    os.write(writing, b"through")
    assert os.read(fds[0], 10) == b"through"
    manager.close()
    with pytest.raises(SidecarError, match="does not keep"):
        store.put("port", reading)


def test_systemds_store_is_read_again_in_one_life_of_the_process(tmp_path: Path) -> None:
    """A broker may be opened again: what systemd keeps it gives back at a start of the process only."""
    import socket

    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    reading, writing = os.pipe()
    SystemdStore(environ).put("port", reading)
    os.close(reading)
    for _ in range(2):
        (name, fd), *others = SystemdStore(environ).take().items()
        assert (name, others) == ("port", [])
        os.write(writing, b"again")
        assert os.read(fd, 10) == b"again"
        os.close(fd)
    assert SystemdStore({"NOTIFY_SOCKET": "@another"}).take() == {}


def test_only_our_own_descriptors_of_systemds_are_taken() -> None:
    script = """
import os, json
from mobikectl.charon.ha_holder import SystemdStore
environ = {"NOTIFY_SOCKET": "@x", "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3",
           "LISTEN_FDNAMES": "mobikectl-ha-port:other:mobikectl-ha-log-a"}
kept = [SystemdStore(environ).take() for _ in range(2)]
same = [{name: os.fstat(fd).st_ino == os.fstat(n).st_ino for (name, fd), n in zip(one.items(), (3, 5))} for one in kept]
inherited = [fd for fd in (3, 5, *kept[0].values()) if os.get_inheritable(fd)]
other = SystemdStore(environ | {"NOTIFY_SOCKET": "@y", "LISTEN_PID": "1"}).take()
print(same[0] == same[1], same[0], inherited, other)
"""
    fds = [os.memfd_create(f"number {number}") for number in range(3)]
    wrapper = "import os,sys\n" + "".join(
        f"os.dup2({fd}, {3 + number})\n" for number, fd in enumerate(sorted(fds))
    )
    done = subprocess.run(
        [sys.executable, "-c", wrapper + script],
        pass_fds=fds,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "True {'port': True, 'log-a': True} [] {}"
