"""Having a client hear this node again, after another node may have sent requests to it.

A target that was told to start may have told the client its address with the message ID that is our next one. Whether
the client took that is not known: it may have, and go on to send where its answers are lost. Then our next request has
a message ID that it knows, and other content: that is no retransmission, and it is dropped without a word (RFC 7296
section 2.3; strongSwan compares hashes). So our request is sent with that ID, and with the next one, until it answers.
What answers has also learned where we are.

Where both nodes served it for a while, one that does not say what it serves and one that had to answer the client, the
one that gives it up tells what it used (`caught_up`).

The client's requests are the other half: one that the target took has used the message ID that we expect next, and what
the client asks next would be dropped here. The plugin goes on with it (`SaControl.thaw`); with an older one a client
that is asked to come back tells which it is by what it asks then.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.node.control import ChainKeeper, HeldSa, SaControl
    from mobikectl.wire.ha_chain import IkeSpis

_MOST: Final = 1 << 32
"""Message IDs have 32 bits (RFC 7296 section 3.1)."""


@dataclass(frozen=True, slots=True)
class CallTimes:
    """Seconds, and how often each message ID is tried."""

    answer_s: float = 1.0
    """The client answers: some round trips, or a retransmission."""
    renumbered_s: float = 0.5
    """charon has taken another message ID."""
    look_s: float = 0.01
    rounds: int = 3
    come_s: tuple[float, float] = (3.0, 6.0)
    """A client that was asked to come does so with the message ID that is expected, and with the next one. It looks at
    the path again each 2.5 s (strongSwan)."""


async def called_back(
    control: SaControl, broker: ChainKeeper, spis: IkeSpis, *, times: CallTimes | None = None
) -> bool:
    """Given an IKE_SA that is served here, have its client hear us; return whether it answered.

    Raise CharonError.
    """
    times = times or CallTimes()
    held = await control.look(spis)
    if held is None or not held.serving:
        return False
    first = held.mid_initiator
    for number in (first, first + 1) * times.rounds:
        if held.mid_initiator != number:
            broker.renumber(spis, number)
            held = await _until(control, spis, range(number, number + 1), times.renumbered_s, times.look_s)
        if held is not None and held.mid_initiator == number:
            await control.call_back(held.ike_id)
            held = await _until(control, spis, range(number + 1, _MOST), times.answer_s, times.look_s)
        if held is None or not held.serving:
            return False
        if held.mid_initiator > number:
            return True
    return False


async def came_back(
    control: SaControl, broker: ChainKeeper, spis: IkeSpis, expected: int, *, times: CallTimes | None = None
) -> bool:
    """Given an IKE_SA whose client was asked to come here, and which message ID of it is expected, take what it asks.

    Return whether it came. If not, that message ID is expected as before. Raise CharonError.
    """
    times = times or CallTimes()
    for number, within in zip((expected, expected + 1), times.come_s, strict=True):
        if number != expected:
            broker.renumber(spis, theirs=number)
        held = await _until(
            control, spis, range(number + 1, _MOST), within, times.look_s, lambda held: held.mid_responder
        )
        if held is None or not held.serving:
            return False
        if held.mid_responder > number:
            return True
    broker.renumber(spis, theirs=expected)
    return False


async def caught_up(
    control: SaControl,
    broker: ChainKeeper,
    spis: IkeSpis,
    since: tuple[int, int],
    *,
    times: CallTimes | None = None,
) -> None:
    """Given an IKE_SA that is served here, go on behind what another node used that served it meanwhile.

    ``since``: the message IDs of the next requests, ours and the peer's, as that node had them. A request of ours that
    waits for its answer is sent again. Raise CharonError.
    """
    times = times or CallTimes()
    held = await control.look(spis)
    if held is None or not held.serving:
        return
    ours, theirs = since
    behind = ours > held.mid_initiator
    if behind or theirs > held.mid_responder:
        broker.renumber(spis, ours if behind else None, theirs if theirs > held.mid_responder else None)
    if behind and held.busy:
        await _until(control, spis, range(ours, _MOST), times.renumbered_s, times.look_s)
        await control.call_back(held.ike_id)


async def _until(
    control: SaControl,
    spis: IkeSpis,
    wanted: range,
    within: float,
    every: float,
    mid: Callable[[HeldSa], int] = lambda held: held.mid_initiator,
) -> HeldSa | None:
    """Return the IKE_SA as soon as a message ID is a wanted one, or as it is later; None: it is gone."""
    deadline = time.monotonic() + within
    while True:
        held = await control.look(spis)
        if held is None or mid(held) in wanted or time.monotonic() > deadline:
            return held
        await asyncio.sleep(every)
