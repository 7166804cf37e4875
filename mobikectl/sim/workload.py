"""What happens to a synthetic cluster, whatever the strategy: who arrives, how much they send, what breaks.

Every draw comes from one seeded generator and depends on nothing that a strategy does, so all strategies
see the same clients, rates, failures and drains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobikectl.errors import ConfigError
from mobikectl.policy.cluster import Bools, Capability, Floats, Ints

NODE_BYTES_PER_S = 1.25e9
"""A node's capacity: 10 Gbit/s."""
BYTES_PER_PACKET = 800.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A cluster and its clients. Shares are 0 to 1; loads are in units of one node's capacity."""

    nodes: int = 100
    sas: int = 100_000
    seconds: int = 600
    warmup_s: int = 60
    """Seconds at the start that are not measured: the cluster begins lopsided."""
    seed: int = 1
    utilisation: float = 0.6
    """The cluster's mean."""
    lifetime_s: float = 3600.0
    """Mean lifetime of an IKE_SA (exponential); arrivals keep their number level (Poisson)."""
    rate_change_s: float = 900.0
    """Mean time between two changes of an IKE_SA's rate (exponential)."""
    tail: float = 1.3
    """Shape of the rates' Pareto distribution; smaller is heavier."""
    heaviest: float = 0.1
    """The fastest that one client can be: its access line, in units of a node's capacity."""
    failures: int = 1
    failure_s: int = 120
    drains: int = 1
    drain_timeout_s: int = 180
    """What is still on a drained node by then is terminated."""
    switch_share: float = 1.0
    """Peers that obey SWITCH_TO_IP_ADDRESS ('R')."""
    mobike_share: float = 1.0
    redirect_share: float = 1.0
    nat_share: float = 0.3
    refusal_share: float = 0.0
    """Moves that the peer refuses."""
    plan_every_s: int = 1
    overload_limit: float = 0.9

    def __post_init__(self) -> None:
        if not (1 <= self.nodes <= 1_000 and 1 <= self.sas <= 1_000_000):
            raise ConfigError(
                f"{self.nodes} nodes and {self.sas} IKE_SAs are outside 1..1000 and 1..1000000",
                hint="the simulator is meant for clusters up to that size",
            )
        if self.failures + self.drains >= self.nodes:
            raise ConfigError(
                f"{self.failures} failures and {self.drains} drains leave none of {self.nodes} nodes",
                hint="use more nodes or fewer failures and drains",
            )
        if not (0 < self.utilisation < 1 and self.tail > 1 and self.heaviest > 0):
            raise ConfigError(
                "utilisation must be in (0, 1), tail above 1 and heaviest above 0",
                hint="the defaults are 0.6, 1.3 and 0.1",
            )
        if self.heaviest <= self.mean_rate / NODE_BYTES_PER_S:
            raise ConfigError(
                f"the heaviest client ({self.heaviest}) is below the mean one",
                hint="use more IKE_SAs or a larger --heaviest",
            )
        shares = (
            self.switch_share,
            self.mobike_share,
            self.redirect_share,
            self.nat_share,
            self.refusal_share,
        )
        if not all(0 <= share <= 1 for share in shares):
            raise ConfigError("a share must be in 0..1", hint="1 is all of them")
        if not (0 <= self.warmup_s < self.seconds) or min(self.lifetime_s, self.rate_change_s) <= 0:
            raise ConfigError(
                "the run must be longer than its warm-up and times above zero", hint="see --help"
            )
        if self.plan_every_s < 1:
            raise ConfigError("a plan is made every second at most", hint="use --plan-every 1")

    @property
    def mean_rate(self) -> float:
        """Bytes per second of an average IKE_SA."""
        return self.utilisation * self.nodes * NODE_BYTES_PER_S / self.sas


@dataclass(frozen=True, slots=True, eq=False)
class Clients:
    """Clients that arrive, in columns."""

    bytes_per_s: Floats
    leaves_at: Floats
    capability: Ints
    behind_nat: Bools
    refuses: Bools

    def __len__(self) -> int:
        return len(self.bytes_per_s)


@dataclass(frozen=True, slots=True, eq=False)
class Second:
    """What happens in one second of virtual time."""

    at: float
    changed: Ints
    """Rows whose rate changes..."""
    rates: Floats
    """...to these."""
    arrivals: Clients
    fails: tuple[int, ...] = ()
    recovers: tuple[int, ...] = ()
    drains: tuple[int, ...] = ()
    terminates: tuple[int, ...] = ()
    """Drained nodes whose time is up."""


class Workload:
    """Draws what happens, second by second."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._random = np.random.default_rng(scenario.seed)
        self._minimum = _minimum_rate(scenario)
        order = self._random.permutation(scenario.nodes)
        self._failing = tuple(int(i) for i in order[: scenario.failures])
        self._drained = tuple(int(i) for i in order[scenario.failures : scenario.failures + scenario.drains])

    def first(self) -> Clients:
        """Return the clients that are there at the start."""
        return self._clients(self._scenario.sas, 0.0)

    def second(self, at: int, rows: int) -> Second:
        """Given the time and how many rows there are, return what happens in that second."""
        s, random = self._scenario, self._random
        changed = random.integers(0, max(rows, 1), random.poisson(rows / s.rate_change_s))
        rates = self._rates(len(changed))
        fail_at = s.warmup_s + (s.seconds - s.warmup_s) // 4
        drain_at = s.warmup_s + (s.seconds - s.warmup_s) // 2
        return Second(
            at=float(at),
            changed=changed if rows else changed[:0],
            rates=rates if rows else rates[:0],
            arrivals=self._clients(int(random.poisson(s.sas / s.lifetime_s)), float(at)),
            fails=self._failing if at == fail_at else (),
            recovers=self._failing if at == fail_at + s.failure_s else (),
            drains=self._drained if at == drain_at else (),
            terminates=self._drained if at == drain_at + s.drain_timeout_s else (),
        )

    def _clients(self, count: int, now: float) -> Clients:
        s, random = self._scenario, self._random
        capability = np.zeros(count, dtype=np.int64)
        mobike = random.random(count) < s.mobike_share
        capability[mobike] |= int(Capability.MOBIKE)
        capability[mobike & (random.random(count) < s.switch_share)] |= int(Capability.SWITCH)
        capability[random.random(count) < s.redirect_share] |= int(Capability.REDIRECT)
        return Clients(
            bytes_per_s=self._rates(count),
            leaves_at=now + random.exponential(s.lifetime_s, count),
            capability=capability,
            behind_nat=random.random(count) < s.nat_share,
            refuses=random.random(count) < s.refusal_share,
        )

    def _rates(self, count: int) -> Floats:
        heavy = self._minimum * (1.0 + self._random.pareto(self._scenario.tail, count))
        return np.minimum(heavy, self._scenario.heaviest * NODE_BYTES_PER_S)


def _minimum_rate(scenario: Scenario) -> float:
    """Return the Pareto minimum at which rates cut off at the heaviest have the wanted mean, found by halving."""
    a, cut, wanted = scenario.tail, scenario.heaviest * NODE_BYTES_PER_S, scenario.mean_rate

    def mean(minimum: float) -> float:
        return float(minimum * a / (a - 1) - minimum**a * cut ** (1 - a) / (a - 1))

    low, high = 0.0, cut
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < wanted else (low, middle)
    return (low + high) / 2
