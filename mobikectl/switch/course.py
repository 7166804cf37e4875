"""An order to move an IKE_SA, what the move needs on its way, and what every mechanism does it with."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from mobikectl.errors import CharonTimeoutError
from mobikectl.observe.events import Source

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Awaitable, Callable

    from mobikectl.charon.rmobike_link import PluginLink
    from mobikectl.model import IkeSa, IpAddress, Path
    from mobikectl.observe.events import EventLog
    from mobikectl.switch.by_plugin import Request
    from mobikectl.switch.moves import Mechanism, Move
    from mobikectl.switch.steering import Steer, Steering
    from mobikectl.switch.turns import Turns


class SaView(Protocol):
    """What the executor needs of the model of charon's SAs."""

    def find(self, uniqueid: int) -> IkeSa | None:
        """Given an id that the SA has or had before a rekey, return the SA as it is now, or None."""

    def shared(self, remote: IpAddress, uniqueid: int) -> bool:
        """Given a peer's address and an SA, return whether another SA uses that address too."""

    async def refresh(self, uniqueid: int) -> IkeSa | None:
        """Ask charon for one SA with its children and counters, bring the model in step, return it.

        Raise CharonError.
        """

    async def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait, at most ``timeout`` seconds, until ``predicate`` is true; return whether it is."""


@dataclass(frozen=True, slots=True)
class MoveOrder:
    """What is to be moved where, and why."""

    sa: int
    path: Path
    cause: str
    timeout_s: float = 5.0
    """The move has to be verified within this time. Moves of that peer that are under way are waited for as long."""
    give_back: bool = True
    """Whether the old path is worth going back to. False when it is known to be gone."""
    mechanism: Mechanism | None = None
    """How it is to be done; None: in the best way that the peer supports. With REDIRECT the local address of
    ``path`` is the other gateway's."""


@dataclass(slots=True)
class Course:
    """What one move needs on its way, and needs to be undone."""

    order: MoveOrder
    deadline: float
    turns: contextlib.AsyncExitStack
    """The turns at the peer's addresses that are held until the move ends."""
    before: dict[IpAddress, Steer | None] = field(default_factory=dict)
    """By address of the peer: the steering route that this move has replaced (None: there was none)."""
    request: Request | None = None
    """What the plugin was asked to do."""

    @property
    def left_s(self) -> float:
        """Seconds until its deadline."""
        return max(0.0, self.deadline - time.monotonic())


@dataclass(frozen=True, slots=True)
class Tools:
    """What the mechanisms work with."""

    sas: SaView
    steering: Steering
    turns: Turns
    events: EventLog
    plugin: PluginLink | None = None
    redirect: Callable[[int, IpAddress], Awaitable[None]] | None = None
    terminate: Callable[[int], Awaitable[None]] | None = None

    async def ask(self, uniqueid: int, deadline: float) -> IkeSa | None:
        """Ask charon for the SA with its counters, until ``deadline``. Raise CharonError."""
        try:
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                return await self.sas.refresh(uniqueid)
        except TimeoutError:
            raise CharonTimeoutError(
                "charon did not tell about the IKE_SA in time", hint="it hangs or is overloaded: see its log"
            ) from None

    async def steer(self, path: Path, course: Course) -> None:
        """Put a steering route in place, and remember what it replaces. Raise NetlinkError, PrivilegeError."""
        course.before.setdefault(path.remote, self.steering.steer_to(path.remote))
        await self.steering.point(path)

    def note(self, move: Move, name: str, text: str) -> None:
        """Record something about a move that is no step of it."""
        self.events.record(
            Source.ACTION,
            name,
            f"{move.name}[{move.sa}] {move.before} => {move.after}: {text}",
            data={"move": move.number},
        )


class Way(Protocol):
    """One mechanism: how charon or the peer is asked, and by what its success is seen."""

    changes_nothing: bool
    """Whether nothing is changed here until the peer follows, so that there is nothing to undo."""
    leaves: bool
    """Whether the IKE_SA goes away from here."""

    async def request(self, move: Move, course: Course) -> str:
        """Ask for the move; return what was done. Raise NetlinkError, PrivilegeError, CharonError.

        Where it raises nothing was changed.
        """

    async def arrive(self, move: Move, course: Course) -> tuple[Move, str | None]:
        """Wait until the IKE_SA has moved, or will not; return the move, and None or what is wrong."""

    async def settle(self, move: Move, course: Course) -> None:
        """The IKE_SA has moved: see to it that it stays."""

    async def ask_back(self, move: Move, course: Course) -> None:
        """It does not work where it moved to: before the routes are put back, do what else it takes."""
