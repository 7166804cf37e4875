#!/usr/bin/env python3
"""Writes manual pages and shell completion from the commands: `docs/man.py OUT`, into OUT/man and OUT/completion."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class
from generate import options, paragraphs, usage, walk

from mobikectl import __version__
from mobikectl.cli import root
from mobikectl.errors import EXIT_CODES

if TYPE_CHECKING:
    from collections.abc import Iterator

SHELLS = {"bash": "mobikectl", "zsh": "_mobikectl", "fish": "mobikectl.fish"}
"""Shell -> the file's name where that shell looks for it."""


def main(out: Path) -> None:
    """Given a folder, write the pages and the completions below it."""
    (out / "man").mkdir(parents=True, exist_ok=True)
    (out / "completion").mkdir(parents=True, exist_ok=True)
    for command, context in walk():
        name = context.command_path.replace(" ", "-")
        (out / "man" / f"{name}.1").write_text(page(command, context))
    for shell, name in SHELLS.items():
        (out / "completion" / name).write_text(completion(shell))


def completion(shell: str) -> str:
    """Given a shell, return what makes it complete our commands, options and nodes. Raise LookupError."""
    kind = get_completion_class(shell)
    if kind is None:
        raise LookupError(f"click knows no shell {shell}")
    return kind(root, {}, "mobikectl", "_MOBIKECTL_COMPLETE").source()


def page(command: click.Command, context: click.Context) -> str:
    """Given a command, return its manual page (man(7))."""
    return "\n".join(_lines(command, context)) + "\n"


def _lines(command: click.Command, context: click.Context) -> Iterator[str]:
    name = context.command_path.replace(" ", "-")
    first, *rest = paragraphs(command)
    yield f'.TH "{name.upper()}" "1" "" "mobikectl {__version__}" "mobikectl"'
    yield from (".SH NAME", f"{_text(name)} \\- {_text(first.rstrip('.'))}")
    yield from (".SH SYNOPSIS", f".B {_text(usage(command, context))}")
    if rest:
        yield ".SH DESCRIPTION"
        for part in rest:
            yield from (".PP", _text(part))
    if records := options(command, context):
        yield ".SH OPTIONS"
        for names, what in records:
            yield from (".TP", f".B {_text(names)}", _text(what))
    if isinstance(command, click.Group):
        yield ".SH COMMANDS"
        for other in command.list_commands(context):
            yield from (
                ".TP",
                f".BR {_text(name)}\\-{_text(other)} (1)",
                _text(_short(command, context, other)),
            )
    if command is root:
        yield ".SH EXIT STATUS"
        for code, what in EXIT_CODES.items():
            yield from (".TP", f".B {code}", _text(what))
    else:
        yield from (".SH SEE ALSO", ".BR mobikectl (1)")


def _short(group: click.Group, context: click.Context, name: str) -> str:
    command = group.get_command(context, name)
    return command.get_short_help_str(limit=200) if command is not None else ""


def _text(text: str) -> str:
    """Given any text, return it so that roff shows it as it is."""
    shown = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{shown}" if shown.startswith((".", "'")) else shown


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: man.py OUT")
    main(Path(sys.argv[1]))
