"""Rekeys the IKE_SAs of this node of which charon told its HA broker too little, so that they can be moved again.

It looks at what is served instead of at what happened: whatever was not heard, and why, is made up for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

from mobikectl.errors import CharonTimeoutError, CharonUnreachableError, MobikectlError
from mobikectl.observe.events import Source
from mobikectl.policy.untold import Lack, Untold

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from mobikectl.charon.ha_broker import BrokerStatus
    from mobikectl.node.control import HeldSa
    from mobikectl.node.replicator import Served
    from mobikectl.observe.events import EventLog
    from mobikectl.policy.untold import Pace
    from mobikectl.wire.ha_chain import IkeSpis

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
LOOKS: Final = 64
"""So many IKE_SAs charon is asked about each time, at most: one that is busy is asked about again."""
HEARD_S: Final = 5.0
"""charon's ha plugin speaks each second. When it does not, nobody knows what it would tell."""


class Broker(Protocol):
    """The HA broker (`mobikectl.charon.ha_broker.HaBroker`)."""

    @property
    def status(self) -> BrokerStatus:
        """How it is."""

    def untold(self, spis: IkeSpis, children: Collection[int]) -> frozenset[int] | None:
        """Return the CHILD_SAs (inbound SPIs) that are not known; None: the IKE_SA is not."""


class Control(Protocol):
    """The charon of this node (`mobikectl.node.charon_control.CharonControl`). All may raise CharonError."""

    async def look(self, spis: IkeSpis) -> HeldSa | None:
        """Return an IKE_SA as it is now; None: charon does not have it."""

    async def rekey_ike_sa(self, ike_id: int) -> None:
        """Begin to rekey an IKE_SA."""

    async def rekey_children(self, ike_id: int, children: Collection[int]) -> None:
        """Begin to rekey the CHILD_SAs with these inbound SPIs."""


class RekeyUntold:
    """``run`` it.

    ``served``: the IKE_SAs that this node serves; None: not known now. ``coming``: whether one is just being taken over
    from another node.
    """

    def __init__(
        self,
        control: Control,
        broker: Broker,
        events: EventLog,
        *,
        served: Callable[[], Iterable[Served] | None],
        coming: Callable[[IkeSpis], bool],
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._control = control
        self._broker = broker
        self._events = events
        self._served = served
        self._coming = coming
        self._clock = clock
        self._untold = Untold(pace)

    async def run(self) -> None:
        """Look each second, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except MobikectlError as error:
                log.info("what charon did not tell is not rekeyed now: %s", error)

    async def look(self) -> None:
        """Have rekeyed what is due. Raise CharonUnreachableError, CharonTimeoutError."""
        served, heard = self._served(), self._broker.status.heard_s
        if served is None or heard is None or heard > HEARD_S:
            return
        lacks = {each.name: (each, lack) for each in served if (lack := self._lack(each)) is not None}
        now = self._clock()
        for key in self._untold.due({key: lack for key, (_, lack) in lacks.items()}, now)[:LOOKS]:
            if not self._untold.room(now):
                return
            try:
                if not await self._rekey(*lacks[key], now):
                    self._untold.put_off(key, now)
            except (CharonUnreachableError, CharonTimeoutError):
                raise
            except MobikectlError as error:
                self._untold.asked(key, now)  # a pause for this one; others need not wait for it
                log.info("%s: what charon did not tell of it is not rekeyed: %s", key, error)

    def _lack(self, served: Served) -> Lack | None:
        if self._coming(served.spis):
            return None
        untold = self._broker.untold(served.spis, [spi for spi, _ in served.children])
        if untold is None:
            return Lack.IKE_SA
        return Lack.CHILD_SAS if untold else None

    async def _rekey(self, served: Served, lack: Lack, now: float) -> bool:
        """Have one rekeyed that is quiet, and return whether it is."""
        held = await self._control.look(served.spis)
        if held is None or not held.serving or held.busy or not held.steady:
            return False  # it is frozen, being rekeyed or away: a later look sees what is unknown then
        untold = self._broker.untold(served.spis, held.inbound)
        if lack is Lack.IKE_SA and untold is None:
            await self._control.rekey_ike_sa(held.ike_id)
        elif lack is Lack.CHILD_SAS and untold:
            await self._control.rekey_children(held.ike_id, untold)
        else:
            return False
        times = self._untold.asked(served.name, now)
        what = "the IKE_SA" if untold is None else f"{len(untold)} CHILD_SAs"
        self._events.record(
            Source.ACTION,
            "cluster-untold",
            f"{served.name} could not be moved, as charon did not tell of {what}: rekeyed, time {times}",
            data={"sa": served.name, "what": lack.value, "times": times},
        )
        return True
