"""The sidecar is killed, stopped and started at the worst moments; the tunnel does not mind."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.errors import MobikectlError

from .bench import FIRST, QUICK, SECOND, WAN1, WAN2, Bench, until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

pytestmark = [pytest.mark.netns, pytest.mark.charon, pytest.mark.slow]

SEEDS = [int(text) for text in os.environ.get("MOBIKECTL_CHAOS_SEEDS", "1,2").split(",")]
"""Of the random moments; more of them find more."""

KILLS = 4
"""Per seed."""


async def _link(bench: Bench, dice: random.Random) -> None:
    """The link in use goes down, or comes back with its route."""
    dev = "wan1" if bench.path() == FIRST else "wan2"
    await bench.ip("client", f"link set {dev} down")
    if dice.random() < 0.5:
        await asyncio.sleep(dice.uniform(0, 0.05))
        await bench.link_up(dev)


async def _switch(bench: Bench, _dice: random.Random) -> None:
    """The operator switches to the other uplink; that the sidecar dies meanwhile is the point."""
    to = WAN2 if bench.path() == FIRST else WAN1
    try:
        await bench.switch(to)
    except MobikectlError:
        return


async def _both_up(bench: Bench) -> None:
    for dev in ("wan1", "wan2"):
        await bench.link_up(dev)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cause", [_link, _switch], ids=["links", "switches"])
async def test_killed_at_any_moment_of_a_move_it_leaves_a_tunnel_that_works(
    bench: Bench, cause: Callable[[Bench, random.Random], Coroutine[Any, Any, None]], seed: int
) -> None:
    dice = random.Random(seed)
    for _ in range(KILLS):
        await bench.start()
        moving = asyncio.create_task(cause(bench, dice))
        await asyncio.sleep(dice.uniform(0, 0.25))
        await bench.end(signal.SIGKILL)
        await moving
        await bench.lives()
        await _both_up(bench)
        await bench.lives()
    await bench.start()
    await bench.lives()
    paths = {bench.path()}
    for route in await bench.steering():
        assert any(path.split()[0] in route for path in paths), "a route of an earlier life was not removed"
    await bench.leaves_nothing()
    await bench.lives()


async def test_started_again_it_takes_over_the_route_that_holds_the_sa(bench: Bench) -> None:
    await bench.start()
    await bench.switch(WAN2)
    await bench.end(signal.SIGKILL)
    assert len(await bench.steering()) == 1
    await bench.start(QUICK + "\n[[paths.interfaces]]\npattern = 'wan2'\npriority = 5\n")
    await bench.lives()
    assert bench.path() == SECOND
    assert [steer["path"]["local"] for steer in (await bench.state())["steering"]] == [WAN2]
    await bench.leaves_nothing()


async def _stopped(bench: Bench, switching: asyncio.Task[Any]) -> None:
    took = await bench.end(signal.SIGTERM)
    assert took < 3.0, f"{took:.1f} s to end"
    await asyncio.wait([switching])
    assert await bench.ours() == []


async def test_told_to_stop_in_the_middle_of_a_move_it_gives_the_old_path_back(bench: Bench) -> None:
    await bench.start()
    await bench.silence("wan2")
    switching = asyncio.create_task(bench.switch(WAN2, timeout=10.0))

    async def under_way() -> bool:
        return any(WAN2 in route for route in await bench.steering())

    await until(under_way, what="the steering route of the move", every=0.01)
    await _stopped(bench, switching)
    with pytest.raises(MobikectlError):
        await switching
    await bench.lives()
    # Which of the gateway's addresses: charon asks them all when one path does not answer.
    assert bench.path().startswith(WAN1)


async def test_told_to_stop_and_keep_its_routes_it_leaves_none_that_is_unverified(bench: Bench) -> None:
    await bench.start(QUICK + "\n[move]\non_exit = 'keep'\n")
    await bench.silence("wan2")
    switching = asyncio.create_task(bench.switch(WAN2, timeout=10.0))

    async def under_way() -> bool:
        return any(WAN2 in route for route in await bench.steering())

    await until(under_way, what="the steering route of the move", every=0.01)
    took = await bench.end(signal.SIGTERM)
    assert took < 3.0, f"{took:.1f} s to end"
    await asyncio.wait([switching])
    assert all(WAN1 in route for route in await bench.steering())
    await bench.lives()
    assert bench.path().startswith(WAN1)


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.15, 0.4])
async def test_told_to_stop_at_any_moment_of_a_link_failure_it_is_gone_soon_and_cleanly(
    bench: Bench, moment: float
) -> None:
    await bench.start()
    await bench.ip("client", "link set wan1 down")
    await asyncio.sleep(moment)
    took = await bench.leaves_nothing()
    assert took < 3.0, f"{took:.1f} s to end"
    await bench.lives()


BROKEN = {
    "pilot": """
from mobikectl.sidecar.pilot import Pilot
async def broken(self):
    raise KeyError("a mistake of ours")
Pilot._hold = broken
""",
    "netlink": """
import mobikectl.sidecar.main as main
def broken(change, events):
    raise RuntimeError("a mistake of ours")
main.report_netlink = broken
""",
    "charon": """
import mobikectl.sidecar.main as main
def broken(event, events):
    raise RuntimeError("a mistake of ours")
main.report_sa = broken
""",
}
"""A mistake in each of the works that run side by side."""


@pytest.mark.parametrize("work", BROKEN)
async def test_a_mistake_in_one_of_its_works_ends_it_all_loudly_and_cleanly(bench: Bench, work: str) -> None:
    bench.launch(saboteur=BROKEN[work])

    async def ended() -> bool:
        if work == "netlink":
            await bench.ip("client", "link set wan2 down")
            await bench.link_up("wan2")
        return not bench.alive()

    await until(ended, what="the sidecar's end: half of it must not go on alone")
    assert "a mistake of ours" in bench.log()
    assert await bench.ours() == []
    await bench.lives()
