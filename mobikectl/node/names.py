"""Names of this node's IKE_SAs for the whole cluster: ``NODE/PEER-ID#N``.

N is the unique id under which this sidecar first saw the IKE_SA. charon gives a rekeyed IKE_SA another one; the name
stays. After a restart of the sidecar a rekeyed IKE_SA is named anew: nothing that charon tells names it for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobikectl.charon.sa_events import SaDown, SaRekeyed

if TYPE_CHECKING:
    from mobikectl.charon.tracker import SaTracker
    from mobikectl.model import IkeSa

Spis = tuple[int, int]


class SaNames:
    """Names IKE_SAs, and finds them by their names. Belongs to one node and its tracker."""

    def __init__(self, node: str, tracker: SaTracker) -> None:
        self._node = node
        self._tracker = tracker
        self._events = tracker.subscribe()
        self._first: dict[int, tuple[int, Spis]] = {}
        """Unique id -> the first unique id of the same IKE_SA, and its SPIs now (a restart numbers anew)."""
        self._now: dict[int, int] = {}
        """First unique id -> the present one."""

    def close(self) -> None:
        """Follow the tracker no longer."""
        self._events.close()

    def key_of(self, sa: IkeSa) -> str:
        """Given an IKE_SA, return its name."""
        self._catch_up()
        return f"{self._node}/{sa.remote_id}#{self._first_of(sa)}"

    def find(self, key: str) -> IkeSa | None:
        """Given a name, return the IKE_SA as it is now; None: it is gone, or was never this node's."""
        self._catch_up()
        node, _, rest = key.partition("/")
        peer, _, number = rest.rpartition("#")
        if node != self._node or not (number.isascii() and number.isdigit() and len(number) <= 10):
            return None
        first = int(number)
        sa = self._tracker.sas.get(self._now.get(first, first))
        if sa is None or sa.remote_id != peer or self._first_of(sa) != first:
            return None
        return sa

    def _first_of(self, sa: IkeSa) -> int:
        """Return the number that the IKE_SA has in its name, and give it one if it has none yet."""
        spis = (sa.initiator_spi, sa.responder_spi)
        known = self._first.get(sa.uniqueid)
        if known is None or known[1] != spis:
            self._forget(sa.uniqueid)
            known = (sa.uniqueid, spis)
            self._first[sa.uniqueid] = known
            self._now[sa.uniqueid] = sa.uniqueid
        return known[0]

    def _forget(self, uniqueid: int) -> None:
        first, _ = self._first.pop(uniqueid, (None, None))
        if first is not None and self._now.get(first) == uniqueid:
            del self._now[first]

    def _catch_up(self) -> None:
        """Take in what became of the IKE_SAs: at each look-up, as somebody may ask before the events are handled."""
        for event in self._events.take():
            match event:
                case SaRekeyed(old_id=old, sa=sa):
                    first, _ = self._first.pop(old, (old, None))
                    self._first[sa.uniqueid] = (first, (sa.initiator_spi, sa.responder_spi))
                    self._now[first] = sa.uniqueid
                case SaDown(sa=sa):
                    self._forget(sa.uniqueid)
        if len(self._first) > 2 * len(self._tracker.sas) + 1024:  # events that were dropped: too many waited
            for uniqueid in self._first.keys() - self._tracker.sas.keys():
                self._forget(uniqueid)
