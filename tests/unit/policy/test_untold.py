"""What of an IKE_SA is rekeyed so that the HA broker hears of it."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mobikectl.policy.untold import Lack, Pace, Untold

PACE = Pace(after_s=3.0, again_s=10.0, longest_s=60.0, at_once=2)
CHILD = {"gw1/a#1": Lack.CHILD_SAS}
IKE = {"gw1/a#1": Lack.IKE_SA}


def test_what_is_unknown_for_a_moment_is_left_alone() -> None:
    untold = Untold(PACE)
    assert untold.due(CHILD, 0.0) == []
    assert untold.due(CHILD, 2.9) == []
    assert untold.due({}, 3.0) == []
    assert untold.due(CHILD, 3.1) == []
    assert untold.due(CHILD, 6.1) == ["gw1/a#1"]


def test_the_pauses_grow_while_rekeying_does_not_help() -> None:
    untold, times, now = Untold(PACE), [], 0.0
    while now < 300.0:
        for key in untold.due(CHILD, now):
            times.append(now)
            assert untold.asked(key, now) == len(times)
        now += 1.0
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == 3.0
    assert pauses == [10.0, 20.0, 40.0, 60.0, 60.0, 60.0]


def test_after_the_ike_sa_its_child_sas_need_not_wait_for_the_pause() -> None:
    untold = Untold(PACE)
    untold.due(IKE, 0.0)
    assert untold.due(IKE, 3.0) == ["gw1/a#1"]
    untold.asked("gw1/a#1", 3.0)
    assert untold.due(CHILD, 4.0) == []
    assert untold.due(CHILD, 7.0) == ["gw1/a#1"]


def test_an_ike_sa_that_is_unknown_again_and_again_is_not_rekeyed_faster_for_that() -> None:
    untold = Untold(PACE)
    untold.due(CHILD, 0.0)
    untold.due(CHILD, 3.0)
    untold.asked("gw1/a#1", 3.0)
    assert untold.due(IKE, 7.0) == []
    assert untold.due(IKE, 13.0) == ["gw1/a#1"]


def test_only_so_many_are_rekeyed_at_once_and_who_is_done_makes_room() -> None:
    untold = Untold(PACE)
    many = {f"gw1/{name}#1": Lack.CHILD_SAS for name in "abc"}
    untold.due(many, 0.0)
    first, second, third = untold.due(many, 3.0)
    untold.asked(first, 3.0)
    assert untold.room(3.0) == 1
    untold.asked(second, 3.0)
    assert untold.room(3.0) == 0
    del many[first]
    assert untold.due(many, 4.0) == [third]
    assert untold.room(4.0) == 1


def test_one_that_stays_without_help_gives_its_place_to_another_after_a_while() -> None:
    untold = Untold(PACE)
    many = {f"gw1/{name}#1": Lack.CHILD_SAS for name in "abc"}
    untold.due(many, 0.0)
    *both, third = untold.due(many, 3.0)
    for key in both:
        untold.asked(key, 3.0)
    assert untold.due(many, 13.0)[0] == third
    assert untold.room(13.0) == 2


def test_who_cannot_be_rekeyed_now_stays_due_behind_all_others() -> None:
    untold = Untold(PACE)
    many = {f"gw1/{name}#1": Lack.CHILD_SAS for name in "abc"}
    untold.due(many, 0.0)
    first, second, third = untold.due(many, 3.0)
    untold.put_off(first, 3.5)
    assert untold.due(many, 4.0) == [second, third, first]


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 20.0),
            st.dictionaries(st.sampled_from([f"gw1/{n}#{n}" for n in range(6)]), st.sampled_from(Lack)),
        ),
        max_size=40,
    )
)
def test_whatever_is_lacking_only_that_is_rekeyed_and_never_too_many_or_too_soon(
    looks: list[tuple[float, dict[str, Lack]]],
) -> None:
    untold, now, since, asked = Untold(PACE), 0.0, dict[str, float](), dict[str, float]()
    for step, lacks in looks:
        now += step
        since = {key: since.get(key, now) for key in lacks}
        asked = {key: at for key, at in asked.items() if key in lacks}
        for key in untold.due(lacks, now):
            assert now - since[key] >= PACE.after_s
            if not untold.room(now):
                break
            untold.asked(key, now)
            asked[key] = now
        assert sum(now - at < PACE.again_s for at in asked.values()) <= PACE.at_once
