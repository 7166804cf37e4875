"""What operators want, followed in the store: a pause, a drain's rate and a pin also stop what was planned before."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from mobikectl.cluster.backend import Backoff, Gap
from mobikectl.errors import StoreError
from mobikectl.node.steps import Wishes

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.cluster.store import Store

log = logging.getLogger(__name__)

KINDS = frozenset({"cluster", "intents", "pins"})


class WishList:
    """Knows what operators want of this node. ``changed`` is called when that is something else."""

    def __init__(self, store: Store, node: str, changed: Callable[[], None]) -> None:
        self._store = store
        self._node = node
        self._changed = changed
        self.known: Wishes | None = None
        """None: the store was not read yet. While the store is away, what it said last."""

    async def run(self) -> None:
        """Follow the store, for ever."""
        wait = Backoff()
        while True:
            try:
                revision = await self._read()
                wait.reset()
                await self._follow(revision)
            except StoreError as error:
                log.warning("what operators want is not known: %s", error)
                await asyncio.sleep(wait.next())

    async def _follow(self, revision: int) -> None:
        async with aclosing(self._store.watch_state(after=revision)) as changes:
            async for change in changes:
                if isinstance(change, Gap):
                    return
                if change.kind in KINDS and (change.kind != "intents" or change.name == self._node):
                    await self._read()

    async def _read(self) -> int:
        state = await self._store.state()
        wishes = Wishes(
            paused=state.cluster.value.paused,
            intent=state.intent(self._node).value,
            pins={sa: pin.value for sa, pin in state.pins.items()},
        )
        if wishes != self.known:
            self.known = wishes
            self._changed()
        return state.revision
