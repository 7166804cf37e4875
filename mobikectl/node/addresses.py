"""Keeps charon's stock of virtual IPs filled, and the store's leases true to what charon gave out.

charon gives addresses to peers by itself, out of the stock that it was handed ahead of time (the rmobike plugin). It
waits neither for this program nor for the store, and goes on with what it has while either is away. This part levels
three things again and again, whichever of them was restarted meanwhile: the stock, the blocks in the store
(`mobikectl.cluster.leases`), and the IKE_SAs that charon has. The order of each step is what makes it safe:

- an address is leased, or freed, in the store *before* anybody may get it of charon;
- it is taken out of charon's stock *before* it is given back to the store;
- a peer's address is bound in the store *before* another node can be its guest: an IKE_SA arrives at another node only
  with an address that its own node will not give to anybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from mobikectl.charon.rmobike_events import AddressAcquired, AddressReleased, PoolExhausted
from mobikectl.cluster.backend import Backoff, lease_clock
from mobikectl.cluster.leases import Blocks, GuestState
from mobikectl.errors import CharonError, ConfigError, DecodeError, LostRaceError, StoreError
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from mobikectl.charon.rmobike_events import PluginEvent
    from mobikectl.charon.rmobike_pool import StockEntry
    from mobikectl.cluster.leases import Block, Bound, Guest, Leases, PoolNetwork
    from mobikectl.cluster.node_settings import PoolSettings
    from mobikectl.cluster.records import Versioned
    from mobikectl.model import IkeSa, IpAddress, IpNetwork

log = logging.getLogger(__name__)

EVERY_S = 5.0
"""Everything is looked at anew so often, also when nothing was told."""
SOON_S = 0.05
"""What happens within so many seconds is seen to together."""
CONFIG_AGAIN_S = 60.0
"""Nodes whose configurations differ are told so at this pace."""
OFFER_S = 20.0
"""An address that was offered for a peer who does not come is kept so long."""


class Stock(Protocol):
    """charon's stock: `mobikectl.charon.rmobike_pool.PoolStock`."""

    async def set_pool(self, name: str, network: IpNetwork) -> None:
        """See `PoolStock.set_pool`."""

    async def add(
        self,
        pool: str,
        addresses: Iterable[tuple[IpAddress, str | None]],
        *,
        elsewhere: bool = False,
        held: bool = False,
        expected: bool = False,
    ) -> frozenset[IpAddress]:
        """See `PoolStock.add`."""

    async def remove(self, pool: str, addresses: Iterable[IpAddress]) -> frozenset[IpAddress]:
        """See `PoolStock.remove`."""

    async def list(self) -> list[StockEntry]:
        """See `PoolStock.list`."""


@dataclass(slots=True)
class _Round:
    """What one look found."""

    blocks: Blocks
    entries: dict[IpAddress, StockEntry]
    used: Mapping[IpAddress, str]
    """Virtual IPs of charon's IKE_SAs, those included that it only stands by for, and the peers' identities."""
    adds: dict[tuple[str, bool, bool, bool], list[tuple[IpAddress, str | None]]] = field(default_factory=dict)

    def drop(self, addresses: Collection[IpAddress]) -> None:
        """Have these addresses not put into the stock after all."""
        for group in self.adds.values():
            group[:] = [item for item in group if item[0] not in addresses]

    def add(
        self,
        pool: str,
        address: IpAddress,
        identity: str | None,
        *,
        elsewhere: bool = False,
        held: bool = False,
        expected: bool = False,
    ) -> None:
        """Have an address put into the stock if it is not there just so."""
        entry = self.entries.get(address)
        held = held and (entry is None or not entry.online)
        there = entry and (entry.identity, entry.elsewhere, entry.held, entry.expected)
        if there != (identity, elsewhere, held, expected):
            self.adds.setdefault((pool, elsewhere, held, expected), []).append((address, identity))


