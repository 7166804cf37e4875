"""What a chaos run does is drawn from its seed alone."""

from __future__ import annotations

from itertools import islice

from mobikectl.lab.chaos.plan import (
    MOST_AT_ONCE,
    STEPS,
    STEPS_BACK,
    Round,
    What,
    Whom,
    every_step,
    rounds,
)
from mobikectl.lab.steps import SOURCE_STEPS, TARGET_STEPS

CLIENTS = ["anna", "bert", "carla", "dora"]


def drawn(seed: int, count: int = 300) -> list[Round]:
    return list(islice(rounds(seed, CLIENTS), count))


def test_the_same_seed_draws_the_same_and_another_one_does_not() -> None:
    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


def test_a_client_is_moved_once_in_a_round_and_never_to_where_it_is() -> None:
    for each in drawn(1):
        names = [order.client for order in each.orders]
        assert len(names) == len(set(names)) in range(1, MOST_AT_ONCE + 1)
        assert {order.steps for order in each.orders} <= {1, 2}


def test_everything_that_can_go_wrong_does_at_every_step() -> None:
    faults = [each.fault for each in drawn(1, 3000)]
    assert {(fault.what, fault.whom) for fault in faults} == {(what, whom) for what in What for whom in Whom}
    assert {fault.at for fault in faults} == {"", *STEPS, *STEPS_BACK}


def test_steps_of_a_move_that_is_taken_back_are_waited_for_only_where_it_has_to_be() -> None:
    assert all(each.fault.astray for each in drawn(1, 3000) if each.fault.at in STEPS_BACK)


def test_each_process_is_killed_once_at_each_step_of_source_and_target() -> None:
    faults = [each.fault for each in every_step(CLIENTS)]
    killed = [(fault.what, fault.whom, fault.at) for fault in faults]
    assert len(killed) == len(set(killed)) == 3 * 2 * len(STEPS + STEPS_BACK)


def test_the_steps_are_those_that_a_sidecar_tells_of() -> None:
    assert set(STEPS + STEPS_BACK) <= set(SOURCE_STEPS + TARGET_STEPS)
    only_without_it = {"source: lost", "source: over"}
    assert set(SOURCE_STEPS + TARGET_STEPS) - set(STEPS + STEPS_BACK) == only_without_it
