"""What is counted, under which names, and what a scrape gets."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mobikectl.observe import measures
from mobikectl.observe.events import EventLog, Source
from mobikectl.observe.measures import BUCKETS, MEASURES, Kind
from mobikectl.observe.metrics import Metrics, Snapshot

UNITS = ("_seconds", "_bytes_per_second", "_packets_per_second", "_ratio")


class Scene:
    """Metrics that an event log feeds, with a clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.snapshot = Snapshot()
        self.metrics = Metrics(lambda: self.snapshot, clock=lambda: self.now)
        self.events = EventLog()
        self.events.listen(self.metrics.take)

    def value(self, name: str, **labels: str) -> float | None:
        for family in text_string_to_metric_families(self.metrics.expose().decode()):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return None

    def move(self, state: str, *, cause: str = "wan2 is down", mechanism: str = "route") -> None:
        self.events.record(
            Source.ACTION,
            f"move-{state}",
            "...",
            data={
                "ike_sa": 7,
                "cause": cause,
                "mechanism": mechanism,
                "data_plane": "flowing",
                "duration_s": 0.2,
            },
        )

    def cluster_move(self, state: str, *, at: float, number: int = 3) -> None:
        data = {"move": number, "mechanism": "notify", "reason": "drain"}
        self.events.record(Source.ACTION, f"cluster-move-{state}", "...", at=at, data=data)


@pytest.fixture
def scene() -> Scene:
    return Scene()


# Names


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_names_follow_the_rules_of_prometheus(measure: measures.Measure) -> None:
    assert re.fullmatch(r"mobikectl_[a-z]+(_[a-z]+)*", measure.name)
    assert measure.name.endswith("_total") == (measure.kind is Kind.COUNTER)
    if measure.kind is Kind.HISTOGRAM:
        assert measure.name.endswith(("_duration_seconds", "_packets"))
        assert list(BUCKETS[measure]) == sorted(set(BUCKETS[measure]))
    assert measure.text.endswith(".")


def test_no_name_is_given_twice_and_times_are_in_seconds() -> None:
    names = [measure.name for measure in MEASURES]
    assert len(names) == len(set(names)) > 30
    for measure in MEASURES:
        if re.search(r"latency|duration|age", measure.name):
            assert measure.name.endswith("_seconds"), measure.name


# Events


def test_every_event_is_counted_by_its_source_and_name(scene: Scene) -> None:
    for _ in range(3):
        scene.events.record(Source.CHARON, "retransmit", "...")
    assert scene.value("mobikectl_events_total", source="charon", event="retransmit") == 3
    assert scene.value("mobikectl_retransmits_total") == 3


@pytest.mark.parametrize("outcome", ["verified", "undone", "failed"])
def test_a_move_is_counted_when_it_ends_with_how_long_it_took(scene: Scene, outcome: str) -> None:
    scene.move("planned")
    scene.move("requested")
    assert scene.value("mobikectl_moves_total") is None
    scene.move(outcome)
    assert scene.value("mobikectl_moves_total", mechanism="route", outcome=outcome) == 1
    bucket = {"mechanism": "route", "outcome": outcome}
    assert scene.value("mobikectl_move_duration_seconds_bucket", le="0.1", **bucket) == 0
    assert scene.value("mobikectl_move_duration_seconds_bucket", le="0.25", **bucket) == 1
    seen = scene.value("mobikectl_verified_moves_data_plane_total", data_plane="flowing")
    assert seen == (1 if outcome == "verified" else None)


def test_the_cause_of_a_move_is_one_of_few_words(scene: Scene) -> None:
    decided = {"ike_sa": 7, "cause": "wan2 is down", "kind": "direct"}
    scene.events.record(Source.DECISION, "move", "...", data=decided)
    scene.move("verified", cause="wan2 is down")
    assert scene.value("mobikectl_moves_total", cause="direct") == 1
    scene.move("verified", cause="asked for by the operator")
    assert scene.value("mobikectl_moves_total", cause="operator") == 1
    scene.move("verified", cause="move 12 of the cluster")
    assert scene.value("mobikectl_moves_total", cause="cluster") == 1


def test_a_move_of_the_cluster_is_timed_from_its_request(scene: Scene) -> None:
    scene.cluster_move("requested", at=50.0)
    scene.cluster_move("moved", at=50.1)
    scene.cluster_move("verified", at=50.4)
    labels = {"mechanism": "notify", "outcome": "verified"}
    assert scene.value("mobikectl_cluster_moves_total", reason="drain", **labels) == 1
    assert scene.value("mobikectl_cluster_move_duration_seconds_sum", **labels) == pytest.approx(0.4)
    assert scene.value("mobikectl_moves_total") is None


