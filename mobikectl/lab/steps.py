"""The lab looks on while a gateway hands IKE_SAs over: it learns of each step before that is taken, and can hold it.

The sidecars of a lab tell it over a socket in their node's own directory (`mobikectl.lab.watched`). What is held
waits for the lab's word; what is killed meanwhile was killed at exactly that step.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from mobikectl.errors import LabError
from mobikectl.node.watching import TargetStep
from mobikectl.protocol.handover import SourceState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NAME = "steps.sock"
"""In a node's own directory."""
SOURCE_STEPS = tuple(f"source: {state.value}" for state in SourceState)
TARGET_STEPS = tuple(f"target: {step.value}" for step in TargetStep)


@dataclass(eq=False, slots=True)
class Trap:
    """One step that is to be held, once. ``node`` and ``step`` say where."""

    node: str
    step: str
    sprung_at: float | None = None
    """CLOCK_MONOTONIC when it was reached."""
    _reached: asyncio.Event = field(default_factory=asyncio.Event)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    async def sprung(self, *, within: float) -> None:
        """Wait until the step is reached; it is held from then on. Raise LabError."""
        try:
            async with asyncio.timeout(within):
                await self._reached.wait()
        except TimeoutError:
            raise LabError(
                f"not within {within:g} s: {self.node} is at {self.step!r}", hint="see its sidecar.out"
            ) from None

    def release(self) -> None:
        """Let the step be taken, or never hold it."""
        self._released.set()

    async def hold(self) -> None:
        """It is reached: return when it is released."""
        self.sprung_at = time.monotonic()
        self._reached.set()
        await self._released.wait()


class Steps:
    """Looks on at some nodes. An async context manager. Given the directory of each node."""

    def __init__(self, directories: Iterable[tuple[str, Path]]) -> None:
        self._paths = {node: directory / NAME for node, directory in directories}
        self._traps: list[Trap] = []
        self._stack = contextlib.AsyncExitStack()
        self._talks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.seen: Counter[tuple[str, str]] = Counter()
        """(node, step) -> how often it was told of."""

    async def __aenter__(self) -> Self:
        for node, path in self._paths.items():

            async def talk(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, node: str = node
            ) -> None:
                await self._talk(node, reader, writer)

            server = await asyncio.start_unix_server(talk, path)
            self._stack.callback(server.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        for writer in self._writers:
            writer.close()  # who is held sees that nobody looks on any more
        for task in self._talks:
            task.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    def trap(self, node: str, step: str) -> Trap:
        """Given a node and one of `SOURCE_STEPS` or `TARGET_STEPS`, have the next such step there be held."""
        if step not in SOURCE_STEPS + TARGET_STEPS:
            raise LabError(f"no step {step!r}", hint=f"there are: {', '.join(SOURCE_STEPS + TARGET_STEPS)}")
        trap = Trap(node, step)
        self._traps.append(trap)
        return trap

    def remove(self, trap: Trap) -> None:
        """Given a trap, hold nothing with it any more."""
        trap.release()
        if trap in self._traps:
            self._traps.remove(trap)

    async def _talk(self, node: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                told = json.loads(line)
                answering = asyncio.create_task(self._answer(node, told["step"], told["number"], writer))
                self._talks.add(answering)
                answering.add_done_callback(self._talks.discard)
        except OSError:
            pass  # it was killed
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, node: str, step: str, number: int, writer: asyncio.StreamWriter) -> None:
        self.seen[node, step] += 1
        trap = next((each for each in self._traps if (each.node, each.step) == (node, step)), None)
        if trap is not None:
            self._traps.remove(trap)
            await trap.hold()
        with contextlib.suppress(OSError):
            writer.write(f"{number}\n".encode())
