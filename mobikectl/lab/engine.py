"""Runs a scenario: lab up, tunnels up, pings and captures on, steps, measuring, judging, lab down."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mobikectl.errors import MobikectlError
from mobikectl.lab import fleet, measure, vici
from mobikectl.lab.capture import Capture, Pinger
from mobikectl.lab.checks import judge
from mobikectl.lab.cluster import Cluster
from mobikectl.lab.fleet import Fleet
from mobikectl.lab.instance import Lab
from mobikectl.lab.results import Point, Result, Track
from mobikectl.lab.run import Run
from mobikectl.lab.steps import Steps
from mobikectl.lab.topology import Role

if TYPE_CHECKING:
    from pathlib import Path

    from mobikectl.lab.scenario import Scenario
    from mobikectl.lab.topology import Topology

Tell = Callable[[str], None]
"""Takes one line of progress."""

SWITCH_INTERVAL = 0.0005
"""Seconds that a thread may keep the interpreter while the pinger's next packet is due."""
BEFORE = 0.3
"""Seconds of undisturbed traffic before the first step: what "nothing wrong" looks like here."""


async def run_scenario(
    scenario: Scenario,
    *,
    esp: str,
    out: Path,
    sidecar: bool = True,
    patience: float = 1.0,
    tell: Tell = lambda _: None,
) -> Result:
    """Given a scenario, run it in a lab of its own and return what was measured.

    ``esp``: ``userland`` or ``kernel``; ``out``: where logs and captures are kept (a folder per scenario);
    without ``sidecar`` the charons are alone; ``patience`` stretches deadlines (not what is demanded) on a slow
    machine. What fails is told in the result, not raised. The lab is gone
    when this returns or is cancelled.
    """
    started = time.monotonic()
    sys.setswitchinterval(SWITCH_INTERVAL)
    logs = out / scenario.name
    logs.mkdir(parents=True, exist_ok=True)
    result = Result(scenario.name, scenario.description, esp, sidecar, logs=str(logs))
    name = f"{scenario.lab_name}-{secrets.token_hex(3)}"
    try:
        lab = Lab.new(name, scenario.name, scenario.topology, esp=esp)
        try:
            tell("building")
            await lab.up()
            async with asyncio.timeout(scenario.deadline * patience):
                await _in_lab(lab, scenario, result, logs, patience, tell)
        finally:
            lab.keep_logs(logs)
            await lab.down()
    except MobikectlError as error:
        result.error = str(error)
    except TimeoutError:
        result.error = f"not at its end after {scenario.deadline * patience:g} s"
    result.seconds = time.monotonic() - started
    return result


async def _in_lab(
    lab: Lab, scenario: Scenario, result: Result, logs: Path, patience: float, tell: Tell
) -> None:
    topology = scenario.topology
    watched = topology.by_role(Role.GATEWAY) if topology.cluster and topology.cluster.watched else ()
    looking_on = Steps((node, lab.record.node_dir(node)) for node in watched)
    async with contextlib.AsyncExitStack() as recording:
        await recording.enter_async_context(looking_on)
        captures = {
            what: recording.enter_context(Capture(lab.namespace(client), logs / f"{what}.pcap"))
            for what, client in _captured(topology).items()
        }
        await bring_up(lab)
        tell("tunnels are up")
        pingers: dict[str, Pinger] = {}
        fleets = {name: Fleet(lab, name, captures[name]) for name in topology.fleets}
        cluster = Cluster(lab, lab.store, patience=patience) if lab.store else None
        run = Run(
            lab,
            captures,
            pingers,
            fleets=fleets,
            cluster=cluster,
            handovers=looking_on if watched else None,
            folder=scenario.folder,
            sidecar=result.sidecar,
            patience=patience,
            tell=tell,
        )
        try:
            if cluster is None and result.sidecar:
                await _start_sidecars(run)
            await run.ready(*topology.nodes)
            before = await _list_all(lab)
            threads = {
                node: recording.enter_context(vici.EventThread(node, lab.vici_socket(node)))
                for node in topology.charons
            }
            for t in topology.alone:
                pinger = Pinger(lab.namespace(t.client), t.client_inside, t.gateway_inside)
                pingers[t.name] = recording.enter_context(pinger)
            for one in fleets.values():
                recording.enter_context(one)
            result.start = time.monotonic()
            if cluster is not None and result.sidecar:
                # A cluster has its traffic before its sidecars: what begins while they look is no load to balance.
                await cluster.start()
                await _start_sidecars(run)
            await run.traffic(BEFORE)
            try:
                await scenario.steps()(run)
            except MobikectlError as error:  # what was measured until then shows why
                result.error = str(error)
            result.end = time.monotonic()
            for pinger in pingers.values():
                await asyncio.to_thread(pinger.__exit__)
            for one in fleets.values():
                await asyncio.to_thread(one.__exit__)
            after = await _list_all(lab)
        finally:
            await run.close()
    events = [event for thread in threads.values() for event in thread.events]
    _measure(scenario, result, run, captures, pingers, (before, after), events)


