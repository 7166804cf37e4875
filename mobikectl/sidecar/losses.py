"""What a move cost the peer's packets, by the numbers that ESP gives them (RFC 4303 section 2.2).

The peer numbers what it sends on an SA without a gap. Numbers that were passed over between the beginning of a move and
a while after its end were sent and did not arrive. It observes and is never asked back: a mistake in here can spoil
a number, not a move.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mobikectl.errors import NetlinkError, NotFoundError, PrivilegeError
from mobikectl.observe.events import Source
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mobikectl.model import IkeSa, IpAddress
    from mobikectl.netlink.xfrm import KernelSa
    from mobikectl.observe.events import Event, EventLog

SETTLE_S = 0.5
"""So long after the end of a move packets that the old path still carried have arrived."""
WATCHED = 1000
"""Moves under way whose beginning is remembered."""
ENDED = frozenset({"move-verified", "move-undone", "move-failed"})
LEAVING = frozenset({"redirect", "reconnect"})
"""Mechanisms after which the IKE_SA is not here."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What an inbound SA took by now: the highest number received, and how many packets."""

    highest: int
    packets: int


class Kernel(Protocol):
    """The kernel's SAs (`mobikectl.netlink.KernelSas`)."""

    async def get(self, daddr: IpAddress, spi: int) -> KernelSa:
        """Given an SA's destination and SPI, return it. Raise NotFoundError, NetlinkError, PrivilegeError."""


def lost(before: Mapping[int, Taken], after: Mapping[int, Taken]) -> int | None:
    """Given what each inbound SA (by SPI) took before and after a move, return how many packets did not arrive.

    None: it is not known. An SA is another one now, counts anew, or no packet came on any of them: then nobody can say
    whether one was sent. A packet that overtook others before the move counts for at most itself.
    """
    if not before or set(before) != set(after):
        return None
    missing = came = 0
    for spi, earlier in before.items():
        packets = after[spi].packets - earlier.packets
        numbers = after[spi].highest - earlier.highest
        if packets < 0 or numbers < 0:
            return None
        came += packets
        missing += max(numbers - packets, 0)
    return missing if came else None


class Losses:
    """Watches the moves that the event log tells of, and records ``move-loss`` for those of which it is known."""

    def __init__(self, kernel: Kernel, find: Callable[[int], IkeSa | None], events: EventLog) -> None:
        self._kernel = kernel
        self._find = find
        self._events = events
        self._before: OrderedDict[int, Mapping[int, Taken]] = OrderedDict()

    async def run(self) -> None:
        """Watch, until cancelled."""
        async with TaskGroup() as tasks:
            async for event in self._events.follow():
                number = event.data.get("move")
                if event.source is not Source.ACTION or not isinstance(number, int):
                    continue
                if event.name == "move-planned" and event.data.get("mechanism") not in LEAVING:
                    await self._begun(number, event)
                elif event.name in ENDED and number in self._before:
                    tasks.create_task(self._ended(event, self._before.pop(number)))

    async def _begun(self, number: int, event: Event) -> None:
        taken = await self._read(event)
        if taken:
            self._before[number] = taken
        while len(self._before) > WATCHED:
            self._before.popitem(last=False)

    async def _ended(self, event: Event, before: Mapping[int, Taken]) -> None:
        await asyncio.sleep(SETTLE_S)
        packets = lost(before, await self._read(event))
        if packets is None:
            return
        data = {
            key: event.data.get(key)
            for key in ("move", "ike_sa", "connection", "before", "after", "mechanism")
        }
        text = f"{data['connection']}[{data['ike_sa']}] {data['before']} => {data['after']}: "
        text += (
            f"{packets} packets of the peer did not arrive" if packets else "no packet of the peer is missing"
        )
        outcome = event.name.removeprefix("move-")
        self._events.record(
            Source.ACTION, "move-loss", text, data={**data, "outcome": outcome, "lost_packets": packets}
        )

    async def _read(self, event: Event) -> Mapping[int, Taken]:
        """Return what the IKE_SA's inbound SAs took by now; nothing where one of them does not tell."""
        number = event.data.get("ike_sa")
        sa = self._find(number) if isinstance(number, int) else None
        if sa is None:
            return {}
        found = {}
        for child in sa.children:
            try:
                state = await self._kernel.get(sa.path.local, child.spi_in)
            except (NotFoundError, NetlinkError, PrivilegeError):
                return {}
            if state.replay is None or not state.replay.window:
                return {}  # without a window the kernel keeps no numbers
            found[child.spi_in] = Taken(state.replay.seq, state.packets)
        return found
