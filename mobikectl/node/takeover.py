"""Serves a copy whose node is dead: with message IDs and ESP numbers that its node cannot have used.

What was told last may be behind by what happened in the last milliseconds (docs/moves.md, "Message IDs").
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from mobikectl.errors import MobikectlError, MoveError
from mobikectl.netlink.esp import EXHAUSTION, Received
from mobikectl.node import imported

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.node.control import HeldSa, SaControl, Sequences
    from mobikectl.node.copies import Copy
    from mobikectl.node.intake import Hosts
    from mobikectl.node.passive import CopyKeeper, CopyTimes, Passive
    from mobikectl.wire.ha_chain import IkeSpis
    from mobikectl.wire.standby import Numbers

log = logging.getLogger(__name__)

LEAST_JUMP: Final = 1 << 20
"""ESP numbers that are left out at least: a receiver takes any number ahead of its window (RFC 4303 section 3.4.3)."""
BLIND_JUMP: Final = 1 << 28
"""As many where the dead node's numbers were never told."""
JUMP_FACTOR: Final = 4
"""How much faster than told a node may have become before it died."""
HEARD_TOGETHER: Final = 4
"""Of more that wait for their clients at the same time each looks the less often."""
OURS: Final[tuple[tuple[int, int], ...]] = ((0, 0), (1, 0), (-1, 0))
"""How far our message ID may be ahead of that told: an exchange may have ended while its node died, and a request that
was told of may never have come."""
BOTH: Final[tuple[tuple[int, int], ...]] = (*OURS, (0, 1), (1, 1))
"""The same with the peer's, where the plugin cannot learn it from the peer's next request."""


class Takeover:
    """Serves copies. The caller has the turn of the one that it deals with."""

    def __init__(
        self,
        control: SaControl,
        broker: CopyKeeper,
        passive: Passive,
        sequences: Sequences | None,
        hosts: Hosts | None,
        times: CopyTimes,
    ) -> None:
        self._control = control
        self._broker = broker
        self._passive = passive
        self._sequences = sequences
        self._hosts = hosts
        self._times = times
        self._hearing = 0
        """IKE_SAs that were started and whose clients are waited for."""
        self._renewing: asyncio.Queue[tuple[float, HeldSa]] = asyncio.Queue()

    async def serve(self, copy: Copy, begun: Callable[[], None]) -> str | None:
        """Given a copy, serve it. Return None when its client answered, or why it is given up and is to be dropped.

        ``begun`` is called when its client was told, and is waited for. Raise MoveError, NetlinkError, NotFoundError,
        and what charon raises.
        """
        spis = copy.offer.spis
        held = await self._passive.look(spis)
        if held is None:
            return "charon lost the copy of it"
        chain = self._broker.chain_of(spis, held.inbound)
        if held.serving:  # its node had it started here, and died before its client came
            held = await self._passive.again(spis, chain)
        told = held.mid_initiator, held.mid_responder
        deadline = time.monotonic() + self._times.give_up_s
        tries, guesses = 0, BOTH
        while True:
            ours, theirs = guesses[tries % len(guesses)]
            mids = max(told[0] + ours, 0), told[1] + theirs
            guesses = OURS if await self._activate(held, copy, mids) else BOTH
            if not tries:
                begun()
            came = await self._heard(spis, mids, copy, deadline)
            if came is not None:
                await self._served(came, copy)
                return None
            if time.monotonic() >= deadline:
                return f"its client did not answer within {self._times.give_up_s:g} s"
            tries += 1
            held = await self._passive.again(spis, chain)

    async def _activate(self, held: HeldSa, copy: Copy, mids: tuple[int, int]) -> int:
        await self._jump(held, copy)
        self._broker.count_from(held.spis, *mids)
        return await self._control.activate(
            held, mids=mids, roam=True, peer_r=copy.offer.peer_r, own_r=copy.offer.own_r
        )

    async def _jump(self, held: HeldSa, copy: Copy) -> None:
        """Have our ESP begin far behind what its node can have sent."""
        if self._sequences is None:
            return
        for inbound, outbound in held.children:
            state = await self._sequences.read(held.remote.address, outbound)
            if state is None:
                continue  # ESP is in userland
            at, numbers = copy.numbers.get(inbound, (0.0, None))
            last = behind(numbers, time.monotonic() - at)
            if last > (1 << (64 if state.esn else 32)) - EXHAUSTION:
                raise MoveError(
                    f"the ESP numbers of {copy.offer.name} are used up", hint="its client makes a new IKE_SA"
                )
            if state.oseq < last:
                await self._sequences.start_after(held.remote.address, outbound, last)
            if numbers is not None and numbers.received:
                taken = Received(numbers.received, (1 << 32) - 1, 32)
                await self._sequences.mark_received(held.local.address, inbound, taken)

    async def _heard(
        self, spis: IkeSpis, mids: tuple[int, int], copy: Copy, deadline: float
    ) -> HeldSa | None:
        until = min(time.monotonic() + self._times.answer_s, deadline)
        self._hearing += 1
        pause = self._times.heard_s
        try:
            while True:
                await asyncio.sleep(pause)
                asked = time.monotonic()
                held = await self._passive.look(spis)
                if held is None:
                    raise MoveError(
                        f"{copy.offer.name} went away while it was started", hint="see charon's log"
                    )
                answered = held.mid_initiator > mids[0] and not held.busy
                if held.serving and (answered or held.mid_responder > mids[1]):
                    return held
                if time.monotonic() > until:
                    return None
                # A charon that takes long to answer is busy starting others.
                busy = imported.BUSY * (time.monotonic() - asked) * max(1.0, self._hearing / HEARD_TOGETHER)
                pause = max(self._times.heard_s, min(busy, self._times.answer_s / 2))
        finally:
            self._hearing -= 1

    async def _served(self, held: HeldSa, copy: Copy) -> None:
        try:
            self._renewing.put_nowait((time.monotonic() + self._times.renew_s, held))
            if self._hosts is not None:
                await self._hosts.arrived(held, copy.offer.name)
        except MobikectlError as error:
            log.warning("%s is served here, but %s", copy.offer.name, error)

    async def renew(self) -> None:
        """Rekey the CHILD_SAs of what was started, for ever.

        With new keys nothing that its node may still send, or that was sent to it, can be mistaken for ours. Where ESP
        is in userland charon does that by itself, at once.
        """
        while True:
            at, held = await self._renewing.get()
            await asyncio.sleep(max(at - time.monotonic(), 0.0))
            try:
                await self._control.rekey_children(held.ike_id, held.inbound)
            except MobikectlError as error:
                log.warning("the CHILD_SAs of %s are not rekeyed: %s", held.spis, error)


def behind(numbers: Numbers | None, age_s: float) -> int:
    """Given what was told of a CHILD_SA's ESP and how long ago, return a number that its node cannot have reached."""
    if numbers is None:
        return BLIND_JUMP
    grown = numbers.per_1000_s * max(age_s, 0.0) / 1000
    return numbers.sent + max(LEAST_JUMP, int(grown * JUMP_FACTOR))
