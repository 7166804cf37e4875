"""`mobikectl top` in a pseudo-terminal beside a real sidecar: what is on the screen, and that keys change it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

import pytest

from mobikectl.lab.requirements import CHARON

from .test_cli import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.slow,
    pytest.mark.xdist_group("cli"),
    pytest.mark.skipif(os.geteuid() != 0 or not CHARON.exists(), reason="needs root and strongSwan"),
]

ROWS, COLUMNS = 45, 200
ESCAPES = re.compile(rb"\x1b\[[0-9;?<>=]*[ -/]*[@-~]|\x1b[@-Z\\-_]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)")


class Terminal:
    """A program in a terminal of its own, the keys that are sent to it, and what it wrote since the last look."""

    def __init__(self, argv: list[str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=environ
        )
        os.close(slave)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, text: str, *, within: float = 40.0) -> None:
        """Read what is drawn until it holds ``text``; what was drawn before does not count."""
        drawn, end = b"", time.monotonic() + within
        while text not in (plain := ESCAPES.sub(b"", drawn).decode(errors="replace")):
            left = end - time.monotonic()
            assert left > 0, f"{text!r} did not appear in {plain[-3000:]!r}"
            if select.select([self._master], [], [], left)[0]:
                drawn += os.read(self._master, 65536)

    def end(self) -> int:
        """Return how the program ended. What it still draws is read, or it would wait for that."""
        end = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < end:
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    os.read(self._master, 65536)
                except OSError:  # EIO: nobody has the other side any more
                    break
        return self.process.wait(max(end - time.monotonic(), 1))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    made = Client()
    try:
        made.start()
        yield made
    finally:
        made.end()


@pytest.fixture
def terminal(client: Client) -> Iterator[Terminal]:
    sockets = ["--control", str(client.control)]
    made = Terminal([sys.executable, "-m", "mobikectl", "top", *sockets])
    try:
        yield made
    finally:
        made.close()


def test_the_screen_follows_the_sidecar_and_the_keys(client: Client, terminal: Terminal) -> None:
    terminal.wait_for("here: auto, charon up")
    namespace = f"mobikectl-{client.lab}-client"
    subprocess.run(["ip", "-n", namespace, "link", "set", "wan2", "down"], check=True, timeout=20)
    terminal.wait_for("link wan2: down")
    terminal.press("/nobody-is-called-so")
    terminal.wait_for("only 'nobody-is-called-so'")
    terminal.press("\x1b")
    terminal.wait_for("link wan2: down")
    terminal.press("?")
    terminal.wait_for("filter everything by a text")
    terminal.press("q")
    terminal.wait_for("link wan2: down")
    terminal.press("d")
    terminal.wait_for("there is nothing to drain or pause")
    terminal.press("q")
    assert terminal.end() == 0


def test_a_sidecar_that_ends_makes_the_screen_old_and_nothing_else(
    client: Client, terminal: Terminal
) -> None:
    terminal.wait_for("here: auto, charon up")
    assert client.sidecar is not None
    client.sidecar.terminate()
    client.sidecar.wait(20)
    client.sidecar = None
    terminal.wait_for("sidecar: as of")
    assert terminal.process.poll() is None
    terminal.press("q")
    assert terminal.end() == 0
