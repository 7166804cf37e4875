"""Waits until charon has an IKE_SA that it was told of by the HA broker, and has it drop one again.

And what it needs before it is told. charon does not answer HA messages: what became of them is looked up.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Protocol

from mobikectl.errors import DecodeError, MoveError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from mobikectl.node.control import Ended, HeldSa, SaControl
    from mobikectl.wire.ha_chain import HaChain, IkeSpis

    Look = Callable[[IkeSpis], Awaitable[HeldSa | None]]

BUSY: Final = 3
"""A charon that takes long to answer is busy: what it is asked again and again takes a fourth of the time at most."""


class Broker(Protocol):
    """The HA broker (`mobikectl.charon.ha_broker.HaBroker`)."""

    def remove(self, spis: IkeSpis) -> None:
        """Have charon drop an IKE_SA silently, and forget it. Raise CharonUnreachableError."""

    def forget(self, spis: IkeSpis) -> None:
        """Forget an IKE_SA."""


async def require(control: SaControl, chain: HaChain) -> None:
    """Given what is to be made, raise MoveError when charon has not all of its connections."""
    missing = chain.connections - await control.connections()
    if missing:
        raise MoveError(
            f"this node's charon has no connection {', '.join(sorted(missing))}",
            hint="load the same connections on all nodes",
        )


async def find(control: SaControl, spis: IkeSpis) -> HeldSa | None:
    """Return what charon has of an IKE_SA; None: nothing, or it is just being made and has no addresses yet."""
    try:
        return await control.look(spis)
    except DecodeError:
        return None


async def served(look: Look, ike_sas: Iterable[IkeSpis]) -> IkeSpis | None:
    """Given how to look for IKE_SAs, return one of them that is served here, or was until it was frozen; None: none is.

    Raise what ``look`` raises.
    """
    for spis in ike_sas:
        held = await look(spis)
        if held is not None and (held.serving or held.frozen):
            return spis
    return None


def pause(every: float, asked_at: float) -> float:
    """Given how often to look and when the last look began, return the seconds until the next."""
    return max(every, BUSY * (time.monotonic() - asked_at))


async def appeared(
    look: Look,
    spis: IkeSpis,
    is_whole: Callable[[HeldSa], bool],
    *,
    name: str,
    children: int,
    within: float,
    every: float,
) -> HeldSa:
    """Given how to look for an IKE_SA and when it is all there, return it then.

    ``name`` and how many ``children`` it needs are for the error. ``within`` and ``every``: seconds. Raise MoveError:
    charon did not take it, or not all of it; and what ``look`` raises.
    """
    deadline = time.monotonic() + within
    while True:
        asked_at = time.monotonic()
        held = await look(spis)
        if held is not None and is_whole(held):
            return held
        if time.monotonic() > deadline:
            what = "did not take it" if held is None else f"has {len(held.children)} of its CHILD_SAs"
            raise MoveError(
                f"charon {what}: {name} needs {children} CHILD_SAs",
                hint="see charon's log: the same connections, proposals and plugins are needed on all nodes",
            )
        await asyncio.sleep(pause(every, asked_at))


async def end(
    control: SaControl, broker: Broker, spis: IkeSpis, ended: Ended, *, within: float, every: float
) -> None:
    """Given an IKE_SA, have charon drop it without a word to its peer, see that it is gone, and forget it.

    ``ended``: told when it was served. ``within`` and ``every``: seconds. Raise MoveError: it is still there; and what
    charon raises.
    """
    try:
        held = await control.look(spis)
        if held is None:
            broker.forget(spis)
            return
    except DecodeError:
        held = None  # it is just being made
    broker.remove(spis)
    await _gone(control, spis, within=within, every=every)
    if held is not None and held.serving:
        await ended(held.ike_id)


async def _gone(control: SaControl, spis: IkeSpis, *, within: float, every: float) -> None:
    asked_at = time.monotonic()
    deadline = asked_at + within
    while await find(control, spis) is not None:
        if time.monotonic() > deadline:
            raise MoveError(f"{spis} cannot be ended here", hint="see charon's log")
        await asyncio.sleep(pause(every, asked_at))
        asked_at = time.monotonic()
