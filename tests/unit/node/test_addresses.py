"""Virtual IPs of a node: its charon always has some to give, and no address is ever with two peers."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobikectl.cluster.leases import Leases
from mobikectl.cluster.node_settings import PoolSettings
from mobikectl.cluster.settings import SqliteSettings
from mobikectl.cluster.sqlite import SqliteBackend
from mobikectl.errors import LostRaceError, StoreUnreachableError
from mobikectl.node.addresses import OFFER_S, Addresses

from .a_stock import AStock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mobikectl.model import IpAddress

POOL = PoolSettings("inside", "198.19.8.0/27", block=4, stock=3)


@dataclass
class Node:
    """A node with its charon, sidecar and connection to the store."""

    name: str
    leases: Leases
    clock: list[float]
    pool: PoolSettings = POOL
    stock: AStock = field(default_factory=AStock)
    sas: dict[str, tuple[str, IpAddress]] = field(default_factory=dict)
    """IKE_SAs: a mark -> the peer, its address."""
    told: list[str] = field(default_factory=list)
    in_step: bool = True

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """The sidecar dies and is started again."""
        self.addresses = Addresses(
            self.leases,
            self.stock,
            self.name,
            [self.pool],
            sas=lambda: [self.sa(mark) for mark in self.sas] if self.in_step else None,
            tell=lambda name, _text, _data: self.told.append(name),
            clock=lambda: self.clock[0],
        )

    def sa(self, mark: str) -> Any:
        peer, vip = self.sas[mark]
        return SimpleNamespace(remote_id=peer, remote_vips=(vip,))

    def connect(
        self, mark: str, peer: str, requested: IpAddress | None = None, *, redirected: bool = False
    ) -> IpAddress | None:
        vip = self.stock.acquire(peer, requested, redirected=redirected) if self.stock.up else None
        if vip is not None:
            self.sas[mark] = (peer, vip)
        return vip

    def disconnect(self, mark: str) -> None:
        _, vip = self.sas.pop(mark)
        self.stock.release(vip)

    def crash(self) -> None:
        """charon dies and is started again, with an empty stock."""
        self.stock.entries.clear()
        self.stock.pools.clear()
        self.sas.clear()

    async def level(self) -> None:
        for _ in range(20):
            try:
                await self.addresses.level()
            except LostRaceError:
                continue
            return
        raise AssertionError("never level")

    def entry(self, vip: IpAddress) -> Any:
        return self.stock.entries.get(vip)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[Node]]:
    backends = [SqliteBackend(SqliteSettings(tmp_path / "store.db")) for _ in range(3)]
    clock = [1000.0]
    yield [Node(f"gw{n + 1}", Leases(b, "/mobikectl/t/pools/"), clock) for n, b in enumerate(backends)]
    for backend in backends:
        await backend.close()


async def offered(node: Node, mark: str, target: Node) -> bool:
    """The address of an IKE_SA is offered to another node, which looks meanwhile."""

    async def look() -> None:
        while True:
            await asyncio.sleep(0.02)
            await target.level()

    looking = asyncio.create_task(look())
    try:
        return await node.addresses.offer(node.sa(mark), target.name, 2.0)
    finally:
        looking.cancel()


async def test_charon_has_a_stock_before_the_first_peer_comes_and_it_is_filled_up_again(
    nodes: list[Node],
) -> None:
    gw1 = nodes[0]
    await gw1.level()
    assert len(gw1.stock.entries) == 3, "a block of 4 without the network's own address"
    for number in range(10):
        assert gw1.connect(str(number), f"peer{number}") is not None
        await gw1.level()
    assert sum(1 for entry in gw1.stock.entries.values() if entry.identity is None) >= POOL.stock


async def test_blocks_that_are_too_many_go_back_to_the_store(nodes: list[Node]) -> None:
    gw1 = nodes[0]
    gw1.pool = PoolSettings("inside", "198.19.8.0/27", block=4, stock=20)
    gw1.restart()
    await gw1.level()
    assert len((await gw1.leases.read()).blocks) == 6
    gw1.pool = POOL
    gw1.restart()
    await gw1.level()
    assert len((await gw1.leases.read()).blocks) == 2
    assert len(gw1.stock.entries) == len({*gw1.stock.entries}) == 7


async def test_a_restarted_charon_gives_a_peer_its_address_again_and_nobody_elses(nodes: list[Node]) -> None:
    gw1 = nodes[0]
    await gw1.level()
    vip = gw1.connect("a", "alice")
    await gw1.level()
    gw1.crash()
    await gw1.level()
    assert gw1.connect("b", "bob") != vip
    assert gw1.connect("c", "alice") == vip


async def test_an_address_waits_at_the_target_of_a_redirect_for_its_peer_that_was_redirected(
    nodes: list[Node],
) -> None:
    gw1, gw2, _ = nodes
    await gw1.level()
    await gw2.level()
    vip = gw1.connect("a", "alice")
    assert vip is not None
    await gw1.level()
    assert await offered(gw1, "a", gw2)
    other = gw2.connect("second", "alice")
    assert other not in (None, vip), "a second device does not know the address"
    assert gw2.connect("a", "alice", redirected=True) == vip
    assert gw2.connect("b", "alice", redirected=True) != vip, "it is expected once"
    gw1.disconnect("a")
    await gw2.level()
    await gw1.level()
    assert gw1.connect("third", "alice") != vip, "gw2 serves it"
    await gw2.level()
    assert await offered(gw2, "a", gw1)
    assert gw1.connect("back", "alice", redirected=True) == vip
    gw2.disconnect("a")
    await gw2.level()
    await gw1.level()
    assert vip in gw1.stock.entries
    assert vip not in gw2.stock.entries
    found = (await gw1.leases.read()).of(vip)
    assert found is not None
    bound = found.value.find(vip)
    assert bound is not None
    assert bound.guests == ()


async def test_an_offer_of_a_peer_that_does_not_come_ends(nodes: list[Node]) -> None:
    gw1, gw2, _ = nodes
    await gw1.level()
    vip = gw1.connect("a", "alice")
    assert vip is not None
    await gw1.level()
    await gw1.addresses.offer(gw1.sa("a"), "gw2", 0.0)
    await gw2.level()
    assert vip in gw2.stock.entries
    gw2.clock[0] += OFFER_S + 1
    await gw2.level()
    assert vip not in gw2.stock.entries
    found = (await gw1.leases.read()).of(vip)
    assert found is not None
    bound = found.value.find(vip)
    assert bound is not None
    assert bound.guests == ()


async def test_an_ike_sa_that_was_carried_over_keeps_its_address_from_everybody_else(
    nodes: list[Node],
) -> None:
    gw1, gw2, gw3 = nodes
    await gw1.level()
    vip = gw1.connect("a", "alice")
    assert vip is not None
    await gw1.level()
    await gw2.addresses.claim([vip], "alice")
    gw2.sas["a"] = gw1.sas.pop("a")
    gw1.stock.release(vip)
    for node in nodes:
        await node.level()
    assert gw2.entry(vip).held
    with pytest.raises(LostRaceError):
        await gw3.addresses.claim([vip], "bob")
    for number in range(40):
        assert gw1.connect(f"x{number}", f"peer{number}") != vip
        await gw1.level()
    gw1.crash()
    await gw1.level()
    assert gw1.connect("y", "bob") != vip
    gw2.disconnect("a")
    await gw2.level()
    assert vip not in gw2.stock.entries


async def test_an_empty_pool_gives_what_its_longest_gone_peer_had(nodes: list[Node]) -> None:
    gw1 = nodes[0]
    await gw1.level()
    given = []
    for number in range(30):
        given.append(gw1.connect(str(number), f"peer{number}"))
        await gw1.level()
    assert len({*given}) == 30
    assert gw1.connect("late", "late") is None
    for gone in ("7", "3"):
        gw1.disconnect(gone)
        await gw1.level()
        gw1.clock[0] += 1
    assert gw1.connect("late", "late") in (given[7], given[3])
    assert gw1.connect("3", "peer3") in (given[7], given[3])
    assert len({vip for _, vip in gw1.sas.values()}) == len(gw1.sas)


async def test_without_the_store_charon_goes_on_with_what_it_has(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    gw1 = nodes[0]
    await gw1.level()

    async def away(*_args: object) -> Any:
        raise StoreUnreachableError("away")

    monkeypatch.setattr(gw1.leases, "read", away)
    for number in range(3):
        assert gw1.connect(str(number), f"peer{number}") is not None
    with pytest.raises(StoreUnreachableError):
        await gw1.addresses.level()
    assert gw1.connect("late", "late") is None
    assert len(gw1.sas) == 3


SMALL = PoolSettings("inside", "198.19.8.0/29", block=2, stock=1)
STEPS = (
    "connect",
    "connect",
    "leave",
    "leave",
    "redirect",
    "carry",
    "crash",
    "restart",
    "level",
    "level",
    "level",
)


class World:
    """Three nodes, and peers who come, go and are moved, also between any two commands of a sidecar."""

    def __init__(self, leases: list[Leases], seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = [1000.0]
        self.nodes = [Node(f"gw{n + 1}", each, self.clock, SMALL) for n, each in enumerate(leases)]
        self.marks = iter(range(1_000_000))
        for node in self.nodes:
            node.stock.before = partial(self.meanwhile, node)

    def check(self) -> None:
        owners: dict[IpAddress, str] = {}
        for node in self.nodes:
            for peer, vip in node.sas.values():
                assert owners.setdefault(vip, peer) == peer, f"{vip} is with {owners[vip]} and {peer}"

    def connect(self, node: Node) -> None:
        node.connect(f"{next(self.marks)}", f"peer{self.chance.randrange(8)}")

    def meanwhile(self, node: Node) -> None:
        if self.chance.random() < 0.1:
            self.connect(node)
        elif node.sas and self.chance.random() < 0.1:
            node.disconnect(self.chance.choice(sorted(node.sas)))
        self.check()

    async def step(self) -> None:
        node, target = self.chance.sample(self.nodes, 2)
        self.clock[0] += self.chance.choice((0.0, 1.0, OFFER_S))
        what = self.chance.choice(STEPS)
        mark = self.chance.choice(sorted(node.sas)) if node.sas else None
        if what == "connect":
            self.connect(node)
        elif what == "crash" and self.chance.random() < 0.2:
            node.crash()
        elif what == "restart":
            node.restart()
        elif what == "level":
            await node.level()
        elif mark is not None and what == "leave":
            node.disconnect(mark)
        elif mark is not None and what == "redirect":
            await self.redirect(node, target, mark)
        elif mark is not None and what == "carry":
            await self.carry(node, target, mark)
        self.check()

    async def redirect(self, node: Node, target: Node, mark: str) -> None:
        peer, _ = node.sas[mark]
        await node.addresses.offer(node.sa(mark), target.name, 0.0)
        await target.level()
        target.connect(f"{next(self.marks)}", peer, redirected=True)
        self.check()
        if mark in node.sas:
            node.disconnect(mark)

    async def carry(self, node: Node, target: Node, mark: str) -> None:
        peer, vip = node.sas[mark]
        try:
            await target.addresses.claim([vip], peer)
        except LostRaceError:
            return  # it is not bound yet: it is not moved
        if mark in node.sas:
            target.sas[f"{next(self.marks)}"] = node.sas[mark]
            node.disconnect(mark)


@pytest.mark.timeout(180)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 32))
async def test_whatever_happens_no_address_is_ever_with_two_peers(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    path = tmp_path_factory.mktemp("store") / "store.db"
    backends = [SqliteBackend(SqliteSettings(path)) for _ in range(3)]
    try:
        world = World([Leases(backend, "/mobikectl/t/pools/") for backend in backends], seed)
        for _ in range(250):
            await world.step()
    finally:
        for backend in backends:
            await backend.close()
