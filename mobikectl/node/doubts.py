"""Copies that are to be given up, as their clients have other IKE_SAs here: a copy must not take a tunnel's traffic.

What is installed last is what the kernel sends by, passive or not. A client that lost its node, or gave its IKE_SA up,
makes another one wherever it comes, while a node may still serve the one before and have it copied.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mobikectl.errors import MobikectlError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from mobikectl.node.copies import Copy
    from mobikectl.node.passive import CopyKeeper, Passive
    from mobikectl.wire.ha_chain import IkeSpis

log = logging.getLogger(__name__)


class Doubts:
    """Given the ``copies``, which are looked at as they are then. `run` it."""

    def __init__(self, broker: CopyKeeper, passive: Passive, copies: Mapping[IkeSpis, Copy]) -> None:
        self._broker = broker
        self._passive = passive
        self._copies = copies
        self._waiting: dict[IkeSpis, None] = {}
        self._wake = asyncio.Event()
        broker.listen(self._changed)

    def _changed(self, spis: IkeSpis, ended: bool) -> None:
        if self._copies and not ended:
            self._look_at(self._broker.rivals(spis) & self._copies.keys())

    def made(self, spis: IkeSpis) -> None:
        """Given a copy that was made just now, look at it: its client may have come meanwhile."""
        if self._broker.rivals(spis):
            self._look_at({spis})

    def _look_at(self, copies: set[IkeSpis] | frozenset[IkeSpis]) -> None:
        self._waiting.update(dict.fromkeys(copies))
        self._wake.set()

    async def run(self, give_up: Callable[[IkeSpis, Copy], Awaitable[None]]) -> None:
        """Given what ends a copy, have those ended whose clients have another IKE_SA here, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                spis = next(iter(self._waiting))
                del self._waiting[spis]
                if (copy := self._copies.get(spis)) is None:
                    continue
                try:
                    other = await self._passive.rival(spis)
                except MobikectlError as error:
                    log.info("whether the client of %s came anew: %s", copy.offer.name, error)
                    continue
                if other is not None:
                    log.info("no copy of %s any more: its client has %s here", copy.offer.name, other)
                    await give_up(spis, copy)
