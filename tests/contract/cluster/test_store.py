"""What the store means to the cluster, on every backend."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import aclosing
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.cluster.backend import MAX_WRITES, Gap, Write
from mobikectl.cluster.records import (
    ClusterIntent,
    Member,
    MoveRecord,
    MoveState,
    MoveStep,
    NodeIntent,
    NodeReport,
    Pin,
    SaPart,
    SaRow,
    Versioned,
)
from mobikectl.cluster.state import Changed
from mobikectl.cluster.store import MAX_MOVES, Store
from mobikectl.errors import FencedError, LeaseLostError, LostRaceError, StoreValueError
from mobikectl.policy.cluster import Capability, Mechanism, Reason, ServingAddress

if TYPE_CHECKING:
    from mobikectl.cluster.backend import Backend

    from .conftest import MakeBackend

DEADLINE_S = 30.0


def member(name: str = "gw1", **more: Any) -> Member:
    return Member(name, secrets.token_hex(4), (ServingAddress(ip_address("198.18.0.1")),), **more)


def a_move(sa: str = "peer-1") -> MoveRecord:
    return MoveRecord(
        token=0,
        sas=(sa,),
        source="gw1",
        target="gw2",
        mechanism=Mechanism.NOTIFY,
        reason=Reason.DRAIN,
        source_address=ip_address("198.18.0.1"),
        target_address=ip_address("2001:db8::2"),
        steps=(MoveStep(MoveState.PLANNED, 1.0, "gw1 is drained"),),
    )


async def lead(store: Store, node: str = "gw1") -> tuple[int, int]:
    """Return the lease and the token of a new leader."""
    lease = await store.grant(60)
    return lease.id, (await store.campaign(node, "x", lease.id)).token


async def test_members_and_their_reports_are_there_until_they_leave(store: Store) -> None:
    one, other = await store.grant(60), await store.grant(60)
    first = member("gw1", site="north", pools=frozenset({"a"}))
    await store.join(first, one.id)
    await store.join(member("gw2"), other.id)
    report = NodeReport("gw1", first.instance, 1, ike_sas=7, cpu=0.5, down=(ip_address("198.18.0.1"),))
    await store.report(report, one.id)
    state = await store.state()
    assert set(state.members) == {"gw1", "gw2"}
    assert state.members["gw1"].value == first
    assert state.reports["gw1"].value == report
    await store.revoke(one.id)
    state = await store.state()
    assert set(state.members) == {"gw2"}
    assert not state.reports
    assert not state.broken


async def test_a_second_node_of_the_same_name_is_refused(store: Store) -> None:
    one, other = await store.grant(60), await store.grant(60)
    await store.join(member(), one.id)
    with pytest.raises(LostRaceError, match="gw1"):
        await store.join(member(), other.id)


async def test_a_node_can_replace_its_dead_predecessor_which_then_knows(store: Store) -> None:
    dead, alive = await store.grant(60), await store.grant(60)
    await store.join(member(), dead.id)
    successor = member()
    await store.join(successor, alive.id, replace_other=True)
    assert (await store.state()).members["gw1"].value == successor
    with pytest.raises(LeaseLostError):
        await store.renew(dead.id)
    with pytest.raises(LeaseLostError):
        await store.report(NodeReport("gw1", "dead", 9), dead.id)


async def test_a_member_can_change_what_it_says_of_itself(store: Store) -> None:
    lease = await store.grant(60)
    first = member()
    await store.join(first, lease.id)
    await store.join(replace(first, weight=0.5), lease.id)
    assert (await store.state()).members["gw1"].value.weight == 0.5


def some_sas(node: str, count: int, *, peer: str = "peer") -> tuple[SaRow, ...]:
    return tuple(
        SaRow(
            f"{node}/{peer}-{number}#{number}",
            f"{peer}-{number}",
            "198.18.3.4",
            ip_address("198.18.0.1"),
            bytes_per_s=1.5 * number,
            capability=Capability.MOBIKE | Capability.REDIRECT,
            moved_ago_s=2.5,
        )
        for number in range(count)
    )


async def test_the_ike_sas_of_each_node_are_there_until_it_leaves(store: Store) -> None:
    one, other = await store.grant(60), await store.grant(60)
    first, second, third = some_sas("gw1", 3), some_sas("gw1", 2, peer="more"), some_sas("gw2", 1)
    await store.report_sas([SaPart("gw1", "a", 1, 0, 2, first), SaPart("gw1", "a", 1, 1, 2, second)], one.id)
    await store.report_sas([SaPart("gw2", "b", 1, 0, 1, third)], other.id)
    sas = await store.sas()
    assert sas.by_node() == {"gw1": first + second, "gw2": third}
    assert not sas.broken
    await store.report_sas([SaPart("gw1", "a", 2, 0, 2, ())], one.id)
    after = await store.sas(sas)
    assert after.by_node() == {"gw1": second, "gw2": third}
    assert after.parts.keys() == sas.parts.keys()
    assert [after.parts[key] is sas.parts[key] for key in sorted(sas.parts)] == [False, True, True]
    await store.revoke(one.id)
    assert (await store.sas(after)).by_node() == {"gw2": third}
    with pytest.raises(LeaseLostError):
        await store.report_sas([SaPart("gw1", "a", 3, 0, 1, first)], one.id)
    assert not (await store.state()).reports, "they are not below state/"


async def test_more_ike_sas_than_one_commit_takes_are_published_in_several(store: Store) -> None:
    lease = await store.grant(60)
    rows = some_sas("gw1", 180, peer="p" * 100)
    parts = [SaPart("gw1", "a", 1, number, MAX_WRITES + 5, rows) for number in range(MAX_WRITES + 5)]
    await store.report_sas(parts, lease.id)
    assert len((await store.sas()).by_node()["gw1"]) == 180 * (MAX_WRITES + 5)


async def test_ike_sas_that_cannot_be_read_or_claim_another_node_are_told(
    store: Store, backend: Backend, prefix: str
) -> None:
    lease = await store.grant(60)
    good = some_sas("gw1", 1)
    await store.report_sas([SaPart("gw1", "a", 1, 0, 1, good)], lease.id)
    stolen = b'{"node":"gw1","instance":"x","sequence":1,"part":0,"parts":1}'
    await backend.commit([], [Write(f"{prefix}sas/gw2/00000", stolen), Write(f"{prefix}sas/gw3/0", b"{")])
    sas = await store.sas()
    assert sas.by_node() == {"gw1": good}
    assert len(sas.broken) == 2


async def test_there_is_one_leader_and_the_next_has_a_greater_token(store: Store) -> None:
    _lease, token = await lead(store)
    with pytest.raises(LostRaceError):
        await lead(store, "gw2")
    assert await store.leader() == (await store.state()).leader
    await store.check_fence(token)
    await store.resign(token)
    assert await store.leader() is None
    _, second = await lead(store, "gw2")
    assert second > token
    with pytest.raises(LostRaceError):
        await store.resign(token)


async def test_a_stale_token_is_refused_wherever_it_acts(store: Store) -> None:
    lease, token = await lead(store)
    (planned,) = await store.append([a_move()], token=token)
    await store.revoke(lease)
    for _ in range(2):  # without any leader, and with another
        with pytest.raises(FencedError):
            await store.check_fence(token)
        with pytest.raises(FencedError):
            await store.append([a_move()], token=token)
        with pytest.raises(FencedError):
            await store.update(planned, planned.value.to(MoveState.REQUESTED, at=2.0))
        if await store.leader() is None:
            await lead(store, "gw2")
    assert [move.value.state for move in (await store.journal()).moves] == [MoveState.PLANNED]


@pytest.mark.parametrize("token", [0, -1, 1 << 62])
async def test_a_token_that_nobody_ever_had_is_refused(store: Store, token: int) -> None:
    with pytest.raises(FencedError):
        await store.check_fence(token)
    with pytest.raises(FencedError):
        await store.append([a_move()], token=token)


async def test_the_outcome_of_a_begun_move_is_recorded_whoever_leads(store: Store) -> None:
    lease, token = await lead(store)
    (move,) = await store.append([a_move()], token=token)
    move = await store.update(move, move.value.to(MoveState.REQUESTED, at=2.0))
    await store.revoke(lease)
    move = await store.update(move, move.value.to(MoveState.MOVED, at=3.0))
    move = await store.update(move, move.value.to(MoveState.VERIFIED, at=4.0, note="seen"))
    assert (await store.journal()).moves == (move,)


async def test_a_new_leader_can_cancel_what_was_not_begun(store: Store) -> None:
    lease, token = await lead(store)
    (move,) = await store.append([a_move()], token=token)
    await store.revoke(lease)
    move = await store.update(move, move.value.to(MoveState.CANCELLED, at=2.0))
    assert (await store.journal()).moves[0].value.done


async def test_one_move_is_read_by_its_number(store: Store) -> None:
    _, token = await lead(store)
    (move,) = await store.append([a_move()], token=token)
    assert await store.move(move.value.number) == move
    assert await store.move(move.value.number + 1) is None
    assert (await store.journal(None)).moves == (move,)


async def test_of_two_that_update_a_move_the_second_is_told(store: Store) -> None:
    _, token = await lead(store)
    (move,) = await store.append([a_move()], token=token)
    requested = move.value.to(MoveState.REQUESTED, at=2.0)
    await store.update(move, requested)
    with pytest.raises(LostRaceError) as lost:
        await store.update(move, requested)
    assert not isinstance(lost.value, FencedError)


async def test_an_update_that_rewrites_history_is_a_bug(store: Store) -> None:
    _, token = await lead(store)
    (move,) = await store.append([a_move()], token=token)
    with pytest.raises(ValueError, match="adds steps"):
        await store.update(move, replace(move.value, steps=(MoveStep(MoveState.VERIFIED, 1.0),)))


async def test_moves_keep_the_order_of_their_plan_over_several_appends(store: Store) -> None:
    _, token = await lead(store)
    await store.append([a_move(f"a{n}") for n in range(MAX_MOVES)], token=token)
    await store.append([a_move(f"b{n}") for n in range(3)], token=token)
    journal = await store.journal()
    assert [move.value.number for move in journal.moves] == list(range(1, MAX_MOVES + 4))
    assert journal.moves[-1].value.sas == ("b2",)
    assert [move.value.sas for move in (await store.journal(2)).moves] == [("b1",), ("b2",)]


async def test_what_is_known_of_the_journal_is_not_decoded_again(store: Store) -> None:
    _, token = await lead(store)
    moves = await store.append([a_move("a"), a_move("b")], token=token)
    known = await store.journal()
    await store.update(moves[1], moves[1].value.to(MoveState.CANCELLED, at=2.0))
    again = await store.journal(known=known)
    assert again.moves[0] is known.moves[0]
    assert again.moves[1].value.state is MoveState.CANCELLED


async def test_more_moves_than_one_commit_takes_are_refused_as_a_whole(store: Store) -> None:
    _, token = await lead(store)
    with pytest.raises(StoreValueError):
        await store.append([a_move()] * (MAX_MOVES + 1), token=token)
    assert (await store.journal()).moves == ()


async def test_the_journal_is_followed_without_a_hole(make_backend: MakeBackend, prefix: str) -> None:
    cluster = prefix.split("/")[2]
    writer, reader = Store(await make_backend(), cluster), Store(await make_backend(), cluster)
    _, token = await lead(writer)
    start = (await reader.journal()).revision

    async def follow() -> list[tuple[int, MoveState]]:
        seen = []
        async with aclosing(reader.follow(after=start)) as moves:
            async for move in moves:
                assert isinstance(move, Versioned)
                seen.append((move.value.number, move.value.state))
                if move.value.done:
                    return seen
        return seen

    async with asyncio.timeout(DEADLINE_S):
        seen = asyncio.create_task(follow())
        first, second = await writer.append([a_move("a"), a_move("b")], token=token)
        await writer.update(first, first.value.to(MoveState.REQUESTED, at=2.0))
        await writer.update(second, second.value.to(MoveState.REFUSED, at=2.0))
        assert await seen == [
            (1, MoveState.PLANNED),
            (2, MoveState.PLANNED),
            (1, MoveState.REQUESTED),
            (2, MoveState.REFUSED),
        ]


async def test_old_moves_that_have_ended_are_trimmed_and_numbers_go_on(store: Store) -> None:
    _, token = await lead(store)
    moves = await store.append([a_move(str(n)) for n in range(5)], token=token)
    for move in moves[:3]:
        if move.value.number != 2:
            await store.update(move, move.value.to(MoveState.CANCELLED, at=2.0))
    assert await store.trim(1, token=token) == 2
    assert [move.value.number for move in (await store.journal()).moves] == [2, 4, 5]
    (after,) = await store.append([a_move()], token=token)
    assert after.value.number == 6
    await store.update(after, after.value.to(MoveState.CANCELLED, at=3.0))
    with pytest.raises(FencedError):
        await store.trim(0, token=token - 1)


async def test_what_operators_want_stays_when_the_node_is_away(store: Store) -> None:
    intent = NodeIntent(drained=True, mechanisms=frozenset({Mechanism.NOTIFY}), rate_per_s=2.5, by="ada")
    await store.set_intent("gw9", intent, revision=0)
    await store.set_cluster(ClusterIntent(paused=True, apply=3, note="maintenance"), revision=0)
    state = await store.state()
    assert state.cluster.value.apply == 3
    assert state.intent("gw9").value == intent
    assert state.intent("gw1") == Versioned(NodeIntent(), 0)
    assert state.cluster.value.paused
    with pytest.raises(LostRaceError):
        await store.set_intent("gw9", NodeIntent(), revision=0)
    await store.set_intent("gw9", NodeIntent(), revision=state.intent("gw9").revision)
    await store.set_cluster(ClusterIntent(), revision=state.cluster.revision)
    assert not (await store.state()).intent("gw9").value.drained


async def test_pins_can_be_of_any_ike_sa_name(store: Store) -> None:
    names = ["peer one/två", "C=CH, O=x, CN=a/../b", "%2F"]
    for name in names:
        await store.pin(Pin(name, by="ada"), revision=0)
    state = await store.state()
    assert set(state.pins) == set(names)
    assert not state.broken
    with pytest.raises(LostRaceError):
        await store.unpin(names[0], revision=1)
    await store.unpin(names[0], revision=state.pins[names[0]].revision)
    assert set((await store.state()).pins) == set(names[1:])


async def test_changes_of_one_intent_by_many_are_all_kept(make_backend: MakeBackend, prefix: str) -> None:
    stores = [Store(await make_backend(), prefix.split("/")[2]) for _ in range(3)]

    async def add(store: Store, mark: str) -> None:
        for _ in range(4):
            await store.change_intent("gw1", lambda now: replace(now, note=now.note + mark), tries=100)

    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(add(store, mark) for store, mark in zip(stores, "abc", strict=True)))
    assert sorted((await stores[0].state()).intent("gw1").value.note) == list("aaaabbbbcccc")


async def test_a_watch_of_the_state_says_what_changed(store: Store) -> None:
    start = (await store.state()).revision
    _lease, token = await lead(store)
    await store.set_intent("gw1", NodeIntent(True), revision=0)
    await store.pin(Pin("a/b"), revision=0)
    await store.append([a_move()], token=token)  # not of the state
    await store.resign(token)
    seen = []
    async with asyncio.timeout(DEADLINE_S), aclosing(store.watch_state(after=start)) as changes:
        async for change in changes:
            assert isinstance(change, Changed)
            seen.append((change.kind, change.name))
            if len(seen) == 4:
                break
    assert seen == [("leader", ""), ("intents", "gw1"), ("pins", "a/b"), ("leader", "")]


async def test_clusters_of_different_names_see_nothing_of_each_other(backend: Backend, prefix: str) -> None:
    name = prefix.split("/")[2]
    one, other = Store(backend, name), Store(backend, name + "2")
    await one.set_cluster(ClusterIntent(paused=True), revision=0)
    await lead(one)
    await lead(other)
    assert not (await other.state()).cluster.value.paused


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a" * 64, "a b", "a\n", "ä"])
async def test_what_is_no_name_cannot_get_into_a_key(store: Store, name: str) -> None:
    with pytest.raises(StoreValueError):
        await store.set_intent(name, NodeIntent(), revision=0)
    with pytest.raises(StoreValueError):
        await store.campaign(name, "x", 0)
    with pytest.raises(StoreValueError):
        await store.join(member(name), 0)


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe",
    b"[" * 60_000,
    b'{"a":' * 10_000,
    b"9" * 10_000,
    b"NaN",
    b'{"name":1,"node":1,"sa":1,"drained":"yes","paused":"no"}',
    b'{"name":"gw\\u001b[2J","node":"\\u0000","sa":"\\ud800","drained":1,"paused":1}',
    json.dumps({"name": "other", "node": "other", "sa": "other", "instance": "x", "sequence": -1}).encode(),
]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_values_are_named_and_hide_nothing_else(
    backend: Backend, prefix: str, value: bytes
) -> None:
    store = Store(backend, prefix.split("/")[2])
    lease = await store.grant(60)
    await store.join(member("good"), lease.id)
    kinds = ["members/bad", "reports/bad", "pins/bad", "cluster", "leader"]
    await backend.commit([], [Write(f"{prefix}state/{kind}", value) for kind in kinds])
    await backend.commit([], [Write(f"{prefix}state/intents/no name", b"{}")])
    state = await store.state()
    assert set(state.members) == {"good"}
    expected = [f"{prefix}state/{kind}" for kind in kinds]
    said = "\n".join(error.message for error in state.broken)
    if b'"sequence"' not in value:  # that one has no paused and no node that is wrong
        assert all(key in said for key in expected)
    assert said.replace("\n", "").isprintable()
    assert "bad" not in {*state.reports, *state.pins, *state.intents}


async def test_hostile_moves_are_named_and_do_not_end_the_journal(backend: Backend, prefix: str) -> None:
    store = Store(backend, prefix.split("/")[2])
    _, token = await lead(store)
    start = (await store.journal()).revision
    (good,) = await store.append([a_move()], token=token)
    await backend.commit([], [Write(f"{prefix}journal/moves/000000000002", b"[" * 60_000)])
    await backend.commit([], [Write(f"{prefix}journal/moves/zzz", b"{}")])
    (later,) = await store.append([a_move()], token=token)  # takes the broken one's place
    journal = await store.journal()
    assert journal.moves == (good, later)
    assert len(journal.broken) == 1
    seen: list[object] = []
    async with asyncio.timeout(DEADLINE_S), aclosing(store.follow(after=start)) as moves:
        async for move in moves:
            seen.append(move)
            if len(seen) == 4:
                break
    assert seen[0] == good
    assert [type(item) for item in seen[1:]] == [StoreValueError, StoreValueError, Versioned]
    assert not any(isinstance(item, Gap) for item in seen)


async def test_a_broken_counter_of_the_journal_is_an_error_that_says_so(
    backend: Backend, prefix: str
) -> None:
    store = Store(backend, prefix.split("/")[2])
    _, token = await lead(store)
    await backend.commit([], [Write(f"{prefix}journal/next", b"-1e9")])
    with pytest.raises(StoreValueError, match="journal/next"):
        await store.append([a_move()], token=token)
