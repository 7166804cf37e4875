"""asyncio's TaskGroup without what that of Python 3.11 leaves behind in the task that uses it.

With asyncio's own, a task whose group ended because one of its tasks failed may keep a request to be cancelled
(`asyncio.Task.cancelling`) for ever. An `asyncio.timeout` that runs out in it later raises CancelledError instead of
TimeoutError, which ends the task without a word. And who is cancelled in the moment in which one of the group's tasks
fails gets that failure only, and may go on as if nobody had cancelled it. Python 3.13 has mended both (What's New In
Python 3.13, asyncio: "TaskGroup ... now preserves the cancellation count").
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

if sys.version_info >= (3, 13):
    TaskGroup = asyncio.TaskGroup
else:

    class TaskGroup(asyncio.TaskGroup):
        """Waits for its tasks; the first that fails cancels the others, and comes in an ExceptionGroup.

        Cancelled from outside it raises CancelledError, also when one of its tasks failed at the same time.
        """

        _parent_cancel_requested: bool
        _parent_task: asyncio.Task[Any]

        async def __aenter__(self) -> Self:
            """Begin. Raise RuntimeError: it was used already, or there is no task."""
            await super().__aenter__()
            self._cancelling = self._parent_task.cancelling()
            return self

        async def __aexit__(
            self,
            et: type[BaseException] | None,
            exc: BaseException | None,
            tb: TracebackType | None,
        ) -> None:
            """Wait for all tasks. Raise ExceptionGroup, CancelledError."""
            taken_back = self._parent_cancel_requested  # by what it inherits, which looks only now
            try:
                await super().__aexit__(et, exc, tb)
            except BaseExceptionGroup as group:
                self._take_back(taken_back)
                if self._parent_task.cancelling() > self._cancelling:
                    raise asyncio.CancelledError from group
                raise
            except BaseException:
                self._take_back(taken_back)
                raise

        def _take_back(self, done: bool) -> None:
            if self._parent_cancel_requested and not done:
                self._parent_task.uncancel()
