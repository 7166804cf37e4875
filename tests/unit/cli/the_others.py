"""What runs in a cluster beside the command line: the real decider, and an executor whose IKE_SAs are only rows."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from mobikectl.cluster.decider import Decider, DeciderSettings
from mobikectl.cluster.leader import Election
from mobikectl.cluster.node_settings import Balance
from mobikectl.cluster.records import MoveState, Versioned
from mobikectl.policy.cluster_settings import BalanceSettings

from .a_cluster import ADDRESS, carry_out

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobikectl.cluster.leader import Leadership
    from mobikectl.cluster.records import MoveRecord, SaRow
    from mobikectl.cluster.store import Store

    from .a_cluster import ACluster

REPORT_S = 0.2
QUICK = BalanceSettings(settle_s=0.2, interval_s=0.2)


@dataclass
class TheOthers:
    """The nodes' sidecars."""

    cluster: ACluster
    store: Store
    served: dict[str, list[SaRow]]
    refusing: frozenset[str] = frozenset()
    """Peers that say no."""
    pace_s: float = 0.0
    """How long each move takes."""
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))

    @contextlib.asynccontextmanager
    async def running(self, balance: Balance = Balance.MANUAL) -> AsyncIterator[TheOthers]:
        for node, rows in self.served.items():
            await self.cluster.join(self.store, node, rows)
        decider = Decider(self.store, DeciderSettings(policy=QUICK, balance=balance))
        leading = asyncio.Event()

        async def lead(leadership: Leadership) -> None:
            leading.set()
            await decider.lead(leadership)

        election = Election(self.store, "gw1", "gw1")
        works = [asyncio.create_task(work) for work in (self._report(), self._obey(), election.run(lead))]
        try:
            await leading.wait()
            yield self
        finally:
            for work in works:
                work.cancel()
            ended = await asyncio.gather(*works, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended

    async def _report(self) -> None:
        while True:
            for node in list(self.cluster.members):
                await self.cluster.tell(self.store, node, self.served[node])
            await asyncio.sleep(REPORT_S)

    async def _obey(self) -> None:
        journal = await self.store.journal()
        async with contextlib.aclosing(self.store.follow(after=journal.revision)) as moves:
            async for move in moves:
                if isinstance(move, Versioned) and move.value.state is MoveState.PLANNED:
                    await self._carry_out(move)

    async def _carry_out(self, planned: Versioned[MoveRecord]) -> None:
        await asyncio.sleep(self.pace_s)
        source, target = self.served[planned.value.source], self.served[planned.value.target]
        rows = [row for row in source if row.key in planned.value.sas]
        if any(row.peer_id in self.refusing for row in rows):
            await carry_out(self.store, planned, MoveState.REFUSED, "the peer said no")
            return
        for row in rows:
            source.remove(row)
            key = f"{planned.value.target}/{row.peer_id}#{next(self._numbers)}"
            target.append(replace(row, key=key, address=ip_address(ADDRESS[planned.value.target])))
        await carry_out(self.store, planned, MoveState.VERIFIED)
