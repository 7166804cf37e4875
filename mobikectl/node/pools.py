"""Which virtual IP pool an IKE_SA has its inside address of, as far as charon tells (VICI's get-pools)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobikectl.charon.sas import address, number, printable
from mobikectl.errors import CharonError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobikectl.charon.session import Session
    from mobikectl.charon.transport import Message
    from mobikectl.model import IpAddress

BORDER = 2
"""A pool's size leaves out its network's first and last address, which its base may be."""


class Pools:
    """The pools of one charon."""

    def __init__(self) -> None:
        self._pools: tuple[tuple[IpAddress, int, str], ...] = ()

    async def read(self, session: Session) -> None:
        """Ask charon for its pools. What was known stays when it does not answer, or knows no pools."""
        try:
            self.take(await session.request("get-pools"))
        except CharonError:
            return

    def take(self, answer: Message) -> None:
        """Given the answer to get-pools, know the pools."""
        found = []
        for name, pool in answer.items():
            if isinstance(pool, dict) and (base := address(pool.get("base"))) is not None:
                found.append((base, number(pool.get("size")) + BORDER, printable(name)))
        self._pools = tuple(found)

    def of(self, vips: Iterable[IpAddress]) -> str:
        """Given an IKE_SA's inside addresses, return the pool of the first that is in one; empty: none is."""
        for vip in vips:
            near = [
                (int(base), name)
                for base, size, name in self._pools
                if base.version == vip.version and int(base) <= int(vip) < int(base) + size
            ]
            if near:
                return max(near)[1]
        return ""
