"""The lab of the plugin, with bridges beside its charons."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from mobikectl.bridge.bridge import Bridge
from mobikectl.bridge.speakers import BridgeSettings
from mobikectl.charon.rmobike import Rmobike
from mobikectl.protocol.exchange import Retransmission

from ..rmobike.conftest import lab, pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.bridge.events import Told
    from mobikectl.bridge.session import BridgeSession
    from mobikectl.wire.bridge import Spoken

    from ..rmobike.lab import Lab, Node

__all__ = ["Ends", "beside", "flows", "lab", "pair", "patient"]

EventT = TypeVar("EventT")
WAIT_S = 40.0


def patient(*spoken: Spoken, **options: object) -> BridgeSettings:
    """Settings with a machine that looks for another address soon."""
    return BridgeSettings(
        speak=frozenset(spoken),
        retransmission=Retransmission(first_s=1.0, factor=1.0),
        **options,  # type: ignore[arg-type]
    )


async def flows(lab: Lab) -> None:
    """Wait until all of a few pings are answered: ESP in userland rekeys the CHILD_SA after each move."""
    for _ in range(10):
        sent, answered = await (await lab.ping(20)).result()
        if sent == answered:
            return
    raise AssertionError(f"{answered} of {sent} pings are answered")


@dataclass
class Ends:
    """A bridge beside a charon, and what it told."""

    bridge: Bridge
    told: list[Told] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, kind: type[EventT], *, since: int = 0, **fields: object) -> EventT:
        """Wait for an event of this kind whose fields have these values, and return it."""
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    self.news.clear()
                    for told in self.told[since:]:
                        event = told.event
                        if isinstance(event, kind) and all(getattr(event, k) == v for k, v in fields.items()):
                            return event
                    await self.news.wait()
        except TimeoutError:
            raise AssertionError(f"no {kind.__name__} {fields}; told {self.told}") from None

    def kinds(self) -> list[str]:
        return [type(told.event).__name__ for told in self.told]

    def only(self, spoken: Spoken) -> BridgeSession:
        (session,) = [one for one in self.bridge.sessions if one.spoken is spoken]
        return session


@asynccontextmanager
async def beside(node: Node, settings: BridgeSettings) -> AsyncIterator[Ends]:
    """Run a bridge beside a node's charon."""
    async with node.vici as charon, Rmobike(node.directory / "rmobike", timeout=20) as plugin:
        told: list[Told] = []
        news = asyncio.Event()

        def tell(event: Told) -> None:
            told.append(event)
            news.set()

        bridge = Bridge(charon, plugin, settings, tell=tell)
        running = asyncio.create_task(bridge.run())
        try:
            async with asyncio.timeout(20):
                await bridge.ready()
            yield Ends(bridge, told, news)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
