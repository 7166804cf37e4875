"""Which nodes have fallen silent: their reports come no more, and their lease may be over soon. Pure.

Nothing is concluded from silence but that it is worth looking whether somebody is there: whoever is to take a dead
node's IKE_SAs over then knows when the lease is over.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST_S = 1.0
"""A node that is silent for less is not."""
MISSED = 2.5
"""Nor one that is silent for less than so many times what it was between two of its reports."""
FORGET = 0.9
"""By this factor the longest time between two reports shrinks with each that comes sooner."""


@dataclass(frozen=True, slots=True)
class _Heard:
    at: float
    apart_s: float | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """What is known of the reports."""

    _heard: Mapping[str, _Heard] = field(default_factory=lambda: MappingProxyType({}))

    def heard(self, node: str, now: float) -> Silence:
        """Given a node that reports at this moment, return what is known then."""
        before = self._heard.get(node)
        apart: float | None = None
        if before is not None:
            gap = now - before.at
            apart = gap if before.apart_s is None else max(gap, before.apart_s * FORGET)
        return replace(self, _heard=MappingProxyType({**self._heard, node: _Heard(now, apart)}))

    def interrupted(self) -> Silence:
        """Return what is known when reports may have been missed: of nobody that it is silent."""
        return Silence()

    def is_silent(self, node: str, now: float) -> bool:
        """Return whether reports of a node are missing. Of one that was not heard twice that is not known."""
        heard = self._heard.get(node)
        if heard is None or heard.apart_s is None:
            return False
        return now - heard.at > max(LEAST_S, MISSED * heard.apart_s)
