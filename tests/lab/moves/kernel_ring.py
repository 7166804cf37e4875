"""Around the ring on a kernel with ESP: run in user-mode-linux by test_kernel_ring.py. Prints what it saw as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from mobikectl.netlink.esp import EspSequences
from tests.lab.moves.lab import MoveLab, children_of, spis_of
from tests.lab.moves.sites import sites_of

ROUND = (("gw1", "gw2"), ("gw2", "gw3"), ("gw3", "gw1"))


async def main() -> None:
    lab = MoveLab(Path(tempfile.mkdtemp(dir="/dev/shm")), kernel=True)
    seen: dict[str, object] = {"ends": []}
    try:
        lab.build()
        await lab.start()
        await lab.connect()
        async with AsyncExitStack() as stack:
            sequences = {
                name: await stack.enter_async_context(EspSequences(netns=node.ns, deadline=10))
                for name, node in lab.gateways.items()
            }
            sites = await stack.enter_async_context(sites_of(lab, sequences))
            before = await lab.gateways["gw1"].sa()
            ping = await lab.ping(int(sys.argv[1]), sys.argv[2])
            await asyncio.sleep(1)
            for source, target in ROUND:
                at = asyncio.get_running_loop().time()
                ended = await sites.move(source, target, r=sys.argv[3] == "switch")
                took = asyncio.get_running_loop().time() - at
                seen["ends"].append([ended.state.value, ended.why, round(took * 1000)])  # type: ignore[attr-defined]
                await asyncio.sleep(1)
            [serving] = [name for name in lab.gateways if await lab.sas(name)]
            after = await lab.gateways[serving].sa()
            seen |= {"serving": serving, "same_ike_sa": spis_of(after) == spis_of(before)}
            seen["same_children"] = children_of(after) == children_of(before)
            seen["sent"], seen["answered"] = await ping.result()
            seen["ike_sas_made"] = lab.client.log.count("initiating IKE_SA")
        await lab.stop()
    finally:
        print("SEEN " + json.dumps(seen), flush=True)  # noqa: T201
        await lab.demolish()


asyncio.run(main())
