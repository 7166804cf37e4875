"""What a suite understands of scenarios that run in another process, and how long it lets them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mobikectl.errors import LabError
from mobikectl.lab.scenario import load_scenario
from mobikectl.lab.suite import Way, _Hearer, _side_by_side

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mobikectl.lab.scenario import Scenario
    from mobikectl.lab.suite import Progress

SWITCH, REFUSED = load_scenario("rmobike-switch"), load_scenario("rmobike-refused")


class Heard:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.results: list[dict[str, Any]] = []

    def tell(self, scenario: str, line: str) -> None:
        self.lines.append((scenario, line))

    def done(self, document: dict[str, Any]) -> None:
        self.results.append(document)


def written(out: Path, name: str) -> None:
    (out / name).mkdir(exist_ok=True)
    (out / name / "result.json").write_text(json.dumps({"scenario": name}))


def test_lines_are_told_under_their_scenario_and_results_in_the_order_that_was_asked_for(
    tmp_path: Path,
) -> None:
    heard = Heard()
    hear = _Hearer([SWITCH, REFUSED], Way("userland", tmp_path), heard)
    written(tmp_path, "rmobike-switch")
    written(tmp_path, "rmobike-refused")
    hear.line("rmobike-refused\tbuilding")
    hear.line("rmobike-refused\tdone")
    hear.line("a kernel says something")
    hear.line("rmobike-switch\tdone")
    assert heard.lines == [("rmobike-refused", "building"), ("guest", "a kernel says something")]
    assert [document["scenario"] for document in heard.results] == ["rmobike-refused", "rmobike-switch"]
    assert [document["scenario"] for document in hear.documents()] == ["rmobike-switch", "rmobike-refused"]


def test_a_result_of_an_earlier_run_is_no_result(tmp_path: Path) -> None:
    written(tmp_path, "rmobike-switch")
    hear = _Hearer([SWITCH], Way("userland", tmp_path), Heard())
    assert not (tmp_path / "rmobike-switch" / "result.json").exists()
    with pytest.raises(LabError, match="no result for rmobike-switch"):
        hear.documents()


def test_the_other_process_is_asked_for_the_same(tmp_path: Path) -> None:
    way = Way("kernel", tmp_path, sidecar=False, patience=4.0, tries=3)
    assert way.options() == [
        *("--esp", "kernel", "--out", str(tmp_path), "--plain", "--patience", "4.0", "--tries", "3"),
        "--no-sidecar",
    ]


def test_every_try_has_its_time(tmp_path: Path) -> None:
    once = Way("userland", tmp_path).deadline([SWITCH])
    assert once > SWITCH.deadline
    assert Way("userland", tmp_path, patience=2.0, tries=3).deadline([SWITCH]) == 6 * once


def document(name: str, *, passed: bool, starved: bool = False) -> dict[str, Any]:
    failures = [] if passed else ["lost at_most 1: got 5"]
    return {
        "scenario": name,
        "passed": passed,
        "starved": starved,
        "failures": failures,
        "tries": 1,
        "missed": [],
    }


class Elsewhere:
    """Processes that end with what was prepared for them."""

    def __init__(self, out: Path, **results: list[dict[str, Any]]) -> None:
        self.out = out
        self.results = results
        self.tries: list[tuple[str, int]] = []

    async def __call__(
        self, scenarios: Sequence[Scenario], way: Way, progress: Progress, _: int | None
    ) -> list[dict[str, Any]]:
        (scenario,) = scenarios
        self.tries.append((scenario.name, way.tries))
        (self.out / scenario.name).mkdir(exist_ok=True)
        got = self.results[scenario.name.replace("-", "_")].pop(0)
        progress.done(got)
        return [got]


async def test_what_a_busy_machine_may_be_to_blame_for_is_run_again_alone(tmp_path: Path) -> None:
    elsewhere = Elsewhere(
        tmp_path,
        rmobike_switch=[
            document("rmobike-switch", passed=False, starved=True),
            document("rmobike-switch", passed=True),
        ],
        rmobike_refused=[document("rmobike-refused", passed=True)],
    )
    heard = Heard()
    way = Way("userland", tmp_path, tries=3)
    documents = await _side_by_side([SWITCH, REFUSED], way, heard, elsewhere, 2)
    assert [d["passed"] for d in documents] == [True, True]
    assert documents[0]["tries"] == 2
    assert documents[0]["missed"] == [["lost at_most 1: got 5"]]
    assert elsewhere.tries[-1] == ("rmobike-switch", 2), "last, and with the tries that are left"
    assert [d["scenario"] for d in heard.results] == ["rmobike-refused", "rmobike-switch"], (
        "each has one result"
    )
    assert json.loads((tmp_path / "rmobike-switch" / "result.json").read_text()) == documents[0]


async def test_what_is_wrong_beside_others_fails_where_it_is_wrong_alone(tmp_path: Path) -> None:
    wrong = [document("rmobike-switch", passed=False) for _ in range(2)]
    elsewhere = Elsewhere(tmp_path, rmobike_switch=wrong)
    (got,) = await _side_by_side([SWITCH], Way("userland", tmp_path, tries=3), Heard(), elsewhere, 1)
    assert not got["passed"]
    assert elsewhere.tries == [("rmobike-switch", 1), ("rmobike-switch", 2)]
