"""When a change is handed on: the first of a burst at once, the rest once per window. Pure: `now` is an argument."""

from __future__ import annotations

URGENT_PER_WINDOW = 8
"""How many losses may pass at once within one window before they wait for its end like anything else."""


class Coalescer:
    """Decides when what is pending is due.

    Given the window in seconds. After a quiet window an event is due at once. Those that follow within the window
    are due together at its end, so that a burst costs one delivery per window and never starves. A loss (``urgent``:
    a link or address that cannot be used any more) does not wait: a down is never delayed. Only `URGENT_PER_WINDOW`
    losses pass this way per window, so that a storm of them is bounded too.
    """

    def __init__(self, window: float) -> None:
        if window < 0:
            raise ValueError("a window of less than 0 s")
        self._window = window
        self._closes = float("-inf")
        self._urgent_left = URGENT_PER_WINDOW
        self._due: float | None = None

    def note(self, now: float, *, urgent: bool = False) -> None:
        """Given the time of an event, count it as pending."""
        at_once = now >= self._closes or (urgent and self._urgent_left > 0)
        due = now if at_once else self._closes
        self._due = due if self._due is None else min(self._due, due)

    @property
    def due(self) -> float | None:
        """When what is pending is to be handed on (None: nothing is pending)."""
        return self._due

    def delivered(self, now: float) -> None:
        """Given the time of a delivery, take nothing as pending any more; open the next window."""
        if now >= self._closes:
            self._closes = now + self._window
            self._urgent_left = URGENT_PER_WINDOW
        else:
            self._urgent_left -= 1
        self._due = None
