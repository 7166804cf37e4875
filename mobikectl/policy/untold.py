"""Which IKE_SAs are rekeyed because charon told its HA peer too little of them for another node. Pure.

charon tells the keys of a CHILD_SA once, when it makes it. Whoever did not hear that (the HA broker and its memory died
while the IKE_SA was frozen, and a RESYNC rekeys only what is served) can move the IKE_SA only after a rekeying. One
that lacks nothing for a moment is forgotten: each rule begins anew with the next lack.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Lack(Enum):
    """What is not known of an IKE_SA, and so what is rekeyed first."""

    IKE_SA = "IKE_SA"
    """The IKE_SA itself; its CHILD_SAs come after it, as their keys are told under it."""
    CHILD_SAS = "CHILD_SAs"


@dataclass(frozen=True, slots=True)
class Pace:
    """When is rekeyed: seconds, and how many at once."""

    after_s: float = 3.0
    """So long something has to be unknown: what is being made or rekeyed is told within that time, too."""
    again_s: float = 10.0
    """Until it is rekeyed once more; doubled each time."""
    longest_s: float = 600.0
    at_once: int = 8
    """IKE_SAs that were rekeyed less than ``again_s`` ago and still lack something, at most."""


@dataclass(slots=True)
class _Lacking:
    what: Lack
    since: float
    due_at: float
    tries: int = 0
    put_off: int = 0
    asked_at: float = float("-inf")


class Untold:
    """Remembers since when what is unknown. ``key``: names an IKE_SA over its rekeyings; times are monotonic."""

    def __init__(self, pace: Pace | None = None) -> None:
        self._pace = pace or Pace()
        self._lacking: dict[str, _Lacking] = {}

    def due(self, lacks: Mapping[str, Lack], now: float) -> list[str]:
        """Given all that lack something now, return those that may be rekeyed now, who has waited longest first.

        Not all of them at once: ask `room` before each, and tell each by `asked`.
        """
        self._lacking = {key: known for key, known in self._lacking.items() if key in lacks}
        for key, what in lacks.items():
            known = self._lacking.get(key)
            if known is None:
                self._lacking[key] = _Lacking(what, now, now + self._pace.after_s)
            elif known.what is not what:
                known.what = what
                if what is Lack.CHILD_SAS:  # the IKE_SA's rekeying has helped: no reason to wait any longer
                    known.due_at = min(known.due_at, now + self._pace.after_s)
        found = [key for key, known in self._lacking.items() if known.due_at <= now]
        return sorted(found, key=self._turn)

    def _turn(self, key: str) -> tuple[float, int, float, str]:
        known = self._lacking[key]
        return known.due_at, known.put_off, known.since, key

    def room(self, now: float) -> int:
        """Return how many more may be rekeyed now."""
        under_way = sum(now - known.asked_at < self._pace.again_s for known in self._lacking.values())
        return max(0, self._pace.at_once - under_way)

    def put_off(self, key: str, now: float) -> None:
        """Given one that cannot be rekeyed at this moment: it stays due, and others come first."""
        known = self._lacking[key]
        known.due_at = now
        known.put_off += 1

    def asked(self, key: str, now: float) -> int:
        """Given one that is rekeyed now, return how often it was, this time included."""
        known = self._lacking[key]
        pause = min(self._pace.longest_s, self._pace.again_s * 2.0 ** min(known.tries, 20))
        known.asked_at, known.due_at = now, now + pause
        known.tries += 1
        return known.tries
