"""What the path policy has to know about routes: for each candidate path, whether and how the kernel would send."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobikectl.errors import NetlinkError
from mobikectl.policy.candidates import paths_to_ask
from mobikectl.switch.steering import link_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mobikectl.model import IkeSa, IpAddress, NetState, Path, RouteAnswer
    from mobikectl.policy.settings import PathSettings
    from mobikectl.switch.steering import Choice


@dataclass(slots=True)
class PathRoutes:
    """The kernel's answers, asked again only after the network has changed."""

    choice: Choice
    settings: PathSettings
    answers: dict[Path, RouteAnswer | None] = field(default_factory=dict)
    """None: there is no way."""
    metrics: dict[Path, int] = field(default_factory=dict)
    _asked: tuple[int, int] | None = None

    async def ask(
        self, net: NetState, sas: Iterable[IkeSa], learnt: Mapping[int, tuple[IpAddress, ...]]
    ) -> None:
        """Given the network, IKE_SAs and their gateways' further addresses, ask for what is not known yet."""
        now = (net.generation, net.route_generation)
        if now != self._asked:
            # New maps, not cleared ones: a decision may still be looking at the old.
            self.answers, self.metrics, self._asked = {}, {}, now
        for sa in sas:
            for path in paths_to_ask(net, sa, self.settings, learnt.get(sa.uniqueid, ())):
                if path not in self.answers:
                    await self._ask_one(net, path)

    async def _ask_one(self, net: NetState, path: Path) -> None:
        self.answers[path] = None
        oif = link_of(net, path.local)
        if oif is None:
            return
        try:
            answer, metric = await self.choice.through(path.remote, src=path.local, oif=oif)
        except NetlinkError:
            return  # no way there, or the link went meanwhile, which netlink will tell
        self.answers[path], self.metrics[path] = answer, metric
