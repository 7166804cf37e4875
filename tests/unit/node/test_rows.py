"""The IKE_SAs of a node as rows of the store."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobikectl.charon.rmobike_link import Peer
from mobikectl.cluster.codec import to_json
from mobikectl.cluster.records import SaPart, SaRow
from mobikectl.model import IkeSa, IkeState, Path
from mobikectl.node.rows import Parts, behind_nat, capability_of, differs, is_served
from mobikectl.policy.cluster import Capability

HERE, THERE = ip_address("198.18.0.1"), ip_address("198.18.0.2")
SA = IkeSa(1, "gw", IkeState.ESTABLISHED, Path(HERE, THERE), original_initiator=False)
ROW = SaRow("gw1/c#1", "c", "198.18.0.2", HERE, bytes_per_s=1000.0, packets_per_s=10.0)


def row(number: int, **more: Any) -> SaRow:
    return replace(ROW, key=f"gw1/c{number}#{number}", peer_id=f"c{number}", **more)


def parts(rows: list[SaRow]) -> Parts:
    found = Parts("gw1", "x")
    found.put(rows)
    return found


def told(found: Parts) -> dict[int, set[str]]:
    """What is to be written, by part; then it is written."""
    changed = found.changed()
    found.written(changed)
    return {part.part: {one.key for one in part.rows} for part in changed}


@pytest.mark.parametrize(
    ("sa", "served"),
    [
        (SA, True),
        (replace(SA, state=IkeState.REKEYING), True),
        (replace(SA, original_initiator=True), False),
        (replace(SA, state=IkeState.PASSIVE), False),
        (replace(SA, state=IkeState.CONNECTING), False),
    ],
)
def test_what_came_to_us_and_is_up_is_served(sa: IkeSa, served: bool) -> None:
    assert is_served(sa) is served


def test_what_nobody_saw_is_assumed_and_a_switch_never_is() -> None:
    assert capability_of(None, mobike=True, redirect=True) == Capability.MOBIKE | Capability.REDIRECT
    assert capability_of(None, mobike=False, redirect=False) == Capability.NONE
    seen = Peer(1, mobike=False, r=False, redirect=None)
    assert capability_of(seen, mobike=True, redirect=True) == Capability.REDIRECT
    seen = Peer(1, mobike=True, r=True, redirect=False)
    assert capability_of(seen, mobike=False, redirect=True) == Capability.MOBIKE | Capability.SWITCH


def test_a_nat_is_what_was_detected_or_with_esp_in_userland_what_the_port_tells() -> None:
    pretended = replace(SA, nat_remote=True, remote_port=4500)
    assert behind_nat(pretended, userland=False)
    assert not behind_nat(pretended, userland=True)
    assert behind_nat(replace(pretended, remote_port=31000), userland=True)


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        ({}, False),
        ({"bytes_per_s": 1090.0}, False),
        ({"bytes_per_s": 1200.0}, True),
        ({"bytes_per_s": 0.0}, True),
        ({"packets_per_s": 10.9}, False),
        ({"packets_per_s": 12.0}, True),
        ({"address": THERE}, True),
        ({"redirects": 1}, True),
        ({"moved_ago_s": 3.0}, True),
        ({"refused_for_s": 5.0}, True),
        ({"behind_nat": True}, True),
        ({"capability": Capability.SWITCH}, True),
    ],
)
def test_only_what_the_others_need_to_know_is_a_change(change: dict[str, Any], matters: bool) -> None:
    assert differs(ROW, replace(ROW, **change)) is matters


def test_times_that_run_by_themselves_are_no_change_but_a_new_move_is() -> None:
    moved = replace(ROW, moved_ago_s=30.0, refused_for_s=30.0)
    assert not differs(moved, replace(moved, moved_ago_s=45.0, refused_for_s=15.0))
    assert differs(moved, replace(moved, moved_ago_s=0.5))
    assert differs(moved, replace(moved, refused_for_s=60.0))
    assert differs(moved, replace(moved, refused_for_s=0.0))
    assert differs(moved, replace(moved, moved_ago_s=None))


def test_only_the_part_of_what_changed_is_written_again() -> None:
    rows = [row(n) for n in range(400)]
    found = parts(rows)
    first = told(found)
    assert len(first) > 1
    assert sum(map(len, first.values())) == 400
    found.put(rows)
    assert told(found) == {}
    rows[0] = replace(rows[0], bytes_per_s=5000.0)
    found.put(rows)
    assert [key for keys in told(found).values() for key in keys if key == rows[0].key]
    found.put([one for one in rows if one.key != rows[1].key])
    (written,) = told(found).values()
    assert rows[1].key not in written


def test_small_changes_are_written_when_it_is_time_for_it() -> None:
    found = parts([ROW])
    told(found)
    slightly = replace(ROW, bytes_per_s=1001.0)
    found.put([slightly])
    assert told(found) == {}
    found.put([slightly], refresh=True)
    assert found.changed()[0].rows == (slightly,)


def test_a_node_that_serves_nobody_says_so() -> None:
    assert told(parts([])) == {0: set()}
    found = parts([ROW])
    told(found)
    found.put([])
    assert told(found) == {0: set()}


def test_a_part_that_changed_while_it_was_written_is_written_again() -> None:
    found = parts([ROW])
    under_way = found.changed()
    found.put([replace(ROW, bytes_per_s=9000.0)])
    found.written(under_way)
    assert found.changed()[0].rows[0].bytes_per_s == 9000.0


def test_when_the_lease_is_over_all_is_written_again() -> None:
    found = parts([row(n) for n in range(400)])
    all_of_it = told(found)
    found.lost()
    assert told(found) == all_of_it


texts = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=256)


@settings(deadline=None, max_examples=50)
@given(st.lists(texts, max_size=60), st.integers(1, 20))
def test_no_part_is_larger_than_what_the_store_takes(peers: list[str], times: int) -> None:
    rows = [
        replace(
            ROW,
            key=f"gw1/{peer}#{number}",
            peer_id=peer,
            peer="2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            address=ip_address("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
            bytes_per_s=123456789012.3,
            packets_per_s=1234567890.1,
            capability=Capability(7),
            behind_nat=True,
            moved_ago_s=3599.9,
            redirects=5,
            refused_for_s=3599.9,
        )
        for number, peer in enumerate(peers * times)
    ]
    written = parts(rows).changed()
    assert [to_json(part) for part in written]
    assert sorted(one.key for part in written for one in part.rows) == sorted(one.key for one in rows)
    assert all(isinstance(part, SaPart) and part.parts == len(written) for part in written)
