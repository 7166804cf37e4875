"""From recordings to numbers."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from mobikectl.lab.capture import Ping, checksum
from mobikectl.lab.measure import (
    child_spis,
    ike_metrics,
    ike_sa_inits,
    is_served,
    lost_at,
    path_intervals,
    path_of,
    ping_metrics,
    sa_keys,
)
from mobikectl.lab.packets import Kind, Packet
from mobikectl.model import Path

OLD = Path(ip_address("198.18.1.1"), ip_address("198.18.9.1"))
NEW = Path(ip_address("198.18.2.1"), ip_address("198.18.9.1"))


def pings(pattern: str) -> list[Ping]:
    """One ping each 10 ms: '.' is answered, 'x' is lost."""
    return [Ping(n * 0.01, n * 0.01 + 0.001 if mark == "." else None) for n, mark in enumerate(pattern)]


@pytest.mark.parametrize(
    ("pattern", "lost", "gap"),
    [("....", 0, 10), ("..xx..", 2, 30), ("x...xxx.", 4, 40), ("..xx", 2, 20), ("xxxx", 4, 30)],
)
def test_losses_and_the_longest_gap_between_answered_pings(pattern: str, lost: int, gap: float) -> None:
    numbers = ping_metrics(pings(pattern))
    assert numbers["sent"] == len(pattern)
    assert numbers["lost"] == lost
    assert numbers["longest_gap_ms"] == pytest.approx(gap)


def test_no_pings_are_no_losses() -> None:
    assert ping_metrics([])["lost"] == 0


@pytest.mark.parametrize(("pattern", "most"), [("....", 0), (".x.x.", 1), ("xx.x", 2), (".x.xxx", 3)])
def test_how_many_pings_were_lost_one_after_the_other(pattern: str, most: int) -> None:
    assert ping_metrics(pings(pattern))["lost_in_a_row"] == most


def test_replies_that_only_came_late_are_a_silence_and_no_loss() -> None:
    held_up = [Ping(0.0, 0.001), Ping(0.01, 0.251), Ping(0.02, 0.252), Ping(0.26, 0.261)]
    numbers = ping_metrics(held_up)
    assert (numbers["lost"], numbers["longest_outage_ms"]) == (0, 0)
    assert numbers["longest_silence_ms"] == pytest.approx(250)


def test_lost_pings_are_placed_where_they_were_sent() -> None:
    assert lost_at(pings(".x.x")) == [0.01, 0.03]


def ike(exchange: str, *, spi: int = 1, response: bool = False, version: int = 2) -> Packet:
    return Packet(0, True, OLD, Kind.IKE, spi, exchange, response=response, version=version)


def test_ike_messages_are_counted_by_exchange() -> None:
    numbers = ike_metrics([ike("INFORMATIONAL"), ike("INFORMATIONAL", response=True), ike("CREATE_CHILD_SA")])
    assert numbers["ike_messages"] == 3
    assert numbers["ike.INFORMATIONAL"] == 2
    assert numbers["ike_sa_init"] == 0


def test_a_new_ike_sa_is_seen_and_a_probe_is_not_taken_for_one() -> None:
    probe = [ike("IKE_SA_INIT", spi=9, version=3), ike("IKE_SA_INIT", spi=9, response=True)]
    assert ike_metrics(probe) == {"ike_messages": 0, "ike_sa_init": 0, "ike_probes": 2}
    assert ike_metrics([*probe, ike("IKE_SA_INIT", spi=4)])["ike_sa_init"] == 1


def test_a_retransmitted_ike_sa_init_makes_no_second_ike_sa() -> None:
    answer = ike("IKE_SA_INIT", spi=4, response=True)
    elsewhere = replace(ike("IKE_SA_INIT", spi=4), path=NEW)
    assert ike_sa_inits([ike("IKE_SA_INIT", spi=4), answer] * 2) == 2
    assert ike_sa_inits([ike("IKE_SA_INIT", spi=4), answer, ike("IKE_SA_INIT", spi=5), elsewhere]) == 4


def esp(time: float, path: Path, *, outgoing: bool = False) -> Packet:
    return Packet(time, outgoing, path, Kind.ESP, 1)


def test_a_path_is_in_use_while_esp_arrives_over_it() -> None:
    packets = [esp(1, OLD), esp(2, NEW, outgoing=True), esp(3, OLD), esp(4, NEW), esp(5, NEW)]
    found = [(i.start, i.end, i.label) for i in path_intervals(packets, until=9)]
    assert found == [(1, 4, str(OLD)), (4, 9, str(NEW))]


def test_only_esp_that_came_in_over_the_new_path_after_the_cause_shows_that_it_is_served() -> None:
    assert is_served(esp(2, NEW), 1, NEW)
    assert not is_served(esp(0.5, NEW), 1, NEW)
    assert not is_served(esp(2, NEW, outgoing=True), 1, NEW)
    assert not is_served(esp(2, OLD), 1, NEW)


def sa(state: str = "ESTABLISHED", child: str = "INSTALLED") -> tuple[str, dict[str, Any]]:
    children = {"office-1": {"state": child, "spi-in": "a", "spi-out": "b"}}
    return "office", {
        "state": state,
        "initiator-spi": "1",
        "responder-spi": "2",
        "local-host": "198.18.1.1",
        "remote-host": "198.18.9.1",
        "child-sas": children,
    }


def test_sas_are_known_by_their_spis_while_they_live() -> None:
    assert sa_keys([sa(), sa("CONNECTING")]) == {("office", "1", "2")}
    assert child_spis([sa()]) == {("a", "b")}
    assert child_spis([sa(child="DELETED")]) == frozenset()
    assert path_of([sa()], "office") == str(OLD)
    assert path_of([sa()], "home") == ""


def test_the_internet_checksum_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
