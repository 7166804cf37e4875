"""What the session, the tracker and the commands do with real charons."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import pytest

from mobikectl.charon import (
    Backoff,
    ChildDown,
    ChildRekeyed,
    ChildUp,
    LinkState,
    PeerUnresponsive,
    Retransmit,
    SaDown,
    SaEvent,
    SaModelResynced,
    SaPathChanged,
    SaRekeyed,
    SaTracker,
    SaUp,
    Session,
    TrackerConfig,
    commands,
)
from mobikectl.charon.sa_model import live_children
from mobikectl.charon.sas import LIVE_IKE
from mobikectl.errors import CharonError, CharonRefusedError, CharonTimeoutError, CharonUnreachableError

from .charon_pair import Node, Pair, client_conn, gateway_conn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.charon, pytest.mark.netns, pytest.mark.timeout(90)]

DEADLINE = 20.0
SECRET = "not a secret, only for this test"  # noqa: S105
E_ = TypeVar("E_", bound=SaEvent)


@dataclass
class Watched:
    """A charon with a session, a running tracker, and all events so far."""

    node: Node
    session: Session
    tracker: SaTracker
    seen: list[SaEvent]
    more: asyncio.Condition

    def all(self, kind: type[E_]) -> list[E_]:
        return [event for event in self.seen if isinstance(event, kind)]

    async def event(self, kind: type[E_], count: int = 1) -> E_:
        """Wait for the count-th event of a kind."""
        async with asyncio.timeout(DEADLINE):
            async with self.more:
                await self.more.wait_for(lambda: len(self.all(kind)) >= count)
        return self.all(kind)[count - 1]

    async def until(self, number: int) -> None:
        await self.tracker.until(lambda t: t.in_step and len(t.sas) == number, DEADLINE)


@asynccontextmanager
async def watched(node: Node) -> AsyncIterator[Watched]:
    async with Session(node.socket, timeout=2.0, backoff=Backoff(0.05, 0.2)) as session:
        tracker = SaTracker(session, TrackerConfig(heartbeat_s=0.3, retry_s=0.1))
        seen: list[SaEvent] = []
        more = asyncio.Condition()
        feed = tracker.subscribe()

        async def collect() -> None:
            async for event in feed:
                async with more:
                    seen.append(event)
                    more.notify_all()

        tasks = [asyncio.create_task(tracker.run()), asyncio.create_task(collect())]
        try:
            await tracker.until(lambda t: t.in_step, DEADLINE)
            yield Watched(node, session, tracker, seen, more)
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task


@asynccontextmanager
async def both(pair: Pair) -> AsyncIterator[tuple[Watched, Watched]]:
    async with watched(pair.client) as client, watched(pair.gateway) as gateway:
        await load(client, gateway)
        yield client, gateway


async def load(*sides: Watched) -> None:
    for side in sides:
        secret = {"type": "IKE", "data": SECRET, "owners": ["client.example", "gateway.example"]}
        await side.session.request("load-shared", secret)
        if side.node.name == "gateway":
            await side.session.request("load-pool", {"pool": {"addrs": "198.19.0.0/24"}})
        await side.session.request(
            "load-conn", client_conn() if side.node.name == "client" else gateway_conn()
        )


async def bring_up(client: Watched, gateway: Watched) -> None:
    await commands.initiate(client.session, child="net", timeout=DEADLINE)
    for side in (client, gateway):
        await side.tracker.until(lambda t: [len(sa.children) for sa in t.sas.values()] == [1], DEADLINE)


async def assert_model_is_what_charon_lists(side: Watched) -> None:
    """Also after what charon does on its own, such as two rekeyings at once: events may be under way."""
    for attempt in range(100):
        try:
            await assert_same(side)
        except AssertionError:
            if attempt == 99:
                raise
            await asyncio.sleep(0.05)
        else:
            return


async def assert_same(side: Watched) -> None:
    listed = await commands.list_sas(side.session)
    live = {sa.uniqueid: sa for sa in listed if sa.state in LIVE_IKE}
    assert {k: (sa.path, sa.local_port, sa.remote_port) for k, sa in side.tracker.sas.items()} == {
        k: (sa.path, sa.local_port, sa.remote_port) for k, sa in live.items()
    }
    for uniqueid, sa in side.tracker.sas.items():
        there = live_children(live[uniqueid])
        assert [(c.uniqueid, c.spi_in, c.spi_out) for c in sa.children] == [
            (c.uniqueid, c.spi_in, c.spi_out) for c in there
        ]
        assert (sa.local_vips, sa.remote_vips) == (live[uniqueid].local_vips, live[uniqueid].remote_vips)


async def test_an_sa_is_seen_coming_up_rekeyed_and_going_down_on_both_sides(pair: Pair) -> None:
    async with both(pair) as (client, gateway):
        await bring_up(client, gateway)
        for side, initiator in ((client, True), (gateway, False)):
            sa = (await side.event(SaUp)).sa
            assert sa.original_initiator is initiator
            child = (await side.event(ChildUp)).child
            assert child.name == "net"
            assert child.spi_in != 0
            assert child.encap
            await assert_model_is_what_charon_lists(side)

        # The responder rekeys: charon's initiator flag flips, the original one must not.
        (old,) = gateway.tracker.sas.values()
        assert await commands.rekey(gateway.session, ike_id=old.uniqueid) == 1
        for side, initiator in ((client, True), (gateway, False)):
            rekeyed = await side.event(SaRekeyed)
            assert rekeyed.sa.uniqueid != rekeyed.old_id
            assert rekeyed.sa.original_initiator is initiator
            assert set(side.tracker.sas) == {rekeyed.sa.uniqueid}
            assert len(rekeyed.sa.children) == 1
            fresh = await side.tracker.refresh(rekeyed.sa.uniqueid)
            assert fresh is not None
            assert fresh.original_initiator is initiator
        flags = {
            side.node.name: sa.original_initiator
            for side in (client, gateway)
            for sa in await commands.list_sas(side.session)
            if sa.state in LIVE_IKE
        }
        assert flags == {"client": False, "gateway": True}, "charon's own flag flipped"

        await commands.rekey(client.session, child="net")
        for side in (client, gateway):
            replaced = await side.event(ChildRekeyed)
            assert [child.uniqueid for child in replaced.sa.children] == [replaced.child.uniqueid]
            assert replaced.child.uniqueid != replaced.old_id
            await assert_model_is_what_charon_lists(side)

        (child,) = (child for sa in client.tracker.sas.values() for child in sa.children)
        assert await commands.terminate(client.session, child_id=child.uniqueid, timeout=DEADLINE) == 1
        for side in (client, gateway):
            await side.event(ChildDown)
        assert await commands.terminate(client.session, ike="home", timeout=DEADLINE) == 1
        for side in (client, gateway):
            await side.event(SaDown)
            await side.until(0)
            assert [event.differences for event in side.all(SaModelResynced)] == [(), ()]


async def test_a_mobike_update_changes_the_path_on_both_sides(pair: Pair) -> None:
    async with both(pair) as (client, gateway):
        await bring_up(client, gateway)
        (before,) = client.tracker.sas.values()
        other = {"198.18.1.1": "198.18.1.2", "198.18.1.2": "198.18.1.1"}[str(before.path.local)]
        client.node.ip("addr", "del", f"{before.path.local}/24", "dev", "net0")
        client.node.ip("addr", "replace", f"{other}/24", "dev", "net0")

        moved = await client.event(SaPathChanged)
        assert (moved.before, str(moved.after.local)) == (before.path, other)
        moved = await gateway.event(SaPathChanged)
        assert str(moved.after.remote) == other
        for side in (client, gateway):
            # userland ESP cannot change the addresses of a CHILD_SA: charon rekeys it
            await side.event(ChildRekeyed)
            await assert_model_is_what_charon_lists(side)
            (sa,) = side.tracker.sas.values()
            fresh = await side.tracker.refresh(sa.uniqueid)
            assert fresh is not None
            assert fresh.path == sa.path
            assert side.all(SaUp)[1:] == []


async def test_retransmits_and_giving_up_are_told(pair: Pair) -> None:
    pair.client.kill()
    pair.client.settings = "  retransmit_tries = 2\n"
    pair.client.start()
    async with both(pair) as (client, gateway):
        await bring_up(client, gateway)
        (sa,) = client.tracker.sas.values()
        gateway.node.ip("link", "set", "net0", "down")
        await commands.rekey(client.session, child="net")
        assert (await client.event(Retransmit)).uniqueid == sa.uniqueid
        assert (await client.event(PeerUnresponsive)).uniqueid == sa.uniqueid


async def test_after_a_kill_and_restart_the_model_is_empty_and_fills_again(pair: Pair) -> None:
    async with both(pair) as (client, gateway):
        await bring_up(client, gateway)
        client.node.signal(signal.SIGKILL)
        await client.tracker.until(lambda t: not t.in_step, DEADLINE)
        without = client.session.status
        assert without.state is LinkState.DOWN
        assert len(client.tracker.sas) == 1, "what was known last is kept until charon answers again"
        client.node.kill()
        with pytest.raises(CharonUnreachableError, match="not reachable"):
            await commands.version(client.session)

        client.node.start()
        await client.until(0)
        assert client.session.status.state is LinkState.UP
        assert len(client.all(SaDown)) == 1
        await load(client)
        await commands.initiate(client.session, child="net", timeout=DEADLINE)
        await client.event(SaUp, 2)
        await client.tracker.until(lambda t: all(sa.children for sa in t.sas.values()), DEADLINE)
        await assert_model_is_what_charon_lists(client)


async def test_a_stopped_charon_is_hung_within_the_deadline_and_works_after_it(pair: Pair) -> None:
    async with both(pair) as (client, gateway):
        await bring_up(client, gateway)
        client.node.signal(signal.SIGSTOP)
        with pytest.raises(CharonTimeoutError):
            await client.session.request("version", timeout=0.5)
        assert client.session.status.state is LinkState.HUNG
        assert not client.tracker.in_step
        for _ in range(40):  # fill charon's queue of connections: still the same typed answer
            with pytest.raises(CharonTimeoutError):
                await client.session.request("version", timeout=0.01)

        client.node.signal(signal.SIGCONT)
        await client.tracker.until(lambda t: t.in_step, DEADLINE)
        assert (await commands.version(client.session)).daemon == "charon"
        gone = (await client.event(SaUp)).sa.uniqueid
        assert await commands.terminate(client.session, ike_id=gone, timeout=DEADLINE) == 1
        await client.event(SaDown)
        await assert_model_is_what_charon_lists(client)


async def test_commands_return_typed_values_and_refusals(pair: Pair) -> None:
    async with both(pair) as (client, gateway):
        version = await commands.version(client.session)
        assert version.numbers >= (5, 9)
        await bring_up(client, gateway)
        stats = await commands.stats(client.session)
        assert stats.ike_sas == 1
        assert {"vici", "kernel-libipsec"} <= set(stats.plugins)
        (conn,) = await commands.list_conns(client.session)
        assert (conn.name, conn.remote_addrs, conn.children) == ("home", ("198.18.1.254",), ("net",))
        counters = await commands.counters(client.session)
        assert counters["ike-init-out-req"] == 1
        await commands.reload_settings(client.session)

        (sa,) = await commands.list_sas(client.session, children=False)
        assert sa.children == ()
        assert await commands.list_sas(client.session, ike_id=sa.uniqueid + 1) == []
        assert await commands.redirect(gateway.session, "198.18.1.253", peer_ip="198.18.1.0/24") == 1
        with pytest.raises(CharonRefusedError, match="refused terminate"):
            await commands.terminate(client.session, ike_id=999)
        with pytest.raises(CharonRefusedError, match="refused initiate"):
            await commands.initiate(client.session, child="absent", timeout=1.0)
        with pytest.raises(CharonRefusedError, match="does not know the command"):
            await client.session.request("no-such-command")
        with pytest.raises(CharonRefusedError, match="does not know the events"):
            async for _ in client.session.events(["no-such-event"]):
                pass


async def test_a_socket_that_is_not_ours_is_reported_with_what_to_do(pair: Pair) -> None:
    session = Session(pair.client.socket)
    os.seteuid(65534)
    try:
        with pytest.raises(CharonError, match="run as root"):
            await session.request("version")
    finally:
        os.seteuid(0)
