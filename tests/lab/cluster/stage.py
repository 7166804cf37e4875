"""Two gateways of a cluster with real charons and sidecars, clients in one charon, and a test that plans the moves.

The test appends to the journal with the token of whoever leads: the deciders have nothing to plan (balance = "manual").
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import tomllib
from typing import TYPE_CHECKING, Any

from mobikectl.cluster.records import MoveRecord, MoveState, MoveStep, peer_of
from mobikectl.cluster.settings import SqliteSettings
from mobikectl.cluster.sqlite import SqliteBackend
from mobikectl.cluster.store import Store
from mobikectl.errors import MobikectlError
from mobikectl.lab import fleet, vici
from mobikectl.lab.instance import Lab
from mobikectl.lab.requirements import CHARON
from mobikectl.lab.scenario import SCENARIOS
from mobikectl.lab.sidecars import start_sidecar
from mobikectl.lab.store import CLUSTER
from mobikectl.lab.topology import parse_topology
from mobikectl.model import ROUTE_PROTOCOL
from mobikectl.policy.cluster import Mechanism, Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mobikectl.cluster.records import SaRow

FOLDER = SCENARIOS / "cluster-drain-redirect"
CLIENTS = 8
PATIENCE = 30.0
GW1, GW2 = "gateway1", "gateway2"


def missing() -> str:
    """Why there can be no lab here; empty: there can."""
    return "" if os.geteuid() == 0 and CHARON.exists() else "needs root and strongSwan"


async def until(true: Callable[[], Awaitable[Any]], *, what: str, within: float = PATIENCE) -> Any:
    """Wait until ``true()`` gives something true, and return that; fail after ``within`` seconds."""
    end = time.monotonic() + within
    while not (found := await true()):
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        await asyncio.sleep(0.05)
    return found


class Stage:
    """The lab, its store, and what is planned and seen. Half of the clients are at each gateway's first address."""

    def __init__(self, name: str, *, client_settings: str = "", plugin: bool = False) -> None:
        data = tomllib.loads((FOLDER / "scenario.toml").read_text())
        data["fleets"]["fleet"]["count"] = CLIENTS
        data["nodes"]["clients"]["strongswan"] = f"charon {{ {client_settings} }}"
        # A machine that is busy with other tests shall not replace the leader whose token the test uses.
        data["cluster"]["store"]["lease"] = {"ttl_s": 6}
        if plugin:
            data["nodes"]["clients"]["plugin"] = True
        self.lab = Lab.new(
            name, "cluster-moves", parse_topology(data, where="stage", store="sqlite"), esp="userland"
        )

    async def up(self) -> None:
        """Everything runs, every tunnel is up, every IKE_SA is told of in the store."""
        await self.lab.up()
        await fleet.bring_up(self.lab, "fleet")
        await asyncio.gather(*(self.sidecar_start(node) for node in (GW1, GW2)))
        _, path = self._where()
        self.store = Store(SqliteBackend(SqliteSettings(path)), CLUSTER)

        async def told() -> bool:
            with contextlib.suppress(MobikectlError):
                rows = await self.rows()
                return sum(map(len, rows.values())) == CLIENTS and await self.store.leader() is not None
            return False

        await until(told, what="all IKE_SAs are told of, and somebody leads")

    def _where(self) -> tuple[str, Any]:
        assert self.lab.store is not None
        kind, file = self.lab.store.where()
        return kind, self.lab.record.shared_dir / file.rpartition("/")[2]

    async def down(self) -> None:
        """Close the store; the lab itself is torn down by the fixture."""
        if hasattr(self, "store"):
            await self.store.close()

    async def sidecar_start(self, node: str) -> None:
        """Start a gateway's sidecar (again), and wait until it is healthy."""
        await start_sidecar(self.lab, node, FOLDER)

    def kill_sidecar(self, node: str) -> None:
        """SIGKILL."""
        assert self.lab.signal(self.lab.newest(node, "sidecar"), signal.SIGKILL)

    def charon(self, node: str, number: signal.Signals) -> None:
        """Send a gateway's charon a signal."""
        assert self.lab.signal(self.lab.charon(node), number)

    # What is there

    async def rows(self) -> dict[str, tuple[SaRow, ...]]:
        """Return what each gateway tells of its IKE_SAs."""
        return (await self.store.sas()).by_node()

    async def told(self, node: str, address: str) -> None:
        """Wait until a gateway tells that all of its IKE_SAs are served at an address."""

        async def all_there() -> bool:
            return {str(row.address) for row in (await self.rows())[node]} == {address}

        await until(all_there, what=f"{node} tells that all are at {address}")

    async def served(self, node: str) -> dict[str, tuple[str, str]]:
        """Return what a gateway's charon really has: client's identity -> (our address, its address)."""
        listed = await asyncio.to_thread(vici.list_sas, self.lab.vici_socket(node))
        return {
            str(sa["remote-id"]): (str(sa["local-host"]), str(sa["remote-host"]))
            for _, sa in listed
            if sa["state"] == "ESTABLISHED"
        }

    async def routes(self, node: str) -> list[str]:
        """Return the destinations of a gateway's steering routes."""
        lines = await self.lab.run_in(
            node, "ip", "-4", "route", "show", "table", "all", "proto", str(ROUTE_PROTOCOL)
        )
        return [line.split()[0] for line in lines.splitlines() if line.strip()]

    # What is to be done

    async def plan(
        self, mechanism: Mechanism, keys: list[str], source: str, target: str, to: str
    ) -> list[int]:
        """Append a move of each IKE_SA to an address, as the leader would; return their numbers."""
        rows = {row.key: row for part in (await self.rows()).values() for row in part}
        leader = await self.store.leader()
        assert leader is not None
        moves = [
            MoveRecord(
                token=leader.token,
                sas=(key,),
                source=source,
                target=target,
                mechanism=mechanism,
                reason=Reason.SPREAD,
                source_address=rows[key].address,
                target_address=type(rows[key].address)(to),
                steps=(MoveStep(MoveState.PLANNED, time.time()),),
            )
            for key in keys
        ]
        return [move.value.number for move in await self.store.append(moves, token=leader.token)]

    async def ended(self, numbers: list[int], *, within: float = PATIENCE) -> list[MoveRecord]:
        """Wait until moves have ended, and return them."""

        async def done() -> list[MoveRecord]:
            found = [await self.store.move(number) for number in numbers]
            records = [move.value for move in found if move is not None]
            return records if all(record.done for record in records) else []

        return list(await until(done, what=f"moves {numbers} have ended", within=within))

    async def begun(self, number: int) -> None:
        """Wait until a move is more than planned."""

        async def more() -> bool:
            move = await self.store.move(number)
            return move is not None and move.value.state is not MoveState.PLANNED

        await until(more, what=f"move {number} has begun")

    async def keys(self, node: str) -> list[str]:
        """Return the names of a gateway's IKE_SAs."""
        return sorted(row.key for row in (await self.rows())[node])


def peers(keys: list[str]) -> set[str]:
    """Given names of IKE_SAs, return their clients' identities."""
    return {peer_of(key) for key in keys}
