"""How full places are while a plan grows: projected loads, budgets, and the choice of the next unit to move.

A place is a node, or one of a node's addresses with its uplink. 'Relative' is a place's utilisation
divided by its weight: places are even when their relative levels are.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from mobikectl.policy.cluster import Bools, Effect, Floats, Ints
from mobikectl.policy.mechanism import COST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mobikectl.policy.balance_units import Bucket, UnitKey, Units

EPSILON = 1e-9
_STEPS_DOWN = 8
"""How many lighter units are tried when one does not fit in another dimension."""
_OVERSHOOT = 1.5
"""One unit of up to this much of the need is better than several smaller ones."""
_MOUSE = 0.1
"""What weighs less than this share of the place's average IKE_SA is not worth a move."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What taking units from a place is for."""

    aim: float
    """Relative level to come down to; -inf: empty it."""
    ceiling: Floats
    """Relative level that no target may exceed."""
    improve: float = 0.0
    """Above zero: no unit ends below the aim, so take one after which both sides are this much below now."""
    leave_site: bool = False

    @property
    def empties(self) -> bool:
        """Whether everything is to leave."""
        return self.aim == -inf


@dataclass(frozen=True, slots=True)
class Pick:
    """The chosen unit and where it goes."""

    bucket: Bucket
    position: int
    target: int

    @property
    def unit(self) -> int:
        """The unit's number in its `Units`."""
        return self.bucket.units[self.position]


