"""What the troubleshooting page says one will see is printed, recorded or measured here, or charon's own words."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from mobikectl.charon.ha_port_holder import HA_PORT
from mobikectl.cli import COMMANDS
from mobikectl.observe.measures import MEASURES
from mobikectl.observe.names import NAMES
from mobikectl.policy.cluster import Mechanism

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
CHARON = [Path("/usr/lib/ipsec") / name for name in ("libcharon.so.0", "libstrongswan.so.0")]
PLUGIN = b"".join(
    re.sub(rb'"\s*\n\s*"', b"", path.read_bytes()) for path in sorted((ROOT / "charon-plugin").glob("*.c"))
)
"""The plugin's source, with texts of several lines in one."""
GAP = "\0"
"""Stands for what differs: a value in an f-string, ``...`` on the page."""

WORDS = {
    *COMMANDS,
    *(name for names in NAMES.values() for name in names),
    *(measure.name for measure in MEASURES),
    *(mechanism.word for mechanism in Mechanism),
}
SETTINGS = {"prefer_best_path", "CAP_NET_ADMIN", "standby", "-", "this", "sas", "status"}
"""What `doctor` and `nodes` set before what they say, and what stands for itself."""
OF_OTHERS = {
    "...: Permission denied",  # strerror(3)
    "...: unable to open database file",  # SQLite
    "etcd ...: failed to connect to all addresses",  # gRPC
    "EACCES",
    "ip route show table 109",
}


def first_cells() -> list[str]:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    return [row.split(" | ")[0].removeprefix("| ") for row in rows if not row.startswith("| symptom")]


def quoted(*, by_charon: bool) -> list[str]:
    found = []
    for cell in first_cells():
        before, _, of_charon = cell.partition("charon's log: ")
        found += re.findall(r"`([^`]+)`", of_charon if by_charon else before)
    return found


def texts() -> set[str]:
    """Every text in the code but the docstrings, with a gap for each value."""
    found = set()
    for path in (ROOT / "mobikectl").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if id(node) in docstrings:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else GAP for part in node.values)
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


TEXTS = texts()


def can_be_seen(shown: str, text: str) -> bool:
    """Whether the code's text has what is shown, part after part between what differs."""
    at = 0
    for part in shown.replace(HA_PORT, "...").split("..."):
        if part.strip(" :"):
            at = text.find(part, at) + len(part)
            if at < len(part):
                return False
    return at > 0


@pytest.mark.parametrize("shown", sorted(set(quoted(by_charon=False))))
def test_what_it_quotes_is_printed_recorded_or_measured(shown: str) -> None:
    if shown in WORDS | SETTINGS | OF_OTHERS:
        return
    assert any(can_be_seen(shown, text) for text in TEXTS), f"nothing prints {shown!r}"


@pytest.mark.skipif(not all(path.exists() for path in CHARON), reason="needs strongSwan")
@pytest.mark.parametrize("shown", sorted(set(quoted(by_charon=True))))
def test_what_it_quotes_of_charon_is_in_charon(shown: str) -> None:
    pattern = re.escape(shown).replace(r"\.\.\.", "%[a-z]").replace("'rmobike'", "'%s'")
    pattern = re.sub(r"\d+", lambda number: f"(?:{number[0]}|%d)", pattern)
    assert any(
        re.search(pattern.encode(), binary) for binary in (PLUGIN, *(path.read_bytes() for path in CHARON))
    )


def test_the_check_finds_what_nobody_prints() -> None:
    assert not any(can_be_seen("netlink-overrun", text) for text in TEXTS)
    assert not any(can_be_seen("no peer supports notify", text) for text in TEXTS)
    assert can_be_seen("gone for ... s more", f"gone for {GAP} s more")
    assert not can_be_seen("gone for ... h more", f"gone for {GAP} s more")
    assert not can_be_seen("s more ... gone for", f"gone for {GAP} s more")
    assert not can_be_seen("...", "gone")
