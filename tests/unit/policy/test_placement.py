"""Where new clients are sent."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mobikectl.policy.cluster import ClusterSa, Health, Node, ServingAddress
from mobikectl.policy.placement import Placement, bucket, place

from .balance_clusters import NOW, clusters, node, sas, settings, view

EVEN = [10.0] * 30


def placed(nodes: list[Node], rows: list[ClusterSa], **more: bool) -> dict[str, Placement]:
    return {each.node: each for each in place(view(nodes, rows), settings(), NOW, **more)}


def test_gateways_inside_the_band_keep_their_clients() -> None:
    answers = placed([node(1), node(2)], sas("g1", EVEN) + sas("g2", EVEN))
    assert all(each.keep_percent == 100 and not each.shares for each in answers.values())


def test_a_fuller_gateway_keeps_less() -> None:
    rows = sas("g2", [10.0] * 10) + sas("g3", [10.0] * 10)
    kept = [
        placed([node(1), node(2), node(3)], sas("g1", [10.0] * count) + rows)["g1"].keep_percent
        for count in (10, 30, 50, 70, 89, 90)
    ]
    assert kept[0] == 100
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) > 3
    assert kept[-1] == 0


@pytest.mark.parametrize("how", [{"drained": True}, {"health": Health.IMPAIRED}])
def test_a_gateway_that_is_to_empty_keeps_no_new_client_and_gets_none(how: dict[str, object]) -> None:
    answers = placed([node(1, **how), node(2), node(3)], sas("g2", EVEN))
    assert answers["g1"].keep_percent == 0
    assert sum(share.percent for share in answers["g1"].shares) == 100
    assert all(share.node != "g1" for each in answers.values() for share in each.shares)


def test_what_is_sent_on_is_shared_by_headroom() -> None:
    nodes = [node(1, drained=True), node(2), node(3)]
    shares = {
        s.node: s.percent for s in placed(nodes, sas("g2", [10.0] * 9) + sas("g3", [10.0] * 9))["g1"].shares
    }
    assert shares == {"g2": 50, "g3": 50}


def test_a_client_stays_in_its_site_where_there_is_room() -> None:
    nodes = [node(1, drained=True, site="east"), node(2, site="east"), node(3, site="west")]
    assert {share.node for share in placed(nodes, [])["g1"].shares} == {"g2"}
    full = sas("g2", [10.0] * 95)
    assert {share.node for share in placed(nodes, full)["g1"].shares} == {"g3"}


def test_without_any_room_elsewhere_a_gateway_keeps_its_clients() -> None:
    answer = placed([node(1, drained=True)], [])["g1"]
    assert answer.keep_percent == 100
    assert "no other gateway has room" in answer.reason


def test_behind_an_anycast_address_every_client_is_sent_to_a_unicast_one() -> None:
    answers = placed([node(1), node(2)], sas("g1", EVEN) + sas("g2", EVEN), anycast=True)
    assert answers["g1"].keep_percent == 0
    assert [(s.node, str(s.address), s.percent) for s in answers["g1"].shares] == [("g1", "198.18.0.1", 100)]


def test_clients_are_sent_to_an_address_whose_uplink_works() -> None:
    dead = ServingAddress(ip_address("198.18.1.1"), usable=False)
    alive = ServingAddress(ip_address("198.18.1.2"))
    answers = placed([node(1, drained=True), node(2, addresses=(dead, alive))], [])
    assert [str(share.address) for share in answers["g1"].shares] == ["198.18.1.2"]


def test_a_client_gets_the_same_answer_each_time_it_asks() -> None:
    assert [bucket(b"carol@example.org") for _ in range(3)] == [bucket(b"carol@example.org")] * 3
    assert bucket(b"carol@example.org") == 27  # the first 16 hex digits of sha256sum, modulo 100


def test_clients_are_divided_as_the_shares_say() -> None:
    nodes = [node(1), node(2), node(3)]
    answer = placed(nodes, sas("g1", [10.0] * 60) + sas("g2", [10.0] * 20) + sas("g3", [10.0] * 5))["g1"]
    hits = Counter(
        (share.node if (share := answer.target(f"client-{i}".encode())) else "kept") for i in range(20_000)
    )
    expected = {"kept": answer.keep_percent} | {share.node: share.percent for share in answer.shares}
    assert set(hits) == set(expected)
    assert all(abs(hits[name] / 200 - percent) < 1.5 for name, percent in expected.items())


def test_of_many_gateways_each_names_a_few_and_together_they_name_them_all() -> None:
    doors = [node(i, drained=True) for i in range(1, 61)]
    others = [node(100 + i) for i in range(20)]
    answers = place(view([*doors, *others], []), settings(placement_targets=4), NOW)[:60]
    assert all(len(each.shares) == 4 for each in answers)
    assert len({share.node for each in answers for share in each.shares}) == 20


@given(clusters(), st.booleans())
@hypothesis_settings(max_examples=100, deadline=None)
def test_percentages_add_up_and_lead_to_gateways_that_take(
    cluster: tuple[list[Node], list[ClusterSa]], anycast: bool
) -> None:
    nodes, rows = cluster
    by_name = {each.name: each for each in nodes}
    for answer in place(view(nodes, rows), settings(), NOW, anycast=anycast):
        assert answer.keep_percent + sum(share.percent for share in answer.shares) == 100
        assert all(share.percent > 0 for share in answer.shares)
        for share in answer.shares:
            target = by_name[share.node]
            assert share.address in {address.ip for address in target.addresses}
            if share.node != answer.node:
                assert target.health is Health.HEALTHY
                assert not target.drained
