"""Every `mobikectl` command that a page shows is one that there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from mobikectl.cli import root

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "strongswan-conf/*.md", "charon-plugin/*.md")
    for path in ROOT.glob(pattern)
)
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
ENDS = {"|", "||", "&&", "&", ";", ">", ">>", "2>", ")", "...", "…"}
RUN = re.compile(
    r"^(?:\$ |(?!systemctl|docker build).*? )??(?:[^ ]*/)?mobikectl +(?!mobikectl )(?P<what>.*)$"
)
"""A line that runs it, by itself or in a container; not one that speaks of the service or the image of that name."""


def shown(page: str) -> Iterator[str]:
    """Yield what follows `mobikectl` in a page: lines of code blocks that are commands, and code within the text."""
    for kind, block in BLOCK.findall(page):
        if kind in {"", "sh", "bash", "console"}:
            for line in block.splitlines():
                if found := RUN.match(line.strip()):
                    yield found["what"]
    for code in re.findall(r"`([^`\n]+)`", BLOCK.sub("", page)):
        if found := re.match(r"(?:\S*/)?mobikectl +(.*)$", code):
            yield found[1]


def words(text: str) -> list[str]:
    """Given a command line, return its words up to a comment, a pipe or what is left out."""
    taken = []
    for word in shlex.split(text, comments=True):
        if word in ENDS:
            break
        taken.append(word.rstrip(";"))
    return taken


def check(text: str) -> None:
    """Raise click.UsageError when the command line is none."""
    text = text.partition(" -- ")[0]
    command: click.Command = root
    context = click.Context(root, info_name="mobikectl")
    rest = words(text)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        found = command.get_command(context, name)
        if found is None:
            # `a|b` and `a, b` are two commands in one.
            alternatives = re.split(r"[|,/]", name)
            known = [command.get_command(context, one) for one in alternatives if one]
            if len(known) < 2 or None in known:
                raise click.UsageError(f"there is no command {name!r}", context)
            return
        command, context = found, click.Context(found, info_name=name, parent=context)
    _, extra, _ = command.make_parser(context).parse_args(list(rest))
    if extra and not any(isinstance(one, click.Argument) for one in command.params):
        raise click.UsageError(f"{context.command_path} takes no {extra[0]!r}", context)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_a_page_shows_can_be_given(page: Path) -> None:
    wrong = []
    for text in shown(page.read_text()):
        try:
            check(text)
        except click.UsageError as error:
            wrong.append(f"mobikectl {text}: {error.format_message()}")
        except ValueError as error:
            wrong.append(f"mobikectl {text}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("text", ["dance", "nodes --loud", "lab jump", "status everybody", "switch --peer"])
def test_a_command_that_is_none_would_be_found(text: str) -> None:
    with pytest.raises(click.UsageError):
        check(text)


def test_the_pages_show_commands_at_all() -> None:
    assert len([text for page in PAGES for text in shown(page.read_text())]) > 80
