"""Which IKE_SAs should be served elsewhere, where, how and why: the cluster's balance as a pure function.

Goals in order: drained and impaired nodes empty first; no node over its overload limit; every node near
the level at which all would be equally full; few and cheap moves. Each phase works on the loads that the
phases before it are expected to leave behind.

Nothing oscillates: a move is planned only when its target ends below what triggers a move away from it
(the gap between the two watermarks), or when it lowers the higher of the two by a set minimum; and what
was moved rests for a cooldown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, isfinite
from typing import TYPE_CHECKING

import numpy as np

from mobikectl.policy.balance_fill import Fill, Goal
from mobikectl.policy.balance_places import Places
from mobikectl.policy.balance_units import Units, units_of, weights_of
from mobikectl.policy.cluster import ClusterView, Effect, Floats, Ints, Plan, PlannedMove, Reason

if TYPE_CHECKING:
    from mobikectl.policy.balance_units import UnitKey
    from mobikectl.policy.cluster import Bools
    from mobikectl.policy.cluster_settings import BalanceSettings


def plan(view: ClusterView, settings: BalanceSettings, now: float) -> Plan:
    """Given the cluster, the settings and the time, return what to do now.

    The same input gives the same plan. It never moves a pinned IKE_SA, never fills a target above its
    overload limit, and stays within every budget; what it leaves undone is said in `Plan.notes`.
    """
    if view.paused:
        return Plan(notes=("paused: no moves are planned",), relieving=view.relieving)
    planner = _Planner(view, settings, now)
    planner.empty_nodes()
    planner.leave_dead_uplinks()
    planner.relieve_overload()
    planner.narrow_spread()
    planner.narrow_uplinks()
    return planner.result()


@dataclass(slots=True)
class _Planner:
    """One plan in the making. Phases append to it and each reads what the earlier ones left."""

    view: ClusterView
    settings: BalanceSettings
    now: float
    places: Places = field(init=False)
    fill: Fill = field(init=False)
    gone: Bools = field(init=False)
    moves: list[PlannedMove] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    relieving: set[str] = field(default_factory=set)
    waits: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        view, settings = self.view, self.settings
        self.places = Places(view, settings, self.now)
        self.gone = np.zeros(len(view.sas), dtype=np.bool_)
        self.fill = Fill(
            self.places.load,
            self.places.capacity,
            self.places.weight,
            self.places.left,
            max(min(settings.plan_moves, settings.cluster_moves - view.recent_moves), 0),
        )
        self.notes += self.places.notes

    # Each phase: which places give, down to what, and how full their targets may get.

    def empty_nodes(self) -> None:
        """Plan the emptying of impaired nodes, then of drained ones."""
        goal = Goal(aim=-inf, ceiling=self.places.limit / self.places.weight)
        for reason, sources in (
            (Reason.IMPAIRED, self.places.impaired),
            (Reason.DRAIN, self.places.draining),
        ):
            for source in np.flatnonzero(sources):
                units = self._units(int(source), urgent=True)
                self._take(int(source), units, [goal, _leaving_site(goal)], reason)
                self._note_rest(int(source), "still has", "to be emptied")

    def relieve_overload(self) -> None:
        """Plan to bring every node over its limit below it, the fullest first."""
        relief = self.places.limit * self.settings.relief / self.places.weight
        over = self.fill.relative * self.places.weight > self.places.limit
        for source in self._fullest_first(over & self.places.live):
            goal = Goal(aim=float(relief[source]), ceiling=relief)
            self._take(source, self._units(source), [goal, _leaving_site(goal)], Reason.OVERLOAD)
            used = self.fill.utilisation(source)
            if used > self.places.limit[source]:
                self._undone(source, f"stays over its limit: {used:.1%} of {self.places.limit[source]:.0%}")

    def narrow_spread(self) -> None:
        """Plan to bring every node that is above the band down into it, the fullest first."""
        settings, places = self.settings, self.places
        even = places.even_level(self.fill.load)
        if not even > 0:
            return
        wanted = np.array([name in self.view.relieving for name in places.names])
        above = self.fill.relative > np.where(wanted, 1 + settings.low, 1 + settings.high) * even
        above &= self.fill.relative * places.weight > settings.idle
        limit = places.limit * settings.relief / places.weight
        for source in self._fullest_first(above & places.live):
            floor = max(even, self._heaviest_level(source))
            if self.fill.relative[source] <= floor * (1 + settings.low):
                continue
            goal = Goal(
                aim=floor * (1 + settings.low),
                ceiling=np.minimum(limit, even * (1 + settings.low)),
                leave_site=not settings.stay_in_site,
            )
            units = self._units(source)
            self._take(source, units, [goal], Reason.SPREAD)
            if self.fill.relative[source] > floor * (1 + settings.high):
                self._improve(source, units, even, limit)
            mark = settings.low if self._out_of_budget(source) else settings.high
            if self.fill.relative[source] > floor * (1 + mark):
                self._undone(
                    source, f"stays at {self.fill.utilisation(source):.1%}, the even level is {even:.1%}"
                )

    def _improve(self, source: int, units: Units, even: float, limit: Floats) -> None:
        """Take single units that end above the band but lower the peak, while there are any."""
        gain = self.settings.min_gain * even
        while True:
            level = float(self.fill.relative[source]) - gain
            goal = Goal(
                aim=even,
                ceiling=np.minimum(limit, level),
                improve=gain,
                leave_site=not self.settings.stay_in_site,
            )
            if not self._take(source, units, [goal], Reason.SPREAD, at_most=1):
                return

    def leave_dead_uplinks(self) -> None:
        """Plan to bring what is served at an address whose uplink is down to another address of its node."""
        self._uplinks(self.places.dead_uplinks(), Reason.UPLINK)

    def narrow_uplinks(self) -> None:
        """Plan to even out the uplinks of nodes that have several of known capacity."""
        self._uplinks(self.places.uneven_uplinks(self.settings), Reason.UPLINK_SPREAD)

    def _uplinks(self, work: list[tuple[int, int]], reason: Reason) -> None:
        for node, address in work:
            uplinks = self.places.uplinks_of(node, self.fill, self.gone)
            empties = reason is Reason.UPLINK
            even = self.places.even_uplink(uplinks)
            aim = -inf if empties else even * (1 + self.settings.low)
            goal = Goal(aim=aim, ceiling=np.full(len(uplinks.relative), inf if empties else aim))
            rows, around = self.places.rows_at(node, address, self.gone), self.places.rows_of(node)
            units = self._build(rows, around, carried=True, urgent=empties, reachable=not empties)
            self._take_within(node, address, uplinks, units, goal, reason)
            left = int((~self.gone[self.places.rows_at(node, address, self.gone)]).sum())
            if empties and left:
                where = self.view.nodes[node].addresses[address].ip
                self.notes.append(
                    f"{self.places.names[node]}: {left} IKE_SAs stay at {where}, whose uplink is down"
                )

    # Taking units from a place, until its goal is reached or nothing fits.

    def _take(
        self, source: int, units: Units, goals: list[Goal], reason: Reason, at_most: float = inf
    ) -> int:
        taken = 0
        for goal in goals:
            while taken < at_most and self.fill.relative[source] > goal.aim:
                pick = self.fill.pick(source, units, self.gone, goal, self.places.targets)
                if pick is None:
                    break
                taken += 1
                rows, weight = units.members(pick.unit), units.weight[pick.unit]
                effect = self.fill.shift(source, pick.target, weight, len(rows))
                address = self.places.enter(pick.target, pick.bucket.key.kind, float(weight[0]))
                self._append(rows, (pick.target, address), pick.bucket.key, reason, effect)
                pick.bucket.remove(pick.position)
        return taken

    def _take_within(
        self, node: int, address: int, uplinks: Fill, units: Units, goal: Goal, reason: Reason
    ) -> None:
        allowed = self.places.uplink_targets(node, address)
        while uplinks.relative[address] > goal.aim and min(self.fill.total_left, self.fill.left[node]) > 0:
            pick = uplinks.pick(address, units, self.gone, goal, lambda key, _: allowed[key.kind % 2])
            if pick is None:
                return
            rows = units.members(pick.unit)
            effect = uplinks.shift(address, pick.target, units.weight[pick.unit], len(rows))
            self.fill.spend(node, len(rows))
            self.fill.total_left -= len(rows)
            self._append(rows, (node, pick.target), pick.bucket.key, reason, effect)
            pick.bucket.remove(pick.position)

    def _append(self, rows: Ints, to: tuple[int, int], key: UnitKey, reason: Reason, effect: Effect) -> None:
        sas, nodes = self.view.sas, self.view.nodes
        self.gone[rows] = True
        source, target = nodes[int(sas.owner[rows[0]])], nodes[to[0]]
        self.moves.append(
            PlannedMove(
                sas=tuple(sas.keys[int(row)] for row in rows),
                source=source.name,
                source_address=source.addresses[int(sas.address[rows[0]])].ip,
                target=target.name,
                target_address=target.addresses[to[1]].ip,
                mechanism=key.mechanism,
                reason=reason,
                effect=effect,
            )
        )

    def _units(self, source: int, *, urgent: bool = False) -> Units:
        rows = self.places.rows_of(source)
        return self._build(rows, rows, carried=self.places.can_carry(source), urgent=urgent)

    def _build(
        self, rows: Ints, around: Ints, *, carried: bool, urgent: bool, reachable: bool = True
    ) -> Units:
        """Build the units of a place; what is not free yet is remembered as a deadline."""
        sas, now = self.view.sas, self.now
        ready = sas.refused_until[rows]
        if not urgent:
            ready = np.maximum(ready, sas.last_moved_at[rows] + self.settings.cooldown_s)
        free = ~sas.pinned[rows] & ~self.gone[rows] & (ready <= now)
        later = ready[~sas.pinned[rows] & (ready > now)]
        if len(later) and isfinite(float(later.min())):
            self.waits.append(float(later.min()))
        kinds = self.places.kinds(rows)
        return units_of(
            sas, rows, around, kinds, free, self.settings, carried=carried, source_reachable=reachable
        )

    # What is left undone.

    def _fullest_first(self, sources: Bools) -> list[int]:
        found = np.flatnonzero(sources)
        return [int(i) for i in found[np.argsort(-self.fill.relative[found], kind="stable")]]

    def _heaviest_level(self, source: int) -> float:
        """Return how full a node would be with nothing but its heaviest IKE_SA."""
        rows = self.places.rows_of(source)
        rows = rows[~self.gone[rows]]
        if not len(rows):
            return 0.0
        weights = weights_of(self.view.sas, rows) * self.fill.per_unit[source]
        return float(weights.max() / self.places.weight[source])

    def _out_of_budget(self, source: int) -> bool:
        return bool(self.fill.total_left <= 0 or self.fill.left[source] <= 0)

    def _undone(self, source: int, what: str) -> None:
        name = self.places.names[source]
        self.relieving.add(name)
        self.notes.append(f"{name}: {what}; {self._because(source)}")

    def _note_rest(self, source: int, has: str, purpose: str) -> None:
        rows = self.places.rows_of(source)
        left = int((~self.gone[rows]).sum())
        if left:
            self._undone(source, f"{has} {left} IKE_SAs {purpose}")

    def _because(self, source: int) -> str:
        """Say why nothing more was taken from a node."""
        if self._out_of_budget(source):
            return "the move budget of this window is used up"
        sas, rows = self.view.sas, self.places.rows_of(source)
        rows = rows[~self.gone[rows]]
        reasons = {
            "pinned": int(sas.pinned[rows].sum()),
            "refused lately": int((sas.refused_until[rows] > self.now).sum()),
            "moved lately": int((sas.last_moved_at[rows] + self.settings.cooldown_s > self.now).sum()),
            "redirected too often": int((sas.recent_redirects[rows] >= self.settings.redirects).sum()),
        }
        said = [f"{count} {word}" for word, count in reasons.items() if count]
        said.append(f"the heaviest alone is {self._heaviest_level(source) * self.places.weight[source]:.1%}")
        return f"nothing else fits a target or has a mechanism ({', '.join(said)})"

    def result(self) -> Plan:
        """Return the plan."""
        # A budget that is used up frees up with time; a cooldown or a refusal ends at a known moment.
        if any(self._out_of_budget(self.places.index[name]) for name in self.relieving):
            self.waits.append(self.now + self.settings.interval_s)
        return Plan(
            moves=tuple(self.moves),
            notes=tuple(self.notes),
            next_deadline=min(self.waits) if self.relieving and self.waits else None,
            relieving=frozenset(self.relieving),
        )


def _leaving_site(goal: Goal) -> Goal:
    return Goal(aim=goal.aim, ceiling=goal.ceiling, improve=goal.improve, leave_site=True)
