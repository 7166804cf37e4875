"""Prometheus metrics of one sidecar: counters fed by events and by timings, gauges read from a snapshot at each scrape.

Nothing global: each `Metrics` has a registry of its own. It observes and is never asked back: a mistake in here can
spoil a number, not a move.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest

from mobikectl.observe import measures
from mobikectl.observe.events import Source
from mobikectl.observe.measures import BUCKETS, Kind, Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prometheus_client.core import Metric

    from mobikectl.observe.events import Event

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The text format of Prometheus."""
PENDING = 10_000
"""Moves under way whose beginning is remembered."""
ENDED = frozenset({"verified", "undone", "failed"})
CLUSTER_ENDED = frozenset({"verified", "refused", "timed-out", "rolled-back"})
OPERATOR = "asked for by the operator"
"""The cause of a move that `mobikectl switch` or `redirect` asked for."""
FAILOVER = ("failover", "standby")
"""Reason and mechanism of the move of a dead node's IKE_SA to the node that stands by."""
OTHER = "cluster"
"""The cause of one that neither the path policy nor an operator gave."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the gauges (and what others count) say now: measure -> values of its labels, in their order -> number."""

    values: Mapping[Measure, Mapping[tuple[str, ...], float]] = field(default_factory=dict)


class Metrics:
    """One sidecar's metrics. `take` each event, hand `vici` and `store` their timings, `expose` at a scrape."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads
        self._clock = clock
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Reader(snapshot, self._store_age))
        self._causes: OrderedDict[int, tuple[str, str]] = OrderedDict()
        """IKE_SA -> the cause in words and the kind of the path policy's last decision about it."""
        self._begun: OrderedDict[int, float] = OrderedDict()
        """Number of a move of the cluster -> when it was requested."""
        self._store_at: float | None = None
        self._events = self._counter(measures.EVENTS)
        self._moves = self._counter(measures.MOVES)
        self._move_seconds = self._histogram(measures.MOVE_SECONDS)
        self._data_plane = self._counter(measures.MOVE_DATA)
        self._lost = self._histogram(measures.MOVE_LOSS)
        self._redirects = self._counter(measures.REDIRECTS)
        self._retransmits = self._counter(measures.RETRANSMITS)
        self._cluster_moves = self._counter(measures.CLUSTER_MOVES)
        self._cluster_seconds = self._histogram(measures.CLUSTER_SECONDS)
        self._vici = self._histogram(measures.VICI_SECONDS)
        self._vici_failures = self._counter(measures.VICI_FAILURES)
        self._store = self._histogram(measures.STORE_SECONDS)
        self._store_failures = self._counter(measures.STORE_FAILURES)

    def _counter(self, measure: Measure) -> Counter:
        return Counter(measure.name, measure.text, measure.labels, registry=self._registry)

    def _histogram(self, measure: Measure) -> Histogram:
        return Histogram(
            measure.name, measure.text, measure.labels, registry=self._registry, buckets=BUCKETS[measure]
        )

    def expose(self) -> bytes:
        """Return everything in the text format of Prometheus."""
        return generate_latest(self._registry)

    # --- what is fed in -------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Given an event, count it."""
        self._events.labels(event.source.value, event.name).inc()
        if event.source is Source.DECISION and event.name == "move":
            self._decided(event.data)
        elif event.name.startswith("cluster-move-"):
            self._cluster_move(event)
        elif event.name.startswith("cluster-failover-move-"):
            self._failover(event.name.removeprefix("cluster-failover-move-"))
        elif event.name == "move-loss":
            self._loss(event.data)
        elif event.name.startswith("move-"):
            self._move(event)
        elif event.name == "redirected":
            self._redirects.labels(str(event.data.get("exchange", ""))).inc()
        elif event.name == "retransmit":
            self._retransmits.inc()

    def vici(self, command: str, seconds: float, answered: bool) -> None:
        """Given how long a request to charon took, and whether it was answered, count that."""
        if answered:
            self._vici.labels(command).observe(seconds)
        else:
            self._vici_failures.labels(command).inc()

    def store(self, call: str, seconds: float, answered: bool) -> None:
        """Given how long a call of the store took, and whether it was answered, count that."""
        if answered:
            self._store.labels(call).observe(seconds)
            self._store_at = self._clock()
        else:
            self._store_failures.labels(call).inc()

    def _store_age(self) -> float | None:
        return None if self._store_at is None else self._clock() - self._store_at

    def _decided(self, data: Mapping[str, object]) -> None:
        sa = data.get("ike_sa")
        if isinstance(sa, int):
            self._causes[sa] = (str(data.get("cause")), str(data.get("kind")))
            _trim(self._causes)

    def _move(self, event: Event) -> None:
        outcome = event.name.removeprefix("move-")
        if outcome not in ENDED:
            return
        mechanism = str(event.data.get("mechanism", ""))
        self._moves.labels(self._cause(event.data), mechanism, outcome).inc()
        seconds = event.data.get("duration_s")
        if isinstance(seconds, (int, float)):
            self._move_seconds.labels(mechanism, outcome).observe(seconds)
        if outcome == "verified":
            self._data_plane.labels(str(event.data.get("data_plane", ""))).inc()

    def _loss(self, data: Mapping[str, object]) -> None:
        packets = data.get("lost_packets")
        if isinstance(packets, int):
            self._lost.labels(str(data.get("mechanism", "")), str(data.get("outcome", ""))).observe(packets)

    def _failover(self, state: str) -> None:
        if state in CLUSTER_ENDED:
            self._cluster_moves.labels(*FAILOVER, state).inc()

    def _cause(self, data: Mapping[str, object]) -> str:
        """Return one of few words for why a move was made; the line for people is free text."""
        said = str(data.get("cause"))
        if said == OPERATOR:
            return "operator"
        sa = data.get("ike_sa")
        cause, kind = self._causes.get(sa, ("", "")) if isinstance(sa, int) else ("", "")
        return kind if cause == said and kind else OTHER

    def _cluster_move(self, event: Event) -> None:
        state = event.name.removeprefix("cluster-move-")
        number = event.data.get("move")
        if not isinstance(number, int):
            return
        if state == "requested":
            self._begun[number] = event.at
            _trim(self._begun)
        if state not in CLUSTER_ENDED:
            return
        mechanism = str(event.data.get("mechanism", ""))
        self._cluster_moves.labels(str(event.data.get("reason", "")), mechanism, state).inc()
        begun = self._begun.pop(number, None)
        if begun is not None:
            self._cluster_seconds.labels(mechanism, state).observe(max(event.at - begun, 0.0))


def _trim(
    kept: OrderedDict[int, object] | OrderedDict[int, float] | OrderedDict[int, tuple[str, str]],
) -> None:
    while len(kept) > PENDING:
        kept.popitem(last=False)


class _Reader:
    """Collects the gauges from a snapshot."""

    def __init__(self, snapshot: Callable[[], Snapshot], store_age: Callable[[], float | None]) -> None:
        self._snapshot = snapshot
        self._store_age = store_age

    def describe(self) -> Sequence[Metric]:
        return ()  # asked at registration, when there is nothing to snapshot yet

    def collect(self) -> Iterator[Metric]:
        values = dict(self._snapshot().values)
        age = self._store_age()
        if age is not None:
            values[measures.STORE_AGE] = {(): age}
        for measure, rows in values.items():
            kind = CounterMetricFamily if measure.kind is Kind.COUNTER else GaugeMetricFamily
            family = kind(measure.name, measure.text, labels=measure.labels)
            for labels, value in rows.items():
                family.add_metric(labels, value)
            yield family
