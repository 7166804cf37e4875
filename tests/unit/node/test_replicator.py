"""A standby knows at once what charon told, also while it is not known yet what lives of that."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mobikectl.charon.ha_chains import ChainIncompleteError
from mobikectl.node.replicator import Replicator, ReplicatorTimes, Served
from mobikectl.policy.standby import Candidate
from mobikectl.wire.handover import Offer
from mobikectl.wire.standby import Batch, Touch, Wants

from .two_gateways import CLIENT, HERE, SPIS, chain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from mobikectl.wire.ha_chain import HaChain, IkeSpis
    from mobikectl.wire.secret import SecretBytes

LONG = ReplicatorTimes(together_s=0.001, look_s=30, rest_s=30, compare_s=30)
"""Nothing is looked at again but for what charon tells."""


class Charon:
    """What it told of one IKE_SA, whose model is as it was before."""

    def __init__(self) -> None:
        self.children: set[int] = {100}
        self.mids = (4, 9)
        self.listener: Callable[[IkeSpis, bool], None] = lambda *_: None

    def chain_of(self, spis: IkeSpis, children: Collection[int] | None = None) -> HaChain:
        wanted = self.children if children is None else set(children)
        if wanted - self.children:
            raise ChainIncompleteError("a CHILD_SA is not known")
        return chain(sorted(wanted)).counting(*self.mids)

    def listen(self, listener: Callable[[IkeSpis, bool], None]) -> Callable[[], None]:
        self.listener = listener
        return lambda: None

    def rekeys(self) -> None:
        """The CHILD_SA is replaced: three exchanges."""
        self.children, self.mids = {101}, (7, 9)
        self.listener(SPIS, False)


class Standby:
    """The other node: what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.changed = asyncio.Event()

    async def call(
        self, node: str, verb: str, payload: SecretBytes, *, token: int = 0, deadline: float
    ) -> SecretBytes:
        self.told += Batch.from_secret(payload).items
        self.changed.set()
        return Wants().to_secret()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not true():
                self.changed.clear()
                await self.changed.wait()

    @property
    def mids(self) -> tuple[int | None, int | None] | None:
        return next((item.mids for item in reversed(self.told) if isinstance(item, Touch)), None)


@asynccontextmanager
async def standing_by(charon: Charon) -> AsyncIterator[Standby]:
    standby = Standby()
    served = Served("gw1/client#1", SPIS, HERE, CLIENT, ((100, 101),))
    replicator = Replicator(
        "gw1", charon, standby,
        served=lambda: [served],
        candidates=lambda: [Candidate("gw2")],
        times=LONG,
    )  # fmt: skip
    running = asyncio.create_task(replicator.run())
    try:
        yield standby
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_rekeying_that_is_not_seen_yet_in_what_is_served_is_told_at_once() -> None:
    charon = Charon()
    async with standing_by(charon) as standby:
        await standby.until(lambda: standby.mids == (4, 9))
        charon.rekeys()
        await standby.until(lambda: standby.mids == (7, 9))


async def test_what_all_that_are_to_stand_by_confirm_has_nobody_chosen_anew() -> None:
    charon, chosen, standby = Charon(), 0, Standby()
    served = Served("gw1/client#1", SPIS, HERE, CLIENT, ((100, 101),))

    def candidates() -> list[Candidate]:
        nonlocal chosen
        chosen += 1
        return [Candidate("gw2"), Candidate("gw3")]

    replicator = Replicator(
        "gw1", charon, standby, served=lambda: [served], candidates=candidates, standbys=2, times=LONG
    )
    running = asyncio.create_task(replicator.run())
    try:
        await standby.until(lambda: sum(isinstance(item, Offer) for item in standby.told) == 2)
        await asyncio.sleep(0.05)
        before = chosen
        for ours in range(5, 9):
            charon.mids = (ours, 9)
            charon.listener(SPIS, False)
            await standby.until(lambda ours=ours: standby.mids == (ours, 9))  # type: ignore[misc]
        await asyncio.sleep(0.05)
        assert chosen == before
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_of_what_is_not_known_in_full_no_copy_is_begun() -> None:
    charon = Charon()
    charon.children = {101}
    async with standing_by(charon) as standby:
        await standby.until(lambda: bool(standby.told))
        charon.listener(SPIS, False)
        await asyncio.sleep(0.05)
        assert not any(isinstance(item, Offer) for item in standby.told)
