"""What the gauges of a sidecar say, from what its parts know."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from mobikectl.charon.rmobike_link import Peer
from mobikectl.model import ChildSa, ChildState, IkeSa, IkeState, Path
from mobikectl.netlink.watcher import WatcherCounters
from mobikectl.observe import measures
from mobikectl.observe.metrics import Metrics
from mobikectl.policy.candidates import Candidate, Rank
from mobikectl.policy.cluster import Capacity
from mobikectl.policy.state import Explanation
from mobikectl.policy.track import Track, TrackState
from mobikectl.sidecar import gauges
from mobikectl.sidecar.sas import _is_somebody

PATH = Path(ip_address("198.18.1.1"), ip_address("198.18.9.1"))
KEY = ("198.18.1.1", "198.18.9.1", "wan1")
SA = IkeSa(1, "office", IkeState.ESTABLISHED, PATH, children=(ChildSa(2, "net", ChildState.INSTALLED),))


def test_ike_sas_are_counted_by_state_and_role() -> None:
    other = replace(
        SA, uniqueid=2, name="x", state=IkeState.CONNECTING, original_initiator=False, children=()
    )
    found = gauges.of_sas([SA, replace(SA, uniqueid=3), other], [], [])
    assert found[measures.IKE_SAS] == {("ESTABLISHED", "initiator"): 2, ("CONNECTING", "responder"): 1}
    assert found[measures.CHILD_SAS] == {("INSTALLED",): 2}


def test_peers_are_counted_by_what_they_support() -> None:
    peers = [Peer(1, mobike=True, r=True, redirect=None), Peer(2, mobike=True, r=False, redirect=True)]
    found = gauges.of_sas([], peers, [])[measures.PEERS]
    assert found == {("mobike",): 2, ("switch",): 1, ("redirect",): 1}


def test_a_connection_without_an_established_ike_sa_is_down() -> None:
    trying = replace(SA, name="branch", state=IkeState.CONNECTING)
    found = gauges.of_sas([SA, trying], [], ["office", "branch", "depot"])[measures.CONNECTION_UP]
    assert found == {("office",): 1, ("branch",): 0, ("depot",): 0}


@pytest.mark.parametrize(
    ("address", "somebody"),
    [
        ("198.18.9.1", True),
        ("vpn-1.example.org", True),
        ("2001:db8::1", True),
        ("%any", False),
        ("%any6", False),
        ("198.18.0.0/24", False),
        ("198.18.0.1-198.18.0.9", False),
    ],
)
def test_only_a_connection_to_somebody_can_be_expected_to_be_up(address: str, somebody: bool) -> None:
    assert _is_somebody(address) == somebody


def explained(state: TrackState) -> list[Explanation]:
    track = Track(PATH, state=state, srtt_s=0.02, window=((10, 9),), flaps=2.0, flaps_at=100.0)
    candidate = Candidate(PATH, "wan1", Rank(), in_use=True, track=track)
    return [Explanation(1, PATH, None, "", (candidate,))]


@pytest.mark.parametrize(
    ("state", "up"),
    [
        (TrackState.UP, 1.0),
        (TrackState.FAILING, 1.0),
        (TrackState.DOWN, 0.0),
        (TrackState.RECOVERING, 0.0),
        (TrackState.UNKNOWN, None),
    ],
)
def test_a_path_is_up_as_the_policy_takes_it(state: TrackState, up: float | None) -> None:
    found = gauges.of_paths(explained(state), 100.0)
    assert found[measures.PATH_UP].get(KEY) == up
    assert found[measures.PATH_USED] == {KEY: 1.0}
    assert found[measures.PATH_SECONDS] == {KEY: 0.02}
    assert found[measures.PATH_LOSS][KEY] == pytest.approx(0.1)
    assert found[measures.PATH_FLAPS] == {KEY: 2.0}


def test_flaps_are_forgotten_with_time() -> None:
    assert gauges.of_paths(explained(TrackState.UP), 400.0)[measures.PATH_FLAPS][KEY] == pytest.approx(1.0)


REPORT = {
    "health": "impaired",
    "ike_sas": 50,
    "bytes_per_s": 10.0,
    "packets_per_s": 3.0,
    "maintenance": True,
    "ago_s": 0.4,
}
NODE = {
    "cluster": "default",
    "node": "gw1",
    "member": True,
    "role": "leader",
    "moves_under_way": 2,
    "carries_not": "",
    "report": REPORT,
}


def test_a_node_tells_its_place_its_health_and_its_fullest_dimension() -> None:
    found = gauges.of_node(NODE, Capacity(sas=100, bytes_per_s=1000))
    assert found[measures.LEADER] == {("default", "gw1"): 1.0}
    assert found[measures.HEALTH] == {("healthy",): 0, ("impaired",): 1, ("dead",): 0, ("unknown",): 0}
    assert found[measures.NODE_USED] == {(): 0.5}
    assert found[measures.UNDER_WAY] == {(): 2}


def test_a_node_that_did_not_report_yet_tells_no_load() -> None:
    found = gauges.of_node({**NODE, "report": None, "member": False, "role": "follower"}, Capacity())
    assert found[measures.MEMBER] == {("default", "gw1"): 0.0}
    assert measures.NODE_USED not in found


def test_why_a_node_carries_nothing_over_is_told_as_a_0() -> None:
    assert gauges.of_node(NODE, Capacity())[measures.CARRIES] == {(): 1.0}
    taken = {**NODE, "carries_not": "another process has the port"}
    assert gauges.of_node(taken, Capacity())[measures.CARRIES] == {(): 0.0}


def test_every_gauge_fits_the_labels_of_its_measure() -> None:
    parts = [
        gauges.of_sidecar("auto", charon_up=True, in_step=False, steering=1),
        gauges.of_sas([SA], [Peer(1, True, True, True)], ["office"]),
        gauges.of_paths(explained(TrackState.UP), 100.0),
        gauges.of_netlink(WatcherCounters(overruns=1)),
        gauges.of_node(NODE, Capacity()),
    ]
    told = gauges.snapshot(*parts)
    for measure, rows in told.values.items():
        assert all(len(key) == len(measure.labels) for key in rows), measure.name
    assert b'mobikectl_ike_sas{role="initiator",state="ESTABLISHED"} 1.0' in Metrics(lambda: told).expose()
