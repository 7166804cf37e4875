"""One client is moved to and fro between two gateways, and each time a process is killed at exactly one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobikectl.lab.chaos.desk import open_desk
from mobikectl.lab.chaos.faults import Faults
from mobikectl.lab.chaos.plan import Whom
from mobikectl.lab.moving import Client
from mobikectl.lab.steps import SOURCE_STEPS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobikectl.lab.chaos.plan import What
    from mobikectl.lab.run import Run

REACHED_S = 30.0
VERIFIED = "verified"


async def kill_at_steps(run: Run, what: What, kills: Iterable[tuple[Whom, str]]) -> None:
    """Given what is killed, and where at which step, do that one after the other, between gateway1 and gateway2.

    Record ``kills``; ``owned_once``: after how many one gateway served the IKE_SA and its client pinged; ``went`` and
    ``stayed``: where it was then; ``stuck``: how many of those that stayed the next move did not take there either.
    """
    cluster, client = run.the_cluster, Client(run, "tunnel", desk="gateway3")
    faults = Faults(run)
    peer = run.lab.topology.tunnel("tunnel").client_id
    await cluster.carrying({"gateway1": 1})
    count, stuck, owned = 0, 0, {True: 0, False: 0}
    async with open_desk(run.lab) as desk:
        for count, (whom, step) in enumerate(kills, 1):  # noqa: B007 (the last is recorded)
            await faults.well()
            source = await client.owned()
            target = "gateway2" if source == "gateway1" else "gateway1"
            trap = run.handovers.trap(source if step in SOURCE_STEPS else target, step)
            number = await desk.move(peer, source, target)
            await trap.sprung(within=REACHED_S)
            mend = await faults.inflict(what, source if whom is Whom.SOURCE else target)
            trap.release()
            await mend()
            await client.ended(number)
            owner = await client.owned()
            await client.answers()
            await faults.well()  # it has its standby again
            owned[owner == target] += 1
            if owner == source:  # undisturbed it goes, and nothing of the failure is left
                stuck += await client.ended(await desk.move(peer, source, target)) != VERIFIED
    run.record("kills", count)
    run.record("stuck", stuck)
    run.record("went", owned[True])
    run.record("stayed", owned[False])
    run.record("owned_once", sum(owned.values()))
    await cluster.quiet(2.0)
    await client.owned()
