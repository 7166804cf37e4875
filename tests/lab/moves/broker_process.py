"""A broker in a process of its own, to be killed: ``python broker_process.py KEEPER``.

Each line on stdin is answered with a line of JSON: what the broker knows.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from mobikectl.charon.ha_broker import open_broker
from mobikectl.charon.ha_holder import Keeper


async def main() -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with open_broker(Keeper(Path(sys.argv[1]))) as broker:
        while await lines.readline():
            status = broker.status
            known = {str(spis): sorted(broker.chain_of(spis).children) for spis in broker.current()}
            print(  # noqa: T201 - the answer
                json.dumps(
                    {
                        "known": known,
                        "taken_over": status.taken_over,
                        "healthy": status.healthy,
                        "unprotected": status.unprotected,
                        "lost": status.lost,
                    }
                ),
                flush=True,
            )


asyncio.run(main())
