"""A network namespace of one's own, and somebody who follows its changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from mobikectl.netlink import NetChange, Watcher


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str

    def ip(self, command: str) -> str:
        """Run ``ip`` inside it; a refusal fails the test."""
        argv = ["ip", "-n", self.name, *command.split()]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout

    def batch(self, commands: list[str]) -> None:
        """Run many ``ip`` commands in one process, which is as fast as a storm gets."""
        argv = ["ip", "-n", self.name, "-batch", "-"]
        text = "\n".join(commands) + "\n"
        subprocess.run(argv, check=True, input=text, capture_output=True, text=True, timeout=110)

    def index(self, link: str) -> int:
        return int(self.ip(f"-o link show {link}").split(":", 1)[0])


@pytest.fixture
def ns() -> Iterator[Namespace]:
    """lo and the veth pair v0, v1 are up; v0 has 198.18.0.1/24 and 2001:db8::1/64."""
    if os.geteuid() != 0:
        pytest.skip("making a network namespace needs root")
    space = Namespace(f"mknl-{os.getpid()}-{secrets.token_hex(3)}")
    subprocess.run(["ip", "netns", "add", space.name], check=True, timeout=30)
    try:
        space.batch(
            [
                "link set lo up",
                "link add v0 type veth peer name v1",
                "link set v0 addrgenmode none",
                "link set v1 addrgenmode none",
                "link set v0 up",
                "link set v1 up",
                "addr add 198.18.0.1/24 dev v0",
                "addr add 2001:db8::1/64 dev v0 nodad",
            ]
        )
        yield space
    finally:
        subprocess.run(["ip", "netns", "del", space.name], check=False, timeout=30)


@dataclass(slots=True)
class Follower:
    """Collects every change of a watcher."""

    watcher: Watcher
    changes: list[NetChange] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        async for change in self.watcher.changes():
            self.changes.append(change)
            self.news.set()

    async def until(self, seen: Callable[[list[NetChange]], bool], within: float = 20.0) -> list[NetChange]:
        """Wait until the changes so far fulfil a condition; return them."""
        async with asyncio.timeout(within):
            while not seen(self.changes):
                self.news.clear()
                await self.news.wait()
        return self.changes

    async def until_any(self, seen: Callable[[NetChange], object], within: float = 20.0) -> NetChange:
        """Wait for a change that fulfils a condition; return the first."""
        changes = await self.until(lambda all_: any(seen(change) for change in all_), within)
        return next(change for change in changes if seen(change))


@contextlib.asynccontextmanager
async def following(watcher: Watcher) -> AsyncIterator[Follower]:
    """Given a watcher, enter it and follow it."""
    async with watcher:
        follower = Follower(watcher)
        task = asyncio.create_task(follower.follow())
        try:
            yield follower
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
