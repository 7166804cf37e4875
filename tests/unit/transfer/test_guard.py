"""Who may ask, by what a real store says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mobikectl.cluster.records import Member
from mobikectl.cluster.settings import SqliteSettings
from mobikectl.cluster.sqlite import SqliteBackend
from mobikectl.cluster.store import Store
from mobikectl.errors import FencedError, NotFoundError, StoreUnreachableError, TransferDeniedError
from mobikectl.transfer import Endpoint, StoreGuard, locate_by
from mobikectl.wire.transfer import Greeting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mobikectl.cluster.state import ClusterState

GW1 = Greeting("default", "gw1", "gw1-1")


class FlakyStore(Store):
    """A store that can be cut off, with a clock beside it."""

    away = False
    now = 0.0
    lease = 0

    async def state(self) -> ClusterState:
        if self.away:
            raise StoreUnreachableError("the store is away")
        return await super().state()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FlakyStore]:
    made = FlakyStore(SqliteBackend(SqliteSettings(path=tmp_path / "cluster.db")))
    made.lease = (await made.grant(60)).id
    await made.join(Member("gw1", "gw1-1", transfer="[2001:db8::1]:4518"), made.lease)
    yield made
    await made.close()


@pytest.fixture
def guard(store: FlakyStore) -> StoreGuard:
    return StoreGuard(store, clock=lambda: store.now)


async def test_a_member_under_the_leaders_token_may_ask(store: FlakyStore, guard: StoreGuard) -> None:
    leader = await store.campaign("gw1", "gw1-1", (await store.grant(60)).id)
    await guard.authorise(GW1, leader.token)


async def test_the_token_of_a_former_leader_is_refused(store: FlakyStore, guard: StoreGuard) -> None:
    former = await store.campaign("gw1", "gw1-1", (await store.grant(60)).id)
    await store.resign(former.token)
    with pytest.raises(FencedError):
        await guard.authorise(GW1, former.token)
    await store.campaign("gw2", "gw2-1", (await store.grant(60)).id)
    with pytest.raises(FencedError):
        await guard.authorise(GW1, former.token)


@pytest.mark.parametrize("token", [0, -1])
async def test_no_token_is_no_authority_when_nobody_leads(guard: StoreGuard, token: int) -> None:
    with pytest.raises(FencedError):
        await guard.authorise(GW1, token)


@pytest.mark.parametrize(
    ("stranger", "why"),
    [
        (Greeting("default", "gw9", "gw9-1"), "no member"),
        (Greeting("default", "gw1", "gw1-0"), "another process"),
    ],
)
async def test_a_stranger_and_a_predecessor_may_not(guard: StoreGuard, stranger: Greeting, why: str) -> None:
    with pytest.raises(TransferDeniedError, match=why):
        await guard.admit(stranger)
    with pytest.raises(TransferDeniedError, match=why):
        await guard.authorise(stranger, 1)


async def test_while_the_store_is_away_a_known_member_may_undo_for_a_while(
    store: FlakyStore, guard: StoreGuard
) -> None:
    await guard.admit(GW1)
    store.away, store.now = True, 30.0
    await guard.admit(GW1)
    with pytest.raises(StoreUnreachableError):
        await guard.authorise(GW1, 1)
    store.now = 61.0
    with pytest.raises(StoreUnreachableError):
        await guard.admit(GW1)


async def test_while_the_store_is_away_nobody_new_is_let_in(store: FlakyStore, guard: StoreGuard) -> None:
    store.away = True
    with pytest.raises(StoreUnreachableError):
        await guard.admit(GW1)


async def test_who_lost_the_lease_is_no_member_soon_after(store: FlakyStore, guard: StoreGuard) -> None:
    await guard.admit(GW1)
    await store.revoke(store.lease)
    store.now = 3.0
    with pytest.raises(TransferDeniedError):
        await guard.admit(GW1)
    store.away = True
    with pytest.raises(StoreUnreachableError):
        await guard.admit(GW1)


async def test_a_member_is_found_where_it_says(store: FlakyStore) -> None:
    assert await locate_by(store)("gw1") == Endpoint("2001:db8::1", 4518, "gw1-1")


async def test_who_is_no_member_or_takes_nothing_is_not_found(store: FlakyStore) -> None:
    lease = await store.grant(60)
    await store.join(Member("gw2", "gw2-1"), lease.id)
    with pytest.raises(NotFoundError, match="takes no IKE_SAs"):
        await locate_by(store)("gw2")
    with pytest.raises(NotFoundError, match="no member"):
        await locate_by(store)("gw3")
