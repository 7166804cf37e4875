"""A cluster for the command line to look at: a real store in a file, filled by what nodes call."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

from mobikectl.cluster.records import (
    ClusterIntent,
    Member,
    MoveRecord,
    MoveState,
    MoveStep,
    NodeReport,
    SaPart,
    SaRow,
    Versioned,
)
from mobikectl.cluster.settings import SqliteSettings, StoreSettings, open_store
from mobikectl.policy.cluster import Capability, Capacity, Mechanism, Reason, ServingAddress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from mobikectl.cluster.store import Store

T = TypeVar("T")

LEASE_S = 120
ADDRESS = {f"gw{n}": f"198.18.{n}.1" for n in range(1, 10)}
ABLE = Capability.MOBIKE | Capability.SWITCH | Capability.REDIRECT


def row(node: str, peer: str, number: int, **more: Any) -> SaRow:
    return replace(
        SaRow(
            key=f"{node}/{peer}#{number}",
            peer_id=peer,
            peer=f"198.19.0.{number}",
            address=ip_address(ADDRESS[node]),
            bytes_per_s=1000.0,
            packets_per_s=10.0,
            capability=ABLE,
        ),
        **more,
    )


def rows(node: str, count: int, **more: Any) -> list[SaRow]:
    return [row(node, f"peer{n}@example.org", n, **more) for n in range(1, count + 1)]


def move(sas: Sequence[str], *, source: str = "gw1", target: str = "gw2", **more: Any) -> MoveRecord:
    return replace(
        MoveRecord(
            token=0,
            sas=tuple(sas),
            source=source,
            target=target,
            mechanism=Mechanism.REDIRECT,
            reason=Reason.DRAIN,
            source_address=ip_address(ADDRESS[source]),
            target_address=ip_address(ADDRESS[target]),
            steps=(MoveStep(MoveState.PLANNED, time.time()),),
        ),
        **more,
    )


PATHS = {
    MoveState.VERIFIED: (MoveState.REQUESTED, MoveState.MOVED, MoveState.VERIFIED),
    MoveState.REFUSED: (MoveState.REQUESTED, MoveState.REFUSED),
    MoveState.TIMED_OUT: (MoveState.REQUESTED, MoveState.ACKNOWLEDGED, MoveState.TIMED_OUT),
}


async def carry_out(store: Store, planned: Versioned[MoveRecord], end: MoveState, note: str = "") -> None:
    """Do as an executor does: one step after the other."""
    for state in PATHS[end]:
        said = note if state is end else ""
        planned = await store.update(planned, planned.value.to(state, at=time.time(), note=said))


@dataclass
class ACluster:
    """A store in a folder, and the configuration of a node that uses it."""

    path: Path
    members: dict[str, int] = field(default_factory=dict)
    """Node -> its lease."""
    token: int = 0
    _sequence: int = 0

    @property
    def config(self) -> Path:
        return self.path / "mobikectl.toml"

    def configure(self, *, balance: str = "auto", policy: str = "") -> None:
        self.config.write_text(
            f"""
[cluster]
node = "gw1"
addresses = [{{ ip = "198.18.1.1" }}]
balance = "{balance}"
[cluster.store.sqlite]
path = "{self.path / "cluster.db"}"
[cluster.policy]
settle_s = 0.2
interval_s = 0.2
{policy}
[charon]
socket = "{self.path / "no.vici"}"
[control]
socket = "{self.path / "no.sock"}"
"""
        )

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        store = open_store(StoreSettings(sqlite=SqliteSettings(self.path / "cluster.db")))
        try:
            yield store
        finally:
            await store.close()

    def do(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Given what to do with the store, do it in a loop of its own."""

        async def run() -> T:
            async with self.store() as store:
                return await work(store)

        return asyncio.run(run())

    async def join(self, store: Store, node: str, sas: Sequence[SaRow] = (), **more: Any) -> None:
        """Make a node a member that serves some IKE_SAs."""
        lease = await store.grant(LEASE_S)
        self.members[node] = lease.id
        address = ServingAddress(ip_address(ADDRESS[node]))
        await store.join(Member(node, node, (address,), capacity=Capacity(sas=100), **more), lease.id)
        await self.tell(store, node, sas)

    async def tell(self, store: Store, node: str, sas: Sequence[SaRow], **more: Any) -> None:
        """Have a node report what it serves."""
        self._sequence += 1
        part = SaPart(node, node, self._sequence, 0, 1, tuple(sas))
        await store.report_sas([part], self.members[node])
        report = NodeReport(
            node, node, self._sequence, ike_sas=len(sas), child_sas=len(sas), cpu=0.25, memory=0.5
        )
        await store.report(replace(report, **more), self.members[node])

    async def lead(self, store: Store, node: str = "gw1") -> None:
        self.token = (await store.campaign(node, node, self.members[node])).token

    async def plan(self, store: Store, *moves: MoveRecord) -> tuple[Versioned[MoveRecord], ...]:
        return await store.append(moves, token=self.token)

    async def pause(self, store: Store) -> None:
        await store.set_cluster(ClusterIntent(paused=True, by="eve@host", note="looking"), revision=0)

    async def command(self, *args: str) -> asyncio.subprocess.Process:
        """Start the command line beside what the test does.

        Whoever runs the tests in the background of a shell ignores SIGINT, and so would the command.
        """
        return await asyncio.create_subprocess_exec(
            *("env", "--default-signal=INT"),
            *(sys.executable, "-m", "mobikectl", *args, "--config", str(self.config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
