"""Waiting that an operator can end: by a deadline, or by Ctrl-C, and what then is said is still said."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

T = TypeVar("T")

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and SIGINT's number, as a shell gives it."""
ENDING = (signal.SIGINT, signal.SIGTERM)


class InterruptedByOperatorError(Exception):
    """SIGINT or SIGTERM came while something was waited for."""


async def patiently(work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """Given what to wait for and for how many seconds at most, return its result.

    Raise TimeoutError, or InterruptedByOperatorError; in both cases the work was cancelled and has ended.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    for number in ENDING:
        loop.add_signal_handler(number, task.cancel)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout)
        if not done:
            task.cancel()
            await asyncio.wait({task})
            raise TimeoutError
        if task.cancelled():
            raise InterruptedByOperatorError
        return task.result()
    finally:
        for number in ENDING:
            loop.remove_signal_handler(number)
