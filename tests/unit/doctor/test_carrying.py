"""What doctor says of a charon whose IKE_SAs are to be carried over."""

from __future__ import annotations

import pytest

from mobikectl.doctor.findings import Level
from mobikectl.doctor.transfer import carrying


def test_with_both_plugins_all_is_well() -> None:
    assert [finding.level for finding in carrying(("vici", "ha", "rmobike"))] == [Level.GOOD]


@pytest.mark.parametrize("missing", ["ha", "rmobike"])
def test_a_missing_plugin_is_named_with_what_to_do(missing: str) -> None:
    (finding,) = carrying({"ha", "rmobike"} - {missing})
    assert finding.level is Level.PROBLEM
    assert f"no {missing} plugin" in finding.text
    assert finding.mend
