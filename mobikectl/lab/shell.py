"""A waiting ``ip`` per node: a change to the network happens when it is written, not a process start later."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time

from mobikectl.errors import LabError

DEADLINE = 10.0
NOISE = re.compile(r"^(Command failed -:\d+|Object \"mark\d+\" is unknown.*)$")


class IpShell:
    """``ip -force -batch -`` in a namespace, one family of defaults (``-4`` or ``-6``)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._marks = 0

    @classmethod
    async def start(cls, namespace: str, *, family: str) -> IpShell:
        """Given a namespace, start ``ip`` there and return when it takes commands."""
        process = await asyncio.create_subprocess_exec(
            *("ip", family, "-n", namespace, "-force", "-batch", "-"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        shell = cls(process)
        await shell._finish("start")
        return shell

    async def do(self, line: str) -> float:
        """Given a line for ``ip``, carry it out; return the CLOCK_MONOTONIC just before.

        Raise LabError when ``ip`` refuses it.
        """
        if self._process.stdin is None:
            raise LabError("ip has no input", hint="please report it")
        at = time.monotonic()
        self._process.stdin.write(f"{line}\n".encode())
        await self._finish(line)
        return at

    async def _finish(self, what: str) -> None:
        # ip buffers what it prints but not what it complains about: an unknown object is our full stop.
        self._marks += 1
        mark = f"mark{self._marks}"
        if self._process.stdin is None or self._process.stderr is None:
            raise LabError("ip has no input or no output", hint="please report it")
        self._process.stdin.write(f"{mark}\n".encode())
        said: list[str] = []
        try:
            async with asyncio.timeout(DEADLINE):
                while line := (await self._process.stderr.readline()).decode(errors="replace").strip():
                    if f'"{mark}"' in line:
                        break
                    said.append(line)
        except TimeoutError:
            raise LabError(f"no answer from ip: {what}", hint="is the machine overloaded?") from None
        if complaints := [line for line in said if not NOISE.match(line)]:
            raise LabError(f"ip {what}: {'; '.join(complaints)}", hint="mend the scenario's steps")

    async def close(self) -> None:
        """End ``ip``."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
