"""docs/conformance.md is complete: no empty row, no test that does not exist, no keyword without a row."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "tests" / "unit"
TEXT = (ROOT / "docs" / "conformance.md").read_text()
KEYWORDS = {"MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY", "REQUIRED", "RECOMMENDED"}
OWNERS = ("charon", "plugin", "mobikectl")


def tables() -> dict[str, list[list[str]]]:
    """Heading -> the cells of its table's rows, without the table's own head."""
    found: dict[str, list[list[str]]] = {}
    for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        lines = [line for line in body.splitlines() if line.startswith("|")]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
        if rows:
            found[heading] = rows
    return found


TABLES = tables()
COUNTS = {(row[0], row[1]): int(row[2]) for row in TABLES.pop("Keywords per section")}
ROWS = [
    pytest.param(row, id=f"{heading}-{row[0]}-{n}")
    for heading, rows in TABLES.items()
    for n, row in enumerate(rows)
]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_complete_and_its_test_exists(row: list[str]) -> None:
    assert len(row) == 5
    assert all(row), "an empty cell"
    _, keyword, _, test, owner = row
    assert keyword in {*KEYWORDS, "-"}
    assert any(word in owner for word in OWNERS), "say who carries it out"
    file, _, name = test.partition("::")
    assert re.search(rf"^def {re.escape(name)}\(", (UNIT / file).read_text(), flags=re.MULTILINE), test


@pytest.mark.parametrize("row", ROWS)
def test_a_row_quotes_its_keyword_or_the_words_beside_it(row: list[str]) -> None:
    if row[1] != "-":
        assert '"' in row[2], "quote the document"


def test_every_keyword_of_the_documents_has_a_row() -> None:
    rows = Counter((heading, row[0]) for heading, found in TABLES.items() for row in found if row[1] != "-")
    assert rows == Counter(COUNTS)


def test_all_five_documents_are_covered() -> None:
    documents = {document for document, _ in COUNTS}
    assert len(documents) == 5
    assert documents <= set(TABLES)


def test_every_specification_of_the_machines_is_there_for_a_reason() -> None:
    """The machines' test files are all named in the table."""
    named = {row[3].partition("::")[0] for rows in TABLES.values() for row in rows}
    machines = {f"protocol/{path.name}" for path in (UNIT / "protocol").glob("test_*machines.py")}
    machines |= {"protocol/test_mobike_initiator.py", "protocol/test_mobike_responder.py"}
    assert machines <= named
