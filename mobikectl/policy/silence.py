"""Which nodes have fallen silent: their reports come no more, and their lease may be over soon. Pure.

What is known is known of one node: who hears many keeps it by name, and forgets all when reports may have been missed.
Nothing is concluded from silence but that it is worth looking whether somebody is there: whoever is to take a dead
node's IKE_SAs over then knows when the lease is over.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_S = 1.0
"""A node that is silent for less is not."""
MISSED = 2.5
"""Nor one that is silent for less than so many times what it was between two of its reports."""
FORGET = 0.9
"""By this factor the longest time between two reports shrinks with each that comes sooner."""


@dataclass(frozen=True, slots=True)
class Reports:
    """What is known of one node's reports: when the last one came (seconds), and what it is between two of them."""

    at: float
    apart_s: float | None = None
    """None: it was heard once."""

    def heard(self, now: float) -> Reports:
        """Given that it reports again at this moment, return what is known then."""
        gap = now - self.at
        return Reports(now, gap if self.apart_s is None else max(gap, self.apart_s * FORGET))

    def is_silent(self, now: float) -> bool:
        """Return whether reports of it are missing. Of a node that was not heard twice that is not known."""
        return self.apart_s is not None and now - self.at > max(LEAST_S, MISSED * self.apart_s)
