"""Virtual IPs in the store: no two nodes lease one block, and no address that a peer may have goes to another."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.cluster.leases import GuestState, PoolNetwork
from mobikectl.cluster.store import Store
from mobikectl.errors import ConfigError, LostRaceError

if TYPE_CHECKING:
    from mobikectl.cluster.leases import Leases

    from .conftest import MakeBackend

POOL = PoolNetwork("inside", "198.19.8.0/28", 4)
A = ip_address("198.19.8.1")


@pytest.fixture
async def two(make_backend: MakeBackend, prefix: str) -> list[Leases]:
    found = [Store(await make_backend(), prefix.split("/")[2]).leases() for _ in range(2)]
    for leases in found:
        await leases.declare({"inside": POOL})
    return found


async def test_blocks_that_many_lease_at_once_are_all_different_and_no_more_than_there_are(
    two: list[Leases],
) -> None:
    asked = [leases.lease(POOL, f"gw{number}") for number, leases in enumerate(two) for _ in range(3)]
    found = await asyncio.gather(*asked)
    got = [block.value.number for block in found if block is not None]
    assert sorted(got) == [0, 1, 2, 3]
    addresses = [a for block in found if block is not None for a in POOL.addresses(block.value)]
    assert len(set(addresses)) == len(addresses) == 14, "the network's first and last are nobody's"


async def test_a_block_is_given_back_only_without_bound_addresses_and_unchanged(two: list[Leases]) -> None:
    one, other = two
    block = await one.lease(POOL, "gw1")
    assert block is not None
    bound = await one.write(block, block.value.bind(A, "alice"))
    with pytest.raises(LostRaceError):
        await one.give_back(bound)
    freed = await one.write(bound, bound.value.free(A))
    with pytest.raises(LostRaceError):
        await one.give_back(block)
    await one.give_back(freed)
    assert (await other.read()).of(A) is None
    again = await other.lease(POOL, "gw2")
    assert again is not None
    assert again.value.number == 0


async def test_only_a_bound_address_gets_a_guest_and_one_with_a_guest_stays_bound(two: list[Leases]) -> None:
    one, other = two
    block = await one.lease(POOL, "gw1")
    assert block is not None
    with pytest.raises(LostRaceError):
        await other.change(A, lambda b: b.host(A, "alice", "gw2", GuestState.SERVING))
    await one.change(A, lambda b: b.bind(A, "alice", "alice@peer"))
    with pytest.raises(LostRaceError):
        await other.change(A, lambda b: b.host(A, "bob", "gw2", GuestState.SERVING))
    await other.change(A, lambda b: b.host(A, "alice@peer", "gw2", GuestState.SERVING))
    with pytest.raises(LostRaceError):
        await one.change(A, lambda b: b.free(A))
    with pytest.raises(LostRaceError):
        await one.change(A, lambda b: b.bind(A, "bob"))
    await other.change(A, lambda b: b.leave(A, "gw2"))
    assert (await one.change(A, lambda b: b.free(A))).value.find(A) is None


async def test_freeing_and_becoming_a_guest_at_once_has_one_winner(two: list[Leases]) -> None:
    one, other = two
    assert await one.lease(POOL, "gw1") is not None
    for _ in range(10):
        await one.change(A, lambda b: b.bind(A, "alice"))
        freed, hosted = await asyncio.gather(
            one.change(A, lambda b: b.free(A)),
            other.change(A, lambda b: b.host(A, "alice", "gw2", GuestState.SERVING)),
            return_exceptions=True,
        )
        assert isinstance(freed, LostRaceError) != isinstance(hosted, LostRaceError)
        bound = (await other.read()).of(A)
        assert bound is not None
        assert (bound.value.find(A) is None) == isinstance(hosted, LostRaceError)
        await other.change(A, lambda b: b.leave(A, "gw2"))


async def test_a_pool_means_the_same_at_all_nodes_while_any_of_it_is_leased(two: list[Leases]) -> None:
    one, other = two
    larger = replace(POOL, network="198.19.8.0/24")
    await other.declare({"inside": larger})
    await other.declare({"inside": POOL})
    assert await one.lease(POOL, "gw1") is not None
    with pytest.raises(ConfigError, match="inside"):
        await other.declare({"inside": larger})
    with pytest.raises(ConfigError, match="overlap"):
        await other.declare({"more": PoolNetwork("more", "198.19.8.8/29", 4)})


async def test_a_dead_nodes_blocks_go_to_an_heir_who_keeps_what_guests_serve(two: list[Leases]) -> None:
    one, other = two
    assert await one.lease(POOL, "gw1") is not None
    b = ip_address("198.19.8.2")
    await one.change(A, lambda block: block.bind(A, "alice").bind(b, "bob"))
    await other.change(A, lambda block: block.host(A, "alice", "gw2", GuestState.SERVING))
    assert await other.reclaim("gw1", "gw3") == 1
    found = (await one.read()).of(A)
    assert found is not None
    assert (found.value.node, [bound.identity for bound in found.value.bound]) == ("gw3", ["alice"])
    assert await other.reclaim("gw2", "gw3") == 0
    found = (await one.read()).of(A)
    assert found is not None
    bound = found.value.find(A)
    assert bound is not None
    assert bound.guests == ()
