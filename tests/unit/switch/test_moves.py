"""A move's life is a table, and the table is enforced."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mobikectl.model import Path
from mobikectl.switch.moves import FINAL, TRANSITIONS, Mechanism, Move, MoveState, plan_move

OLD = Path(ip_address("198.18.1.1"), ip_address("198.18.9.1"))
NEW = Path(ip_address("198.18.2.1"), ip_address("198.18.9.1"))


def planned() -> Move:
    return plan_move(
        1,
        sa=7,
        name="home",
        before=OLD,
        after=NEW,
        mechanism=Mechanism.ROUTE,
        cause="eth0 went down",
        at=10.0,
    )


def route_to(state: MoveState) -> list[MoveState]:
    """The shortest way from planned to a state, through the table."""
    ways: list[list[MoveState]] = [[]]
    seen = {MoveState.PLANNED}
    while ways:
        way = ways.pop(0)
        at = way[-1] if way else MoveState.PLANNED
        if at is state:
            return way
        for following in sorted(TRANSITIONS[at], key=lambda s: s.value):
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    raise AssertionError(f"{state} cannot be reached")


@pytest.mark.parametrize("state", MoveState)
@pytest.mark.parametrize("following", MoveState)
def test_only_what_the_table_names_can_follow(state: MoveState, following: MoveState) -> None:
    move = planned()
    for at, step in enumerate(route_to(state)):
        move = move.to(step, at=11.0 + at)
    if following in TRANSITIONS[state]:
        assert move.to(following, at=20.0).state is following
    else:
        with pytest.raises(ValueError, match="cannot go from"):
            move.to(following, at=20.0)


def test_a_move_ends_verified_undone_or_failed() -> None:
    assert {MoveState.VERIFIED, MoveState.UNDONE, MoveState.FAILED} == FINAL


def test_what_was_requested_is_never_forgotten_without_undo_or_failure() -> None:
    assert MoveState.VERIFIED not in TRANSITIONS[MoveState.REQUESTED]
    assert MoveState.VERIFIED not in TRANSITIONS[MoveState.PLANNED]


def test_the_record_tells_duration_and_reason() -> None:
    move = (
        planned().to(MoveState.REQUESTED, at=10.5).to(MoveState.FAILED, at=12.0, note="the IKE_SA went away")
    )
    assert move.done
    assert move.duration_s == 2.0
    assert move.reason == "the IKE_SA went away"
