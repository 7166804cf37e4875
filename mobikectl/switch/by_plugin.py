"""The mechanisms that the charon plugin carries out: `notify` (responder) and `update` (initiator)."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Protocol

from mobikectl.charon.rmobike_events import SwitchSuperseded, SwitchTimeout, UpdateFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.charon.rmobike_link import Answer, PluginLink
    from mobikectl.model import IpAddress, Path

REASONS = {
    "no-answer": "the peer did not answer",
    "no-update": "the peer got the request but does not follow it: it refuses the address, or cannot reach it",
    "no-route": "charon has no way to send from there",
    "superseded": "a newer request took its place",
    "no-mobike": "the peer does not support MOBIKE",
    "ike-sa-gone": "the IKE_SA went away",
    "ike-sa-replaced": "the IKE_SA was replaced",
}
"""The plugin's reasons (docs/rmobike.md) in words."""


class Request(Protocol):
    """A request to the plugin under way."""

    async def failure(self) -> str:
        """Wait until the plugin says that the request failed, and return why. Wait for ever if it does not."""


class _Answers:
    def __init__(self, queue: asyncio.Queue[Answer]) -> None:
        self._queue = queue

    async def failure(self) -> str:
        while True:
            reason = reason_of(await self._queue.get())
            if reason is not None:
                return reason


def reason_of(answer: Answer) -> str | None:
    """Given an answer of the plugin, return why its request failed; None: it did not, or not yet."""
    match answer:
        case SwitchTimeout(reason=code) | UpdateFailed(reason=code):
            return f"{REASONS.get(code, 'the plugin says')} ({code})"
        case SwitchSuperseded():
            return f"{REASONS['superseded']} (superseded)"
        case _:
            return None


@contextlib.asynccontextmanager
async def notified(
    link: PluginLink, ike_id: int, address: IpAddress, *, timeout: float
) -> AsyncIterator[Request]:
    """As responder ask the peer to use ``address`` from now on; ``timeout`` (seconds) is the plugin's for that.

    Nothing is changed here until the peer updates. Raise CharonError: the plugin refused or is away.
    """
    with link.asking() as (token, queue):
        await link.plugin.switch_address(ike_id, address, token=token, timeout_s=max(1, math.ceil(timeout)))
        yield _Answers(queue)


@contextlib.asynccontextmanager
async def updated(link: PluginLink, ike_id: int, path: Path) -> AsyncIterator[Request]:
    """As initiator move the IKE_SA to ``path``; the way out of its source address has to be there already.

    Raise CharonError: the plugin refused or is away.
    """
    with link.asking() as (token, queue):
        await link.plugin.update_addresses(ike_id, local=path.local, remote=path.remote, token=token)
        yield _Answers(queue)
