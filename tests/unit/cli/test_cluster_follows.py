"""drain --wait, apply and history --follow: they end by themselves, and what they say in the end is so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.cli import drain_watch
from mobikectl.cli.drain_watch import DrainRecord, DrainWatch, End, Outlook
from mobikectl.cli.history import follow_moves
from mobikectl.cluster.records import MoveState, NodeIntent
from mobikectl.cluster.settings import SqliteSettings, StoreSettings, open_store
from mobikectl.policy.cluster import Capability

from .a_cluster import carry_out, move, row, rows
from .the_others import TheOthers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from mobikectl.cluster.records import MoveRecord
    from mobikectl.cluster.store import Store

    from .a_cluster import ACluster
    from .conftest import Done

DEADLINE_S = 60.0
"""For a command that ends by itself."""


@pytest.fixture
async def store(empty_cluster: ACluster) -> AsyncIterator[Store]:
    async with empty_cluster.store() as store:
        yield store


async def ended(command: asyncio.subprocess.Process) -> tuple[int, str, str]:
    async with asyncio.timeout(DEADLINE_S):
        out, err = await command.communicate()
    assert command.returncode is not None
    return command.returncode, out.decode(), err.decode()


async def line_with(command: asyncio.subprocess.Process, word: str) -> str:
    """Return the first line of a running command that holds a word."""
    assert command.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        async for line in command.stdout:
            if word in line.decode():
                return line.decode()
    raise AssertionError(f"it ended without {word!r}")


async def is_drained(store: Store, node: str = "gw1") -> bool:
    return (await store.state()).intent(node).value.drained


# drain --wait


async def test_a_drain_is_waited_for_until_the_node_is_empty(empty_cluster: ACluster, store: Store) -> None:
    others = TheOthers(empty_cluster, store, {"gw1": rows("gw1", 4), "gw2": []})
    async with others.running():
        code, out, err = await ended(await empty_cluster.command("drain", "gw1", "--wait"))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert sum(": gw1 -> gw2 (198.18.2.1) by redirect: verified in" in line for line in lines) == 4
    assert lines[-2:] == ["gw1 is empty", "  4 of 4 IKE_SAs moved: 4 by redirect"]
    assert others.served["gw1"] == []


async def test_a_drain_of_an_empty_node_is_done_at_once(empty_cluster: ACluster, store: Store) -> None:
    async with TheOthers(empty_cluster, store, {"gw1": [], "gw2": []}).running():
        code, out, _ = await ended(await empty_cluster.command("drain", "gw1", "--wait", "--json"))
    told = json.loads(out)
    assert (code, told["end"], told["at_start"], told["stays"]) == (0, "empty", 0, [])


async def test_who_stays_for_good_is_named_with_the_reason(empty_cluster: ACluster, store: Store) -> None:
    stubborn = [
        row("gw1", "old@example.org", 8, capability=Capability.NONE),
        row("gw1", "pinned@example.org", 9),
    ]
    others = TheOthers(empty_cluster, store, {"gw1": [*rows("gw1", 2), *stubborn], "gw2": []})
    async with others.running():
        pinning = await empty_cluster.command("pin", "pinned@example.org")
        assert (await ended(pinning))[0] == 0
        code, out, err = await ended(await empty_cluster.command("drain", "gw1", "--wait"))
    assert code == 7
    assert "gw1 is not empty, and nothing more will leave it by itself" in out
    assert "2 of 4 IKE_SAs moved: 2 by redirect" in out
    (old,) = [line for line in out.splitlines() if line.startswith("gw1/old@example.org#8")]
    assert "no mechanism" in old
    (pinned,) = [line for line in out.splitlines() if line.startswith("gw1/pinned@example.org#9")]
    assert "pinned" in pinned
    assert "gw1 is not empty: 2 IKE_SAs still there" in err
    assert await is_drained(store)


async def test_the_time_to_wait_ends_the_waiting_and_not_the_drain(
    empty_cluster: ACluster, store: Store
) -> None:
    others = TheOthers(
        empty_cluster,
        store,
        {"gw1": rows("gw1", 3), "gw2": []},
        refusing=frozenset({"peer2@example.org"}),
    )
    async with others.running():
        code, out, _ = await ended(await empty_cluster.command("drain", "gw1", "--timeout", "6", "--json"))
    told = json.loads(out)
    assert (code, told["end"], told["drained"]) == (7, "timeout", True)
    assert told["left"] == {"total": 2, "by_mechanism": {"redirect": 2}}
    (stay,) = told["stays"]
    assert stay["peer"] == "peer2@example.org"
    assert stay["why"].startswith("redirect: refused (the peer said no)")
    assert await is_drained(store)


async def test_ctrl_c_ends_the_waiting_and_says_that_the_drain_goes_on(
    empty_cluster: ACluster, store: Store
) -> None:
    others = TheOthers(empty_cluster, store, {"gw1": rows("gw1", 30), "gw2": []}, pace_s=0.3)
    async with others.running():
        command = await empty_cluster.command("drain", "gw1", "--wait")
        await line_with(command, "verified")
        command.send_signal(signal.SIGINT)
        code, out, _ = await ended(command)
        assert await is_drained(store)
    assert code == 130
    assert "gw1 stays drained and goes on being emptied; only the waiting was ended" in out
    assert "still there" in out
    assert "on its way to gw2 by redirect" in out


async def test_somebody_else_who_ends_the_drain_ends_the_waiting(
    empty_cluster: ACluster, store: Store
) -> None:
    others = TheOthers(empty_cluster, store, {"gw1": rows("gw1", 30), "gw2": []}, pace_s=0.3)
    async with others.running():
        command = await empty_cluster.command("drain", "gw1", "--wait")
        await line_with(command, "verified")
        await store.change_intent("gw1", lambda intent: replace(intent, drained=False))
        code, _, err = await ended(command)
    assert code == 7
    assert "gw1 is no longer drained" in err


async def test_who_waits_for_a_paused_cluster_in_vain_is_told_that_it_is_that(
    empty_cluster: ACluster, store: Store
) -> None:
    others = TheOthers(empty_cluster, store, {"gw1": rows("gw1", 1), "gw2": []})
    async with others.running():
        await empty_cluster.pause(store)
        code, out, _ = await ended(await empty_cluster.command("drain", "gw1", "--timeout", "2"))
    assert code == 7
    assert "the cluster is paused; otherwise: about to go to gw2 by redirect" in out


async def test_a_paused_cluster_is_waited_for_and_told(empty_cluster: ACluster, store: Store) -> None:
    others = TheOthers(empty_cluster, store, {"gw1": rows("gw1", 2), "gw2": []})
    async with others.running():
        await empty_cluster.pause(store)
        command = await empty_cluster.command("drain", "gw1", "--wait")
        assert "eve@host, looking" in await line_with(command, "paused")
        assert (await ended(await empty_cluster.command("resume")))[0] == 0
        code, out, _ = await ended(command)
    assert code == 0
    assert "gw1 is empty" in out


# The same, nearer: what can only be waited for long.


@dataclass
class Screen:
    """Keeps what was shown."""

    moves: list[MoveRecord] = field(default_factory=list)
    last: tuple[int, int, str] = (0, 0, "")
    _shown: asyncio.Event = field(default_factory=asyncio.Event)

    def moved(self, move: MoveRecord) -> None:
        self.moves.append(move)

    def progress(self, remaining: int, total: int, note: str) -> None:
        self.last = (remaining, total, note)
        self._shown.set()

    async def shows(self, word: str) -> None:
        """Return when a note with that word is shown."""
        async with asyncio.timeout(DEADLINE_S):
            while word not in self.last[2]:
                self._shown.clear()
                await self._shown.wait()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_watch, "LOOK_S", 0.05)
    monkeypatch.setattr(drain_watch, "AWAY_S", 0.5)


async def a_drained_node(cluster: ACluster, store: Store, count: int) -> None:
    await cluster.join(store, "gw1", rows("gw1", count))
    await cluster.join(store, "gw2")
    await cluster.lead(store, "gw2")
    await store.set_intent("gw1", NodeIntent(drained=True), revision=0)


async def nothing_more() -> Outlook:
    return Outlook(0, later=False, notes=("gw1: nothing fits",))


async def wait_for(store: Store, screen: Screen, outlook: Any = nothing_more) -> tuple[End, DrainRecord]:
    journal = await store.journal()
    sas = (await store.sas()).by_node().get("gw1", ())
    record = DrainRecord.begin("gw1", sas, journal)
    async with asyncio.timeout(DEADLINE_S):
        return await DrainWatch(store, record, screen, outlook).run(journal), record


@pytest.mark.usefixtures("hurried")
async def test_a_node_that_left_the_cluster_is_not_called_empty(
    empty_cluster: ACluster, store: Store
) -> None:
    await a_drained_node(empty_cluster, store, 3)
    await store.revoke(empty_cluster.members["gw1"])
    end, _ = await wait_for(store, screen := Screen())
    assert end is End.AWAY
    assert "gw1 is not there" in screen.last[2]


@pytest.mark.usefixtures("hurried")
async def test_moves_under_way_keep_a_drain_from_being_called_stuck_or_done(
    empty_cluster: ACluster, store: Store
) -> None:
    await a_drained_node(empty_cluster, store, 1)
    (planned,) = await empty_cluster.plan(store, move(["gw1/peer1@example.org#1"]))
    waiting = asyncio.create_task(wait_for(store, screen := Screen()))
    done, _ = await asyncio.wait({waiting}, timeout=0.6)
    assert not done
    await empty_cluster.tell(store, "gw1", [])
    done, _ = await asyncio.wait({waiting}, timeout=0.6)
    assert not done, "the node tells of nothing, but the move may be undone"
    await carry_out(store, planned, MoveState.VERIFIED)
    end, record = await waiting
    assert end is End.EMPTY
    assert record.by_mechanism() == {"redirect": 1}
    assert [one.state.value for one in screen.moves] == ["requested", "moved", "verified"]


@pytest.mark.usefixtures("hurried")
async def test_a_drain_is_stuck_only_when_several_looks_agree(empty_cluster: ACluster, store: Store) -> None:
    await a_drained_node(empty_cluster, store, 1)
    told = iter([Outlook(0, False), Outlook(0, False), Outlook(0, True), Outlook(1, False)])
    asked = 0

    async def outlook() -> Outlook:
        nonlocal asked
        asked += 1
        return next(told, Outlook(0, False))

    end, _ = await wait_for(store, Screen(), outlook)
    assert end is End.STUCK
    assert asked == 4 + drain_watch.AGREEING_LOOKS


@pytest.mark.usefixtures("hurried")
async def test_a_store_that_is_away_is_waited_for_and_told(empty_cluster: ACluster, store: Store) -> None:
    (empty_cluster.path / "real.db").touch()
    (empty_cluster.path / "a-folder").mkdir()  # cannot be opened
    point_to(empty_cluster.path, "real.db")
    await a_drained_node(empty_cluster, store, 1)
    waiting = asyncio.create_task(wait_for(store, screen := Screen(), later))
    await screen.shows("they rest")
    point_to(empty_cluster.path, "a-folder")
    await screen.shows("the store is not reachable")
    point_to(empty_cluster.path, "real.db")
    await empty_cluster.tell(store, "gw1", [])
    end, _ = await waiting
    assert end is End.EMPTY


def point_to(path: Path, target: str) -> None:
    """Make the store's file a link to a target, in one step."""
    link = path / "new-link"
    link.symlink_to(target)
    link.replace(path / "cluster.db")


