"""How the command line shows things: tables and colours for people, JSON for programs."""

from __future__ import annotations

import json
import sys
import unicodedata
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mobikectl.observe.plain import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Command = TypeVar("Command", bound="Callable[..., Any]")

WIDE = 200
"""Columns when the output is no terminal: a program or a file reads it, nothing has to be folded."""

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of what is not seen but has an effect."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
"""Where tables go: standard output, without colours when it is not a terminal."""


def json_option(function: Command) -> Command:
    """Add ``--json`` (the argument ``as_json``) to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(function)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(plain(value), indent=2))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """Return a table; cells are text as it is (markup in it is shown, not obeyed), or rich renderables."""
    made = Table(title=title or None, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(_cell(cell) for cell in row))
    return made


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", empty: str = ""
) -> None:
    """Print a `table`, or ``empty`` where there are no rows."""
    made = table(columns, rows, title=title)
    console.print(empty if made.row_count == 0 and empty else made)


def _cell(cell: object) -> Any:
    if hasattr(cell, "__rich_console__") or hasattr(cell, "__rich__"):
        return cell
    return escape("\n".join(visible(line) for line in str(cell).split("\n")))


def visible(text: str) -> str:
    """Given a text that may be a stranger's (a peer's identity), return it with nothing that a terminal obeys.

    Controls, and characters that turn the direction of writing, become U+FFFD.
    """
    return "".join("\ufffd" if unicodedata.category(one) in UNSEEN else one for one in text)


def coloured(text: str, style: str) -> Text:
    """Given a text and a rich style, return it as a cell for `print_table`."""
    return Text(visible(text), style=style)


def counted(number: int, thing: str = "IKE_SA") -> str:
    """Given how many there are of something, return it for people (``1 IKE_SA``, ``2 IKE_SAs``)."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def human_bytes(count: float) -> str:
    """Given a number of bytes, return it for people (``1.4 MiB``)."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def human_seconds(seconds: float) -> str:
    """Given seconds, return them for people (``3h 20m``, ``4.2s``, ``35ms``)."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {rest:02d}s"
