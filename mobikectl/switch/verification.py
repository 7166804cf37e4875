"""What proves a move: the CHILD_SAs and the kernel's ESP states on the new pair, and packets that come in."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from mobikectl.errors import CharonError
from mobikectl.model import ChildState
from mobikectl.switch.moves import DataPlane

if TYPE_CHECKING:
    from mobikectl.model import IkeSa, Path
    from mobikectl.switch.course import Tools
    from mobikectl.switch.moves import Move

COUNTERS_S = 1.0
"""How much longer than the data plane is watched charon may take to tell its counters."""

SETTLE_S = 0.03
"""charon tells of a new path just before it installs it: asked at once, it would have to do both at one time, and
the packets that arrive meanwhile would be lost."""

LIVE_CHILD = frozenset({ChildState.INSTALLED, ChildState.REKEYING, ChildState.UPDATING, ChildState.REKEYED})
"""States of a CHILD_SA that carries traffic, or that another one replaces."""

FLOWING_WITHIN_S = 1.0
"""Inbound traffic was flowing when the last packet is at most so many seconds old (charon counts whole ones)."""


class ChildCheck(Protocol):
    """Looks at the kernel's ESP states."""

    async def __call__(self, sa: IkeSa, path: Path) -> str | None:
        """Given an IKE_SA and the path that it should be on, return None, or which CHILD_SA is elsewhere."""


class TunnelProbe(Protocol):
    """Asks somebody behind the tunnel for an answer."""

    async def __call__(self, sa: IkeSa, timeout: float) -> bool:
        """Given an SA, return whether an answer came through it within ``timeout`` seconds."""


class Verification:
    """Looks whether what was moved works where it is now.

    ``data_plane_s``: how many seconds the data plane is watched.
    """

    def __init__(
        self,
        tools: Tools,
        *,
        child_check: ChildCheck | None = None,
        tunnel_probe: TunnelProbe | None = None,
        data_plane_s: float = 1.0,
    ) -> None:
        self._tools = tools
        self._child_check = child_check
        self._tunnel_probe = tunnel_probe
        self.data_plane_s = data_plane_s

    async def children(self, move: Move, deadline: float) -> str | None:
        """Ask charon and the kernel whether the CHILD_SAs followed; return None, or what is wrong."""
        await asyncio.sleep(SETTLE_S)
        sas = self._tools.sas
        while True:
            try:
                sa = await self._tools.ask(move.sa, deadline)
            except CharonError as error:
                return str(error)
            if sa is None:
                return "the IKE_SA went away"
            problem = _children_problem(sa, move) or await self._kernel_problem(sa, move)
            if problem is None or time.monotonic() >= deadline:
                return problem
            await sas.wait(lambda seen=sa: sas.find(move.sa) is not seen, 0.05)  # type: ignore[misc]

    async def _kernel_problem(self, sa: IkeSa, move: Move) -> str | None:
        if self._child_check is None:
            return None
        return await self._child_check(sa, move.after)

    async def data_plane(self, move: Move, traffic: IkeSa) -> DataPlane:
        """Given the SA before the move, watch its counters (and the probe inside the tunnel, if any) for a while."""
        deadline = time.monotonic() + self.data_plane_s
        if self._tunnel_probe is not None and await self._tunnel_probe(traffic, self.data_plane_s):
            return DataPlane.ANSWERED
        baseline: IkeSa | None = None
        while True:
            try:
                sa = await self._tools.ask(move.sa, deadline + COUNTERS_S)
            except CharonError:
                return DataPlane.UNKNOWN  # charon's trouble is no proof against the path
            if sa is None:
                return DataPlane.SILENT
            baseline = baseline or sa
            verdict = judge_data_plane(traffic, baseline, sa, over=time.monotonic() >= deadline)
            if verdict is not None:
                return verdict
            await asyncio.sleep(min(0.02, self.data_plane_s / 10))


def _children_problem(sa: IkeSa, move: Move) -> str | None:
    if sa.path != move.after:
        return f"charon went on to {sa.path}"
    lost = [child.name for child in sa.children if child.state not in LIVE_CHILD]
    if lost:
        return f"CHILD_SA {', '.join(lost)} is not installed"
    return None


def packets_in(sa: IkeSa) -> int:
    """Given an SA listed with counters, return the inbound packets of its CHILD_SAs."""
    return sum(child.counters.packets_in for child in sa.children if child.counters is not None)


def packets_out(sa: IkeSa) -> int:
    """Given an SA listed with counters, return the outbound packets of its CHILD_SAs."""
    return sum(child.counters.packets_out for child in sa.children if child.counters is not None)


def judge_data_plane(before: IkeSa, baseline: IkeSa, now: IkeSa, *, over: bool) -> DataPlane | None:
    """Given the SA before the move, just after it and now, return a verdict, or None while it is open.

    Inbound packets since ``baseline`` prove the new path. When none came by the end (``over``), the SA
    is SILENT if packets were sent over the new path and inbound ones were flowing right before the move,
    else IDLE: without traffic there is nothing to judge by, nor to wait for. The counters of a CHILD_SA
    that was rekeyed by the move (userland ESP) start again at 0, which proves nothing by itself.
    """
    if packets_in(now) > packets_in(baseline):
        return DataPlane.FLOWING
    spis_changed = {child.spi_in for child in now.children} != {child.spi_in for child in before.children}
    if spis_changed and packets_in(now) > 0:
        return DataPlane.FLOWING
    sent = packets_out(now) > (0 if spis_changed else packets_out(baseline))
    if not over and (sent or _busy(before, inbound=True) or _busy(before, inbound=False)):
        return None
    return DataPlane.SILENT if sent and _busy(before, inbound=True) else DataPlane.IDLE


def _busy(sa: IkeSa, *, inbound: bool) -> bool:
    """Whether packets were flowing in that direction when the SA was listed."""
    found = [child.counters for child in sa.children if child.counters is not None]
    idle = [counters.idle_in_s if inbound else counters.idle_out_s for counters in found]
    return any(seconds is not None and seconds <= FLOWING_WITHIN_S for seconds in idle)
