"""Who has the HA port, and whether that is one of ours: seen in the kernel's tables, without touching the port."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mobikectl.charon.ha_port_holder import Holder, holder
from mobikectl.doctor.findings import Level
from mobikectl.doctor.transfer import ha_port as judge

if TYPE_CHECKING:
    from pathlib import Path

HEAD = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref\n"
)


def row(address: str, inode: int) -> str:
    return f" 1: {address} 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 {inode} 2 0 0\n"


class Proc:
    """A /proc with sockets and the processes that have them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "thread-self" / "net").mkdir(parents=True)
        self.sockets()

    def sockets(self, *rows: str, udp6: str = "") -> None:
        (self.root / "thread-self" / "net" / "udp").write_text(HEAD + "".join(rows))
        (self.root / "thread-self" / "net" / "udp6").write_text(HEAD + udp6)

    def process(self, pid: int, command: str, *inodes: int) -> None:
        folder = self.root / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "cmdline").write_bytes(command.replace(" ", "\0").encode() + b"\0")
        for number, inode in enumerate(inodes):
            (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


KEEPER = "/usr/bin/python3 -P -m mobikectl.charon.ha_keeper /run/mobikectl/ha-keeper.sock"


@pytest.mark.parametrize("address", ["0100007F:119E", "00000000:119E"])
def test_a_stranger_who_has_the_port_is_named(proc: Proc, address: str) -> None:
    proc.sockets(row("0100007F:0035", 5), row(address, 77))
    proc.process(41, "/usr/bin/other", 5)
    proc.process(42, "/usr/bin/thief --now", 6, 77)
    assert holder(proc.root) == Holder(((42, "/usr/bin/thief --now"),))


def test_a_socket_for_both_families_has_it_too(proc: Proc) -> None:
    proc.sockets(udp6=row(f"{'0' * 32}:119E", 77))
    proc.process(42, "thief", 77)
    assert holder(proc.root) == Holder(((42, "thief"),))


def test_charons_own_end_of_it_is_another_address(proc: Proc) -> None:
    proc.sockets(row("0200007F:119E", 9), row("0100007F:119F", 10))
    assert holder(proc.root) is None


def test_nobody_has_it(proc: Proc) -> None:
    assert holder(proc.root) is None
    assert judge(None) is None


def test_without_the_right_to_look_it_is_somebody(proc: Proc) -> None:
    proc.sockets(row("0100007F:119E", 77))
    assert holder(proc.root) == Holder(())
    finding = judge(Holder(()))
    assert finding is not None
    assert "another process has 127.0.0.1 port 4510" in finding.text


@pytest.mark.parametrize(
    ("pid", "command"), [(42, KEEPER), (1, "/sbin/init splash"), (42, "python3 /usr/bin/mobikectl run")]
)
def test_what_keeps_it_for_a_sidecar_is_no_stranger(pid: int, command: str) -> None:
    assert judge(Holder(((pid, command),))) is None


@pytest.mark.parametrize("command", ["nc -u -l 4510", "python3 thief.py mobikectl.charon.ha_keeper.txt", ""])
def test_a_stranger_is_a_problem_with_its_mend(command: str) -> None:
    finding = judge(Holder(((42, command),)))
    assert finding is not None
    assert finding.level is Level.PROBLEM
    assert f"another process has 127.0.0.1 port 4510: {command or 'process'}" in finding.text
    assert "42" in finding.text
    assert finding.mend


@pytest.mark.netns
def test_a_real_process_in_a_real_namespace_is_found() -> None:
    script = """
import os, socket, sys
from mobikectl.charon.ha_port_holder import holder
assert holder() is None
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 4510))
found = holder()
assert [pid for pid, _ in found.processes] == [os.getpid()], found
"""
    inside = 'ip link set lo up && exec "$0" -c "$1"'
    subprocess.run(
        ["unshare", "--net", "sh", "-c", inside, sys.executable, script],
        timeout=60,
        check=True,
        env={**os.environ},
    )
