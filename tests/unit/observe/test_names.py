"""The table of events is what the code records: nothing is missing, nothing is left over."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from mobikectl.observe.events import Source
from mobikectl.observe.names import NAMES

PACKAGE = Path(__file__).parents[3] / "mobikectl"
FILES = [
    path
    for room in ("sidecar", "switch", "node", "cluster", "observe")
    for path in sorted((PACKAGE / room).glob("*.py"))
    if path.name != "names.py"
]
TOLD_IN_TUPLES = {"report.py", "plugin.py"}
"""Files whose functions return an event's name first and its text second."""
WORD = re.compile(r"[a-z]+(-[a-z]+)*")
KNOWN = {name for names in NAMES.values() for name in names}


def pattern(node: ast.expr | None, prefix: str = "") -> str | None:
    """Given an expression, return what its text can be, as a pattern; None: it is no name that is written here."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and WORD.fullmatch(node.value):
        return re.escape(prefix + node.value)
    if isinstance(node, ast.JoinedStr):
        parts = [
            re.escape(str(part.value)) if isinstance(part, ast.Constant) else "[a-z-]+"
            for part in node.values
        ]
        return re.escape(prefix) + "".join(parts)
    return None


def prefix_in(path: Path) -> str:
    """Return what a file's own ``_tell`` puts before a name; that of `ClusterNode` is everybody else's."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == "_tell" and len(node.args.args) == 4:
            for inner in ast.walk(node):
                if isinstance(inner, ast.JoinedStr) and isinstance(inner.values[0], ast.Constant):
                    return str(inner.values[0].value)
    return "cluster-"


def recorded() -> dict[str, str]:
    """Return each pattern of a name in the code, with where it is."""
    found: dict[str, str] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.expr | ast.stmt):
                continue
            for what in patterns_of(node, path):
                if what is not None:
                    found[what] = f"{path.name}:{node.lineno}"
    return found


def patterns_of(node: ast.AST, path: Path) -> list[str | None]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        args = node.args
        if node.func.attr == "record" and len(args) > 1 and ast.unparse(args[0]).startswith("Source."):
            return [pattern(args[1])]
        if node.func.attr == "_tell" and len(args) == 3:
            return [pattern(args[0], prefix_in(path))]
        if node.func.attr == "note" and len(args) == 3:
            return [pattern(args[1])]
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "Event" and len(node.args) > 4:
        return [pattern(node.args[4])]
    value = getattr(node, "value", None) if isinstance(node, (ast.Return, ast.Yield)) else None
    if path.name in TOLD_IN_TUPLES and isinstance(value, ast.Tuple):
        return [pattern(value.elts[0])]
    if path.name in TOLD_IN_TUPLES and isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple):
        return [pattern(row.elts[1]) for row in node.iter.elts if isinstance(row, ast.Tuple)]
    return []


RECORDED = recorded()
PREFIXES = {re.escape(prefix_in(path)) + "[a-z-]+" for path in FILES}
"""What each ``_tell`` records: a prefix before names that are found where it is called."""


@pytest.mark.parametrize(("what", "where"), RECORDED.items(), ids=RECORDED.values())
def test_what_the_code_records_is_in_the_table(what: str, where: str) -> None:
    if what in PREFIXES:
        return
    assert any(re.fullmatch(what, name) for name in KNOWN), f"{where} records {what}: add it to NAMES"


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_what_is_in_the_table_is_recorded_by_the_code(name: str) -> None:
    specific = [what for what in RECORDED if what not in PREFIXES]
    assert any(re.fullmatch(what, name) for what in specific), f"nothing records {name}: remove it from NAMES"


def test_every_source_has_its_names() -> None:
    assert set(NAMES) == set(Source)
    assert all(WORD.fullmatch(name) for name in KNOWN)
