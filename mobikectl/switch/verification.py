"""What proves a move: the kernel's ESP states on the new pair, and packets that come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mobikectl.switch.moves import DataPlane

if TYPE_CHECKING:
    from mobikectl.model import IkeSa, Path

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
