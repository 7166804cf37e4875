"""charon's stock of virtual IPs as the rmobike plugin keeps it (charon-plugin/rmobike_pool.c), in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mobikectl.charon.rmobike_pool import StockEntry
from mobikectl.errors import CharonUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mobikectl.model import IpAddress, IpNetwork


class AStock:
    """`PoolStock` and the plugin behind it. ``before`` is called before each command: peers can come in between."""

    def __init__(self) -> None:
        self.pools: set[str] = set()
        self.entries: dict[IpAddress, StockEntry] = {}
        self.up = True
        self.before: Callable[[], None] = lambda: None

    async def set_pool(self, name: str, network: IpNetwork) -> None:
        self._command()
        self.pools.add(name)

    async def add(
        self,
        pool: str,
        addresses: Iterable[tuple[IpAddress, str | None]],
        *,
        elsewhere: bool = False,
        held: bool = False,
        expected: bool = False,
    ) -> frozenset[IpAddress]:
        self._command()
        assert pool in self.pools
        refused = set()
        for address, identity in addresses:
            entry = self.entries.get(address)
            if entry is not None and entry.online and entry.identity != identity:
                refused.add(address)
                continue
            self.entries[address] = StockEntry(
                pool,
                address,
                identity,
                entry.online if entry is not None else 0,
                identity is not None and held,
                identity is not None and elsewhere,
                identity is not None and expected,
            )
        return frozenset(refused)

    async def remove(self, pool: str, addresses: Iterable[IpAddress]) -> frozenset[IpAddress]:
        self._command()
        kept = set()
        for address in addresses:
            entry = self.entries.get(address)
            if entry is not None and entry.online:
                kept.add(address)
            else:
                self.entries.pop(address, None)
        return frozenset(kept)

    async def list(self) -> list[StockEntry]:
        self._command()
        return list(self.entries.values())

    def _command(self) -> None:
        if not self.up:
            raise CharonUnreachableError("charon is away")
        self.before()

    # --- what charon does -------------------------------------------------------------------------

    def acquire(
        self, identity: str, requested: IpAddress | None = None, *, redirected: bool = False
    ) -> IpAddress | None:
        """As attribute_provider_t.acquire_address."""

        def rate(entry: StockEntry) -> int:
            if entry.identity is None:
                return 1
            if entry.identity != identity:
                return 0
            if entry.address == requested or (entry.expected and redirected and not entry.online):
                return 3
            return 0 if entry.online or entry.held or entry.elsewhere else 2

        best = max(self.entries.values(), key=rate, default=None)
        if best is None or not rate(best):
            return None
        self.entries[best.address] = replace(best, identity=identity, online=best.online + 1, expected=False)
        return best.address

    def release(self, address: IpAddress) -> None:
        """As attribute_provider_t.release_address."""
        entry = self.entries.get(address)
        if entry is not None:
            self.entries[address] = replace(entry, online=max(entry.online - 1, 0), held=False)