async def later() -> Outlook:
    return Outlook(0, later=True, notes=("gw1: they rest",))


def test_moves_within_the_node_or_from_others_are_no_part_of_its_drain() -> None:
    record = DrainRecord("gw1", {})
    assert not record.take(move(["gw1/a#1"], target="gw1"))
    assert not record.take(move(["gw2/a#1"], source="gw2", target="gw1"))
    assert record.take(move(["gw1/a#1"]))
    assert record.pending == 1


# history --follow


async def test_history_follows_each_step_as_it_happens(empty_cluster: ACluster, store: Store) -> None:
    await a_drained_node(empty_cluster, store, 2)
    (first,) = await empty_cluster.plan(store, move(["gw1/peer1@example.org#1"]))
    command = await empty_cluster.command("history", "--follow", "--json")
    assert json.loads(await line_with(command, "peer1"))["state"] == "planned"
    await carry_out(store, first, MoveState.VERIFIED)
    assert json.loads(await line_with(command, '"verified"'))["number"] == 1
    await empty_cluster.plan(store, move(["gw1/peer2@example.org#2"]))
    assert json.loads(await line_with(command, "peer2"))["number"] == 2
    command.send_signal(signal.SIGINT)
    assert (await ended(command))[0] == 130


async def test_a_follower_that_missed_changes_reads_the_journal_anew(
    empty_cluster: ACluster, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    await a_drained_node(empty_cluster, store, 1)
    lazy = SqliteSettings(empty_cluster.path / "cluster.db", poll_min_s=1.0, poll_max_s=1.0, history=2)
    slow = open_store(StoreSettings(sqlite=lazy))
    busy = open_store(StoreSettings(sqlite=SqliteSettings(empty_cluster.path / "cluster.db", history=2)))
    leader = await store.leader()
    assert leader is not None
    empty_cluster.token = leader.token
    try:
        journal = await slow.journal()
        async with contextlib.aclosing(follow_moves(slow, journal)) as moves:  # type: ignore[type-var]
            coming = asyncio.ensure_future(anext(moves))
            await asyncio.sleep(0.2)
            (planned,) = await busy.append([move(["gw1/peer1@example.org#1"])], token=empty_cluster.token)
            await carry_out(busy, planned, MoveState.VERIFIED)
            for number in range(10):
                await busy.change_intent("gw2", partial(replace, note=str(number)))
            async with asyncio.timeout(DEADLINE_S):
                assert (await coming).value.state is MoveState.VERIFIED
    finally:
        await slow.close()
        await busy.close()
    assert "changes were missed" in capsys.readouterr().err


# apply


async def test_an_order_is_carried_out_and_followed_to_its_end(empty_cluster: ACluster, store: Store) -> None:
    empty_cluster.configure(balance="manual")
    others = TheOthers(empty_cluster, store, {"gw1": rows("gw1", 10), "gw2": []})
    async with others.running():
        code, out, err = await ended(await empty_cluster.command("apply"))
        assert (code, err) == (0, "")
        assert "of 5 IKE_SAs to be moved: 5 verified" in out
        assert len(others.served["gw2"]) == 5
        code, out, _ = await ended(await empty_cluster.command("apply"))
    assert (code, out.splitlines()[0]) == (0, "there is nothing to carry out")


async def test_an_order_of_which_some_fail_says_so(empty_cluster: ACluster, store: Store) -> None:
    empty_cluster.configure(balance="manual")
    served = {"gw1": rows("gw1", 10), "gw2": []}
    others = TheOthers(empty_cluster, store, served, refusing=frozenset(r.peer_id for r in served["gw1"]))
    async with others.running():
        code, out, _ = await ended(await empty_cluster.command("apply", "--json"))
    told = json.loads(out)
    assert (code, told["good"], told["expected"]) == (7, False, 5)
    assert set(told["ike_sas"]) == {"refused"}


def test_an_order_that_nobody_would_hear_is_not_given(
    cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    cluster.configure(balance="manual")
    cluster.do(cluster.pause)
    done = mobikectl("apply")
    assert done.code == 7
    assert "nothing was ordered: the cluster is paused" in done.err
    assert cluster.do(lambda store: store.state()).cluster.value.apply == 0


def test_a_cluster_that_balances_by_itself_needs_no_order(
    cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    done = mobikectl("apply")
    assert done.code == 3
    assert "balance is auto" in done.err


def test_an_order_that_nothing_follows_is_no_success(
    empty_cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    empty_cluster.configure(balance="manual")

    async def fill(store: Store) -> None:
        await empty_cluster.join(store, "gw1", rows("gw1", 10))
        await empty_cluster.join(store, "gw2")
        await empty_cluster.lead(store)  # and does nothing

    empty_cluster.do(fill)
    done = mobikectl("apply", "--timeout", "1")
    assert done.code == 7
    assert "no move was begun in time" in done.err
