"""How charon is had to drop an IKE_SA without a word to its peer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import DecodeError, MoveError
from mobikectl.node import imported

from .two_gateways import HERE, SPIS, Gateway

if TYPE_CHECKING:
    from mobikectl.node.control import HeldSa
    from mobikectl.wire.ha_chain import IkeSpis


@dataclass
class Charon(Gateway):
    """It drops what it is told to after so many looks, and tells of what it is just making that it is not whole."""

    looks: int = 0
    making: bool = False

    async def look(self, spis: IkeSpis) -> HeldSa | None:
        if self.making:
            raise DecodeError("it has no addresses")
        if "remove" in self.did:
            self.looks -= 1
            self.sa = self.sa if self.looks >= 0 else None
        return await super().look(spis)

    def remove(self, spis: IkeSpis) -> None:
        self._note("remove")
        self.making = False


async def end(charon: Charon) -> list[int]:
    """Return which IKE_SAs are told to have been served."""
    told: list[int] = []

    async def ended(ike_id: int) -> None:
        told.append(ike_id)

    await imported.end(charon, charon, SPIS, ended, within=0.05, every=0.001)
    return told


def charon(looks: int = 2) -> Charon:
    charon = Charon(HERE, looks=looks)
    charon.serve()
    return charon


async def test_it_is_waited_for_until_it_is_gone() -> None:
    there = charon()
    await end(there)
    assert (there.did, there.sa, there.looks) == (["remove"], None, -1)


async def test_what_was_served_is_told_of() -> None:
    assert await end(charon()) == [1]
    passive = charon()
    await passive.freeze(SPIS)
    assert await end(passive) == []


async def test_of_what_charon_does_not_have_it_is_told_nothing() -> None:
    there = charon()
    there.sa = None
    await end(there)
    assert (there.did, there.chain) == ([], None)


async def test_what_charon_is_just_making_is_dropped_too() -> None:
    there = charon(looks=0)
    there.making = True
    assert await end(there) == []
    assert there.did == ["remove"]


async def test_what_does_not_go_away_is_said() -> None:
    there = charon(looks=10**6)
    with pytest.raises(MoveError, match="cannot be ended here"):
        await end(there)
    assert there.sa is not None
