"""The IKE_SAs of this node as rows of the store, in parts of which few change. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobikectl.cluster.records import MAX_ROWS, SaPart, SaRow
from mobikectl.model import IkeState
from mobikectl.policy.cluster import Capability

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobikectl.charon.rmobike_link import Peer
    from mobikectl.model import IkeSa

SERVED = frozenset({IkeState.ESTABLISHED, IkeState.REKEYING})
CHANGE = 0.05
"""A rate is written again when it changed by this share..."""
LEAST_BYTES, LEAST_PACKETS = 100.0, 1.0
"""...and by so much a second."""
TIMES_S = 1.0
"""Times that run by themselves are written again when they are off by more than this."""
ROW_OCTETS = 300
"""Of a row's JSON without its texts, at most."""
PART_OCTETS = 56_000
"""Of one part: below what a value of the store may have."""
IKE_PORTS = frozenset({500, 4500})


def is_served(sa: IkeSa) -> bool:
    """Given an IKE_SA, return whether this node serves it: its peer came to us, and it is up."""
    return not sa.original_initiator and sa.state in SERVED


def capability_of(peer: Peer | None, *, mobike: bool, redirect: bool) -> Capability:
    """Given what the plugin saw of a peer (None: nothing), return what it can do.

    ``mobike`` and ``redirect``: what a peer is taken to support of which nobody saw whether it does.
    """
    found = Capability.NONE
    if mobike if peer is None else peer.mobike:
        found |= Capability.MOBIKE
    if peer is not None and peer.r:
        found |= Capability.SWITCH
    if redirect if peer is None or peer.redirect is None else peer.redirect:
        found |= Capability.REDIRECT
    return found


def behind_nat(sa: IkeSa, *, userland: bool) -> bool:
    """Given an IKE_SA, return whether its peer is behind a NAT.

    A charon with ESP in userland pretends one, to have its ESP in UDP: there only the peer's port tells.
    """
    return sa.remote_port not in IKE_PORTS if userland else sa.nat_remote


def differs(old: SaRow, new: SaRow) -> bool:
    """Given a row as it was written and as it is, return whether the others need to know."""
    same = (
        (old.key, old.peer_id, old.peer, old.address, old.capability, old.behind_nat)
        == (new.key, new.peer_id, new.peer, new.address, new.capability, new.behind_nat)
        and (old.pool, old.site, old.redirects) == (new.pool, new.site, new.redirects)
        and (old.moved_ago_s is None) == (new.moved_ago_s is None)
        and (old.refused_for_s > 0) == (new.refused_for_s > 0)
    )
    if not same or (new.moved_ago_s or 0.0) < (old.moved_ago_s or 0.0) - TIMES_S:
        return True
    return (
        new.refused_for_s > old.refused_for_s + TIMES_S
        or abs(new.bytes_per_s - old.bytes_per_s) > max(CHANGE * old.bytes_per_s, LEAST_BYTES)
        or abs(new.packets_per_s - old.packets_per_s) > max(CHANGE * old.packets_per_s, LEAST_PACKETS)
    )


def _octets(row: SaRow) -> int:
    texts = row.key + row.peer_id + row.pool + row.site
    # As JSON a character of ASCII has at most two octets, any other at most twelve (two escapes).
    return ROW_OCTETS + len(texts) * (2 if texts.isascii() else 12)


@dataclass(slots=True)
class _Slot:
    rows: dict[str, SaRow] = field(default_factory=dict)
    octets: int = 0


class Parts:
    """Keeps each IKE_SA in one part, and knows which parts have to be written (again)."""

    def __init__(self, node: str, instance: str) -> None:
        self._node = node
        self._instance = instance
        self._slots = [_Slot()]
        self._where: dict[str, int] = {}
        self._dirty: dict[int, int] = {0: 0}
        """Part -> the sequence number with which it changed. A node that serves nobody says that, too."""
        self._sequence = 0

    def put(self, rows: Iterable[SaRow], *, refresh: bool = False) -> None:
        """Given all IKE_SAs, take over what changed so that the others need to know (``refresh``: whatever changed)."""
        there = {row.key: row for row in rows}
        self._sequence += 1
        for key in self._where.keys() - there.keys():
            slot = self._where.pop(key)
            self._slots[slot].octets -= _octets(self._slots[slot].rows.pop(key))
            self._dirty[slot] = self._sequence
        for key, row in there.items():
            known = self._where.get(key)
            old = None if known is None else self._slots[known].rows[key]
            if old is None or differs(old, row) or (refresh and old != row):
                slot = self._room_for(row) if known is None else known
                self._slots[slot].octets += _octets(row) - (_octets(old) if old is not None else 0)
                self._slots[slot].rows[key] = row
                self._where[key] = slot
                self._dirty[slot] = self._sequence

    def _room_for(self, row: SaRow) -> int:
        for number, slot in enumerate(self._slots):
            if len(slot.rows) < MAX_ROWS and slot.octets + _octets(row) <= PART_OCTETS:
                return number
        self._slots.append(_Slot())
        return len(self._slots) - 1

    def changed(self) -> tuple[SaPart, ...]:
        """Return the parts that are to be written."""
        return tuple(
            SaPart(
                self._node,
                self._instance,
                sequence,
                number,
                len(self._slots),
                tuple(self._slots[number].rows.values()),
            )
            for number, sequence in sorted(self._dirty.items())
        )

    def written(self, parts: Iterable[SaPart]) -> None:
        """Given parts that are in the store now: they need not be written until they change again."""
        for part in parts:
            if self._dirty.get(part.part) == part.sequence:
                del self._dirty[part.part]

    def lost(self) -> None:
        """The store no longer has any of them: the lease that they lived under is over."""
        self._dirty = dict.fromkeys(range(len(self._slots)), self._sequence)
