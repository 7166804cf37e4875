"""One frame of `mobikectl top` for standard output: the same rows as on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from mobikectl.cli import top_draw
from mobikectl.cli.output import coloured, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from mobikectl.watch.rows import LocalPart, View
    from mobikectl.watch.view import Choice

LINES = 12
"""Moves, and events, of one frame."""


def frame(view: View, choice: Choice) -> Group:
    """Given a view and what somebody wants to see of it, return it as something to print."""
    parts: list[RenderableType] = [top_draw.head(view)]
    parts += [coloured(f"note: {note}", "yellow") for note in top_draw.notes(view)]
    if (cluster := view.cluster) is not None:
        parts += _table("nodes", top_draw.NODE_COLUMNS, map(top_draw.node_cells, choice.nodes(cluster.nodes)))
        moves = choice.moves(cluster.moves)[:LINES]
        parts += _table("moves", top_draw.MOVE_COLUMNS, map(top_draw.move_cells, moves))
    elif view.local is not None:
        parts += _own(view.local, choice)
    parts.append(Text("\nevents", style="bold underline"))
    parts += [top_draw.event_line(event) for event in choice.events(view.events)[-LINES:]]
    return Group(*parts)


def _own(local: LocalPart, choice: Choice) -> list[RenderableType]:
    connections = choice.connections(local.connections)
    paths = [top_draw.path_cells(one, path) for one in connections for path in one.paths]
    moves = map(top_draw.own_move_cells, reversed(local.moves[-LINES:]))
    return [
        *_table("connections", top_draw.CONNECTION_COLUMNS, map(top_draw.connection_cells, connections)),
        *_table("paths", top_draw.PATH_COLUMNS, paths),
        *_table("last moves", top_draw.OWN_MOVE_COLUMNS, moves),
    ]


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Text]]) -> list[RenderableType]:
    made = table(columns, rows)
    return [Text(f"\n{title}", style="bold underline"), made] if made.row_count else []