class Fill:
    """Projected loads of places and what may still be moved in this plan. The one owner of both."""

    def __init__(self, load: Floats, capacity: Floats, weight: Floats, left: Ints, total_left: int) -> None:
        self.load = load.copy()
        self.per_unit = np.where(np.isinf(capacity), 0.0, 1.0 / capacity)
        self.weight = weight
        self.relative: Floats = (self.load * self.per_unit).max(axis=1) / weight
        self.left = left.copy()
        self.total_left = total_left
        self._offer = np.where(self.left > 0, self.relative, inf)

    def utilisation(self, place: int) -> float:
        """Return the share of its capacity that a place uses."""
        return float(self.relative[place] * self.weight[place])

    def binding(self, place: int) -> int:
        """Return the dimension in which a place is fullest."""
        return int((self.load[place] * self.per_unit[place]).argmax())

    def after(self, place: int, weight: Floats) -> float:
        """Return a place's relative level with that much more (or less, when negative) on it."""
        return float(((self.load[place] + weight) * self.per_unit[place]).max() / self.weight[place])

    def spend(self, place: int, count: int) -> None:
        """Take ``count`` IKE_SAs off a place's budget."""
        self.left[place] -= count
        if self.left[place] <= 0:
            self._offer[place] = inf

    def shift(self, source: int, target: int, weight: Floats, count: int) -> Effect:
        """Book a move of ``count`` IKE_SAs and return its effect."""
        before = self.utilisation(source), self.utilisation(target)
        for place, change in ((source, -weight), (target, weight)):
            self.load[place] = np.maximum(self.load[place] + change, 0.0)
            self.relative[place] = self.after(place, np.zeros_like(weight))
            self._offer[place] = self.relative[place] if self.left[place] > 0 else inf
        self.spend(source, count)
        self.spend(target, count)
        self.total_left -= count
        return Effect(before[0], self.utilisation(source), before[1], self.utilisation(target))

    def emptiest(self, allowed: Bools) -> int:
        """Return the least full place among the allowed ones with budget left, -1 when there is none."""
        offer = np.where(allowed, self._offer, inf)
        place = int(offer.argmin())
        return place if offer[place] < inf else -1

    def best_target(self, weight: Floats, size: int, allowed: Bools, goal: Goal) -> int:
        """Return the allowed place that would be least full with the unit on it, -1 when it fits nowhere."""
        if size > self.total_left:
            return -1
        after = ((self.load + weight) * self.per_unit).max(axis=1) / self.weight
        fits = allowed & (self.left >= size) & (after <= goal.ceiling + EPSILON)
        place = int(np.where(fits, after, inf).argmin())
        return place if fits[place] else -1

    def pick(
        self, source: int, units: Units, gone: Bools, goal: Goal, targets: Callable[[UnitKey, bool], Bools]
    ) -> Pick | None:
        """Return the best next unit to take from ``source``, None when nothing fits.

        When emptying: the cheapest mechanism first, then the heaviest unit. Otherwise what serves the
        need best for its cost.
        """
        if self.left[source] <= 0 or self.total_left <= 0:
            return None
        best: tuple[tuple[float, float], Pick] | None = None
        dimension = self.binding(source)
        need = self._need(source, dimension, goal)
        for bucket in units.buckets(dimension, gone):
            allowed = targets(bucket.key, goal.leave_site).copy()
            allowed[source] = False
            found = (
                self._heaviest(source, bucket, units, goal, allowed)
                if goal.empties
                else self._fitting(source, bucket, units, goal, allowed, need)
            )
            for pick in found:
                weight = bucket.weights[pick.position]
                unit_cost = COST[bucket.key.mechanism] * units.size(pick.unit)
                score = (-unit_cost, weight) if goal.empties else (min(weight, need) / unit_cost, -unit_cost)
                if best is None or score > best[0]:
                    best = score, pick
        return best[1] if best else None

    def _heaviest(
        self, source: int, bucket: Bucket, units: Units, goal: Goal, allowed: Bools
    ) -> Iterator[Pick]:
        """Yield the heaviest unit that fits anywhere, found by halving."""

        def target_of(position: int) -> int:
            unit = bucket.units[position]
            if units.size(unit) > self.left[source]:
                return -1
            return self.best_target(units.weight[unit], units.size(unit), allowed, goal)

        low, high, found = 0, len(bucket.units) - 1, None
        probe = high
        while low <= high:
            target = target_of(probe)
            if target >= 0:
                found, low = Pick(bucket, probe, target), probe + 1
            else:
                high = probe - 1
            probe = (low + high) // 2
        if found:
            yield found

    def _need(self, source: int, dimension: int, goal: Goal) -> float:
        scale = self.per_unit[source, dimension]
        if goal.empties or scale == 0.0:
            return inf
        return float((self.relative[source] - goal.aim) * self.weight[source] / scale)

    def _room(self, target: int, dimension: int, goal: Goal) -> float:
        scale = self.per_unit[target, dimension]
        if scale == 0.0:
            return inf
        return float(goal.ceiling[target] * self.weight[target] / scale - self.load[target, dimension])

    def _fitting(
        self, source: int, bucket: Bucket, units: Units, goal: Goal, allowed: Bools, need: float
    ) -> Iterator[Pick]:
        """Yield what is worth comparing: the heaviest unit not above the need, and one that overshoots it."""
        target = self.emptiest(allowed)
        if target < 0:
            return
        dimension = self.binding(source)
        room = self._room(target, dimension, goal)
        average = self.load[source, dimension] / max(self.load[source, 2], 1.0)
        mouse = _MOUSE * min(need, float(average))
        want = room / 2 if goal.improve else min(need, room)
        limit = room if goal.improve else min(room, need * _OVERSHOOT)
        below = bucket.below(want)
        for position in range(below, max(below - _STEPS_DOWN, -1), -1):
            if bucket.weights[position] < mouse:
                break
            if self._acceptable(units, bucket.units[position], source, target, goal):
                yield Pick(bucket, position, target)
                break
        above = below + 1
        if above == len(bucket.units):
            return
        if bucket.weights[above] <= (room if below < 0 else limit):
            if self._acceptable(units, bucket.units[above], source, target, goal):
                yield Pick(bucket, above, target)
        elif below < 0:
            unit = bucket.units[above]
            other = self.best_target(units.weight[unit], units.size(unit), allowed, goal)
            if other >= 0 and self._acceptable(units, unit, source, other, goal):
                yield Pick(bucket, above, other)

    def _acceptable(self, units: Units, unit: int, source: int, target: int, goal: Goal) -> bool:
        size = units.size(unit)
        if size > min(self.left[source], self.left[target], self.total_left):
            return False
        weight = units.weight[unit]
        target_after = self.after(target, weight)
        if target_after > goal.ceiling[target] + EPSILON:
            return False
        source_after = self.after(source, -weight)
        if goal.improve:
            return max(source_after, target_after) <= float(self.relative[source]) - goal.improve
        return source_after < float(self.relative[source]) - EPSILON
