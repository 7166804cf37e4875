"""The mechanisms that the charon plugin carries out: `notify` (responder) and `update` (initiator)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from mobikectl.charon.rmobike_events import SwitchDone, SwitchSuperseded, SwitchTimeout, UpdateFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from mobikectl.charon.rmobike_link import Answer, PluginLink
    from mobikectl.model import IpAddress, Path

T = TypeVar("T")

ANSWER_S = 0.2
"""How long before our own deadline the plugin gives up."""

ARRIVAL_S = 0.2
"""How long after the plugin told of the peer's update charon, on another socket, may take to tell of it."""

ASKED_BACK = "the peer switched, and charon asked it back at once"
"""A route that changed a moment before makes charon (`prefer_best_path`) look at all its paths, 100 ms later. Where the
peer has just switched and no route speaks for its new path yet, charon asks it back to the old one."""

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

REFUSALS = frozenset({"no-update", "no-mobike"})
"""Reasons by which the peer itself says no."""


class Refusal(str):
    """Why the peer does not do what it was asked for."""

    __slots__ = ()


class Request:
    """A request to the plugin under way."""

    def __init__(self, queue: asyncio.Queue[Answer]) -> None:
        self._queue = queue

    async def failure(self) -> str:
        """Wait until the plugin says that the request failed, and return why. Wait for ever if it does not.

        A switch that was done, and is still not seen after ARRIVAL_S, is one that charon has undone: ASKED_BACK.
        """
        while True:
            answer = await self._queue.get()
            if isinstance(answer, SwitchDone):
                await asyncio.sleep(ARRIVAL_S)
                return ASKED_BACK
            reason = reason_of(answer)
            if reason is not None:
                return reason

    async def first(self, arriving: Coroutine[Any, Any, T]) -> T | str:
        """Given the wait for the IKE_SA's arrival, return what that returns, or why it need not be waited for."""
        arrival = asyncio.create_task(arriving)
        failure = asyncio.create_task(self.failure())
        try:
            await asyncio.wait({arrival, failure}, return_when=asyncio.FIRST_COMPLETED)
            return arrival.result() if arrival.done() else failure.result()
        finally:
            for task in (arrival, failure):
                task.cancel()
            await asyncio.wait({arrival, failure})


def reason_of(answer: Answer) -> str | None:
    """Given an answer of the plugin, return why its request failed; None: it did not, or not yet.

    An update that charon's own reaction to the same change of a route has overtaken may well arrive.
    """
    match answer:
        case UpdateFailed(reason="superseded" | "ike-sa-replaced"):
            return None
        case SwitchTimeout(reason=code) | UpdateFailed(reason=code):
            said = f"{REASONS.get(code, 'the plugin says')} ({code})"
            return Refusal(said) if code in REFUSALS else said
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
        # The plugin knows why nothing happened: its answer is to come before we give up by ourselves.
        await link.plugin.switch_address(
            ike_id, address, token=token, timeout_s=max(1, int(timeout - ANSWER_S))
        )
        yield Request(queue)


@contextlib.asynccontextmanager
async def updated(link: PluginLink, ike_id: int, path: Path) -> AsyncIterator[Request]:
    """As initiator move the IKE_SA to ``path``; the way out of its source address has to be there already.

    Raise CharonError: the plugin refused or is away.
    """
    with link.asking() as (token, queue):
        await link.plugin.update_addresses(ike_id, local=path.local, remote=path.remote, token=token)
        yield Request(queue)
