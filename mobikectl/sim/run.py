"""One run of a strategy through a scenario, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mobikectl.policy.cluster import Floats, Mechanism
from mobikectl.sim.cluster import Cluster
from mobikectl.sim.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobikectl.sim.strategies import Strategy
    from mobikectl.sim.workload import Scenario, Second


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One value per second, the warm-up included."""

    at: Floats
    peak: Floats
    """Utilisation of the fullest node."""
    mean: Floats
    """Utilisation that every node in service would have if all were even."""
    best: Floats
    """The lowest peak that any placement could have."""
    overloaded: Floats
    """Nodes above the overload limit."""
    planned: Floats
    """1.0 in the seconds in which the strategy could act, else 0.0."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a strategy made of a scenario. All but `series` leaves out the warm-up."""

    strategy: str
    series: Series
    warmup_s: int
    moves: dict[str, int]
    """IKE_SAs moved, by mechanism."""
    interrupted: int
    """IKE_SAs cut off by what the strategy did or failed to do in time: reconnects, drains at their timeout."""
    lost_to_failures: int
    """IKE_SAs on nodes that failed: nobody can save those without a standby."""

    def summary(self) -> dict[str, object]:
        """Return the numbers of the report, ready for JSON."""
        s = self.series
        measured = s.at >= self.warmup_s
        acted = measured & (s.planned > 0)
        excess = s.peak / s.best - 1.0
        spread = s.peak[measured] / s.mean[measured]
        return {
            "strategy": self.strategy,
            "peak_utilisation": round(float(s.peak[measured].max()), 4),
            "spread_mean": round(float(spread.mean()), 4),
            "spread_max": round(float(spread.max()), 4),
            "above_best_after_plan_max": round(float(excess[acted].max(initial=0.0)), 4),
            "above_best_mean": round(float(excess[measured].mean()), 4),
            "above_best_p95": round(float(np.quantile(excess[measured], 0.95)), 4),
            "above_best_max": round(float(excess[measured].max()), 4),
            "seconds_within_5_percent": round(float((excess[measured] <= 0.05).mean()), 4),
            "overload_seconds": int(s.overloaded[measured].sum()),
            "interrupted": self.interrupted,
            "lost_to_failures": self.lost_to_failures,
            "moves": self.moves,
        }


@dataclass(slots=True)
class _Tally:
    moves: dict[str, int] = field(default_factory=lambda: {m.word: 0 for m in Mechanism})
    interrupted: int = 0
    lost: int = 0
    on: bool = False

    def moved(self, mechanism: Mechanism, count: int) -> None:
        if self.on:
            self.moves[mechanism.word] += count
            self.interrupted += count if mechanism is Mechanism.RECONNECT else 0


def run(scenario: Scenario, strategy: Strategy, progress: Callable[[int], None] | None = None) -> Outcome:
    """Let a strategy run through a scenario; ``progress`` is told each second that passed."""
    workload, tally = Workload(scenario), _Tally()
    cluster = Cluster(scenario, workload.first())
    samples = np.zeros((scenario.seconds, 6))
    for at in range(scenario.seconds):
        tally.on = at >= scenario.warmup_s
        acts = at % scenario.plan_every_s == 0
        _happen(cluster, strategy, workload.second(at, cluster.count), tally)
        if acts:
            # Whatever the strategy: the next rate changes must hit the same rows in all runs.
            cluster.compact()
            strategy.rebalance(cluster, float(at), tally.moved)
        samples[at] = _sample(cluster, at, acts=acts)
        if progress:
            progress(at + 1)
    return Outcome(
        strategy.name,
        Series(*samples.T.copy()),
        scenario.warmup_s,
        tally.moves,
        tally.interrupted,
        tally.lost,
    )


def _happen(cluster: Cluster, strategy: Strategy, second: Second, tally: _Tally) -> None:
    present = cluster.column("owner")[second.changed] < cluster.nodes
    cluster.column("rate")[second.changed[present]] = second.rates[present]
    cluster.leave(second.at)
    cluster.dead[list(second.recovers)] = False
    cluster.drained[list(second.drains)] = True
    cluster.dead[list(second.fails)] = True
    for node in second.fails:
        tally.lost += _come_back(cluster, strategy, node)
    for node in second.terminates:
        tally.interrupted += _come_back(cluster, strategy, node)
    cluster.add(second.arrivals, strategy.place(cluster, len(second.arrivals)))


def _come_back(cluster: Cluster, strategy: Strategy, node: int) -> int:
    """Let all that a node served come back as new clients; return how many those are."""
    rows = cluster.served_by(node)
    cluster.column("owner")[rows] = strategy.place(cluster, len(rows))
    cluster.column("last_moved_at")[rows] = -np.inf
    return len(rows)


def _sample(cluster: Cluster, at: int, *, acts: bool) -> tuple[float, ...]:
    used, able = cluster.utilisation(), cluster.in_service
    return (
        float(at),
        float(used.max()),
        float(used.sum() / max(int(able.sum()), 1)),
        cluster.best_possible(),
        float((used > cluster.scenario.overload_limit).sum()),
        float(acts),
    )
