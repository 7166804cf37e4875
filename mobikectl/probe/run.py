"""One probe round of one path, carried out: packets to each target, every wait with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobikectl.model import IpAddress
from mobikectl.policy.settings import ProbeMethod, ProbeSettings
from mobikectl.policy.track import ProbeError, ProbeResult
from mobikectl.probe import connect, icmp, ike
from mobikectl.probe.sockets import ProbeFailedError
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from mobikectl.policy.state import ProbePath

Exchange = Callable[[IpAddress, IpAddress, str, ProbeSettings], Awaitable[None]]

EXCHANGES: dict[ProbeMethod, Exchange] = {
    ProbeMethod.IKE: ike.exchange,
    ProbeMethod.ICMP: icmp.exchange,
    ProbeMethod.UDP: connect.udp_exchange,
    ProbeMethod.TCP: connect.tcp_exchange,
}


@dataclass(slots=True)
class _Tally:
    """What one target did in one round."""

    sent: int = 0
    rtts_s: list[float] = field(default_factory=list)
    error: ProbeError | None = None
    detail: str = ""


async def probe(request: ProbePath) -> ProbeResult:
    """Given a path, its link and how to probe it, return what one round found.

    Never raises for what is wrong with the path: that is the result. Ends by ``request.deadline``, leaves no
    socket open, and can be cancelled at any time. Raise ValueError for `ProbeMethod.NONE`.
    """
    settings = request.settings
    exchange = EXCHANGES.get(settings.method)
    if exchange is None:
        raise ValueError(f"method {settings.method.value} sends nothing")
    targets = settings.targets_for(request.path.remote)
    async with TaskGroup() as group:
        asked = [group.create_task(_ask(exchange, request, target)) for target in targets]
    tallies = [task.result() for task in asked]
    # With enough targets answering, what the others failed by is of no interest to the reader.
    errors = [t for t in tallies if t.error is not None]
    worst = min(errors, key=lambda t: len(t.rtts_s), default=None)
    return ProbeResult(
        path=request.path,
        sent=sum(t.sent for t in tallies),
        received=sum(len(t.rtts_s) for t in tallies),
        rtts_s=tuple(rtt for t in tallies for rtt in t.rtts_s),
        at=time.monotonic(),
        answered=sum(bool(t.rtts_s) for t in tallies),
        error=worst.error if worst is not None else None,
        detail=worst.detail if worst is not None else "",
    )


async def _ask(exchange: Exchange, request: ProbePath, target: IpAddress) -> _Tally:
    """Send `ProbeSettings.count` packets to one target, one after the other."""
    settings, tally = request.settings, _Tally()
    for _ in range(settings.count):
        started = time.monotonic()
        wait = min(settings.timeout_s, request.deadline - started)
        if wait <= 0:
            break
        tally.sent += 1
        try:
            async with asyncio.timeout(wait):
                await exchange(request.path.local, target, request.link, settings)
        except TimeoutError:
            tally.error, tally.detail = ProbeError.TIMEOUT, f"no answer from {target} in {wait:.3g} s"
        except ProbeFailedError as failure:
            tally.error, tally.detail = failure.kind, failure.message
        else:
            tally.rtts_s.append(time.monotonic() - started)
    if not tally.sent:
        tally.error, tally.detail = ProbeError.LOCAL, "no time was left before the deadline"
    return tally
