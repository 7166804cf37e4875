"""What the lab makes of a cluster's journal, as its store tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mobikectl.cluster.records import peer_of
from mobikectl.errors import LabError
from mobikectl.lab.cluster import Cluster
from mobikectl.lab.instance import Lab
from mobikectl.lab.record import Record
from mobikectl.lab.run import Run
from mobikectl.lab.scenario import load_scenario


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOBIKECTL_LAB_DIR", str(tmp_path))
    (tmp_path / "x" / "store").mkdir(parents=True)
    return tmp_path / "x" / "store" / "storelog.out"


@pytest.fixture
def cluster(told: Path) -> Cluster:
    lab = Lab(Record("x", "s", "userland", {}), load_scenario("cluster-balance").topology)
    assert lab.store is not None
    told.write_text("")
    return Cluster(lab, lab.store)


def tell(path: Path, *lines: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def move(number: int, at: float, *states: str, sa: str = "gateway1/fleet01.lab.example#1") -> dict[str, Any]:
    record = {
        "number": number,
        "token": 7,
        "sas": [sa],
        "source": "gateway1",
        "target": "gateway2",
        "mechanism": "redirect",
        "steps": [{"state": state} for state in states],
    }
    return {"at": at, "move": record}


def test_the_last_that_was_told_of_leaders_and_members_counts(cluster: Cluster, told: Path) -> None:
    before = cluster.leader
    assert before is None
    tell(told, {"at": 1.0, "leader": "gateway1", "token": 5}, {"at": 2.0, "leader": "gateway2", "token": 9})
    tell(told, {"at": 2.0, "members": ["gateway2"]})
    cluster.refresh()
    assert (cluster.leader, cluster.token, cluster.members) == ("gateway2", 9, frozenset({"gateway2"}))


def test_half_a_line_is_read_when_it_is_whole(cluster: Cluster, told: Path) -> None:
    told.write_text('{"at": 1.0, "leader": "gate')
    cluster.refresh()
    assert cluster.leader is None
    with told.open("a") as file:
        file.write('way1", "token": 5}\nTraceback of somebody else\n')
    cluster.refresh()
    assert cluster.leader == "gateway1"


def test_a_client_that_two_moves_began_with_was_moved_twice(cluster: Cluster, told: Path) -> None:
    tell(told, move(1, 1.0, "planned", "requested", "verified"), move(2, 2.0, "planned", "cancelled"))
    assert cluster.twice() == 0
    tell(told, move(3, 3.0, "planned", "requested", sa="gateway2/fleet01.lab.example#4"))
    assert cluster.twice() == 1
    assert cluster.twice(since=1) == 0


def test_a_move_that_has_not_ended_is_open(cluster: Cluster, told: Path) -> None:
    tell(told, move(1, 1.0, "planned", "requested"), move(2, 1.0, "planned", "refused"))
    metrics = cluster.metrics()
    assert (metrics["moves"], metrics["moves_open"], metrics["moves_undone"]) == (2, 1, 1)
    tell(told, move(1, 2.0, "planned", "requested", "acknowledged", "moved", "verified"))
    assert cluster.metrics()["moves_open"] == 0
    assert cluster.metrics()["moves_by.redirect"] == 1


def test_a_step_counts_from_when_it_was_first_seen(cluster: Cluster, told: Path) -> None:
    tell(told, move(1, 1.0, "planned"), move(1, 5.0, "planned", "requested"))
    tell(told, move(1, 9.0, "planned", "requested", "verified"))
    assert cluster.moves_between(4.0, 6.0) == cluster.moves_between(4.0, 6.0, source="gateway1") == 1
    assert cluster.moves_between(4.0, 6.0, target="gateway1") == cluster.moves_between(6.0, 9.0) == 0
    assert cluster.acts_of(7, since=3.0) == 1
    assert cluster.acts_of(7, since=6.0) == cluster.acts_of(8, since=0.0) == 0


async def test_what_does_not_happen_in_time_is_named(cluster: Cluster) -> None:
    with pytest.raises(LabError, match="somebody leads who is not gateway1"):
        await cluster.led(not_by=("gateway1",), within=0.05)


@pytest.mark.parametrize(("sidecar", "why"), [(True, "has no cluster"), (False, "without sidecars")])
def test_steps_are_told_why_there_is_no_cluster_to_act_on(cluster: Cluster, sidecar: bool, why: str) -> None:
    there = None if sidecar else cluster
    run = Run(cluster.lab, {}, {}, cluster=there, folder=Path(), sidecar=sidecar, tell=lambda _: None)
    with pytest.raises(LabError, match=why):
        _ = run.the_cluster


def test_the_name_of_an_ike_sa_holds_its_peers_identity() -> None:
    assert peer_of("gateway1/fleet01.lab.example#12") == "fleet01.lab.example"
    assert peer_of("gateway1/C=DE, CN=a/b#c#3") == "C=DE, CN=a/b#c"
