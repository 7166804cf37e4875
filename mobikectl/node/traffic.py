"""How much goes through each IKE_SA, from the counters of its CHILD_SAs. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobikectl.cluster.load import Smoothed, smooth

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobikectl.model import IkeSa, IpAddress
    from mobikectl.netlink import KernelSa

Counters = Mapping[Hashable, "Reading"]
"""By what names a counter: it outlives a rekeying of the IKE_SA, and a change of its addresses."""
ESP = 50
FORGET_S = 30.0
"""A counter that is not read for so long is forgotten: one look may miss it while its addresses change."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One counter: of a CHILD_SA, or of one direction of it."""

    owner: int
    """Unique id of the IKE_SA."""
    octets: int
    packets: int


@dataclass(frozen=True, slots=True)
class Rate:
    """What goes through an IKE_SA in a second, both directions together."""

    bytes_per_s: float = 0.0
    packets_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Known:
    octets: Smoothed | None = None
    packets: Smoothed | None = None


class Traffic:
    """Rates of the IKE_SAs, smoothed; half of a rate's past is forgotten within the half-life."""

    def __init__(self, half_life_s: float) -> None:
        self._half_life_s = half_life_s
        self._counters: dict[Hashable, tuple[Reading, float]] = {}
        self._known: dict[int, _Known] = {}
        self._at: float | None = None
        self.measured = False
        """Whether the counters were read twice: until then no rate is known."""

    def rate(self, uniqueid: int) -> Rate:
        """Given an IKE_SA, return its rate: 0 until it was measured twice."""
        known = self._known.get(uniqueid, _Known())
        return Rate(
            known.octets.value if known.octets else 0.0, known.packets.value if known.packets else 0.0
        )

    def rekeyed(self, old: int, new: int) -> None:
        """Given that an IKE_SA has a new unique id, know it under that."""
        if old in self._known:
            self._known[new] = self._known.pop(old)

    def take(self, readings: Counters, at: float) -> None:
        """Given all counters by whatever names them, and when they were read, bring the rates up to date.

        A counter that is new in a known IKE_SA began at 0: a rekeyed CHILD_SA. All that a new IKE_SA has is kept to
        measure from: nobody knows since when it counts.
        """
        seconds = 0.0 if self._at is None else at - self._at
        new: dict[int, list[int]] = {}
        for name, reading in readings.items():
            sums = new.setdefault(reading.owner, [0, 0])
            before, _ = self._counters.get(name, (None, at))
            if before is None or reading.octets < before.octets or reading.packets < before.packets:
                sums[0] += reading.octets
                sums[1] += reading.packets
            else:
                sums[0] += reading.octets - before.octets
                sums[1] += reading.packets - before.packets
        if seconds > 0:
            self.measured = True
            self._known = {owner: self._then(owner, sums, seconds, at) for owner, sums in new.items()}
        else:
            self._known = {owner: self._known.get(owner, _Known()) for owner in new}
        kept = {name: known for name, known in self._counters.items() if at - known[1] < FORGET_S}
        self._counters = kept | {name: (reading, at) for name, reading in readings.items()}
        self._at = at

    def _then(self, owner: int, sums: list[int], seconds: float, at: float) -> _Known:
        known = self._known.get(owner)
        if known is None:
            return _Known()
        return _Known(
            smooth(known.octets, sums[0] / seconds, at, half_life_s=self._half_life_s),
            smooth(known.packets, sums[1] / seconds, at, half_life_s=self._half_life_s),
        )


def from_charon(sas: Iterable[IkeSa]) -> Counters:
    """Given IKE_SAs listed with their CHILD_SAs' counters, return those."""
    return {
        (child.uniqueid, child.spi_in): Reading(
            sa.uniqueid,
            child.counters.bytes_in + child.counters.bytes_out,
            child.counters.packets_in + child.counters.packets_out,
        )
        for sa in sas
        for child in sa.children
        if child.counters is not None
    }


def from_kernel(states: Iterable[KernelSa], sas: Iterable[IkeSa]) -> Counters:
    """Given the kernel's SAs and charon's, return the counters of those that belong to one of charon's."""
    owners: dict[tuple[int, IpAddress], tuple[Hashable, int]] = {}
    for sa in sas:
        for child in sa.children:
            name = child.uniqueid, child.spi_in
            owners[child.spi_in, sa.path.local] = (*name, "in"), sa.uniqueid
            owners[child.spi_out, sa.path.remote] = (*name, "out"), sa.uniqueid
    found: dict[Hashable, Reading] = {}
    for state in states:
        if state.proto == ESP and (state.spi, state.daddr) in owners:
            name_of, owner = owners[state.spi, state.daddr]
            found[name_of] = Reading(owner, state.bytes, state.packets)
    return found