def _captured(topology: Topology) -> dict[str, str]:
    """Return what has packets captured (a tunnel, a whole fleet) and on which node."""
    fleets = {name: topology.fleet(name)[0].client for name in topology.fleets}
    return {tunnel.name: tunnel.client for tunnel in topology.alone} | fleets


async def bring_up(lab: Lab) -> None:
    """Bring up every tunnel of a lab. Raise LabError when one does not come up."""
    for tunnel in lab.topology.alone:
        await asyncio.to_thread(vici.initiate, lab.vici_socket(tunnel.client), tunnel.name)
    for name in lab.topology.fleets:
        await fleet.bring_up(lab, name)


async def _start_sidecars(run: Run) -> None:
    nodes = run.lab.topology.nodes.values()
    await asyncio.gather(*(run.sidecar_start(node.name) for node in nodes if node.sidecar))


async def _list_all(lab: Lab) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    return {
        node: await asyncio.to_thread(vici.list_sas, lab.vici_socket(node)) for node in lab.topology.charons
    }


def _measure(
    scenario: Scenario,
    result: Result,
    run: Run,
    captures: dict[str, Capture],
    pingers: dict[str, Pinger],
    listed: tuple[dict[str, Any], dict[str, Any]],
    events: list[vici.CharonEvent],
) -> None:
    before, after = listed
    tunnels = scenario.topology.alone
    for tunnel in tunnels:
        packets = [p for p in captures[tunnel.name].packets if p.time >= result.start]
        pings = pingers[tunnel.name].pings
        prefix = f"{tunnel.name}." if len(tunnels) > 1 else ""
        numbers: dict[str, float | str] = {
            **measure.ping_metrics(pings),
            **measure.ike_metrics(packets),
            "capture_drops": captures[tunnel.name].kernel_drops,
            "path": measure.path_of(after[tunnel.client], tunnel.name),
            "gateway_path": measure.path_of(after[tunnel.gateway], tunnel.name),
        }
        result.metrics |= {prefix + name: value for name, value in numbers.items()}
        wire = tuple(measure.path_intervals(packets, until=result.end))
        result.tracks.append(Track(f"{tunnel.name}: path on the wire", "path", intervals=wire))
        charon = _charon_paths(before[tunnel.client], events, tunnel.client, tunnel.name, result)
        result.tracks.append(Track(f"{tunnel.name}: path in charon", "charon", intervals=charon))
        lost = tuple(Point(at, "lost") for at in measure.lost_at(pings))
        result.tracks.append(Track(f"{tunnel.name}: lost pings", "lost", points=lost))
    for one in run.fleets.values():
        result.metrics |= one.metrics(result.start, before, after, events)
        result.tracks += one.tracks(result.start, result.end, before, events)
    if run.cluster is not None and result.sidecar:
        result.metrics |= run.cluster.metrics()
    result.metrics |= _sa_metrics(before, after, events) | run.journal.metrics
    result.exchanges = run.journal.exchanges
    result.tracks += _point_tracks(run, events)
    result.verdicts = judge(scenario.checks, result.metrics, esp=result.esp, sidecar=result.sidecar)


def _sa_metrics(
    before: dict[str, Any], after: dict[str, Any], events: list[vici.CharonEvent]
) -> dict[str, float | str]:
    """Return ``sas_lost`` and ``sas_new`` over all charons, ``child_spis_kept`` and ``address_updates``."""
    lost = [sa for node in before for sa in measure.sa_keys(before[node]) - measure.sa_keys(after[node])]
    new = [sa for node in before for sa in measure.sa_keys(after[node]) - measure.sa_keys(before[node])]
    kept = all(measure.child_spis(before[node]) == measure.child_spis(after[node]) for node in before)
    return {
        "sas_lost": len(lost),
        "sas_new": len(new),
        "child_spis_kept": "yes" if kept else "no",
        "address_updates": sum(event.name == "ike-update" for event in events),
    }


def _charon_paths(
    before: list[tuple[str, dict[str, Any]]],
    events: list[vici.CharonEvent],
    node: str,
    tunnel: str,
    result: Result,
) -> tuple[measure.Interval, ...]:
    """The path that the client's charon says it uses: as listed before, then as its ike-update events tell."""
    changes = [(result.start, measure.path_of(before, tunnel))]
    for event in events:
        if event.node == node and event.name == "ike-update" and tunnel in event.data:
            new = event.data
            local, remote = new.get("local-host"), new.get("remote-host")
            changes.append((event.time, f"{local} -> {remote}"))
    ends = [at for at, _ in changes[1:]] + [result.end]
    return tuple(measure.Interval(at, end, path) for (at, path), end in zip(changes, ends, strict=True))


def _point_tracks(run: Run, events: list[vici.CharonEvent]) -> list[Track]:
    causes = tuple(Point(cause.at, cause.label) for cause in run.journal.causes)
    charon = tuple(Point(e.time, f"{e.node}: {e.name}") for e in sorted(events, key=lambda e: e.time))
    return [
        Track("causes", "cause", points=causes),
        Track("decisions", "decision", points=run.sidecar_points("decision")),
        Track("moves", "move", points=run.sidecar_points("action")),
        Track("charon's events", "event", points=charon),
    ]
