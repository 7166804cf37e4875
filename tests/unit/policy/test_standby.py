"""Who stands by for an IKE_SA."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mobikectl.policy.standby import Candidate, Ward, choose

NODES = tuple(Candidate(f"gw{n}") for n in range(1, 6))
WARDS = tuple(Ward(f"gw1/client{n}#{n}") for n in range(2000))


def chosen(
    nodes: tuple[Candidate, ...], present: dict[str, tuple[str, ...]] | None = None
) -> dict[str, tuple[str, ...]]:
    return {
        ward.key: choose("gw1", ward, nodes, count=1, present=(present or {}).get(ward.key, ()))
        for ward in WARDS
    }


def test_the_ike_sas_of_a_node_are_spread_over_all_others() -> None:
    counts = Counter(names[0] for names in chosen(NODES).values())
    assert counts.keys() == {"gw2", "gw3", "gw4", "gw5"}
    assert all(400 < count < 600 for count in counts.values())


def test_a_node_with_three_times_the_room_stands_by_for_three_times_as_many() -> None:
    counts = Counter(
        names[0] for names in chosen((Candidate("gw2", room=300), Candidate("gw3", room=100))).values()
    )
    assert 1400 < counts["gw2"] < 1600


def test_a_node_that_goes_changes_only_what_it_stood_by_for_and_back_again_nothing() -> None:
    before = chosen(NODES)
    without = chosen(NODES[:-1], before)
    assert {key for key in before if before[key] != without[key]} == {
        key for key, names in before.items() if names == ("gw5",)
    }
    assert chosen(NODES, without) == without


def test_a_node_stands_by_only_where_it_could_serve() -> None:
    ward = Ward("gw1/a#1", pool="blue", site="east", family=6)
    fit = Candidate("gw2", pools=frozenset({"blue"}), site="east")
    wrong = (
        Candidate("gw3", pools=frozenset({"red"}), site="east"),
        Candidate("gw4", pools=frozenset({"blue"}), site="west"),
        Candidate("gw5", site="east", families=frozenset({4})),
    )
    assert choose("gw1", ward, (*wrong, fit), count=3) == ("gw2",)
    assert choose("gw1", ward, wrong, count=1, present=("gw3",)) == ()


def test_a_full_node_stands_by_when_there_is_no_other() -> None:
    assert choose("gw1", Ward("a"), (Candidate("gw2", room=-5.0),), count=1) == ("gw2",)


@given(
    st.sets(st.integers(1, 8)),
    st.integers(0, 4),
    st.lists(st.integers(1, 9).map("gw{}".format), unique=True, max_size=4),
)
def test_never_the_own_node_never_too_many_never_twice(
    numbers: set[int], count: int, present: list[str]
) -> None:
    names = choose("gw1", Ward("k"), [Candidate(f"gw{n}") for n in numbers], count=count, present=present)
    possible = {f"gw{n}" for n in numbers} - {"gw1"}
    assert len(names) == len(set(names)) == min(count, len(possible))
    assert set(names) <= possible
    assert set(names) >= {name for name in present if name in possible} or len(names) == count
