"""The mechanism `notify`: SWITCH_TO_IP_ADDRESS through the charon plugin (draft-smyslov-ipsecme-ikev2-r-mobike)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mobikectl.errors import CharonError, CharonRefusedError, NetlinkError, PrivilegeError
from mobikectl.switch.by_plugin import notified

if TYPE_CHECKING:
    from mobikectl.charon.rmobike_link import PluginLink
    from mobikectl.switch.course import Course, Tools
    from mobikectl.switch.moves import Move

UNDO_S = 3.0
"""How long the old path is waited for after it was given back."""


class Notify:
    """The peer is asked to use another address of ours. Until it follows, nothing has changed here."""

    changes_nothing = True
    leaves = False

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def request(self, move: Move, course: Course) -> str:
        """Have the plugin ask the peer. Raise CharonError."""
        asking = notified(self._plugin(), move.sa, move.after.local, timeout=course.left_s)
        course.request = await course.turns.enter_async_context(asking)
        return f"the peer is asked to switch to {move.after.local}"

    async def arrive(self, move: Move, course: Course) -> tuple[Move, str | None]:
        """Wait until the peer has switched. Which of its own addresses it uses then is its own matter."""
        sas = self._tools.sas

        def switched() -> bool:
            sa = sas.find(move.sa)
            return sa is None or sa.path.local == move.after.local

        if not await sas.wait(switched, course.left_s):
            return move, "the peer did not switch in time"
        sa = sas.find(move.sa)
        return (replace(move, after=sa.path), None) if sa is not None else (move, "the IKE_SA went away")

    async def settle(self, move: Move, course: Course) -> None:
        """Keep charon, which follows the kernel's preference, from asking the peer back.

        A route steers every IKE_SA of that peer address: with others there it is left as it is.
        """
        if self._tools.sas.shared(move.after.remote, move.sa):
            return
        try:
            await self._tools.steer(move.after, course)
        except (NetlinkError, PrivilegeError) as error:
            self._tools.note(move, "hold-failed", str(error))

    async def ask_back(self, move: Move, course: Course) -> None:
        """Ask the peer to switch back to the address that it was served from before."""
        try:
            asking = notified(self._plugin(), move.sa, move.before.local, timeout=UNDO_S)
            await course.turns.enter_async_context(asking)
        except CharonError as error:
            self._tools.note(move, "ask-back-failed", str(error))

    def _plugin(self) -> PluginLink:
        if self._tools.plugin is None:
            raise CharonRefusedError("there is no rmobike plugin here", hint="use another mechanism")
        return self._tools.plugin
