"""What can leave a node: units of one IKE_SA, or of all behind a peer's address, sorted to be picked from."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mobikectl.policy import mechanism
from mobikectl.policy.cluster import Bools, Floats, Ints, Mechanism, SaTable

if TYPE_CHECKING:
    from mobikectl.policy.cluster_settings import BalanceSettings

DIMENSIONS = 3
"""Bytes per second, packets per second, IKE_SAs."""
_SINGLE = 1 << 40
"""Labels of single IKE_SAs start here, above every peer's number."""


def weights_of(sas: SaTable, rows: Ints) -> Floats:
    """Given rows, return their weight in each dimension, shape (rows, 3)."""
    weights = np.empty((len(rows), DIMENSIONS))
    weights[:, 0] = sas.bytes_per_s[rows]
    weights[:, 1] = sas.packets_per_s[rows]
    weights[:, 2] = 1.0
    return weights


@dataclass(frozen=True, slots=True)
class UnitKey:
    """What units have in common: where they may go and how."""

    kind: int
    """Pool, site and address family together: `Eligibility.kind`."""
    mechanism: Mechanism
    carried: bool


@dataclass(slots=True)
class Bucket:
    """Units of one key in the order of their weight in one dimension; those that were taken are removed."""

    key: UnitKey
    weights: list[float]
    units: list[int]

    def below(self, limit: float) -> int:
        """Return the position of the heaviest unit not above the limit, -1 when there is none."""
        return bisect_right(self.weights, limit) - 1

    def remove(self, position: int) -> None:
        """Forget the unit at a position."""
        del self.weights[position]
        del self.units[position]


@dataclass(slots=True)
class Units:
    """All units that may leave one place, and the buckets to pick them from."""

    rows: Ints
    """Rows of the table, those of one unit side by side."""
    starts: Ints
    weight: Floats
    """Shape (units, 3)."""
    code: Ints
    kind: Ints
    carried: Bools
    _dimension: int = -1
    _buckets: list[Bucket] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def members(self, unit: int) -> Ints:
        """Given a unit, return its rows."""
        return self.rows[self.starts[unit] : self.starts[unit + 1]]

    def size(self, unit: int) -> int:
        """Given a unit, return how many IKE_SAs it is."""
        return int(self.starts[unit + 1] - self.starts[unit])

    def buckets(self, dimension: int, gone: Bools) -> list[Bucket]:
        """Return the buckets by weight in a dimension, without the units that have a row in ``gone``."""
        if dimension != self._dimension:
            self._dimension = dimension
            self._buckets = self._sorted(dimension, gone)
        return self._buckets

    def _sorted(self, dimension: int, gone: Bools) -> list[Bucket]:
        if not len(self):
            return []
        left = np.flatnonzero(~np.logical_or.reduceat(gone[self.rows], self.starts[:-1]))
        key = (self.kind[left] * 8 + self.code[left]) * 2 + self.carried[left]
        order = left[np.lexsort((left, self.weight[left, dimension], key))]
        key = np.sort(key)
        cuts = np.flatnonzero(np.diff(key)) + 1
        return [
            Bucket(
                UnitKey(
                    int(self.kind[part[0]]), Mechanism(int(self.code[part[0]])), bool(self.carried[part[0]])
                ),
                self.weight[part, dimension].tolist(),
                part.tolist(),
            )
            for part in np.split(order, cuts)
            if len(part)
        ]


def _grouped(sas: SaTable, rows: Ints, around: Ints, candidates: Bools, kinds: Ints) -> Bools:
    """Return which candidate rows can go as a group with all else behind their peer's address.

    ``around`` is every row of the node; a peer of which something is served elsewhere on the node, or
    cannot go along, or may only go elsewhere, cannot be steered as a whole.
    """
    if not candidates.any():
        return candidates
    peers, inverse = np.unique(sas.peer[rows], return_inverse=True)
    blocked = np.zeros(len(peers), dtype=np.bool_)
    np.logical_or.at(blocked, inverse, ~candidates)
    lowest = np.full(len(peers), np.iinfo(np.int64).max)
    highest = np.full(len(peers), -1)
    np.minimum.at(lowest, inverse, kinds)
    np.maximum.at(highest, inverse, kinds)
    blocked |= lowest != highest
    if len(around) != len(rows):
        elsewhere = np.setdiff1d(around, rows)
        blocked |= np.isin(peers, sas.peer[elsewhere])
    return candidates & ~blocked[inverse]


def units_of(
    sas: SaTable,
    rows: Ints,
    around: Ints,
    kinds: Ints,
    free: Bools,
    settings: BalanceSettings,
    *,
    carried: bool,
    source_reachable: bool = True,
) -> Units:
    """Build the units that can leave a place.

    ``rows`` are those served at the place and ``around`` those of its node; ``kinds`` says for each of
    ``rows`` where it may go, ``free`` whether it may move now (not pinned, not cooling down, not refused).
    """
    code = mechanism.choose(sas, rows, settings, carried=carried, source_reachable=source_reachable)
    steered = code == Mechanism.IMPLICIT
    if steered.any():
        can = free & mechanism.movable_as_a_group(sas, rows)
        group = _grouped(sas, rows, around, can, kinds) & np.isin(sas.peer[rows], sas.peer[rows[steered]])
        alone = steered & ~group
        if alone.any():
            code[alone] = mechanism.choose(
                sas, rows[alone], settings, carried=False, source_reachable=source_reachable
            )
        code[group] = int(Mechanism.IMPLICIT)
    else:
        group = np.zeros(len(rows), dtype=np.bool_)
    kept = np.flatnonzero(free & (code != 0))
    label = np.where(group[kept], sas.peer[rows[kept]].astype(np.int64), _SINGLE + kept)
    kept = kept[np.argsort(label, kind="stable")]
    label = np.sort(label)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(label)) + 1)) if len(kept) else np.empty(0, np.int64)
    weights = weights_of(sas, rows[kept])
    first = kept[starts]
    return Units(
        rows=rows[kept],
        starts=np.append(starts, len(kept)).astype(np.int64),
        weight=np.add.reduceat(weights, starts, axis=0) if len(kept) else weights,
        code=code[first].astype(np.int64),
        kind=kinds[first],
        carried=np.isin(code[first], (Mechanism.NOTIFY, Mechanism.IMPLICIT)),
    )