class Addresses:
    """The virtual IPs of this node. ``run`` it; tell it what the plugin says (`take`)."""

    def __init__(
        self,
        leases: Leases,
        stock: Stock,
        node: str,
        pools: Iterable[PoolSettings],
        *,
        sas: Callable[[], Iterable[IkeSa] | None],
        tell: Callable[[str, str, Mapping[str, object]], None],
        clock: Callable[[], float] = lease_clock,
    ) -> None:
        """``sas``: charon's IKE_SAs; None: they are not known at the moment. ``tell``: a name, a text, and data."""
        self._leases = leases
        self._stock = stock
        self._node = node
        self._pools = {pool.name: pool for pool in pools}
        self._networks: dict[str, PoolNetwork] = {pool.name: pool.pool for pool in self._pools.values()}
        self._sas = sas
        self._tell = tell
        self._clock = clock
        self._known = Blocks()
        self._wake = asyncio.Event()
        self._idle_since: dict[IpAddress, float] = {}
        self._awaited: dict[IpAddress, float] = {}
        """Offered addresses whose peers have not come yet, and since when."""
        self._told: dict[str, str] = {}

    # --- from outside ---------------------------------------------------------------------------

    def wake(self) -> None:
        """Look at everything soon."""
        self._wake.set()

    def take(self, event: PluginEvent) -> None:
        """Given what the plugin said, see to what follows from it."""
        match event:
            case PoolExhausted(pool=pool, identity=identity):
                self._tell(
                    "pool-exhausted",
                    f"{identity} got no virtual IP: charon has no free address of pool {pool}",
                    {"pool": pool, "identity": identity},
                )
            case AddressAcquired() | AddressReleased():
                pass
            case _:
                return
        self.wake()

    async def offer(self, sa: IkeSa, target: str, timeout: float) -> bool:
        """Given an IKE_SA that is to be moved to another node, have its virtual IPs wait for it there.

        Return whether that node is ready for all of them within ``timeout`` seconds. Addresses of other pools are
        left alone. Raise StoreError.
        """
        ours = [vip for vip in sa.remote_vips if self._pool_of(vip) is not None]
        deadline = time.monotonic() + timeout
        for vip in ours:
            with contextlib.suppress(LostRaceError):
                await self._leases.change(vip, functools.partial(_offered, vip=vip, sa=sa, target=target))
        while True:
            blocks = await self._leases.read(self._known)
            if all(_is_ready(blocks.of(vip), vip, target) for vip in ours):
                return True
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(SOON_S)

    async def claim(self, vips: Iterable[IpAddress], identity: str) -> None:
        """Given the virtual IPs of an IKE_SA that is about to be served here, and its peer, make them ours to serve.

        Raise LostRaceError: one is not bound to that peer, who must not be served with it; StoreError.
        """
        for vip in vips:
            if self._pool_of(vip) is None:
                continue

            def change(block: Block, vip: IpAddress = vip) -> Block:
                if block.node != self._node:
                    return block.host(vip, identity, self._node, GuestState.SERVING)
                bound = block.find(vip)
                if bound is None or not bound.of(identity):
                    raise LostRaceError(f"{vip} is not bound to {identity}")
                return block

            await self._leases.change(vip, change)
            self._awaited[vip] = self._clock()
        self.wake()

    def _pool_of(self, vip: IpAddress) -> PoolNetwork | None:
        return next(
            (pool for pool in self._networks.values() if vip.version == pool.net.version and vip in pool.net),
            None,
        )

    # --- the loop -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep all level until cancelled."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="leases")
            tasks.create_task(self._level_for_ever(), name="addresses")

    async def _follow(self) -> None:
        """Wake when a block changes: another node may be waiting for us."""
        wait = Backoff(0.2, 5.0)
        while True:
            try:
                known = await self._leases.read(self._known)
                async with aclosing(self._leases.watch(after=known.revision)) as changes:
                    async for _ in changes:
                        wait.reset()
                        self.wake()
            except StoreError as error:
                log.debug("leases: %s", error)
            await asyncio.sleep(wait.next())

    async def _level_for_ever(self) -> None:
        wait = Backoff(0.2, EVERY_S)
        while True:
            self._wake.clear()
            try:
                await self.level()
                wait.reset()
                self._once("store", "")
            except LostRaceError:
                self._wake.set()  # somebody changed a block meanwhile
                await asyncio.sleep(wait.next())
                continue
            except ConfigError as error:
                self._tell("pools-differ", str(error), {})
                await asyncio.sleep(CONFIG_AGAIN_S)
                continue
            except (StoreError, CharonError, DecodeError) as error:
                self._once("store", str(error))
                await asyncio.sleep(wait.next())
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._wake.wait()
            await asyncio.sleep(SOON_S)

    def _once(self, what: str, text: str) -> None:
        if text and self._told.get(what) != text:
            log.info("virtual IPs: %s", text)
        self._told[what] = text

    # --- one look -------------------------------------------------------------------------------

    async def level(self) -> None:
        """Look at the store, the stock and the IKE_SAs once, and level them.

        Raise StoreError, CharonError, DecodeError; ConfigError: the other nodes mean other pools by these names.
        """
        sas = self._sas()
        if sas is None:
            return
        await self._leases.declare(self._networks)
        for pool in self._networks.values():
            await self._stock.set_pool(pool.name, pool.net)
        self._known = await self._leases.read(self._known)
        now = _Round(
            self._known,
            {entry.address: entry for entry in await self._stock.list()},
            {vip: sa.remote_id for sa in sas for vip in sa.remote_vips},
        )
        for block in list(now.blocks.blocks.values()):
            if block.value.pool not in self._networks:
                continue
            if block.value.node == self._node:
                await self._level_own(now, block)
            else:
                await self._level_guest(now, block)
        await self._remove_strays(now)
        await self._fill(now)
        await self._carry_out(now)

    async def _write(self, now: _Round, before: Versioned[Block], after: Block) -> Versioned[Block]:
        if after == before.value:
            return before
        stored = await self._leases.write(before, after)
        key = next(key for key, block in now.blocks.blocks.items() if block is before)
        now.blocks = Blocks(now.blocks.revision, {**now.blocks.blocks, key: stored}, now.blocks.broken)
        return stored

    async def _level_own(self, now: _Round, before: Versioned[Block]) -> None:
        """Bind in the store what charon gave out; then have in the stock what the store says."""
        block = before.value
        for address in self._networks[block.pool].addresses(block):
            entry, user = now.entries.get(address), now.used.get(address, "")
            identity = entry.identity if entry is not None else None
            bound = block.find(address)
            if identity is not None and (bound is None or bound.identity != identity):
                if bound is None or (entry is not None and entry.online and not bound.guests):
                    block = block.bind(address, identity, user)
                elif entry is not None and entry.online:
                    self._conflict(address, identity, bound)
            elif identity is None and bound is None and user:
                block = block.bind(address, user, user)  # an IKE_SA of before the pool was the cluster's
        expected: set[IpAddress] = set()
        for bound in block.bound:
            if bound.guest(self._node) is not None:
                block, awaited = await self._expect(now, block, bound)
                if awaited:
                    expected.add(bound.address)
                else:
                    block = block.leave(bound.address, self._node)
        block = (await self._write(now, before, block)).value
        for address in self._networks[block.pool].addresses(block):
            self._age(now, address)
            bound = block.find(address)
            if bound is None:
                now.add(block.pool, address, None)
                continue
            now.add(
                block.pool,
                address,
                bound.identity,
                elsewhere=any(guest.node != self._node for guest in bound.guests),
                held=bound.of(now.used.get(address, "")),
                expected=address in expected,
            )

    async def _expect(self, now: _Round, block: Block, bound: Bound) -> tuple[Block, bool]:
        """Given an address that was offered to us, return the block then, and whether its peer is still awaited."""
        guest, entry, address = bound.guest(self._node), now.entries.get(bound.address), bound.address
        if guest is None or guest.state is GuestState.SERVING:
            return block, False
        if guest.state is GuestState.OFFERED:
            held = bound.of(now.used.get(address, ""))
            item = [(address, bound.identity)]
            await self._stock.add(block.pool, item, elsewhere=not held, held=held, expected=True)
            self._awaited[address] = self._clock()
            return block.host(address, bound.identity, self._node, GuestState.READY), True
        came = entry is not None and entry.online > 0
        since = self._awaited.setdefault(address, self._clock())
        return block, not came and self._clock() - since < OFFER_S

    def _age(self, now: _Round, address: IpAddress) -> None:
        entry = now.entries.get(address)
        if address in now.used or (entry is not None and entry.online):
            self._idle_since.pop(address, None)
        else:
            self._idle_since.setdefault(address, self._clock())

    async def _level_guest(self, now: _Round, before: Versioned[Block]) -> None:
        """Serve whom we are to serve with another node's address, and let go of what nobody here has any more."""
        block = before.value
        gone: list[IpAddress] = []
        expected: set[IpAddress] = set()
        for bound in before.value.bound:
            guest, user = bound.guest(self._node), now.used.get(bound.address)
            if user is not None and not bound.of(user):
                self._conflict(bound.address, user, bound)
                continue
            block, awaited = await self._expect(now, block, bound)
            if awaited:
                expected.add(bound.address)
            elif user is not None:
                self._awaited.pop(bound.address, None)
                block = block.host(bound.address, user, self._node, GuestState.SERVING)
            elif guest is not None and not self._is_claimed(bound.address, guest):
                gone.append(bound.address)
        if gone:
            kept = await self._stock.remove(block.pool, gone)
            for address in gone:
                if address not in kept:
                    block = block.leave(address, self._node)
                    self._awaited.pop(address, None)
                    now.entries.pop(address, None)
        block = (await self._write(now, before, block)).value
        for bound in block.bound:
            held = bound.guest(self._node) is not None and bound.of(now.used.get(bound.address, ""))
            awaited = bound.address in expected
            if held or awaited:
                now.add(
                    block.pool,
                    bound.address,
                    bound.identity,
                    elsewhere=not held,
                    held=held,
                    expected=awaited,
                )

    async def _remove_strays(self, now: _Round) -> None:
        """Take out of the stock what is not ours to give: others were told to have it while we were away."""
        strays: dict[str, list[IpAddress]] = {}
        for address, entry in now.entries.items():
            block = now.blocks.of(address)
            bound = block.value.find(address) if block is not None else None
            ours = block is not None and block.value.node == self._node
            if (
                entry.pool in self._networks
                and not ours
                and (bound is None or bound.guest(self._node) is None)
            ):
                strays.setdefault(entry.pool, []).append(address)
        for pool, addresses in strays.items():
            for address in await self._stock.remove(pool, addresses):
                text = f"{address} is used here, and is another node's"
                self._conflict_once(address, text, now.used.get(address, ""))

    def _is_claimed(self, address: IpAddress, guest: Guest) -> bool:
        """Return whether an IKE_SA is just coming for which the address was claimed."""
        since = self._awaited.get(address)
        return guest.state is GuestState.SERVING and since is not None and self._clock() - since < OFFER_S

    def _conflict(self, address: IpAddress, identity: str, bound: Bound) -> None:
        text = f"{address} is used by {identity} here, and bound to {bound.identity}"
        self._conflict_once(address, text, identity)

    def _conflict_once(self, address: IpAddress, text: str, identity: str) -> None:
        if self._told.get(str(address)) != text:
            self._told[str(address)] = text
            self._tell("address-conflict", text, {"address": str(address), "identity": identity})

    # --- enough, and not too many ---------------------------------------------------------------

    async def _fill(self, now: _Round) -> None:
        for name, settings in self._pools.items():
            own = [
                b for b in now.blocks.blocks.values() if b.value.pool == name and b.value.node == self._node
            ]
            pool = self._networks[name]
            free = sum(1 for b in own for a in pool.addresses(b.value) if b.value.find(a) is None)
            while free < settings.stock:
                leased = await self._leases.lease(pool, self._node)
                if leased is None:
                    break
                fresh = list(pool.addresses(leased.value))
                for address in fresh:
                    now.add(name, address, None)
                free += len(fresh)
            if free < settings.stock:
                await self._recycle(now, own, settings.stock - free)
            elif free >= settings.stock + 2 * settings.block:
                await self._give_back(now, own, free - settings.stock - settings.block)

    async def _recycle(self, now: _Round, own: list[Versioned[Block]], wanted: int) -> None:
        """The pool is leased out: free what peers had who are gone, the longest gone first."""
        idle = [
            (self._idle_since[bound.address], str(bound.address), bound.address)
            for block in own
            for bound in block.value.bound
            if not bound.guests and bound.address in self._idle_since
        ]
        chosen = {address for _, _, address in sorted(idle)[:wanted]}
        if len(chosen) < wanted:
            self._once(
                "pool", f"{wanted - len(chosen)} addresses are missing in a stock, and the pool has no more"
            )
        for before in own:
            after = before.value
            mine = [bound.address for bound in after.bound if bound.address in chosen]
            for address in mine:
                after = after.free(address)
            if mine:
                await self._write(now, before, after)
                now.drop(mine)
                # Refused where the peer came back just now: the next look binds it again.
                await self._stock.add(after.pool, [(address, None) for address in mine])
                for address in mine:
                    self._idle_since.pop(address, None)

    async def _give_back(self, now: _Round, own: list[Versioned[Block]], most: int) -> None:
        for block in sorted(own, key=lambda block: -block.value.number):
            addresses = list(self._networks[block.value.pool].addresses(block.value))
            if block.value.bound or len(addresses) > most:
                continue
            kept = await self._stock.remove(block.value.pool, addresses)
            now.drop(addresses)
            if kept:
                self.wake()  # a peer just got one of them
                continue
            await self._leases.give_back(block)
            most -= len(addresses)

    async def _carry_out(self, now: _Round) -> None:
        for (pool, elsewhere, held, expected), addresses in now.adds.items():
            if not addresses:
                continue
            refused = await self._stock.add(
                pool, addresses, elsewhere=elsewhere, held=held, expected=expected
            )
            if refused:
                self.wake()  # a peer got it between the listing and now: to be bound


def _offered(block: Block, *, vip: IpAddress, sa: IkeSa, target: str) -> Block:
    return block.host(vip, sa.remote_id, target, GuestState.OFFERED)


def _is_ready(block: Versioned[Block] | None, vip: IpAddress, target: str) -> bool:
    bound = block.value.find(vip) if block is not None else None
    guest = bound.guest(target) if bound is not None else None
    return guest is not None and guest.state is not GuestState.OFFERED
