"""The mechanism `update`: UPDATE_SA_ADDRESSES to a given pair, through the charon plugin (RFC 4555 section 3.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobikectl.errors import CharonError
from mobikectl.switch.by_plugin import updated
from mobikectl.switch.route import Route

if TYPE_CHECKING:
    from mobikectl.switch.course import Course
    from mobikectl.switch.moves import Move


class Update(Route):
    """The steering route, and the plugin's update, which does not wait until charon reacts to the route."""

    async def request(self, move: Move, course: Course) -> str:
        """Put the steering route in place, and have the plugin update. Raise NetlinkError, PrivilegeError.

        An update that the plugin refuses is left to the route.
        """
        said = await super().request(move, course)
        if self._tools.plugin is None:
            return said
        try:
            asking = updated(self._tools.plugin, move.sa, move.after)
            course.request = await course.turns.enter_async_context(asking)
        except CharonError as error:
            return f"{said}; the plugin started no update: {error}"
        return f"{said}, and the plugin updates the addresses"
