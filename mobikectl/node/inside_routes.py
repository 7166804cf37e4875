"""The inside route follows the IKE_SA: host routes to the virtual IPs that this node serves.

One route for each virtual IP, with a protocol number of its own, by which BIRD (``krt_source``) or FRR exports it. Off
unless configured; then the routes are levelled with the model of the IKE_SAs at each event and now and then, leftovers
of an earlier life included.

An IKE_SA that is frozen for a handover keeps its route until it is dropped: its ESP is forwarded as before until the
target has it, and the target's route is there from the moment at which it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from mobikectl.cluster.backend import lease_clock
from mobikectl.errors import NetlinkError, PrivilegeError
from mobikectl.model import IkeState
from mobikectl.netlink.routes import SteeringRoute
from mobikectl.node.rows import is_served

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mobikectl.charon.tracker import SaTracker
    from mobikectl.cluster.node_settings import InsideRoutesSettings
    from mobikectl.model import IkeSa, IpAddress, NetState
    from mobikectl.netlink import SteeringRoutes

log = logging.getLogger(__name__)

EVERY_S = 5.0
"""All routes are looked at so often: the kernel drops them by itself when their link goes down."""
GONE_S = 10.0
"""A charon that is away for so long serves nobody: its routes must not draw packets from who does."""


class InsideRoutes:
    """Levels the routes to virtual IPs with the IKE_SAs. ``run`` it; ``routes`` is open, of the settings' protocol."""

    def __init__(
        self,
        settings: InsideRoutesSettings,
        routes: SteeringRoutes,
        tracker: SaTracker,
        net: Callable[[], NetState],
        *,
        clock: Callable[[], float] = lease_clock,
    ) -> None:
        self._settings = settings
        self._routes = routes
        self._tracker = tracker
        self._net = net
        self._clock = clock
        self._kept: dict[IpAddress, int] = {}
        """Virtual IPs that have a route, and the unique id of the IKE_SA for which."""
        self._away_since: float | None = None
        self._trouble = ""

    async def run(self) -> None:
        """Keep the routes level until cancelled; then remove them all: nobody would, when their IKE_SAs leave."""
        try:
            with self._tracker.subscribe() as feed:
                while True:
                    await self._try()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(EVERY_S):
                            await anext(feed)
                    feed.take()
        finally:
            with contextlib.suppress(NetlinkError, PrivilegeError):
                await self._routes.flush()

    async def _try(self) -> None:
        try:
            await self.level()
            self._complain("")
        except (NetlinkError, PrivilegeError) as error:
            self._complain(str(error))

    def _complain(self, what: str) -> None:
        if what and what != self._trouble:
            log.warning("an inside route cannot be set: %s", what)
        self._trouble = what

    async def level(self) -> None:
        """Look once. Raise NetlinkError, PrivilegeError; what could be done is done."""
        sas = self._served()
        if sas is None:
            return
        oif = next(
            (link.index for link in self._net().links.values() if link.name == self._settings.dev), None
        )
        if oif is None:
            self._kept.clear()
            raise NetlinkError(
                f"there is no interface {self._settings.dev} for inside routes",
                hint="see [cluster.inside_routes]",
            )
        wanted = {vip: self._route(vip, oif) for vip in sas if self._suits(vip)}
        present = {
            route.dst.network_address: SteeringRoute.from_route(route, self._settings.protocol)
            for route in await self._routes.list_own()
        }
        missing = [route for vip, route in wanted.items() if present.get(vip) != route]
        extra = [
            (vip, route.table) for vip, route in present.items() if vip not in wanted and route is not None
        ]
        self._kept = {vip: sas[vip] for vip in wanted}
        await self._routes.apply(missing, extra)

    def _served(self) -> Mapping[IpAddress, int] | None:
        """Return the virtual IPs that are to have a route; None: that is not known at the moment."""
        if self._tracker.in_step:
            self._away_since = None
            found: dict[IpAddress, int] = {}
            for sa in self._tracker.sas.values():
                for vip in sa.remote_vips:
                    if is_served(sa) or self._is_leaving(sa, vip):
                        found[vip] = sa.uniqueid
            return found
        if self._away_since is None:
            self._away_since = self._clock()
        return {} if self._clock() - self._away_since >= GONE_S else None

    def _is_leaving(self, sa: IkeSa, vip: IpAddress) -> bool:
        return sa.state is IkeState.PASSIVE and self._kept.get(vip) == sa.uniqueid

    def _suits(self, vip: IpAddress) -> bool:
        via = self._settings.via
        return via is None or via.version == vip.version

    def _route(self, vip: IpAddress, oif: int) -> SteeringRoute:
        settings = self._settings
        return SteeringRoute(
            vip,
            settings.via,
            oif,
            table=settings.table,
            priority=settings.priority,
            protocol=settings.protocol,
        )
