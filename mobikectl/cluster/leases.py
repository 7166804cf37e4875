"""Virtual IPs in the store: who may give out which, so that no address is ever given to two peers.

    pools/networks          PoolNetworks: each pool's network and the size of its blocks
    pools/blocks/POOL/N     Block: the N-th so many addresses of the pool, leased by one node

A *block* belongs to one node, whose charon may give its addresses to anybody. As soon as a peer has one, it is *bound*
to that peer's identity. Where the peer's IKE_SA is moved to another node, that node is a *guest* of the address: it
may serve it, and give it to that identity and to nobody else. Three rules, kept by compare-and-swaps of the block:

- only an address that is bound to nobody may be given to anybody, and only by the block's node;
- only an address that is bound to the peer can get a guest;
- an address with a guest stays bound.

Blocks live under no lease of the store: a node that the store does not hear of may serve its clients all the same, for
as long as they like. So nothing here ends by itself. A dead node's blocks wait for its next life, which takes them
over by its name; another node may have them (`Leases.reclaim`) when somebody says who can know that its charon is no
more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from mobikectl.cluster.backend import Condition, Write
from mobikectl.cluster.codec import check_name, from_json, to_json
from mobikectl.cluster.records import Versioned
from mobikectl.errors import ConfigError, LostRaceError, StoreValueError
from mobikectl.model import IpAddress  # noqa: TC001 (the codec reads the annotations)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

    from mobikectl.cluster.backend import Backend, Change, Entry, Gap
    from mobikectl.model import IpNetwork

MAX_BLOCK = 64
"""Addresses of one block: with the longest identities it still fits a value of the store."""
TRIES = 20


class GuestState(Enum):
    """How far a node is that may serve a peer with its address of another node's block."""

    OFFERED = "offered"
    """It was named by who served the peer, and has not seen it yet."""
    READY = "ready"
    """Its charon would give the address to that peer."""
    SERVING = "serving"


@dataclass(frozen=True, slots=True)
class Guest:
    """A node that may serve a peer with its address."""

    node: str
    state: GuestState = GuestState.OFFERED


@dataclass(frozen=True, slots=True)
class Bound:
    """An address that a peer has, or had last."""

    address: IpAddress
    identity: str
    """As charon's pools know it: the EAP identity where there is one."""
    peer: str = ""
    """The identity of its IKE_SA, if that is another."""
    guests: tuple[Guest, ...] = ()

    def guest(self, node: str) -> Guest | None:
        """Given a node, return how it stands as a guest; None: it is none."""
        return next((guest for guest in self.guests if guest.node == node), None)

    def of(self, identity: str) -> bool:
        """Given the identity of a peer or of its IKE_SA, return whether the address is bound to it."""
        return bool(identity) and identity in (self.identity, self.peer)


@dataclass(frozen=True, slots=True)
class Block:
    """Some addresses of a pool, leased by a node."""

    pool: str
    number: int
    first: IpAddress
    size: int
    node: str
    bound: tuple[Bound, ...] = ()

    def __contains__(self, address: IpAddress) -> bool:
        return address.version == self.first.version and 0 <= int(address) - int(self.first) < self.size

    def find(self, address: IpAddress) -> Bound | None:
        """Given an address, return to whom it is bound; None: to nobody."""
        return next((bound for bound in self.bound if bound.address == address), None)

    def bind(self, address: IpAddress, identity: str, peer: str = "") -> Block:
        """Given an address that the block's node gave to a peer, return the block with that.

        Raise LostRaceError: another peer has it, at a guest of it.
        """
        before = self.find(address)
        if before is not None and before.guests and before.identity != identity:
            raise LostRaceError(f"{address} is bound to {before.identity}, whom another node may serve")
        return self._with(replace(before or Bound(address, identity), identity=identity, peer=peer))

    def free(self, address: IpAddress) -> Block:
        """Given a bound address, return the block in which anybody may have it. Raise LostRaceError: it has guests."""
        before = self.find(address)
        if before is not None and before.guests:
            raise LostRaceError(f"{address} is kept for {before.identity} at {before.guests[0].node}")
        return replace(self, bound=tuple(bound for bound in self.bound if bound.address != address))

    def host(self, address: IpAddress, identity: str, node: str, state: GuestState) -> Block:
        """Given an address, its peer and a node, return the block in which that node is its guest.

        Raise LostRaceError: the address is not bound to that peer.
        """
        before = self.find(address)
        if before is None or not before.of(identity):
            raise LostRaceError(
                f"{address} is not bound to {identity}",
                hint="the node that has its block tells within a second of giving it out",
            )
        others = tuple(guest for guest in before.guests if guest.node != node)
        return self._with(replace(before, guests=(*others, Guest(node, state))))

    def leave(self, address: IpAddress, node: str) -> Block:
        """Given an address and a guest of it, whose charon does not know it any more, return the block without it."""
        before = self.find(address)
        if before is None:
            return self
        others = tuple(guest for guest in before.guests if guest.node != node)
        return self._with(replace(before, guests=others))

    def _with(self, now: Bound) -> Block:
        others = (bound for bound in self.bound if bound.address != now.address)
        return replace(self, bound=tuple(sorted((*others, now), key=lambda bound: int(bound.address))))


