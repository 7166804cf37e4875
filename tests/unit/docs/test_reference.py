"""The reference is what the code says; manual pages and completion can be made from it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
import generate  # noqa: E402
import man  # noqa: E402

sys.path.remove(str(DOCS))

if TYPE_CHECKING:
    import click

PAGES: dict[str, str] = generate.pages()
WALK = list(generate.walk())


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_reference_is_up_to_date(name: str) -> None:
    assert (DOCS / "reference" / name).read_text() == PAGES[name], "run `make docs` and commit what it writes"


def test_every_key_of_the_configuration_says_what_it_means() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\|(.*)\|$", PAGES["config.md"], re.MULTILINE)
    assert len(rows) > 50
    assert [key for key, meaning in rows if not meaning.strip()] == []


def test_every_option_says_what_it_does() -> None:
    assert not [
        (context.command_path, option.name)
        for command, context in WALK
        for option in command.params
        if option.param_type_name == "option" and not getattr(option, "help", "")
    ]


@pytest.mark.parametrize("one", WALK, ids=lambda one: one[1].command_path)
def test_every_command_has_a_manual_page_that_roff_takes(one: tuple[click.Command, click.Context]) -> None:
    page = man.page(*one)
    assert page.startswith('.TH "MOBIKECTL')
    assert "\n\n" not in page
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("needs groff to look further")
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww"], input=page, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_what_would_be_an_order_to_roff_is_shown_as_it_is() -> None:
    assert man._text(".SH --x \\") == "\\&.SH \\-\\-x \\e"


@pytest.mark.parametrize("shell", sorted(man.SHELLS))
def test_every_shell_gets_its_completion(shell: str) -> None:
    text = man.completion(shell)
    assert "_MOBIKECTL_COMPLETE" in text
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=text, text=True, timeout=30, check=True)
