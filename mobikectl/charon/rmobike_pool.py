"""The stock of virtual IPs in charon, which the rmobike plugin gives out of (docs/rmobike.md, "Virtual IPs")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobikectl.charon.rmobike_events import address, flag, number, word
from mobikectl.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobikectl.charon.rmobike import Rmobike
    from mobikectl.model import IpAddress, IpNetwork

BATCH = 200
"""Addresses of one command."""


@dataclass(frozen=True, slots=True)
class StockEntry:
    """An address that charon may give to a peer."""

    pool: str
    address: IpAddress
    identity: str | None
    """The only one that may have it; None: anybody."""
    online: int
    """IKE_SAs of this charon that have it."""
    held: bool
    """Said to belong to an IKE_SA that came from another node."""
    elsewhere: bool
    """Another node may serve it: it is given only to that identity, and only when it asks for it."""
    expected: bool = False
    """Its peer is being redirected to us: it is given to that identity, too, when it says that it was."""


class PoolStock:
    """Fills and reads the stock. Raises what `Rmobike.request` raises."""

    def __init__(self, plugin: Rmobike) -> None:
        self._plugin = plugin

    async def set_pool(self, name: str, network: IpNetwork) -> None:
        """Given a pool's name and network, know it. Raise PluginRefusedError: it has addresses of another network."""
        await self._plugin.request("set-pool", {"pool": name, "network": network})

    async def add(
        self,
        pool: str,
        addresses: Iterable[tuple[IpAddress, str | None]],
        *,
        elsewhere: bool = False,
        held: bool = False,
        expected: bool = False,
    ) -> frozenset[IpAddress]:
        """Given addresses and whose they are (None: anybody's), put them into the stock, or change what is there.

        ``elsewhere``: another node may serve them. ``held``: an IKE_SA that came from another node has them.
        ``expected``: their peers are being redirected to us.
        Return those that could not be changed: an IKE_SA of another peer has them.
        """
        items = [f"{ip} {identity}" if identity is not None else str(ip) for ip, identity in addresses]
        flags = {"elsewhere": elsewhere, "held": held, "expected": expected}
        return await self._change("add-addresses", pool, items, flags)

    async def remove(self, pool: str, addresses: Iterable[IpAddress]) -> frozenset[IpAddress]:
        """Given addresses, take them out of the stock. Return those that could not be: an IKE_SA has them."""
        return await self._change("remove-addresses", pool, [str(ip) for ip in addresses], {})

    async def _change(
        self, command: str, pool: str, items: list[str], flags: dict[str, bool]
    ) -> frozenset[IpAddress]:
        refused: set[IpAddress] = set()
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            answer = await self._plugin.request(command, {"pool": pool, "addresses": batch, **flags})
            told = answer.get("refused", [])
            if not isinstance(told, list):
                raise DecodeError(f"the rmobike plugin's answer to {command} has no list of what it refused")
            refused |= {address({"refused": item}, "refused") for item in told}
        return frozenset(refused)

    async def list(self) -> list[StockEntry]:
        """Return the whole stock."""
        return [
            StockEntry(
                pool=word(item, "pool"),
                address=address(item, "address"),
                identity=word(item, "identity", "") or None,
                online=number(item, "online"),
                held=flag(item, "held"),
                elsewhere=flag(item, "elsewhere"),
                expected=flag(item, "expected"),
            )
            async for item in self._plugin.session.stream("list-addresses", "list-address")
        ]