@dataclass(frozen=True, slots=True)
class PoolNetwork:
    """A pool: where its addresses are, and how many a node leases at a time."""

    name: str
    network: str
    block: int

    def __post_init__(self) -> None:
        check_name(self.name)
        if not 1 <= self.block <= MAX_BLOCK:
            raise StoreValueError(f"pool {self.name}: blocks of 1 to {MAX_BLOCK} addresses, not {self.block}")
        try:
            ip_network(self.network)
        except ValueError as error:
            raise StoreValueError(f"pool {self.name}: {error}") from error

    @property
    def net(self) -> IpNetwork:
        """The network."""
        return ip_network(self.network)

    @property
    def blocks(self) -> int:
        """How many blocks there are; the last one may be smaller."""
        return -(-self.net.num_addresses // self.block)

    def addresses(self, block: Block) -> Iterator[IpAddress]:
        """Given one of its blocks, yield the addresses in it that a peer can have."""
        net = self.net
        first, last = int(net.network_address), int(net.broadcast_address)
        never = (
            {first, *((last,) if net.version == 4 else ())}
            if net.prefixlen < net.max_prefixlen - 1
            else set()
        )
        for number in range(int(block.first), min(int(block.first) + block.size, last + 1)):
            if number not in never:
                yield ip_address(number) if net.version == 4 else ip_address(number.to_bytes(16, "big"))

    def at(self, number: int, node: str) -> Block:
        """Given a block's number and who leases it, return the block."""
        first = self.net.network_address + number * self.block
        return Block(self.name, number, first, self.block, node)


@dataclass(frozen=True, slots=True)
class PoolNetworks:
    """All pools of a cluster."""

    pools: tuple[PoolNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class Blocks:
    """The leased blocks of all pools, at one moment."""

    revision: int = 0
    blocks: Mapping[str, Versioned[Block]] = field(default_factory=dict)
    """By key."""
    broken: tuple[StoreValueError, ...] = ()
    """What cannot be read is leased by somebody."""

    def of(self, address: IpAddress) -> Versioned[Block] | None:
        """Given an address, return the block that it is in; None: nobody has leased that."""
        return next((block for block in self.blocks.values() if address in block.value), None)


class Leases:
    """The virtual IPs of one cluster. Made by `mobikectl.cluster.store.Store.leases`; raises what a backend raises."""

    def __init__(self, backend: Backend, prefix: str) -> None:
        self._backend = backend
        self._networks = f"{prefix}networks"
        self._blocks = f"{prefix}blocks/"

    async def declare(self, pools: Mapping[str, PoolNetwork]) -> None:
        """Given the pools of this node's configuration, see to it that all nodes mean the same by them.

        Raise ConfigError: other nodes do not, or two pools overlap.
        """
        for left in reversed(range(TRIES)):
            snapshot = await self._backend.read(self._networks)
            entry = next((entry for entry in snapshot.entries if entry.key == self._networks), None)
            before = PoolNetworks() if entry is None else from_json(entry.key, entry.value, PoolNetworks)
            known = {pool.name: pool for pool in before.pools}
            for pool in pools.values():
                there = known.get(pool.name, pool)
                if there != pool and any(
                    b.value.pool == pool.name for b in (await self.read()).blocks.values()
                ):
                    raise ConfigError(
                        f"pool {pool.name} is {there.network} in blocks of {there.block} at the other nodes",
                        hint="a pool can be changed when no node has leased any of it",
                    )
                known[pool.name] = pool
            _apart(known)
            after = PoolNetworks(tuple(known[name] for name in sorted(known)))
            if after == before:
                return
            condition = Condition(self._networks, entry.revision if entry else 0)
            try:
                await self._backend.commit([condition], [Write(self._networks, to_json(after))])
            except LostRaceError:
                if not left:
                    raise
            else:
                return

    async def read(self, known: Blocks | None = None) -> Blocks:
        """Given what was read before (it spares decoding it again), return all blocks."""
        snapshot = await self._backend.read(self._blocks)
        blocks: dict[str, Versioned[Block]] = {}
        broken: list[StoreValueError] = []
        for entry in snapshot.entries:
            before = known.blocks.get(entry.key) if known is not None else None
            if before is not None and before.revision == entry.revision:
                blocks[entry.key] = before
                continue
            try:
                block = self._decoded(entry)
            except StoreValueError as error:
                broken.append(error)
            else:
                blocks[entry.key] = Versioned(block, entry.revision)
        return Blocks(snapshot.revision, blocks, tuple(broken))

    async def lease(self, pool: PoolNetwork, node: str) -> Versioned[Block] | None:
        """Given a pool and a node, lease it a block that nobody has; None: there is none left."""
        prefix = f"{self._blocks}{pool.name}/"
        for _ in range(TRIES):
            snapshot = await self._backend.read(prefix)
            taken = {entry.key for entry in snapshot.entries}
            number = next(
                (n for n in range(min(pool.blocks, len(taken) + 1)) if f"{prefix}{_place(n)}" not in taken),
                None,
            )
            if number is None:
                return None
            block = pool.at(number, check_name(node))
            try:
                revision = await self._commit(self._key(block), 0, block)
            except LostRaceError:
                continue
            return Versioned(block, revision)
        return None

    async def write(self, before: Versioned[Block], after: Block) -> Versioned[Block]:
        """Given a block as it was read and as it is to be, store it. Raise LostRaceError: somebody was first."""
        return Versioned(after, await self._commit(self._key(after), before.revision, after))

    async def change(self, address: IpAddress, change: Callable[[Block], Block]) -> Versioned[Block]:
        """Given an address and how to change the block that it is in, do it to whatever the block is now.

        Raise LostRaceError: nobody has leased it, or ``change`` does not suit what is there.
        """
        for left in reversed(range(TRIES)):
            found = (await self.read()).of(address)
            if found is None:
                raise LostRaceError(f"{address} is in no block that a node has leased")
            after = change(found.value)
            if after == found.value:
                return found
            try:
                return await self.write(found, after)
            except LostRaceError:
                if not left:
                    raise
        raise LostRaceError(f"{address}: no try was allowed")

    async def give_back(self, block: Versioned[Block]) -> None:
        """Given a block none of whose addresses this node's charon knows any more, let others lease it.

        Raise LostRaceError: it was changed meanwhile, or an address in it is bound.
        """
        if block.value.bound:
            raise LostRaceError(f"the block at {block.value.first} has addresses that peers had")
        key = self._key(block.value)
        await self._backend.commit([Condition(key, block.revision)], [Write(key, None)])

    async def reclaim(self, dead: str, heir: str) -> int:
        """Given a node whose charon is known to be no more, give its blocks to another; return how many.

        What only the dead node served is free again; what is at guests stays with them. That the node's lease ran out
        says nothing about its charon: only who took its power, or looked, can know.
        """
        count = 0
        for before in list((await self.read()).blocks.values()):
            block = before.value
            for bound in block.bound:
                block = block.leave(bound.address, dead)
            if block.node == dead:
                kept = tuple(bound for bound in block.bound if bound.guests)
                block = replace(block, node=check_name(heir), bound=kept)
                count += 1
            if block != before.value:
                await self.write(before, block)
        return count

    def watch(self, *, after: int) -> AsyncGenerator[Change | Gap, None]:
        """Given the revision of a reading, return what changes in the blocks later, for ever."""
        return self._backend.watch(self._blocks, after=after)

    def _decoded(self, entry: Entry) -> Block:
        block = from_json(entry.key, entry.value, Block)
        if self._key(block) != entry.key:
            raise StoreValueError(f"{entry.key!r} is another block's place", hint="delete the key")
        return block

    def _key(self, block: Block) -> str:
        return f"{self._blocks}{check_name(block.pool)}/{_place(block.number)}"

    async def _commit(self, key: str, revision: int, block: Block) -> int:
        return await self._backend.commit([Condition(key, revision)], [Write(key, to_json(block))])


def _place(number: int) -> str:
    return f"{number:08d}"


def _apart(pools: Mapping[str, PoolNetwork]) -> None:
    found = sorted(pools.values(), key=lambda pool: pool.name)
    for place, one in enumerate(found):
        for other in found[place + 1 :]:
            if one.net.version == other.net.version and one.net.overlaps(other.net):
                raise ConfigError(
                    f"the pools {one.name} and {other.name} overlap", hint="an address is of one pool"
                )
