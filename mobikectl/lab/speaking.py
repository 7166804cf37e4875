"""A bridge beside a charon of the lab, in the lab's own process: steps can have its machines announce things."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from mobikectl.bridge.bridge import Bridge
from mobikectl.bridge.speakers import BridgeSettings
from mobikectl.charon.rmobike import Rmobike
from mobikectl.charon.session import Session
from mobikectl.errors import LabError
from mobikectl.protocol.exchange import Retransmission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.bridge.events import Told
    from mobikectl.bridge.session import BridgeSession
    from mobikectl.lab.run import Run
    from mobikectl.wire.bridge import Spoken

EventT = TypeVar("EventT")
WAIT_S = 40.0
PATIENT = Retransmission(first_s=1.0, factor=1.0)
"""A machine that looks for another address soon."""


@dataclass
class Speaker:
    """A bridge, and what it told."""

    node: str
    bridge: Bridge
    plugin: Rmobike
    told: list[Told] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, kind: type[EventT], *, since: int = 0, **fields: object) -> EventT:
        """Wait for an event of this kind whose fields have these values, and return it. Raise LabError: none came.

        ``since``: how many of those told so far are of the past.
        """
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
            heard = ", ".join(map(str, self.told[since:])) or "nothing"
            raise LabError(
                f"{self.node}: no {kind.__name__} {fields or ''} within {WAIT_S:g} s; it told {heard}",
                hint="see charon.log of both sides",
            ) from None

    def only(self, spoken: Spoken) -> BridgeSession:
        """Return the session of the only IKE_SA. Raise LabError: there is not one."""
        sessions = [one for one in self.bridge.sessions if one.spoken is spoken]
        if len(sessions) != 1:
            raise LabError(f"{self.node}: {len(sessions)} sessions", hint="there must be one IKE_SA")
        return sessions[0]


@asynccontextmanager
async def beside(
    node: str, charon: Session, plugin: Rmobike, settings: BridgeSettings
) -> AsyncIterator[Speaker]:
    """Run a bridge beside a node's charon while the block runs. Raise LabError when it does not come up."""
    told: list[Told] = []
    news = asyncio.Event()

    def tell(one: Told) -> None:
        told.append(one)
        news.set()

    bridge = Bridge(charon, plugin, settings, tell=tell)
    running = asyncio.create_task(bridge.run())
    try:
        await _until_ready(node, bridge)
        yield Speaker(node, bridge, plugin, told, news)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def _until_ready(node: str, bridge: Bridge) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            await bridge.ready()
    except TimeoutError:
        raise LabError(f"{node}: the bridge is not ready", hint="see charon.log") from None


@asynccontextmanager
async def speaking(run: Run, node: str, *spoken: Spoken, serve: bool = True) -> AsyncIterator[Speaker]:
    """Run a bridge beside a node's charon, as `beside`.

    ``serve``: follow the peer and answer it; without, it only announces (beside a sidecar that follows). NAT traversal
    does not stop it: userland ESP is in UDP always, which charon shows as NAT traversal.
    """
    settings = BridgeSettings(speak=frozenset(spoken), serve=serve, allow_nat=True, retransmission=PATIENT)
    async with (
        Session(run.lab.vici_socket(node), timeout=WAIT_S, peer=f"{node}'s charon") as charon,
        Rmobike(run.lab.plugin_socket(node), timeout=WAIT_S) as plugin,
        beside(node, charon, plugin, settings) as speaker,
    ):
        yield speaker
