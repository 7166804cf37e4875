"""What doctor says of a charon whose IKE_SAs are to be carried over."""

from __future__ import annotations

import pytest

from mobikectl.doctor.findings import Finding, Level
from mobikectl.doctor.transfer import carrying


def test_with_both_plugins_all_is_well() -> None:
    assert [finding.level for finding in carrying(("vici", "ha", "rmobike"))] == [Level.GOOD]


@pytest.mark.parametrize("missing", ["ha", "rmobike"])
def test_a_missing_plugin_is_named_with_what_to_do(missing: str) -> None:
    (finding,) = carrying({"ha", "rmobike"} - {missing})
    assert finding.level is Level.PROBLEM
    assert f"no {missing} plugin" in finding.text
    assert finding.mend


TAKEN = Finding(Level.PROBLEM, "carrying over", "another process has the port", "end it")


def test_it_is_not_good_while_the_ha_port_is_taken() -> None:
    assert list(carrying(("ha", "rmobike"), port=TAKEN)) == [TAKEN]


def test_what_the_sidecar_that_runs_says_counts() -> None:
    (finding,) = carrying(("ha", "rmobike"), says="the transfer port is taken")
    assert finding.level is Level.PROBLEM
    assert "the transfer port is taken" in finding.text
    assert finding.mend


def test_one_cause_is_told_once() -> None:
    assert list(carrying(("ha", "rmobike"), port=TAKEN, says="another process has 127.0.0.1 port 4510")) == [
        TAKEN
    ]
    assert len(list(carrying(("ha",), says="charon's rmobike plugin is not there"))) == 1
