"""One look at the paths without a sidecar: the policy is asked, its probes are carried out, nothing is moved."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from mobikectl.charon import Session, commands
from mobikectl.errors import NetlinkError
from mobikectl.netlink import Watcher
from mobikectl.netlink.choice import KernelChoice
from mobikectl.policy.candidates import paths_to_ask
from mobikectl.policy.paths import decide, decides_about
from mobikectl.policy.state import Explanation, Memory, PathState, ProbePath
from mobikectl.probe import probe
from mobikectl.sidecar.sas import GatewayAddresses
from mobikectl.switch.steering import link_of

if TYPE_CHECKING:
    from mobikectl.config import Config
    from mobikectl.model import IkeSa, IpAddress, NetState, Path, RouteAnswer


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
        routes, metrics = await _ask(choice, net, sas, learnt, config)
    state = PathState(net, sas, routes, metrics, learnt)
    first = decide(state, config.paths, time.monotonic())
    memory = await _probed(first.memory, [one for one in first.actions if isinstance(one, ProbePath)])
    state = PathState(net, sas, routes, metrics, learnt, memory=memory)
    explanations = decide(state, config.paths, time.monotonic()).explanations
    return explanations, {sa.uniqueid: sa.name for sa in sas}


async def _ask(
    choice: KernelChoice,
    net: NetState,
    sas: tuple[IkeSa, ...],
    learnt: dict[int, tuple[IpAddress, ...]],
    config: Config,
) -> tuple[dict[Path, RouteAnswer | None], dict[Path, int]]:
    routes: dict[Path, RouteAnswer | None] = {}
    metrics: dict[Path, int] = {}
    for sa in sas:
        for path in paths_to_ask(net, sa, config.paths, learnt[sa.uniqueid]):
            oif = link_of(net, path.local)
            try:
                if oif is not None and path not in routes:
                    routes[path], metrics[path] = await choice.through(path.remote, src=path.local, oif=oif)
            except NetlinkError:
                routes[path] = None
    return routes, metrics


async def _probed(memory: Memory, wanted: list[ProbePath]) -> Memory:
    async with asyncio.TaskGroup() as tasks:
        probing = [tasks.create_task(probe(one)) for one in wanted]
    for task in probing:
        memory = memory.with_probe(task.result(), time.monotonic())
    return memory
