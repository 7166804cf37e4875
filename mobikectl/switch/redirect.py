"""The mechanism `redirect`: REDIRECT in an established IKE_SA (RFC 5685 section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobikectl.errors import CharonRefusedError
from mobikectl.model import IkeState

if TYPE_CHECKING:
    from mobikectl.switch.course import Course, Tools
    from mobikectl.switch.moves import Move


class Redirect:
    """A redirected client makes a new IKE_SA at the other gateway, and then deletes the one that it has here."""

    changes_nothing = True
    leaves = True

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def request(self, move: Move, course: Course) -> str:  # noqa: ARG002
        """Have charon send the REDIRECT. Raise CharonError."""
        if self._tools.redirect is None:
            raise CharonRefusedError("nobody here redirects", hint="ask the running sidecar")
        await self._tools.redirect(move.sa, move.after.local)
        return f"charon is to redirect it to {move.after.local}"

    async def arrive(self, move: Move, course: Course) -> tuple[Move, str | None]:
        """Wait until the client has deleted its IKE_SA here."""

        def left() -> bool:
            sa = self._tools.sas.find(move.sa)
            return sa is None or sa.state not in {IkeState.ESTABLISHED, IkeState.REKEYING}

        if await self._tools.sas.wait(left, course.left_s):
            return move, None
        return move, "the peer stays: it follows no redirects, or the other gateway did not take it"

    async def settle(self, move: Move, course: Course) -> None:
        """Nothing is left here to hold."""

    async def ask_back(self, move: Move, course: Course) -> None:
        """Nothing is left here to ask back."""
