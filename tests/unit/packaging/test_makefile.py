"""What `make` is asked for is there: a target that is only declared would do nothing, and say that all is well."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LINES = "\n".join(
    path.read_text() for path in (ROOT / "Makefile", *sorted((ROOT / "packaging").glob("*.mk")))
)
DECLARED = sorted(
    {word for line in re.findall(r"^\.PHONY:(.*)$", LINES, re.MULTILINE) for word in line.split()}
)
RULES = set(re.findall(r"^([a-z][a-z-]*):(?!=)", LINES, re.MULTILINE))


@pytest.mark.parametrize("target", DECLARED)
def test_a_declared_target_has_a_rule(target: str) -> None:
    assert target in RULES


def test_the_docs_name_targets_that_are_there() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = {word for page in pages for word in re.findall(r"`make ([a-z][a-z-]*)", page.read_text())}
    assert len(named) > 8
    assert named <= RULES
