"""Moves of one client between gateways, for scenarios: ordered as an operator does it, disturbed, and looked at."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mobikectl.errors import LabError
from mobikectl.lab.cluster import FINAL
from mobikectl.lab.measure import sa_keys
from mobikectl.lab.topology import Role
from mobikectl.lab.vici import list_sas
from mobikectl.lab.wait import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mobikectl.lab.cluster import Cluster
    from mobikectl.lab.run import Run

ORDERED_S = 30.0
QUICK = 0.001
"""Seconds between looks at what a sidecar told."""


@dataclass(frozen=True, slots=True)
class Owners:
    """Who serves a client's IKE_SA."""

    nodes: tuple[str, ...]

    @property
    def one(self) -> str:
        """The only one. Raise LabError."""
        if len(self.nodes) != 1:
            raise LabError(f"served by {' and '.join(self.nodes) or 'nobody'}", hint="see the charons' logs")
        return self.nodes[0]


class Client:
    """One tunnel's IKE_SA in the cluster. Given the run, the tunnel's name and the node at which orders are given."""

    def __init__(self, run: Run, tunnel: str, *, desk: str, patience: float = 1.0) -> None:
        self._run = run
        self._tunnel = tunnel
        self._desk = desk
        self._patience = patience
        topology = run.lab.topology
        self._client = next(t for t in topology.tunnels if t.name == tunnel)
        self._gateways = topology.by_role(Role.GATEWAY)

    @property
    def _cluster(self) -> Cluster:
        return self._run.the_cluster

    async def owners(self) -> Owners:
        """Return which gateways' charons serve it now: the same IKE_SA that the client has."""
        ours = await self._keys(self._client.client)
        found = [node for node in self._gateways if ours & await self._keys(node)]
        return Owners(tuple(found))

    async def _keys(self, node: str) -> frozenset[tuple[str, str, str]]:
        try:
            listed = await asyncio.to_thread(list_sas, self._run.lab.vici_socket(node))
        except LabError:
            return frozenset()  # its charon is being started
        return frozenset(key for key in sa_keys(listed) if key[0] == self._tunnel)

    async def spis(self) -> frozenset[str]:
        """Return the SPIs of its IKE_SA and of its installed CHILD_SAs, as the client has them."""
        found: set[str] = set()
        for name, sa in await asyncio.to_thread(list_sas, self._run.lab.vici_socket(self._client.client)):
            if name == self._tunnel:
                children = [child for child in sa["child-sas"].values() if child["state"] == "INSTALLED"]
                found |= {sa["initiator-spi"], sa["responder-spi"], *(child["spi-in"] for child in children)}
        return frozenset(found)

    async def owned(self, *, within: float = 30.0) -> str:
        """Wait until exactly one gateway serves it, and return which. Raise LabError."""

        async def exactly_one() -> bool:
            return len((await self.owners()).nodes) == 1

        await until(
            exactly_one,
            within=within * self._patience,
            what="the IKE_SA is served by one gateway",
            every=0.05,
        )
        return (await self.owners()).one

    async def move(self, target: str, *, check: bool = True) -> dict[str, Any]:
        """Order it to a gateway, wait for the end, and return what the command tells. Raise LabError (``check``)."""
        self._run.cause(f"move to {target}")
        args = ("move", "--peer-id", self._client.client_id, "--to", target, "--wait", "--json")
        output = await self._cluster.mobikectl(self._desk, *args, check=check)
        try:
            said: dict[str, Any] = json.loads(output)
        except ValueError:
            return {"good": False, "why": output}  # nothing was ordered
        return said

    async def order(self, target: str) -> int:
        """Order it to a gateway, and return the move's number as soon as it is planned.

        An order that is refused, as for a gateway that did not report for a moment, is given again. Raise LabError.
        """
        self._run.cause(f"move to {target}")
        args = ("move", "--peer-id", self._client.client_id, "--to", target, "--json")
        number: int | None = None

        async def taken() -> bool:
            nonlocal number
            output = await self._cluster.mobikectl(self._desk, *args, check=False)
            try:
                number = json.loads(output)["orders"][0]["move"]
            except ValueError:
                return False  # nothing was ordered
            return number is not None

        what = f"an order to move to {target} is taken"
        await until(taken, within=ORDERED_S * self._patience, what=what, every=1.0)
        return int(number or 0)

    async def ordered_and(
        self, target: str, source: str, act: Callable[[], Awaitable[object]], *, after: float
    ) -> int:
        """Order it to a gateway, and ``after`` seconds after its source has begun do something; return the number."""
        begun = len(self._run.told(source, "cluster-move-requested"))
        ordering = asyncio.create_task(self.order(target))

        async def one_more() -> bool:
            return len(self._run.told(source, "cluster-move-requested")) > begun

        try:
            await until(
                one_more, within=30.0 * self._patience, what=f"{source} has begun the move", every=QUICK
            )
        except LabError:
            ordering.cancel()
            raise
        await asyncio.sleep(after)
        await act()
        return await ordering

    async def ended(self, number: int, *, within: float = 60.0) -> str:
        """Wait until a move has ended; return its last state."""

        def done() -> bool:
            move = self._cluster.moves.get(number)
            return move is not None and move["steps"][-1]["state"] in FINAL

        await self._cluster.until(done, within=within, what=f"move {number} has ended")
        return str(self._cluster.moves[number]["steps"][-1]["state"])

    async def answers(self, *, within: float = 20.0) -> None:
        """Wait until pings through the tunnel are answered. Raise LabError."""
        since = self._run.cause("pings")

        async def answered() -> bool:
            return self._run.answered(self._tunnel, since=since) >= 20

        await until(answered, within=within * self._patience, what="pings are answered", every=0.05)
