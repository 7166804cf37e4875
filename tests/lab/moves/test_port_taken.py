"""Another process has the HA port when a sidecar starts: nothing else waits for it, and it is taken when it is free."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.control.client import ControlClient
from mobikectl.errors import SidecarError
from mobikectl.transfer import certificates

from ..rmobike.lab import BASE_PLUGINS, ROOT, Node, missing, run
from .lab import HA

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.charon

PATIENCE_S = 40.0
CONFIG = """
role = "gateway"
[charon]
socket = "{at}/vici"
plugin_socket = "{at}/rmobike"
[control]
socket = "{at}/control/sock"
[cluster]
node = "gw1"
addresses = [{{ ip = "198.18.11.10", dev = "lo" }}]
[cluster.transfer]
address = "127.0.0.1"
certificate = "{at}/tls/node.pem"
key = "{at}/tls/node.key"
ca = "{at}/tls/ca.pem"
[cluster.store]
kind = "sqlite"
sqlite.path = "{at}/store.db"
"""
HOLDER = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 4510))
print("held", flush=True)
sys.stdin.read()
"""


class Gateway:
    """A namespace with a charon, a sidecar, and a process that was first at the HA port."""

    def __init__(self, at: Path) -> None:
        self.at = at
        self.node = Node(
            "gw1",
            f"pt{os.getpid() % 100000}{secrets.token_hex(2)}",
            at,
            charon_settings=HA.format(load=f"{BASE_PLUGINS} ha rmobike"),
        )
        self.holder: subprocess.Popen[str]

    async def start(self) -> None:
        run("ip", "netns", "add", self.node.ns)
        for command in ("link set lo up", "addr add 198.18.11.10/32 dev lo"):
            run("ip", "-n", self.node.ns, *command.split())
        certificates.make_authority(self.at / "ca", "lab", 100, certificates.today())
        files = certificates.issue(self.at / "ca", "gw1", 10, certificates.today())
        certificates.install(files, self.at / "tls", replace=False)
        (self.at / "mobikectl.toml").write_text(CONFIG.format(at=self.at))
        self.holder = self.spawn(sys.executable, "-c", HOLDER)
        assert self.holder.stdout is not None
        assert await asyncio.to_thread(self.holder.stdout.readline) == "held\n"
        await self.node.start()
        config = self.at / "mobikectl.toml"
        self.spawn("unshare", "-m", "sh", "-c", 'mount -t tmpfs t /run && exec "$0" "$@"',
                   sys.executable, "-m", "mobikectl", "run", "--config", str(config))  # fmt: skip

    def spawn(self, *command: str) -> subprocess.Popen[str]:
        with (self.at / "processes.log").open("ab") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.node.ns, *command],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT,
            )  # fmt: skip

    async def stop(self) -> None:
        await self.node.stop()
        pids = [int(pid) for pid in run("ip", "netns", "pids", self.node.ns, check=False).split()]
        for pid in pids:  # the keeper, too, which is nobody's child
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run("ip", "netns", "del", self.node.ns, check=False)

    async def cluster(self) -> dict[str, Any]:
        """Return how the node stands in its cluster; nothing: the sidecar does not say yet."""
        try:
            async with ControlClient(self.at / "control" / "sock") as sidecar:
                return (await sidecar.state()).get("cluster") or {}
        except SidecarError:
            return {}

    async def until(self, what: str, **wanted: Any) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = await self.cluster()
            if found and all(found[key] == value for key, value in wanted.items()):
                return found
            assert time.monotonic() < deadline, f"{what}: {found}\n{(self.at / 'processes.log').read_text()}"
            await asyncio.sleep(0.1)

    async def told_until(self, last: str) -> list[dict[str, Any]]:
        """Return the events from the sidecar's start to the first of this name."""
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(PATIENCE_S), ControlClient(self.at / "control" / "sock") as sidecar:
            async with aclosing(sidecar.events(backlog=1000)) as events:
                async for event in events:
                    found.append(event)
                    if event["name"] == last:
                        return found
        raise AssertionError(f"the sidecar ended: {found}")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    if reason := missing():
        pytest.skip(reason)
    gateway = Gateway(tmp_path)
    try:
        await gateway.start()
        yield gateway
    finally:
        await gateway.stop()


async def test_a_sidecar_that_came_second_takes_the_ha_port_when_the_first_lets_go(gateway: Gateway) -> None:
    found = await gateway.until("it is a member, and says what is off", member=True)
    assert "another process has 127.0.0.1 port 4510" in found["carries_not"]
    assert found["carries"] is None
    assert gateway.holder.stdin is not None
    gateway.holder.stdin.close()
    events = await gateway.told_until("cluster-carries")
    (off,) = [event["text"] for event in events if event["name"] == "cluster-carries-nothing"]
    assert "it is tried again until the port is free" in off
    assert {event["name"] for event in events}.isdisjoint({"cluster-failed", "cluster-no-member"})
    assert (await gateway.cluster())["carries_not"] == ""
