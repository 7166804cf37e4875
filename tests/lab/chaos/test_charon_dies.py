"""charon hangs, dies, comes late: the sidecar waits, forgets, and goes on."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import MobikectlError
from mobikectl.lab import vici
from mobikectl.lab.requirements import CHARON

from .bench import WAN1, WAN2, Bench, told, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = [pytest.mark.netns, pytest.mark.charon, pytest.mark.slow]


@pytest.mark.parametrize("moment", [0.0, 0.03, 0.1])
async def test_a_charon_that_hangs_in_the_middle_of_a_move_goes_on_with_its_tunnel(
    bench: Bench, moment: float
) -> None:
    await bench.start()
    charon = bench.lab.charon("client")
    switching = asyncio.create_task(bench.switch(WAN2, timeout=2.0))
    await asyncio.sleep(moment)
    assert bench.lab.signal(charon, signal.SIGSTOP)
    try:
        await asyncio.wait([switching])
        problems = await until(lambda: _problems(bench), what="the hang is noticed")
        assert "charon is hung" in problems[0]
    finally:
        assert bench.lab.signal(charon, signal.SIGCONT)
    await bench.healthy()
    await bench.lives()
    move = await bench.switch(WAN2 if bench.path().startswith(WAN1) else WAN1)
    assert told(move) == "verified"
    await bench.lives()
    await bench.leaves_nothing()


async def _reaped(bench: Bench, pid: int) -> bool:
    """Whether the process table knows it no more: a charon does not start while it does."""
    return bench.lab._children[pid].poll() is not None


async def _problems(bench: Bench) -> list[str]:
    async with bench.control() as client:
        found: list[str] = (await client.health())["problems"]
        return found


async def test_the_sas_of_a_charon_that_died_are_forgotten_and_those_of_the_next_are_taken_care_of(
    bench: Bench,
) -> None:
    await bench.start()
    await bench.switch(WAN2)
    charon = bench.lab.charon("client")
    assert bench.lab.signal(charon, signal.SIGKILL)

    async def noticed() -> bool:
        return any("down" in problem for problem in await _problems(bench))

    await until(noticed, what="charon's death is noticed")
    await until(lambda: _reaped(bench, charon.pid), what="the dead charon is reaped")
    for left in ("charon.vici", "charon.pid"):
        (bench.lab.record.node_dir("client") / left).unlink()
    bench.lab.start("client", "charon", [str(CHARON)])
    await bench.lab._ready("client")
    await bench.healthy()

    async def empty() -> bool:
        return not (await bench.state())["sas"] and not await bench.steering()

    await until(empty, what="no SA and no steering route is left")
    await asyncio.to_thread(vici.initiate, bench.lab.vici_socket("client"), "office")
    await bench.flows()

    async def held() -> bool:
        return any(WAN1 in route for route in await bench.steering())

    await until(held, what="the new SA is held on its path")
    bench.established = bench.keys()
    await bench.ip("client", "link set wan1 down")
    await bench.all_from(WAN2)
    await bench.flows()
    assert bench.keys() == bench.established
    await bench.leaves_nothing()


async def test_a_sidecar_that_was_there_before_charon_waits_for_it(
    make_bench: Callable[..., Awaitable[Bench]],
) -> None:
    bench = await make_bench()
    socket = bench.lab.vici_socket("client")
    socket.rename(socket.with_suffix(".hidden"))  # for who connects now there is no charon yet
    bench.launch()

    async def waits() -> bool:
        try:
            return any("charon is down" in problem for problem in await _problems(bench))
        except MobikectlError:
            return False

    await until(waits, what="the sidecar serves without charon")
    socket.with_suffix(".hidden").rename(socket)
    await bench.healthy()
    assert told(await bench.switch(WAN2)) == "verified"
    await bench.lives()
    await bench.leaves_nothing()
