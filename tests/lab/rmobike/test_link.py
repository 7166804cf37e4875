"""The sidecar's link to the plugin: it may be absent, appear later, and go away."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from mobikectl.charon.rmobike_events import Capability, SwitchDone
from mobikectl.charon.rmobike_link import Peer, PluginLink
from mobikectl.charon.session import EventGap, EventLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.charon.rmobike_events import PluginEvent

    from .lab import Lab

pytestmark = [
    pytest.mark.netns,
    pytest.mark.charon,
    pytest.mark.xdist_group("rmobike"),
    pytest.mark.timeout(180),
]


class Following:
    """A link that is run, and what it told."""

    def __init__(self, link: PluginLink) -> None:
        self.link = link
        self.told: list[PluginEvent | EventGap | EventLost] = []
        self._news = asyncio.Event()

    def tell(self, event: PluginEvent | EventGap | EventLost) -> None:
        self.told.append(event)
        self._news.set()

    async def until(self, kind: type) -> None:
        """Wait until the link has told something of this kind."""
        async with asyncio.timeout(20):
            while not any(isinstance(event, kind) for event in self.told):
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def following(lab: Lab) -> AsyncIterator[Following]:
    found = Following(PluginLink(lab.gateway.directory / "rmobike", timeout=20.0))
    task = asyncio.create_task(found.link.run(found.tell))
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await found.link.aclose()


async def test_a_plugin_that_appears_later_is_used_and_one_that_goes_is_forgotten(lab: Lab) -> None:
    async with following(lab) as found:
        link = found.link
        assert (link.up, dict(link.peers)) == (False, {})
        await lab.gateway.start()
        await found.until(EventGap)
        assert link.up
        await lab.client.start()
        await lab.connect()
        await found.until(Capability)
        (peer,) = link.peers.values()
        assert peer == Peer(peer.ike_id, mobike=True, r=True, redirect=True, original_initiator=False)
        await lab.gateway.stop()
        await found.until(EventLost)
        assert (link.up, dict(link.peers)) == (False, {})


async def test_peers_that_were_there_before_are_known_too(pair: Lab) -> None:
    async with following(pair) as found:
        await found.until(EventGap)
        (peer,) = found.link.peers.values()
        assert (peer.mobike, peer.r, peer.redirect) == (True, True, None)
        assert found.link.peer(peer.ike_id) is peer


async def test_who_asks_gets_the_answers_to_its_own_token(pair: Lab) -> None:
    async with following(pair) as found:
        await found.until(EventGap)
        link = found.link
        (ike_id,) = link.peers
        with link.asking() as (token, queue), link.asking() as (_other, nothing):
            await pair.gateway.command("switch-address", ike_id=ike_id, address="198.18.2.11", token=token)
            async with asyncio.timeout(20):
                while not isinstance(answer := await queue.get(), SwitchDone):
                    pass
            assert (answer.token, str(answer.path.local)) == (token, "198.18.2.11")
            assert nothing.empty()


async def test_a_peer_is_known_under_the_number_that_a_rekeying_gave_its_ike_sa(pair: Lab) -> None:
    async with following(pair) as found:
        await found.until(EventGap)
        (old,) = found.link.peers
        found.link.rekeyed(old, old + 1)
        assert found.link.peer(old) is None
        assert found.link.peer(old + 1) == Peer(
            old + 1, mobike=True, r=True, redirect=None, original_initiator=False
        )
        found.link.forget(old + 1)
        assert not found.link.peers
