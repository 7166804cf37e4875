"""move: an operator's order is heard by the leader, carried out by the source, and told step by step."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.cli.move import Ordered, _take
from mobikectl.cluster.records import MoveRecord, MoveState, MoveStep, Order
from mobikectl.policy.cluster import Capability, Mechanism, Reason

from .a_cluster import row, rows
from .the_others import TheOthers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mobikectl.cluster.store import Store

    from .a_cluster import ACluster
    from .conftest import Done

DEADLINE_S = 60.0


@pytest.fixture
async def store(empty_cluster: ACluster) -> AsyncIterator[Store]:
    async with empty_cluster.store() as store:
        yield store


async def run(cluster: ACluster, *args: str) -> tuple[int, str, str]:
    command = await cluster.command("move", *args)
    async with asyncio.timeout(DEADLINE_S):
        out, err = await command.communicate()
    assert command.returncode is not None
    return command.returncode, out.decode(), err.decode()


async def heard(cluster: ACluster, *args: str) -> tuple[int, str, str]:
    """Order until the leader has heard of the nodes: a new one believes a report when it has changed."""
    while True:
        code, out, err = await run(cluster, *args)
        if "is unknown" not in out:
            return code, out, err


async def test_an_ike_sa_goes_where_it_is_ordered_to_and_each_step_is_told(
    empty_cluster: ACluster, store: Store
) -> None:
    others = TheOthers(empty_cluster, store, {"gw1": rows("gw1", 4), "gw2": []})
    async with others.running():
        code, out, err = await heard(
            empty_cluster, "--sa", "gw1/peer2@example.org#2", "--to", "gw2", "--wait", "--note", "new disk"
        )
        journal = await store.journal()
        orders = (await store.state()).orders
    assert (code, err) == (0, "")
    assert [row.peer_id for row in others.served["gw2"]] == ["peer2@example.org"]
    told = [
        word
        for word in ("is planned", ": requested", ": moved", ": verified", "1 IKE_SA moved")
        if word in out
    ]
    assert told == ["is planned", ": requested", ": moved", ": verified", "1 IKE_SA moved"]
    (move,) = [each.value for each in journal.moves]
    assert move.reason.value == "order"
    assert "new disk" in move.steps[0].note
    assert not orders


async def test_all_ike_sas_of_a_peer_go_and_programs_read_what_became_of_each(
    empty_cluster: ACluster, store: Store
) -> None:
    served = {"gw1": [*rows("gw1", 2), row("gw1", "peer1@example.org", 9)], "gw2": []}
    others = TheOthers(empty_cluster, store, served)
    async with others.running():
        code, out, _ = await heard(
            empty_cluster, "--peer-id", "peer1@example.org", "--to", "gw2", "--wait", "--json"
        )
    told = json.loads(out)
    assert (code, told["good"], len(told["moves"])) == (0, True, 2)
    assert {each["to"] for each in told["orders"]} == {"gw2"}


async def test_a_peer_that_says_no_is_an_order_not_fulfilled(empty_cluster: ACluster, store: Store) -> None:
    others = TheOthers(
        empty_cluster, store, {"gw1": rows("gw1", 2), "gw2": []}, refusing=frozenset({"peer1@example.org"})
    )
    async with others.running():
        code, out, err = await heard(empty_cluster, "--peer-id", "peer1@example.org", "--to", "gw2", "--wait")
    assert code == 7
    assert "the peer said no" in out
    assert "not every move was verified" in err


async def test_what_cannot_be_is_refused_with_the_reason(empty_cluster: ACluster, store: Store) -> None:
    stubborn = row("gw1", "old@example.org", 8, capability=Capability.NONE)
    others = TheOthers(empty_cluster, store, {"gw1": [stubborn], "gw2": []})
    async with others.running():
        code, out, err = await heard(empty_cluster, "--peer-id", "old@example.org", "--to", "gw2")
    assert code == 7
    assert "its peer follows no mechanism that is allowed; gw1 and gw2 carry no IKE_SAs over" in out
    assert "mobikectl explain" in err


async def test_a_leader_that_never_answers_gets_no_order_to_find_later(
    empty_cluster: ACluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await empty_cluster.join(store, "gw1", rows("gw1", 1))
    await empty_cluster.join(store, "gw2")
    await empty_cluster.lead(store)
    code, _, err = await run(
        empty_cluster, "--sa", "gw1/peer1@example.org#1", "--to", "gw2", "--timeout", "2"
    )
    assert code == 7
    assert "withdrawn" in err
    assert not (await store.state()).orders


def test_a_step_is_told_once_though_the_journal_is_read_from_before_the_order_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = tuple(MoveStep(state, 0.0) for state in (MoveState.PLANNED, MoveState.REQUESTED, MoveState.MOVED))
    gw1, gw2 = ip_address("198.18.9.1"), ip_address("198.18.10.1")
    record = MoveRecord(1, ("gw1/a#1",), "gw1", "gw2", Mechanism.REDIRECT, Reason.ORDER, gw1, gw2, steps, 7)
    ordered = Ordered(orders={"one": Order("one", "gw1/a#1", "gw2", move=7)})
    for count in (2, 1, 2, 3):
        _take(ordered, replace(record, steps=steps[:count]), quiet=False)
    told = [line.rsplit(": ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert [word.split()[0] for word in told] == ["requested", "moved"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--to", "gw2"), 2, "name --sa or --peer-id"),
        (("--sa", "gw1/x#1", "--peer-id", "x", "--to", "gw2"), 2, "name --sa or --peer-id"),
        (("--sa", "gw1/peer1@example.org#1", "--to", "gw7"), 6, "no node 'gw7'"),
        (("--sa", "gw1/peer9@example.org#9", "--to", "gw2"), 6, "no IKE_SA"),
    ],
    ids=["nothing", "both", "no-such-node", "no-such-sa"],
)
def test_a_wrong_word_is_answered_and_nothing_is_ordered(
    args: tuple[str, ...], code: int, said: str, cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    done = mobikectl("move", *args)
    assert done.code == code
    assert said in done.err
    assert not cluster.do(lambda store: store.state()).orders


def test_a_paused_cluster_takes_no_order(cluster: ACluster, mobikectl: Callable[..., Done]) -> None:
    cluster.do(cluster.pause)
    done = mobikectl("move", "--sa", "gw1/peer1@example.org#1", "--to", "gw2")
    assert done.code == 7
    assert "paused" in done.err


async def test_an_answered_order_cannot_be_withdrawn_unseen(empty_cluster: ACluster, store: Store) -> None:
    await empty_cluster.join(store, "gw1", rows("gw1", 1))
    await empty_cluster.lead(store)
    await store.order(Order("one", "gw1/peer1@example.org#1", "gw2"))
    asked = (await store.state()).orders["one"]
    await store.refuse(asked, "no", token=empty_cluster.token)
    from mobikectl.errors import LostRaceError

    with pytest.raises(LostRaceError):
        await store.end_order(asked)
    assert (await store.state()).orders["one"].value.refused == "no"
