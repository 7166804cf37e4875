"""What goes wrong in a chaos run, done to a gateway and mended again: processes are started as systemd would."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from mobikectl.control.client import ControlClient
from mobikectl.errors import LabError, SidecarError
from mobikectl.lab.chaos.plan import What
from mobikectl.lab.processes import identify, marked
from mobikectl.lab.topology import MANAGEMENT, Role
from mobikectl.lab.wait import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mobikectl.lab.processes import ProcessId
    from mobikectl.lab.run import Run

GONE_S = 10.0
WELL_S = 60.0
"""After the last process was started: its node is a member and carries IKE_SAs over again."""
KEEPER = b"mobikectl.charon.ha_keeper"


class Faults:
    """Does it. Given the run."""

    def __init__(self, run: Run, *, patience: float = 1.0) -> None:
        self._run = run
        self._patience = patience

    async def inflict(self, what: What, node: str) -> Callable[[], Awaitable[object]]:
        """Given what goes wrong at which gateway, have it go wrong; return what mends it."""
        run = self._run
        match what:
            case What.SIDECAR:
                await run.sidecar_kill(node)
                return lambda: run.sidecar_start(node)
            case What.KEEPER:
                await self._kill_keeper(node)
            case What.BROKER:
                await run.sidecar_kill(node)
                await self._kill_keeper(node)
                return lambda: run.sidecar_start(node)
            case What.CHARON:
                await self._kill(run.lab.charon(node), f"{node}: SIGKILL of charon")
                return lambda: self._start_charon(node)
            case What.TRANSFER:
                await run.drop(MANAGEMENT, f"iif {node}")
                return lambda: run.undrop(MANAGEMENT)
            case What.STORE:
                run.cause("the store stands still")
                await run.the_cluster.store.stop()
                return run.the_cluster.store.go_on
            case What.NOTHING:
                pass
        return _nothing

    async def _kill(self, who: ProcessId, label: str) -> None:
        self._run.cause(label)
        self._run.lab.signal(who, signal.SIGKILL)

        async def gone() -> bool:
            return identify(who.pid) != who

        await until(gone, within=GONE_S, what=f"{label}: it is gone", every=0.005)

    async def _kill_keeper(self, node: str) -> None:
        for who in await asyncio.to_thread(_keepers, self._run.lab.record.name, node):
            await self._kill(who, f"{node}: SIGKILL of the keeper")

    async def _start_charon(self, node: str) -> None:
        await self._run.lab.start_charon(node)
        self._run.cause(f"{node}: charon runs")

    async def well(self) -> None:
        """Wait until every gateway is a member that carries IKE_SAs over, and somebody leads. Raise LabError."""
        gateways = self._run.lab.topology.by_role(Role.GATEWAY)
        why = ""

        async def all_well() -> bool:
            nonlocal why
            why = next(filter(None, [await self._ill(node) for node in gateways]), "")
            return not why

        try:
            await until(all_well, within=WELL_S * self._patience, what="all gateways are well", every=0.1)
        except LabError as error:
            raise LabError(f"{error.message}: {why}", hint="see sidecar.out") from None
        await self._run.the_cluster.led()

    async def _ill(self, node: str) -> str:
        try:
            async with ControlClient(self._run.control_socket(node)) as client:
                state = (await client.state())["cluster"]
        except SidecarError as error:
            return f"{node}: {error.message}"
        if not state["member"]:
            return f"{node} is no member"
        if state["carries_not"]:
            return f"{node}: {state['carries_not']}"
        standing = state["standing"]
        return f"{node}: copies are behind" if standing is None or standing["behind"] else ""


async def _nothing() -> None:
    return


def _keepers(lab: str, node: str) -> list[ProcessId]:
    """Return the keepers that a node's sidecars started."""
    found = []
    for who in marked(lab):
        try:
            words = Path(f"/proc/{who.pid}/cmdline").read_bytes().split(b"\0")
            environment = Path(f"/proc/{who.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended
        if KEEPER in words and f"MOBIKECTL_LAB_NODE={node}".encode() in environment:
            found.append(who)
    return found
