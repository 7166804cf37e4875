"""Virtual IPs as operators see them, and what a node that is gone for good leaves behind."""

from __future__ import annotations

from io import StringIO
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mobikectl.cluster.leases import GuestState, PoolNetwork

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.cluster.leases import Blocks
    from mobikectl.cluster.store import Store

    from .a_cluster import ACluster
    from .conftest import Done, Mobikectl

POOL = PoolNetwork("inside", "198.19.8.0/28", 4)
A, B, C = (ip_address(f"198.19.8.{number}") for number in (1, 2, 5))


@pytest.fixture
def with_leases(cluster: ACluster) -> ACluster:
    """gw9, which is away, has a block: gw2 serves alice, nobody bob. gw1 has one, too: carol was served by gw9."""

    async def fill(store: Store) -> None:
        leases = store.leases()
        await leases.declare({"inside": POOL})
        assert await leases.lease(POOL, "gw9") is not None
        assert await leases.lease(POOL, "gw1") is not None
        await leases.change(A, lambda block: block.bind(A, "alice").bind(B, "bob"))
        await leases.change(A, lambda block: block.host(A, "alice", "gw2", GuestState.SERVING))
        await leases.change(C, lambda block: block.bind(C, "carol"))
        await leases.change(C, lambda block: block.host(C, "carol", "gw9", GuestState.SERVING))

    cluster.do(fill)
    return cluster


def blocks(cluster: ACluster) -> Blocks:
    return cluster.do(lambda store: store.leases().read())


@pytest.mark.parametrize("command", [("list",), ("reclaim", "gw9", "--to", "gw1", "--yes")])
def test_a_store_that_is_not_there_is_told_and_not_made(
    command: tuple[str, ...], empty_cluster: ACluster, mobikectl: Callable[..., Done]
) -> None:
    done = mobikectl("leases", *command)
    assert (done.code, done.out) == (12, "")
    assert not (empty_cluster.path / "cluster.db").exists()


def test_without_pools_it_says_so(cluster: ACluster, mobikectl: Mobikectl) -> None:
    done = mobikectl("leases", "list")
    assert done.code == 0
    assert "address_pools" in done.out
    assert mobikectl("leases", "list", "--json").json == []


def test_blocks_are_listed_with_who_has_them_and_whether_he_is_there(
    with_leases: ACluster, mobikectl: Mobikectl
) -> None:
    lines = mobikectl("leases", "list").out.splitlines()
    assert lines[1].split() == ["inside", "198.19.8.0", "4", "gw9", "away", "2", "1"]
    assert lines[2].split() == ["inside", "198.19.8.4", "4", "gw1", "there", "1", "1"]


def test_addresses_are_listed_with_their_peers_and_where_they_are_served(
    with_leases: ACluster, mobikectl: Mobikectl
) -> None:
    said = mobikectl("leases", "list", "--addresses").out
    assert "198.19.8.1  alice  gw9       gw2 (serving)" in said
    assert "198.19.8.2  bob    gw9       -" in said
    first, second = mobikectl("leases", "list", "--json").json
    assert (first["node"], first["there"], second["there"]) == ("gw9", False, True)
    assert first["bound"][0] == {
        "address": "198.19.8.1",
        "identity": "alice",
        "guests": [{"node": "gw2", "state": "serving"}],
    }


def test_a_node_that_is_gone_leaves_its_blocks_to_the_heir_and_frees_what_only_it_served(
    with_leases: ACluster, mobikectl: Mobikectl
) -> None:
    done = mobikectl("leases", "reclaim", "gw9", "--to", "gw2", "--yes")
    assert (done.code, done.err) == (0, "")
    assert done.out == "1 block of gw9 is gw2's; 1 address that only gw9 served is free\n"
    now = blocks(with_leases)
    first, second = now.of(A), now.of(C)
    assert first is not None
    assert second is not None
    assert first.value.node == "gw2"
    assert [bound.identity for bound in first.value.bound] == ["alice"]
    assert second.value.node == "gw1"
    carol = second.value.find(C)
    assert carol is not None
    assert carol.guests == (), "gw9 serves her no more, and gw1 may give her the address again"
    assert mobikectl("leases", "reclaim", "gw9", "--to", "gw2", "--yes").code == 6


def test_what_was_done_is_told_to_programs(with_leases: ACluster, mobikectl: Mobikectl) -> None:
    told = mobikectl("leases", "reclaim", "gw9", "--to", "gw2", "--yes", "--json").json
    assert told["to"] == "gw2"
    assert told["freed"] == ["198.19.8.2"]
    assert [block["first"] for block in told["blocks"]] == ["198.19.8.0"]


def test_a_node_that_is_there_is_not_robbed(with_leases: ACluster, mobikectl: Mobikectl) -> None:
    before = blocks(with_leases)
    done = mobikectl("leases", "reclaim", "gw1", "--to", "gw2", "--yes")
    assert done.code == 7
    assert "gw1 is a member" in done.err
    assert blocks(with_leases) == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("gw9", "--to", "gw9"), 2, "inherit from itself"),
        (("gw9", "--to", "gw7"), 6, "no node 'gw7'"),
        (("gw8", "--to", "gw1"), 6, "nodes with blocks: gw1, gw9"),
        (("gw9",), 2, "--to"),
    ],
)
def test_a_wrong_word_changes_nothing(
    words: tuple[str, ...], code: int, said: str, with_leases: ACluster, mobikectl: Mobikectl
) -> None:
    before = blocks(with_leases)
    done = mobikectl("leases", "reclaim", *words, "--yes")
    assert done.code == code
    assert said in done.err
    assert blocks(with_leases) == before


@pytest.mark.parametrize(
    ("answer", "code", "owner"), [("y\n", 0, "gw2"), ("n\n", 130, "gw9"), ("", 130, "gw9")]
)
def test_it_asks_whether_the_charon_is_off_and_only_yes_is_yes(
    answer: str,
    code: int,
    owner: str,
    with_leases: ACluster,
    mobikectl: Mobikectl,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO(answer))
    done = mobikectl("leases", "reclaim", "gw9", "--to", "gw2")
    assert done.code == code
    assert "Is gw9's charon off" in done.err
    found = blocks(with_leases).of(A)
    assert found is not None
    assert found.value.node == owner
