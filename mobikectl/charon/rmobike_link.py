"""The plugin as the sidecar wants it: there or not, what each peer can do, and what becomes of a request."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mobikectl.charon.rmobike import Rmobike
from mobikectl.charon.rmobike_events import (
    Capability,
    PluginEvent,
    SwitchAcked,
    SwitchDone,
    SwitchSuperseded,
    SwitchTimeout,
    UpdateDone,
    UpdateFailed,
)
from mobikectl.charon.session import EventGap, EventLost
from mobikectl.errors import CharonError, CharonRefusedError, DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

Answer = SwitchAcked | SwitchDone | SwitchTimeout | SwitchSuperseded | UpdateDone | UpdateFailed
"""What the plugin tells about a request, by its token."""

AGAIN_S = 5.0
"""A plugin that could not be understood is asked again after so many seconds."""
PENDING = 64
"""Answers to one request that are kept for its asker: far more than there are."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What the peer of an IKE_SA was seen to support."""

    ike_id: int
    mobike: bool
    r: bool
    """It announced 'R' (draft-smyslov-ipsecme-ikev2-r-mobike section 4.1): it may be asked to switch."""
    redirect: bool | None = None
    """It follows redirects (RFC 5685). None: that was before we looked."""
    original_initiator: bool | None = None
    """We are. VICI's flag flips when the responder rekeys. None: nobody told."""


class PluginLink:
    """Follows one charon's plugin: absent, it stands for stock behaviour; it may come and go."""

    def __init__(self, path: Path | str, *, timeout: float = 5.0) -> None:
        self.plugin = Rmobike(path, timeout=timeout)
        self._peers: dict[int, Peer] = {}
        self._up = False
        self._askers: dict[str, asyncio.Queue[Answer]] = {}
        self._numbers = itertools.count(1)

    @property
    def up(self) -> bool:
        """Whether the plugin is there and its events are followed."""
        return self._up

    @property
    def peers(self) -> Mapping[int, Peer]:
        """What each peer supports, by the unique id of its IKE_SA; empty while the plugin is away."""
        return self._peers

    def peer(self, ike_id: int) -> Peer | None:
        """Given an IKE_SA, return what its peer supports; None: that is not known."""
        return self._peers.get(ike_id)

    def role(self, ike_id: int) -> bool | None:
        """Given an IKE_SA, return whether we are its original initiator; None: that is not known."""
        peer = self._peers.get(ike_id)
        return None if peer is None else peer.original_initiator

    def rekeyed(self, old: int, new: int) -> None:
        """Given that an IKE_SA has a new unique id, know its peer under that."""
        before = self._peers.pop(old, None)
        if before is not None:
            self._peers[new] = replace(before, ike_id=new)

    def forget(self, ike_id: int) -> None:
        """Given an IKE_SA that is gone, forget its peer."""
        self._peers.pop(ike_id, None)

    @contextlib.contextmanager
    def asking(self) -> Iterator[tuple[str, asyncio.Queue[Answer]]]:
        """Give a token for one request, and the queue into which the plugin's answers to it come."""
        token = f"m{next(self._numbers)}"
        queue: asyncio.Queue[Answer] = asyncio.Queue(PENDING)
        self._askers[token] = queue
        try:
            yield token, queue
        finally:
            del self._askers[token]

    async def run(self, tell: Callable[[PluginEvent | EventGap | EventLost], None]) -> None:
        """Follow the plugin until cancelled; ``tell`` gets everything that it says, in order."""
        while True:
            try:
                async with aclosing(self.plugin.events()) as events:
                    async for event in events:
                        if await self._take(event):
                            tell(event)
            except (CharonRefusedError, DecodeError) as error:
                self._lose()
                tell(EventLost(str(error)))  # another program's socket, or another version of the plugin
            await asyncio.sleep(AGAIN_S)

    async def aclose(self) -> None:
        """Close the idle connections."""
        await self.plugin.aclose()

    async def _take(self, event: PluginEvent | EventGap | EventLost) -> bool:
        """Bring the model in step with an event; return whether it is to be told."""
        match event:
            case EventGap():
                return await self._meet()
            case EventLost():
                self._lose()
            case Capability():
                self._peers[event.ike_id] = Peer(
                    event.ike_id, event.mobike, event.peer_r, event.redirect, event.original_initiator
                )
            case (
                SwitchAcked()
                | SwitchDone()
                | SwitchTimeout()
                | SwitchSuperseded()
                | UpdateDone()
                | UpdateFailed()
            ):
                asker = self._askers.get(event.token)
                if asker is not None and not asker.full():
                    asker.put_nowait(event)
        return True

    async def _meet(self) -> bool:
        """The plugin is there (again): learn about the peers. Return whether it answered."""
        try:
            known = await self.plugin.peers()
        except CharonRefusedError:
            raise
        except CharonError:
            return False  # gone again: the next event says so
        redirects = {ike_id: peer.redirect for ike_id, peer in self._peers.items()}
        self._peers = {
            peer.ike_id: Peer(
                peer.ike_id, peer.mobike, peer.peer_r, redirects.get(peer.ike_id), peer.original_initiator
            )
            for peer in known
        }
        self._up = True
        return True

    def _lose(self) -> None:
        self._up = False
        self._peers.clear()
