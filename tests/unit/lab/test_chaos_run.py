"""Whether a client's pings are answered, as a chaos run asks ten times a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mobikectl.lab.capture import Ping
from mobikectl.lab.chaos.run import PINGS, in_a_row


def pings(pattern: str) -> list[Ping]:
    """Given a word of "x" (answered) and "." (not), return such pings, one each second from 0 on."""
    return [Ping(float(at), at + 0.1 if mark == "x" else None) for at, mark in enumerate(pattern)]


@pytest.mark.parametrize(
    ("pattern", "since", "answered"),
    [
        ("", 0.0, False),
        ("x" * PINGS, 0.0, True),
        ("x" * PINGS, 1.0, False),
        ("x" * (PINGS - 1) + "." + "x" * (PINGS - 1), 0.0, False),
        ("..." + "x" * PINGS + "...", 3.0, True),
        ("..." + "x" * PINGS + "...", 4.0, False),
    ],
)
def test_some_pings_in_a_row_sent_since_a_moment_have_to_be_answered(
    pattern: str, since: float, answered: bool
) -> None:
    assert in_a_row(pings(pattern), since) is answered


class Counted(Sequence[Ping]):
    """Counts how many of it are looked at."""

    def __init__(self, pings: list[Ping]) -> None:
        self._pings = pings
        self.looked = 0

    def __getitem__(self, at: Any) -> Any:
        self.looked += 1
        return self._pings[at]

    def __len__(self) -> int:
        return len(self._pings)


def test_of_a_long_run_only_the_newest_pings_are_looked_at() -> None:
    run = Counted(pings("x" * 10_000 + "." * 20))
    assert not in_a_row(run, 10_000.0)
    assert run.looked <= 21
