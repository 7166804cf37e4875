"""One look at the paths without a sidecar: the policy is asked, its probes are carried out, nothing is moved."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from mobikectl.charon import Session, commands
from mobikectl.netlink import Watcher
from mobikectl.netlink.choice import KernelChoice
from mobikectl.policy.paths import decide, decides_about
from mobikectl.policy.state import Explanation, Memory, PathState, ProbePath
from mobikectl.probe import probe
from mobikectl.sidecar.routes import PathRoutes
from mobikectl.sidecar.sas import GatewayAddresses
from mobikectl.taskgroup import TaskGroup

if TYPE_CHECKING:
    from mobikectl.config import Config


async def look_once(config: Config) -> tuple[tuple[Explanation, ...], dict[int, str]]:
    """Given the configuration, return why each own IKE_SA is where it is, and the connections' names by unique id.

    Raise CharonError, NetlinkError or PrivilegeError.
    """
    session = Session(config.charon.socket, timeout=config.charon.timeout_s)
    try:
        sas = tuple(sa for sa in await commands.list_sas(session, children=False) if decides_about(sa))
        gateways = GatewayAddresses(session)
        await gateways.read()
    finally:
        await session.aclose()
    learnt = {sa.uniqueid: gateways.of(sa) for sa in sas}
    async with Watcher() as watcher, KernelChoice() as choice:
        net = watcher.state
        routes = PathRoutes(choice, config.paths)
        await routes.ask(net, sas, learnt)
    state = PathState(net, sas, routes.answers, routes.metrics, learnt)
    first = decide(state, config.paths, time.monotonic())
    memory = await _probed(first.memory, [one for one in first.actions if isinstance(one, ProbePath)])
    explanations = decide(replace(state, memory=memory), config.paths, time.monotonic()).explanations
    return explanations, {sa.uniqueid: sa.name for sa in sas}


async def _probed(memory: Memory, wanted: list[ProbePath]) -> Memory:
    async with TaskGroup() as tasks:
        probing = [tasks.create_task(probe(one)) for one in wanted]
    for task in probing:
        memory = memory.with_probe(task.result(), time.monotonic())
    return memory
