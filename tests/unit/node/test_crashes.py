"""The sidecar is killed at any of its awaits, repeatedly: every move ends, none is begun twice, no end is a lie."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from ipaddress import ip_address

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mobikectl.cluster.records import MoveState
from mobikectl.policy.cluster import Mechanism
from tests.unit.node.a_gateway import WAN1, WAN2, Gateway, Life

S = MoveState
DOES = ("follow", "refuse", "stay", "die", "break", "impossible")
SHARED = ip_address("198.19.99.1")


async def live(gateway: Gateway, dies_after: int) -> None:
    """One life, until it is killed or has nothing left to do."""
    life = Life(gateway, dies_after=dies_after)
    async with life.lived():
        killed = asyncio.create_task(life.dead.wait())
        settled = asyncio.create_task(gateway.settled())
        await asyncio.wait({killed, settled}, return_when=asyncio.FIRST_COMPLETED)
        for task in (killed, settled):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        life.dead.set()


def outage(gateway: Gateway, begins: bool) -> None:
    """The store goes away, or is back."""
    gateway.backend.away = begins


async def check_ends(gateway: Gateway) -> None:
    begun = Counter(order.cause.split(":")[0] for order in gateway.orders if "undone" not in order.cause)
    for move in (await gateway.store.journal()).moves:
        record = move.value
        number = int(record.sas[0].rpartition("#")[2])
        sa = gateway.sas.get(number)
        assert record.done
        if len(record.sas) == 1:
            assert begun[f"move {record.number} of the cluster"] <= 1, "begun a second time"
        if record.state is S.VERIFIED and record.mechanism is Mechanism.REDIRECT:
            assert sa is None
            assert f"peer{number}" in gateway.at_gw2
        elif record.state is S.VERIFIED:
            assert sa is not None
            assert sa.path.local == WAN2
        elif record.state in {S.REFUSED, S.ROLLED_BACK, S.CANCELLED} and sa is not None:
            assert sa.path.local == WAN1


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    peers=st.lists(st.sampled_from(DOES), min_size=1, max_size=3),
    group=st.lists(st.sampled_from(("follow", "break", "stay")), max_size=3),
    redirect=st.booleans(),
    deaths=st.lists(st.integers(1, 40), max_size=4),
    lost=st.integers(0, 2),
    outages=st.lists(st.integers(0, 100), max_size=2),
)
@example(peers=["impossible"], group=["follow", "stay"], redirect=False, deaths=[21], lost=0, outages=[])
def test_wherever_it_is_killed_every_move_ends_truthfully_and_is_begun_once(
    peers: list[str], group: list[str], redirect: bool, deaths: list[int], lost: int, outages: list[int]
) -> None:
    async def play() -> None:
        gateway = Gateway()
        await gateway.lead()
        await gateway._appear("somebody")
        alone = [gateway.add(number, does) for number, does in enumerate(peers, 1)]
        together = [gateway.add(number, does, remote=SHARED) for number, does in enumerate(group, 11)]
        await gateway.plan(Mechanism.REDIRECT if redirect else Mechanism.NOTIFY, *([key] for key in alone))
        if together:
            await gateway.plan(Mechanism.IMPLICIT, together)
        gateway.backend.answers_lost = lost
        for begins_ms in outages:
            asyncio.get_running_loop().call_later(begins_ms / 1000, outage, gateway, True)
            asyncio.get_running_loop().call_later(begins_ms / 1000 + 0.02, outage, gateway, False)
        for dies_after in deaths:
            await live(gateway, dies_after)
        async with Life(gateway).lived():
            await gateway.settled()
        await gateway.quiet()
        gateway.backend.away = False
        await check_ends(gateway)

    asyncio.run(play())
