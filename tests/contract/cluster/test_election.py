"""Who leads when processes race, die and stand still: real processes on real stores."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mobikectl.cluster.etcd import EtcdBackend
from mobikectl.cluster.leader import Election
from mobikectl.cluster.membership import Membership
from mobikectl.cluster.records import Member, NodeReport
from mobikectl.cluster.settings import EtcdSettings, LeaseSettings, SqliteSettings
from mobikectl.cluster.sqlite import SqliteBackend
from mobikectl.cluster.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.cluster.leader import Leadership
    from mobikectl.cluster.membership import Presence

    from .etcd_server import EtcdServer

CONTENDER = Path(__file__).with_name("contender.py")
DEADLINE_S = 60.0
TTL_S = 2


@dataclass
class Contender:
    process: asyncio.subprocess.Process
    lines: list[list[str]] = field(default_factory=list)

    async def until(self, event: str) -> list[str]:
        """Return the next line of output that begins with the event."""
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while line := await self.process.stdout.readline():
                self.lines.append(line.decode().split())
                if self.lines[-1][0] == event:
                    return self.lines[-1]
        raise AssertionError(f"ended without {event}: {self.lines[-5:]}")

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@dataclass
class Arena:
    """A store and the contenders on it."""

    kind: str
    where: str
    cluster: str
    contenders: list[Contender] = field(default_factory=list)

    async def enter(self, node: str, manner: str = "careful") -> Contender:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(CONTENDER), node, manner, self.cluster, str(TTL_S), self.kind, self.where),
            stdout=asyncio.subprocess.PIPE,
        )
        self.contenders.append(Contender(process))
        return self.contenders[-1]

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        backend = (
            SqliteBackend(SqliteSettings(Path(self.where)))
            if self.kind == "sqlite"
            else EtcdBackend(EtcdSettings((self.where,)))
        )
        try:
            yield Store(backend, self.cluster)
        finally:
            await backend.close()

    async def tokens(self) -> list[int]:
        """The tokens of the journal's moves, in the journal's order."""
        async with self.store() as store:
            return [move.value.token for move in (await store.journal()).moves]


@pytest.fixture(params=["sqlite", "etcd"])
async def arena(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Arena]:
    cluster = f"race-{secrets.token_hex(4)}"
    if request.param == "sqlite":
        made = Arena("sqlite", str(tmp_path / "cluster.db"), cluster)
    else:
        server: EtcdServer = request.getfixturevalue("shared_etcd")
        made = Arena("etcd", server.endpoint, cluster)
    yield made
    for contender in made.contenders:
        await contender.kill()


async def first_to_lead(*contenders: Contender) -> Contender:
    """Given processes that race, return the one that leads first."""
    waiting = {asyncio.create_task(one.until("LEADS")): one for one in contenders}
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    assert len(done) == 1
    return waiting[done.pop()]


async def test_of_processes_that_race_one_leads_and_the_others_wait(arena: Arena) -> None:
    racers = [await arena.enter(f"gw{n}") for n in range(3)]
    winner = await first_to_lead(*racers)
    for _ in range(5):
        await winner.until("ACTED")
    assert set(await arena.tokens()) == {int(winner.lines[0][2])}


async def test_when_the_leader_is_killed_another_leads_with_a_greater_token(arena: Arena) -> None:
    one = await arena.enter("gw1")
    old = int((await one.until("LEADS"))[2])
    await one.until("ACTED")
    other = await arena.enter("gw2")
    await one.kill()
    new = int((await other.until("LEADS"))[2])
    assert new > old
    await other.until("ACTED")
    tokens = await arena.tokens()
    assert tokens == sorted(tokens)


async def test_a_leader_that_ends_in_order_makes_room_at_once(arena: Arena) -> None:
    async with arena.store() as store:
        led = asyncio.Event()

        async def lead(_leadership: Leadership) -> None:
            led.set()
            await asyncio.Event().wait()

        election = asyncio.create_task(Election(store, "gw1", "x", LeaseSettings(300)).run(lead))
        async with asyncio.timeout(DEADLINE_S):
            await led.wait()
        other = await arena.enter("gw2")
        election.cancel()
        await asyncio.gather(election, return_exceptions=True)
        leader = await store.leader()
        assert leader is None or leader.node == "gw2"
        await other.until("LEADS")


@pytest.mark.parametrize("manner", ["careful", "blind"])
async def test_a_leader_that_stood_still_does_not_act_with_its_old_token(arena: Arena, manner: str) -> None:
    frozen = await arena.enter("gw1", manner)
    old = int((await frozen.until("LEADS"))[2])
    await frozen.until("ACTED")
    frozen.process.send_signal(signal.SIGSTOP)
    other = await arena.enter("gw2")
    new = int((await other.until("LEADS"))[2])
    await other.until("ACTED")
    frozen.process.send_signal(signal.SIGCONT)
    ended = await frozen.until("STOPPED" if manner == "careful" else "REFUSED")
    assert ended[2] == str(old)
    for _ in range(3):
        await other.until("ACTED")
    tokens = await arena.tokens()
    assert set(tokens) == {old, new}
    assert tokens == sorted(tokens), "a move of the old leader came after one of the new leader"


async def test_a_member_reports_is_gone_with_its_lease_and_comes_back(arena: Arena) -> None:
    async with arena.store() as store:
        came: asyncio.Queue[Presence] = asyncio.Queue()

        async def present(presence: Presence) -> None:
            await presence.report(NodeReport("gw1", "x", 1))
            came.put_nowait(presence)
            await asyncio.Event().wait()

        stay = asyncio.create_task(Membership(store, Member("gw1", "x"), LeaseSettings(TTL_S)).run(present))
        try:
            async with asyncio.timeout(DEADLINE_S):
                first = await came.get()
                state = await store.state()
                assert set(state.members) == set(state.reports) == {"gw1"}
                await store.revoke(first._lease.require())
                second = await came.get()
                assert not first.alive
                assert second.alive
                await second.update(Member("gw1", "x", site="north"))
                assert (await store.state()).members["gw1"].value.site == "north"
        finally:
            stay.cancel()
            await asyncio.gather(stay, return_exceptions=True)
        assert (await store.state()).members == {}
