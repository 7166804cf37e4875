"""How long a plan takes and what it needs: 10 nodes with 1,000 IKE_SAs to 1,000 nodes with 1,000,000.

    python benchmarks/balance.py [--json OUT] [--repeat N]

Each size runs in a process of its own, so that its peak memory is its own. The cluster is the worst usual
case: placed at random with heavy-tailed rates, and one node in a hundred (at least one) is being drained.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path

import numpy as np

from mobikectl.policy.balance import plan
from mobikectl.policy.cluster_settings import BalanceSettings
from mobikectl.policy.placement import place
from mobikectl.sim.cluster import Cluster
from mobikectl.sim.workload import Scenario, Workload

SIZES = ((10, 1_000), (100, 100_000), (1_000, 1_000_000))
GOAL_S, GOAL_BYTES = 2.0, 2e9


def measure(nodes: int, sas: int, repeat: int) -> dict[str, float]:
    """Return the best of some runs, in seconds, and the process's peak memory in bytes."""
    scenario = Scenario(nodes=nodes, sas=sas, failures=0, drains=0, utilisation=0.6)
    cluster = Cluster(scenario, Workload(scenario).first())
    random = np.random.default_rng(1)
    cluster.column("owner")[:] = random.integers(0, nodes, sas)
    cluster.drained[: max(nodes // 100, 1)] = True
    settings = BalanceSettings()
    view = cluster.view(0.0, settings.window_s, frozenset())
    times, place_times = [], []
    for _ in range(repeat):
        start = time.perf_counter()
        decided = plan(view, settings, 0.0)
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
        place(view, settings, 0.0)
        place_times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "nodes": nodes,
        "sas": sas,
        "moves": decided.sa_count,
        "plan_s": min(times),
        "plan_worst_s": max(times),
        "placement_s": min(place_times),
        "peak_bytes": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    results = []
    print(
        f"{'nodes':>6} {'IKE_SAs':>9} {'moves':>6} {'plan':>9} {'worst':>9} {'placement':>10} {'memory':>9}"
    )
    for nodes, sas in SIZES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            one = pool.apply(measure, (nodes, sas, asked.repeat))
        results.append(one)
        print(
            f"{nodes:>6,} {sas:>9,} {one['moves']:>6,} {one['plan_s'] * 1e3:>6.0f} ms "
            f"{one['plan_worst_s'] * 1e3:>6.0f} ms {one['placement_s'] * 1e3:>7.0f} ms "
            f"{one['peak_bytes'] / 1e6:>6.0f} MB"
        )
    last = results[-1]
    met = last["plan_s"] < GOAL_S and last["peak_bytes"] < GOAL_BYTES
    print(
        f"goal (under {GOAL_S:.0f} s and {GOAL_BYTES / 1e9:.0f} GB at the largest): {'met' if met else 'missed'}"
    )
    if asked.json:
        asked.json.write_text(
            json.dumps({"benchmark": "balance", "goal_met": met, "results": results}, indent=2)
        )


if __name__ == "__main__":
    main()
