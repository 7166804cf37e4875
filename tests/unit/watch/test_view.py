"""What is shown of what was seen: order, choice, and how old it is."""

from __future__ import annotations

import pytest

from mobikectl.watch.rows import Freshness
from mobikectl.watch.view import Choice, Grade, NodeOrder, compose, grade, told_age

from .rows_made import cluster, event, move, node, sa


def test_steps_of_moves_and_events_of_the_sidecar_are_one_tail_in_the_order_of_time() -> None:
    part = cluster(moves=(move(1, "planned", "requested"),))
    view = compose(part, None, [event(1000.5, text="between")], {})
    assert [one.name for one in view.events] == ["move-planned", "ike-up", "move-requested"]


def test_what_the_journal_tells_of_every_node_is_not_told_again_by_the_sidecar_of_this_one() -> None:
    own = [
        event(1.0, "cluster-move-verified"),
        event(2.0, "cluster-failover-move-moved"),
        event(3.0, "ike-up"),
    ]
    assert [one.name for one in compose(cluster(), None, own, {}).events] == ["ike-up"]
    assert len(compose(None, None, own, {}).events) == 3


def test_the_tail_is_bounded_to_the_newest_events() -> None:
    view = compose(None, None, [event(float(n), text=str(n)) for n in range(1000)], {})
    assert len(view.events) == 200
    assert view.events[-1].text == "999"


@pytest.mark.parametrize(
    ("fresh", "expected"),
    [
        (Freshness(0.5), Grade.FRESH),
        (Freshness(3.5), Grade.OLD),
        (Freshness(0.5, "no answer"), Grade.OLD),
        (Freshness(10.5), Grade.DEAD),
        (Freshness(None), Grade.DEAD),
        (Freshness(None, "no such store"), Grade.DEAD),
    ],
)
def test_what_is_old_or_cannot_be_read_is_graded_so(fresh: Freshness, expected: Grade) -> None:
    assert grade(fresh) is expected


def test_an_old_view_says_since_when_and_why() -> None:
    assert told_age("store", Freshness(12.0, "no answer")) == "store: as of 12 s ago (no answer)"
    assert told_age("store", Freshness(0.4)) == "store: 0 s ago"
    assert told_age("store", Freshness(None)) == "store: not heard of yet"


def test_nodes_are_sorted_by_name_first_and_by_numbers_from_the_largest() -> None:
    nodes = (node("gw2", ike_sas=1, used=0.9), node("gw1", ike_sas=5, used=0.1))

    def names(choice: Choice) -> list[str]:
        return [one.node for one in choice.nodes(nodes)]

    assert names(Choice()) == ["gw1", "gw2"]
    assert names(Choice(backwards=True)) == ["gw2", "gw1"]
    assert names(Choice(NodeOrder.SAS)) == ["gw1", "gw2"]
    assert names(Choice(NodeOrder.USED)) == ["gw2", "gw1"]
    assert names(Choice(NodeOrder.USED, backwards=True)) == ["gw1", "gw2"]


def test_the_next_order_goes_round() -> None:
    choice = Choice(text="x")
    seen = []
    for _ in NodeOrder:
        seen.append(choice.order)
        choice = choice.next_order()
    assert seen == list(NodeOrder)
    assert choice == Choice(text="x")


def test_a_text_chooses_whatever_holds_it_in_whatever_case() -> None:
    choice = Choice(text="PEER2")
    assert [one.number for one in choice.moves((move(1), move(2)))] == [2]
    assert [one.peer_id for one in choice.sas((sa("peer2@x"), sa("bob")))] == ["peer2@x"]
    assert Choice(text="up").events((event(1.0), event(2.0, "x", "down"))) == [event(1.0)]


def test_moves_under_way_come_first_then_the_newest() -> None:
    moves = (
        move(1, "planned"),
        move(2, "planned", "requested", "moved", "verified"),
        move(3, "planned", "refused"),
    )
    assert [one.number for one in Choice().moves(moves)] == [1, 3, 2]


def test_the_ike_sas_of_a_node_are_listed_the_busiest_first() -> None:
    sas = (sa("a", bytes_per_s=1.0), sa("b", bytes_per_s=9.0), sa("c", "gw2"))
    assert [one.peer_id for one in Choice().sas(sas, "gw1")] == ["b", "a"]
