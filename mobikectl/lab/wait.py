"""Waiting for what nobody tells of: a condition, looked at again and again, with a deadline."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from mobikectl.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def until(
    condition: Callable[[], Awaitable[bool]], *, within: float, what: str, every: float = 0.05
) -> float:
    """Given a condition, wait until it holds; return the CLOCK_MONOTONIC when it was seen to.

    Raise LabError when it does not hold `within` so many seconds; ``what`` names it.
    """
    end = time.monotonic() + within
    while True:
        if await condition():
            return time.monotonic()
        if time.monotonic() > end:
            raise LabError(f"not within {within:g} s: {what}", hint="see the logs of the nodes")
        await asyncio.sleep(every)
