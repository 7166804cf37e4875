"""The mechanism `route`: a steering route, which stock charon follows (RFC 4555 section 3.5).

On a responder that is the implicit switch: charon sends its address list from the new address (section 3.6).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mobikectl.errors import MoveError, NetlinkError, PrivilegeError
from mobikectl.model import Path

if TYPE_CHECKING:
    from mobikectl.model import IkeSa
    from mobikectl.switch.course import Course, Tools
    from mobikectl.switch.moves import Move


class Route:
    """charon follows the route to the peer's address, with every IKE_SA that is there."""

    changes_nothing = False
    leaves = False

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def request(self, move: Move, course: Course) -> str:
        """Put the steering route in place. Raise NetlinkError, PrivilegeError."""
        await self._tools.steer(move.after, course)
        return "a steering route is in place"

    async def arrive(self, move: Move, course: Course) -> tuple[Move, str | None]:
        """Wait until the IKE_SA is on the new path.

        charon checks the paths to all addresses of the peer at once and takes the one that answers first (RFC 4555
        section 3.5). Where the order leaves the peer's address as it is and charon goes to another one, the move
        goes on to that: what was ordered is where from.
        """
        sas, turns = self._tools.sas, self._tools.turns
        ordered = course.order.path
        stays = ordered.remote == move.before.remote

        def arrived(sa: IkeSa) -> bool:
            if sa.path == ordered:
                return True
            return stays and sa.path.local == ordered.local and sa.path.remote in course.before

        def settled() -> bool:
            sa = sas.find(move.sa)
            return sa is None or arrived(sa) or (stays and sa.path.remote not in course.before)

        while await sas.wait(settled, course.left_s):
            sa = sas.find(move.sa)
            if sa is None:
                return move, "the IKE_SA went away"
            if arrived(sa):
                return replace(move, after=sa.path), None
            if sas.shared(sa.path.remote, sa.uniqueid):
                # A route to that address would move the others too, whom nobody asked to move.
                return move, f"charon went to the peer's address {sa.path.remote}, where other IKE_SAs are"
            move = replace(move, after=Path(ordered.local, sa.path.remote))
            try:
                await course.turns.enter_async_context(turns.alone({sa.path.remote}, course.left_s))
                await self._tools.steer(move.after, course)
            except (MoveError, NetlinkError, PrivilegeError) as error:
                return move, f"charon went to the peer's address {sa.path.remote}: {error}"
        return (
            move,
            "charon did not move the IKE_SA in time (the peer did not answer, or prefer_best_path is off)",
        )

    async def settle(self, move: Move, course: Course) -> None:
        """The route that moved it holds it."""

    async def ask_back(self, move: Move, course: Course) -> None:
        """The route that is put back moves it back."""
