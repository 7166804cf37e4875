"""A scenario that a busy machine starved may be run again, and its result tells; what is wrong fails at once."""

from __future__ import annotations

import pytest

from mobikectl.lab.checks import Check, Verdict
from mobikectl.lab.results import Result
from mobikectl.lab.suite import _with_tries

LOST = Check("lost", "at_most", 1)
PATH = Check("path", "equals", "a -> b")
GOOD, SLOW = Verdict(LOST, 0), Verdict(LOST, 5)
RIGHT, WRONG = Verdict(PATH, "a -> b"), Verdict(PATH, "a -> c")


def result(*verdicts: Verdict, error: str | None = None) -> Result:
    made = Result("s", "", "kernel", True, error=error)
    made.verdicts = list(verdicts)
    return made


@pytest.mark.parametrize(
    ("results", "tries", "passed"),
    [
        ([result(GOOD, RIGHT)], 1, True),
        ([result(SLOW, RIGHT), result(GOOD, RIGHT)], 2, True),
        ([result(SLOW), result(SLOW), result(SLOW)], 3, False),
        ([result(SLOW, WRONG)], 1, False),
        ([result(WRONG)], 1, False),
        ([result(error="charon did not start"), result(GOOD, RIGHT)], 2, True),
        ([result(Verdict(LOST, None))], 1, False),
    ],
)
async def test_only_what_a_busy_machine_may_be_to_blame_for_is_tried_again(
    results: list[Result], tries: int, passed: bool
) -> None:
    left = list(results)

    async def once() -> Result:
        return left.pop(0)

    said: list[str] = []
    document = await _with_tries(once, 3, said.append)
    assert document["passed"] is passed
    assert document["tries"] == tries
    assert len(document["missed"]) == len(said) == tries - 1
    assert not left
