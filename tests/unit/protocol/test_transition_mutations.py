"""No row of a transition table can be changed or left out without a test that fails."""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.errors import MobikectlError
from mobikectl.protocol import (
    addrmgmt,
    addrnotify,
    mobike_initiator,
    mobike_responder,
    redirect,
    redirect_gateway,
    rmobike,
)
from mobikectl.protocol.machine import Blame, LocalTransitionError, RemoteTransitionError, TransitionTable

if TYPE_CHECKING:
    from enum import Enum

    from mobikectl.protocol.machine import Input

TABLES: dict[str, tuple[TransitionTable[Any, Any], str, type[Enum], type[Input]]] = {
    table.name: (table, module, states, causes)
    for table, module, states, causes in (
        (mobike_initiator.TABLE, "test_mobike_initiator", mobike_initiator.State, mobike_initiator.Cause),
        (mobike_responder.TABLE, "test_mobike_responder", mobike_responder.State, mobike_responder.Cause),
        (rmobike.FOLLOW_TABLE, "test_rmobike_machines", rmobike.Following, rmobike.FollowCause),
        (rmobike.ASK_TABLE, "test_rmobike_machines", rmobike.Asking, rmobike.AskCause),
        (redirect.TABLE, "test_redirect_machines", redirect.State, redirect.Cause),
        (redirect_gateway.TABLE, "test_redirect_machines", redirect_gateway.State, redirect_gateway.Cause),
        (addrnotify.TABLE, "test_addrnotify_machines", addrnotify.State, addrnotify.Cause),
        (
            addrnotify.ANNOUNCE_TABLE,
            "test_addrnotify_machines",
            addrnotify.Announcing,
            addrnotify.AnnounceCause,
        ),
        (addrmgmt.TABLE, "test_addrmgmt_machines", addrmgmt.State, addrmgmt.Cause),
        (addrmgmt.RECEIVE_TABLE, "test_addrmgmt_machines", addrmgmt.Receiving, addrmgmt.ReceiveCause),
    )
}

DEFINED = {
    "MOBIKE initiator": 52,
    "MOBIKE responder": 34,
    "r-mobike initiator": 16,
    "r-mobike responder": 13,
    "redirect client": 26,
    "redirect gateway": 22,
    "address follower": 44,
    "address announcer": 19,
    "address management": 45,
    "address management receiver": 5,
}
"""How many rows each table has: a row more is a transition that somebody must have wanted."""


class Recorder(dict[Any, Any]):
    """A table's rows that remember which were asked for."""

    def __init__(self, rows: Any) -> None:
        super().__init__(rows)
        self.used: set[Any] = set()

    def __getitem__(self, key: Any) -> Any:
        value = super().__getitem__(key)
        self.used.add(key)
        return value


def specifications(module: str) -> list[Any]:
    found = vars(importlib.import_module(f".{module}", __package__))
    return [f for name, f in found.items() if name.startswith("test_") and callable(f)]


def uses(table: TransitionTable[Any, Any], tests: list[Any]) -> dict[Any, list[Any]]:
    """Which tests use which row."""
    rows = table.rows
    by_row: dict[Any, list[Any]] = {row: [] for row in rows}
    try:
        for test in tests:
            recorder = Recorder(rows)
            table.rows = recorder
            test()
            for row in recorder.used:
                by_row[row].append(test)
    finally:
        table.rows = rows
    return by_row


def survives(table: TransitionTable[Any, Any], rows: dict[Any, Any], tests: list[Any]) -> bool:
    """Whether all tests pass with other rows."""
    original = table.rows
    table.rows = MappingProxyType(rows)
    try:
        for test in tests:
            try:
                test()
            except (
                AssertionError,
                MobikectlError,
                LookupError,
                StopIteration,
                ValueError,
                pytest.fail.Exception,
            ):
                return False
        return True
    finally:
        table.rows = original


@pytest.mark.parametrize("name", TABLES)
def test_every_changed_or_missing_row_makes_a_test_fail(name: str) -> None:
    table, module, states, _ = TABLES[name]
    by_row = uses(table, specifications(module))
    survivors = []
    for row, target in table.rows.items():
        tests = by_row[row]
        without = {key: value for key, value in table.rows.items() if key != row}
        mutants = [("missing", without)]
        mutants += [(state.name, {**table.rows, row: state}) for state in states if state is not target]
        survivors += [
            f"{row[0].name} + {row[1].name} -> {what}"
            for what, rows in mutants
            if survives(table, rows, tests)
        ]
    assert survivors == []


@pytest.mark.parametrize("name", TABLES)
def test_every_undefined_transition_raises_and_says_whose_fault_it_is(name: str) -> None:
    table, _, states, causes = TABLES[name]
    for state in states:
        for cause in causes:
            if table.defines(state, cause):
                assert table.next(state, cause) in states
                continue
            error = RemoteTransitionError if cause.blame is Blame.REMOTE else LocalTransitionError
            with pytest.raises(error) as caught:
                table.next(state, cause)
            assert caught.value.hint


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_complete(name: str) -> None:
    table, _, states, causes = TABLES[name]
    assert len(table.rows) == DEFINED[name]
    assert {state for state, _ in table.rows} | set(table.rows.values()) == set(states), (
        "a state is unreachable"
    )
    unused = set(causes) - {cause for _, cause in table.rows}
    never = {mobike_initiator.Cause.UPDATE_ASKED}
    assert unused <= never, "an input that no state takes"