def test_what_a_failover_moves_is_counted_by_the_node_that_stood_by(scene: Scene) -> None:
    data = {"move": 3, "source": "gw1", "sas": ["gw1/alice#1"]}
    for state in ("requested", "verified"):
        scene.events.record(Source.ACTION, f"cluster-failover-move-{state}", "...", data=data)
    labels = {"reason": "failover", "mechanism": "standby"}
    assert scene.value("mobikectl_cluster_moves_total", outcome="verified", **labels) == 1
    assert scene.value("mobikectl_cluster_moves_total", outcome="requested") is None


def test_the_packets_that_a_move_cost_are_told_apart_from_moves_of_which_that_is_not_known(
    scene: Scene,
) -> None:
    scene.move("verified")
    assert scene.value("mobikectl_move_lost_packets_count") is None
    for packets in (0, 3):
        data = {"mechanism": "route", "outcome": "verified", "lost_packets": packets}
        scene.events.record(Source.ACTION, "move-loss", "...", data=data)
    assert scene.value("mobikectl_move_lost_packets_sum", mechanism="route", outcome="verified") == 3
    assert scene.value("mobikectl_move_lost_packets_bucket", le="0.0") == 1
    assert scene.value("mobikectl_move_lost_packets_count") == 2
    assert scene.value("mobikectl_moves_total", outcome="loss") is None


def test_a_move_whose_beginning_was_not_seen_is_counted_and_not_timed(scene: Scene) -> None:
    scene.cluster_move("rolled-back", at=50.0)
    assert scene.value("mobikectl_cluster_moves_total", outcome="rolled-back") == 1
    assert scene.value("mobikectl_cluster_move_duration_seconds_count") is None


def test_redirected_clients_are_counted_by_exchange(scene: Scene) -> None:
    scene.events.record(Source.CHARON, "redirected", "...", data={"exchange": "IKE_SA_INIT"})
    assert scene.value("mobikectl_redirected_clients_total", exchange="IKE_SA_INIT") == 1


def test_what_is_remembered_of_moves_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobikectl.observe.metrics.PENDING", 10)
    for number in range(50):
        scene.cluster_move("requested", at=1.0, number=number)
    assert len(scene.metrics._begun) == 10


def test_events_that_say_nothing_of_what_is_expected_spoil_nothing(scene: Scene) -> None:
    for name in ("move-verified", "cluster-move-verified", "redirected", "move"):
        scene.events.record(
            Source.DECISION, name, "...", data={"move": "x", "duration_s": None, "ike_sa": "x"}
        )
    assert scene.value("mobikectl_moves_total", outcome="verified") == 1


# Timings and gauges


def test_answers_are_timed_and_their_absence_is_counted(scene: Scene) -> None:
    scene.metrics.vici("stats", 0.003, True)
    scene.metrics.vici("stats", 5.0, False)
    assert scene.value("mobikectl_vici_request_duration_seconds_count", command="stats") == 1
    assert scene.value("mobikectl_vici_failures_total", command="stats") == 1


def test_the_age_of_the_store_grows_while_it_does_not_answer(scene: Scene) -> None:
    assert scene.value("mobikectl_store_age_seconds") is None
    scene.metrics.store("read", 0.001, True)
    scene.now += 30
    scene.metrics.store("read", 3.0, False)
    assert scene.value("mobikectl_store_age_seconds") == 30
    assert scene.value("mobikectl_store_failures_total", call="read") == 1


def test_a_scrape_reads_the_snapshot_of_that_moment(scene: Scene) -> None:
    scene.snapshot = Snapshot(
        {measures.IKE_SAS: {("ESTABLISHED", "responder"): 4.0}, measures.OVERRUNS: {("links",): 2.0}}
    )
    assert scene.value("mobikectl_ike_sas", state="ESTABLISHED", role="responder") == 4
    assert scene.value("mobikectl_netlink_overruns_total", subscription="links") == 2
    scene.snapshot = Snapshot()
    assert scene.value("mobikectl_ike_sas") is None


def test_the_process_itself_is_measured(scene: Scene) -> None:
    assert (scene.value("process_resident_memory_bytes") or 0) > 0
