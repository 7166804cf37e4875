"""The service manager is told over a real datagram socket, or not at all."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from mobikectl.sidecar.systemd import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(2)
        yield sock, path


def test_each_message_arrives(manager: tuple[socket.socket, str]) -> None:
    sock, path = manager
    notifier = Notifier({"NOTIFY_SOCKET": path})
    notifier.ready()
    notifier.status("one\ntwo")
    notifier.alive()
    notifier.stopping()
    got = [sock.recv(100).decode() for _ in range(4)]
    assert got == ["READY=1", "STATUS=one two", "WATCHDOG=1", "STOPPING=1"]


def test_without_a_manager_nothing_happens() -> None:
    Notifier({}).ready()


def test_a_manager_that_went_away_is_no_error(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


@pytest.mark.parametrize(("usec", "seconds"), [("30000000", 30.0), ("0", None), ("x", None), ("", None)])
def test_the_watchdog_interval_is_read(usec: str, seconds: float | None) -> None:
    assert Notifier({"WATCHDOG_USEC": usec}).watchdog_s == seconds
