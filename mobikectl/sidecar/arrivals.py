"""Keeps a gateway's new IKE_SAs at the address where they came in.

A client is sent to one of the gateway's addresses (RFC 5685), and with ``prefer_best_path`` charon would take it to
the address of its own best route at the next change of any route. A steering route holds it where it is; the pilot
removes that when nobody is left on it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from mobikectl.errors import NetlinkError, NoRouteError, PrivilegeError
from mobikectl.observe.events import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from mobikectl.model import IkeSa, IpAddress, Path, RouteAnswer
    from mobikectl.observe.events import EventLog
    from mobikectl.switch.steering import Steer

MAX_WAITING = 100_000
"""New IKE_SAs that are looked at at most; more at once stay where charon has them."""


class Best(Protocol):
    """Asks the kernel which way it would choose by itself."""

    async def best(self, dst: IpAddress) -> RouteAnswer:
        """Return the way and the source address. Raise NoRouteError, NetlinkError."""


class Holder(Protocol):
    """Holds IKE_SAs where they are."""

    async def hold(self, path: Path, still: Callable[[], bool]) -> None:
        """Hold a path with a steering route, if ``still`` says that it is used. Raise NetlinkError, PrivilegeError."""


class Arrivals:
    """Looks at each new IKE_SA once."""

    def __init__(
        self,
        addresses: Collection[IpAddress],
        choice: Best,
        holder: Holder,
        *,
        sas: Callable[[], Iterable[IkeSa]],
        held: Callable[[IpAddress], Steer | None],
        events: EventLog,
    ) -> None:
        self._addresses = frozenset(addresses)
        self._choice = choice
        self._holder = holder
        self._sas = sas
        self._held = held
        self._events = events
        self._waiting: asyncio.Queue[Path] = asyncio.Queue(MAX_WAITING)
        self._failed = ""

    def arrived(self, sa: IkeSa) -> None:
        """Given a new IKE_SA, have it looked at."""
        ours = not sa.original_initiator and sa.path.local in self._addresses
        if ours and len(self._addresses) > 1 and not self._waiting.full():
            self._waiting.put_nowait(sa.path)

    async def run(self) -> None:
        """Look at what arrives until cancelled."""
        while True:
            path = await self._waiting.get()
            try:
                await self._look(path)
            except NoRouteError:
                pass  # charon has the same trouble, and nothing can be held
            except (NetlinkError, PrivilegeError) as error:
                self._complain(path, str(error))

    async def _look(self, path: Path) -> None:
        if self._held(path.remote) is None and (await self._choice.best(path.remote)).prefsrc != path.local:
            await self._holder.hold(path, lambda: self._only(path))

    def _only(self, path: Path) -> bool:
        """Whether all IKE_SAs of that peer's address are on the path: others are not to be taken along."""
        return {sa.path for sa in self._sas() if sa.path.remote == path.remote} == {path}

    def _complain(self, path: Path, why: str) -> None:
        if why != self._failed:
            self._events.record(Source.ACTION, "hold-failed", f"{path} cannot be held by a route: {why}")
        self._failed = why
