"""The mechanism `reconnect`: the IKE_SA is ended, and its client comes back by itself, wherever it is sent then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobikectl.errors import CharonRefusedError
from mobikectl.switch.redirect import Redirect

if TYPE_CHECKING:
    from mobikectl.switch.course import Course
    from mobikectl.switch.moves import Move


class Reconnect(Redirect):
    """It interrupts: only where an operator allows it."""

    async def request(self, move: Move, course: Course) -> str:  # noqa: ARG002
        """Have charon delete the IKE_SA. Raise CharonError."""
        if self._tools.terminate is None:
            raise CharonRefusedError("nobody here ends IKE_SAs", hint="ask the running sidecar")
        await self._tools.terminate(move.sa)
        return "charon is to delete it"
