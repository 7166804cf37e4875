"""What a scenario demands, and whether it is met."""

from __future__ import annotations

from typing import Any

import pytest

from mobikectl.errors import LabError
from mobikectl.lab.checks import judge, parse_checks
from mobikectl.lab.results import Result


def passed(entry: dict[str, Any], **metrics: float | str) -> bool:
    return all(v.passed for v in judge(parse_checks([entry], where="x"), metrics, esp="kernel", sidecar=True))


@pytest.mark.parametrize(
    ("entry", "value", "good"),
    [
        ({"metric": "lost", "at_most": 1}, 1, True),
        ({"metric": "lost", "at_most": 1}, 2, False),
        ({"metric": "lost", "at_least": 5}, 4, False),
        ({"metric": "lost", "equals": 0}, 0, True),
        ({"metric": "lost", "equals": "a"}, "b", False),
        ({"metric": "lost", "at_most": 1}, "many", False),
    ],
)
def test_a_check_compares_a_measurement_with_its_limit(
    entry: dict[str, Any], value: float | str, good: bool
) -> None:
    assert passed(entry, lost=value) is good


def test_what_was_not_measured_fails() -> None:
    assert not passed({"metric": "lost", "at_most": 1000})


def test_a_check_for_the_other_esp_is_not_judged() -> None:
    checks = parse_checks(
        [{"metric": "a", "equals": 1, "esp": "userland"}, {"metric": "b", "equals": 1, "sidecar": False}],
        where="x",
    )
    assert judge(checks, {}, esp="kernel", sidecar=True) == []
    assert len(judge(checks, {}, esp="userland", sidecar=False)) == 2


@pytest.mark.parametrize(
    "entries",
    [
        [],
        "lost",
        [{"metric": "lost"}],
        [{"at_most": 1}],
        [{"metric": "lost", "at_most": 1, "at_least": 1}],
        [{"metric": "lost", "at_most": "few"}],
        [{"metric": "lost", "equals": True}],
        [{"metric": "lost", "at_most": 1, "esp": "maybe"}],
    ],
)
def test_a_malformed_check_is_refused(entries: object) -> None:
    with pytest.raises(LabError):
        parse_checks(entries, where="x")


def test_a_result_without_verdicts_or_with_an_error_has_not_passed() -> None:
    result = Result("s", "", "kernel", sidecar=True)
    assert not result.passed
    result.verdicts = judge(
        parse_checks([{"metric": "a", "equals": 1}], where="x"), {"a": 1}, esp="kernel", sidecar=True
    )
    assert result.passed
    result.error = "broke off"
    assert not result.passed
    assert result.failures == ["broke off"]
