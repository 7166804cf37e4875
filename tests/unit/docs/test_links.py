"""What the pages point to is there: pages, headings, pictures, and files that they name by their path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "strongswan-conf/*.md", "charon-plugin/*.md")
    for path in ROOT.glob(pattern)
)
BLOCK = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
OURS = re.compile(
    r"(?:benchmarks|charon-plugin|docs|mobikectl|packaging|strongswan-conf|tests)(?:/[\w.@+-]+)+/?"
)
"""A path within the repository, without a place holder. What a build makes (`build/`, `out/`) is not asked for."""


def headings(page: Path) -> set[str]:
    found = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}


def dangling(page: Path, text: str) -> list[str]:
    """Given a page and its text, return what it points to that is not there."""
    missing = []
    for link in (one or other for one, other in LINK.findall(BLOCK.sub("", text))):
        if re.match(r"\w+:", link):
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (heading and target.suffix == ".md" and heading not in headings(target)):
            missing.append(link)
    codes = filter(OURS.fullmatch, re.findall(r"`([^`\n]+)`", BLOCK.sub("", text)))
    return [
        *missing,
        *(code for code in codes if not any((base / code).exists() for base in (ROOT, page.parent))),
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_points_to_is_there(page: Path) -> None:
    assert dangling(page, page.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "[there](nowhere.md)",
        "[there](cluster.md#no-such-heading)",
        "![it](pictures/none.svg)",
        '<img src="none.png">',
        "`mobikectl/none.py`",
        "`packaging/none/`",
    ],
)
def test_what_is_not_there_would_be_found(text: str) -> None:
    assert dangling(ROOT / "docs" / "moves.md", text)
