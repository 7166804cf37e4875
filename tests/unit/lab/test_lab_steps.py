"""The lab holds a sidecar at a step of a handover; a lab that is gone holds nobody."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import LabError
from mobikectl.lab.steps import NAME, Steps
from mobikectl.lab.watched import Reporting
from mobikectl.node.watching import Step, TargetStep
from mobikectl.protocol.handover import SourceState
from mobikectl.wire.ha_chain import IkeSpis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FREEZE = Step(SourceState.FREEZING, IkeSpis(1, 2))
HEAR = Step(TargetStep.HEAR, IkeSpis(1, 2))


@asynccontextmanager
async def sidecar(folder: Path) -> AsyncIterator[Reporting]:
    reader, writer = await asyncio.open_unix_connection(folder / NAME)
    reporting = Reporting(reader, writer)
    running = asyncio.create_task(reporting.run())
    try:
        yield reporting
    finally:
        running.cancel()
        writer.close()


async def test_what_nobody_wants_held_is_taken_at_once_and_remembered(tmp_path: Path) -> None:
    async with asyncio.timeout(5), Steps([("gw1", tmp_path)]) as steps, sidecar(tmp_path) as reporting:
        await reporting.watch(FREEZE)
        await reporting.watch(HEAR)
        assert steps.seen == {("gw1", "source: freezing"): 1, ("gw1", "target: hear"): 1}


async def test_a_step_is_held_once_until_it_is_released(tmp_path: Path) -> None:
    async with asyncio.timeout(5), Steps([("gw1", tmp_path)]) as steps, sidecar(tmp_path) as reporting:
        trap = steps.trap("gw1", "source: freezing")
        await reporting.watch(HEAR)
        freezing = asyncio.create_task(reporting.watch(FREEZE))
        await trap.sprung(within=1)
        await reporting.watch(HEAR)  # only that step waits
        assert not freezing.done()
        trap.release()
        await freezing
        await reporting.watch(FREEZE)


async def test_a_step_that_is_not_reached_in_time_is_an_error_that_names_it(tmp_path: Path) -> None:
    async with asyncio.timeout(5), Steps([("gw1", tmp_path)]) as steps:
        with pytest.raises(LabError, match="gw1 is at 'target: hear'"):
            await steps.trap("gw1", "target: hear").sprung(within=0.01)
        with pytest.raises(LabError, match="no step"):
            steps.trap("gw1", "target: sleep")


async def test_when_the_lab_is_gone_nobody_is_held(tmp_path: Path) -> None:
    async with asyncio.timeout(5):
        async with Steps([("gw1", tmp_path)]) as steps:
            context = sidecar(tmp_path)
            reporting = await context.__aenter__()
            trap = steps.trap("gw1", "source: freezing")
            freezing = asyncio.create_task(reporting.watch(FREEZE))
            await trap.sprung(within=1)
        await freezing
        await reporting.watch(HEAR)
        await context.__aexit__(None, None, None)


async def test_a_sidecar_that_is_killed_at_a_step_leaves_the_lab_as_it_was(tmp_path: Path) -> None:
    async with asyncio.timeout(5), Steps([("gw1", tmp_path)]) as steps:
        async with sidecar(tmp_path) as reporting:
            trap = steps.trap("gw1", "source: freezing")
            held = asyncio.create_task(reporting.watch(FREEZE))
            await trap.sprung(within=1)
        held.cancel()
        trap.release()
        async with sidecar(tmp_path) as reporting:
            await reporting.watch(FREEZE)
        assert steps.seen["gw1", "source: freezing"] == 2
