"""A lab's sidecar: as `mobikectl run`, but it tells the lab each step of a handover and waits for the lab's word.

    python -m mobikectl.lab.watched CONFIGURATION SOCKET

So the lab can kill a process at exactly a step (`mobikectl.lab.steps`). Nothing of this is in a gateway's sidecar: who
looks on is handed to it here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mobikectl.config import load
from mobikectl.errors import MobikectlError
from mobikectl.sidecar.logs import set_up_logging
from mobikectl.sidecar.main import Sidecar

if TYPE_CHECKING:
    from mobikectl.node.watching import Step


class Reporting:
    """Tells the lab of each step. When the lab is gone nobody looks on any more."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._number = 0
        self._gone = False

    async def run(self) -> None:
        """Take the lab's words until it is gone."""
        try:
            while line := await self._reader.readline():
                future = self._waiting.pop(json.loads(line), None)
                if future and not future.done():  # who waited may have been cancelled in this moment
                    future.set_result(None)
        except OSError:
            pass  # it ended
        self._gone = True
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)

    async def watch(self, step: Step) -> None:
        """Given a step, tell it and wait until it may be taken."""
        if self._gone:
            return
        self._number += 1
        number = self._number
        self._waiting[number] = asyncio.get_running_loop().create_future()
        spis = [f"{step.spis.initiator:016x}", f"{step.spis.responder:016x}"]
        self._writer.write(json.dumps({"number": number, "step": str(step), "spis": spis}).encode() + b"\n")
        try:
            await self._waiting[number]
        finally:
            self._waiting.pop(number, None)


async def main(configuration: str, socket: str) -> None:
    """Run until SIGTERM or SIGINT."""
    config = load(Path(configuration))
    set_up_logging(config.log.level, config.log.format)
    reporting = Reporting(*await asyncio.open_unix_connection(socket))
    listening = asyncio.create_task(reporting.run())
    try:
        await Sidecar(config, watch=reporting.watch).run()
    finally:
        listening.cancel()


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except MobikectlError as error:
        sys.exit(f"mobikectl: {error}")
