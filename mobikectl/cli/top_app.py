"""The full screen of `mobikectl top`: a Textual application that draws views and asks before it changes anything."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Protocol

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Label, Static

from mobikectl.cli import top_draw
from mobikectl.cli.output import visible
from mobikectl.errors import MobikectlError
from mobikectl.watch.rows import View
from mobikectl.watch.view import Choice

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from mobikectl.watch.rows import NodeRow

REDRAW_S = 0.5
MOVES = 60
"""Moves on the screen: those under way, then the newest."""
SAS = 500
"""IKE_SAs of a node that are listed."""
NOT_HERE = "no cluster is watched: there is nothing to drain or pause"


class Wishes(Protocol):
    """What an operator may want of the cluster, on this screen."""

    async def drain(self, node: str) -> str:
        """Given a node, want it drained; return what to tell. Raise MobikectlError."""

    async def undrain(self, node: str) -> str:
        """Given a node, want it back; return what to tell. Raise MobikectlError."""

    async def pause(self, paused: bool) -> str:
        """Given whether moves are to stop, want that; return what to tell. Raise MobikectlError."""


class Ask(ModalScreen[bool]):
    """Asks before something is changed. Only `y` is yes."""

    DEFAULT_CSS = """
    Ask { align: center middle; }
    Ask > Vertical { width: 72; height: auto; padding: 1 2; border: thick $warning; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,enter,q", "answer(False)", "No"),
    ]

    def __init__(self, question: str, consequence: str) -> None:
        super().__init__()
        self._question = question
        self._consequence = consequence

    def compose(self) -> ComposeResult:
        """Lay it out."""
        with Vertical():
            yield Label(Text(self._question, style="bold"), id="question")
            yield Label(Text(f"\n{self._consequence}\n"))
            yield Label(Text("y: yes     n: no, leave it as it is", style="bold"))

    def action_answer(self, answer: bool) -> None:
        """Give the answer."""
        self.dismiss(answer)


class Page(ModalScreen[None]):
    """A list, or a help text, over the screen; any of the usual keys closes it."""

    DEFAULT_CSS = """
    Page { align: center middle; }
    Page > Vertical { width: 90%; height: 80%; padding: 1 2; border: thick $primary; background: $surface; }
    Page DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q,question_mark", "close", "Close")]

    def __init__(
        self, title: str, columns: Sequence[str] = (), rows: Iterable[Sequence[Text]] = (), text: str = ""
    ) -> None:
        super().__init__()
        self._title = title
        self._columns = columns
        self._rows = list(rows)
        self._text = text

    def compose(self) -> ComposeResult:
        """Lay it out."""
        with Vertical():
            yield Label(Text(self._title, style="bold"), id="title")
            if self._columns:
                yield DataTable(cursor_type="row")
            else:
                yield Static(Text(self._text))
        yield Footer()

    def on_mount(self) -> None:
        """Fill the list."""
        if self._columns:
            table = self.query_one(DataTable)
            table.add_columns(*self._columns)
            table.add_rows(self._rows)
            table.focus()

    def action_close(self) -> None:
        """Close it."""
        self.dismiss()


HELP = """\
s, S     sort the nodes by the next column; the other way round
/        filter everything by a text; empty again: all
Enter    the IKE_SAs of the chosen node
d        drain the chosen node, or give it back if it is drained (asks first)
p        pause the cluster, or let it go on (asks first)
Tab      nodes, moves
q        quit

IKE_SAs, out and in, packets: against the node's capacity; what is on its way counts there already.
room: what a node still takes before its overload limit. standby: copies of other nodes' IKE_SAs; -: it carries none.
in, out: IKE_SAs on their way. *: it leads. The first line says how old what you see is: a store or a sidecar
that does not answer makes it old, and nothing else happens."""


class TopApp(App[None]):
    """Shows the newest view, twice a second."""

    TITLE = "mobikectl top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: auto; padding: 0 1; background: $panel; }
    #notes { height: auto; max-height: 4; padding: 0 1; color: $warning; display: none; }
    #notes.some { display: block; }
    #first { height: auto; max-height: 45%; }
    #second { height: 1fr; }
    #events { height: 12; padding: 0 1; border-top: solid $primary; }
    #filter { height: 1; border: none; padding: 0 1; color: $accent; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", "Sort"),
        Binding("S", "turn", "Reverse", show=False),
        # First of all: the keys that follow are the filter's, not the table's (where `d` and `y` would drain a node).
        Binding("slash", "filter", "Filter", key_display="/", priority=True),
        Binding("d", "drain", "Drain/undrain"),
        Binding("p", "pause", "Pause/resume"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
        Binding("escape", "clear", "Clear", show=False),
    ]

    def __init__(self, look: Callable[[], View], wishes: Wishes | None, choice: Choice | None = None) -> None:
        super().__init__()
        self._look = look
        self._wishes = wishes
        self._seen = View()
        self._choice = choice or Choice()
        self._drawn: dict[str, tuple[Sequence[str], list[list[Text]]]] = {}

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(id="head")
        yield Static(id="notes")
        yield DataTable(id="first", cursor_type="row", zebra_stripes=True)
        yield DataTable(id="second", cursor_type="row")
        yield Static(id="events")
        # Always there, so that it can be focused at once.
        yield Input(id="filter", compact=True, placeholder="/: only what holds a text", select_on_focus=False)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to draw."""
        self.query_one("#first", DataTable).focus()
        self.redraw()
        self.set_interval(REDRAW_S, self.redraw)

    # --- drawing ----------------------------------------------------------------------------------

    def redraw(self) -> None:
        """Look, and show what there is."""
        screen = self.screen_stack[0]
        if not screen.children:  # the timer ran once more while the screen was taken down
            return
        view = self._seen = self._look()
        screen.query_one("#head", Static).update(self._head(view))
        notes = top_draw.notes(view)
        shown = screen.query_one("#notes", Static)
        shown.update(Text("\n".join(f"note: {visible(note)}" for note in notes)))
        shown.set_class(bool(notes), "some")
        if (cluster := view.cluster) is not None:
            self._fill(
                "first", top_draw.NODE_COLUMNS, map(top_draw.node_cells, self._choice.nodes(cluster.nodes))
            )
            moves = self._choice.moves(cluster.moves)[:MOVES]
            self._fill("second", top_draw.MOVE_COLUMNS, map(top_draw.move_cells, moves))
        elif (local := view.local) is not None:
            connections = self._choice.connections(local.connections)[:SAS]
            self._fill("first", top_draw.CONNECTION_COLUMNS, map(top_draw.connection_cells, connections))
            if any(one.paths for one in connections):
                paths = (top_draw.path_cells(one, path) for one in connections for path in one.paths)
                self._fill("second", top_draw.PATH_COLUMNS, paths)
            else:
                self._fill(
                    "second",
                    top_draw.OWN_MOVE_COLUMNS,
                    map(top_draw.own_move_cells, reversed(local.moves)),
                )
        events = screen.query_one("#events", Static)
        lines = [top_draw.event_line(event) for event in self._choice.events(view.events)]
        room = max(events.content_size.height, 1)
        events.update(Text("\n", no_wrap=True, overflow="ellipsis").join(lines[-room:]))

    def _head(self, view: View) -> Text:
        line = top_draw.head(view)
        order = self._choice.order.value + (" backwards" if self._choice.backwards else "")
        line.append(f"  ·  by {order}", style="dim")
        if self._choice.text:
            line.append(f"  ·  only {self._choice.text!r}", style="bold magenta")
        return line

    def _fill(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Text]]) -> None:
        cells = [list(row) for row in rows]
        if self._drawn.get(name) == (columns, cells):
            return
        table = self.screen_stack[0].query_one(f"#{name}", DataTable)
        at, chosen = table.cursor_row, self._chosen_name(name)
        if self._drawn.get(name, ((), []))[0] != columns:
            table.clear(columns=True)
            table.add_columns(*columns)
        else:
            table.clear()
        table.add_rows(cells)
        self._drawn[name] = (columns, cells)
        again = next((place for place, row in enumerate(cells) if row[0].plain == chosen), at)
        if cells:
            table.move_cursor(row=min(again, len(cells) - 1), animate=False)

    def _chosen_name(self, name: str) -> str:
        """Return the first cell of the chosen row, which names it: the cursor stays with it when rows are sorted."""
        table = self.screen_stack[0].query_one(f"#{name}", DataTable)
        drawn = self._drawn.get(name, ((), []))[1]
        return drawn[table.cursor_row][0].plain if 0 <= table.cursor_row < len(drawn) else ""

    def _chosen(self) -> NodeRow | None:
        cluster = self._seen.cluster
        nodes = self._choice.nodes(cluster.nodes) if cluster is not None else []
        name = self._chosen_name("first").removesuffix(" *")
        return next((node for node in nodes if node.node == name), None)

    # --- keys ---------------------------------------------------------------------------------------

    def action_sort(self) -> None:
        """Sort by the next column."""
        self._choice = self._choice.next_order()
        self.redraw()

    def action_turn(self) -> None:
        """Sort the other way round."""
        self._choice = replace(self._choice, backwards=not self._choice.backwards)
        self.redraw()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether a key does something now: within the filter, and over a question, `/` is only a letter."""
        if action == "filter":
            return len(self.screen_stack) == 1 and not isinstance(self.focused, Input)
        return super().check_action(action, parameters)

    def action_filter(self) -> None:
        """Take a text to filter by."""
        self.screen.set_focus(self.query_one("#filter", Input))

    def action_clear(self) -> None:
        """Show everything again."""
        self.query_one("#filter", Input).value = ""
        self._choice = replace(self._choice, text="")
        self._leave_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        self._choice = replace(self._choice, text=event.value.strip())
        self.redraw()

    def on_input_submitted(self, _event: Input.Submitted) -> None:
        """Keep the filter, and go back."""
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.screen.set_focus(self.query_one("#first", DataTable))
        self.redraw()

    def action_help(self) -> None:
        """Show what the keys do."""
        self.push_screen(Page("mobikectl top", text=HELP))

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Show the IKE_SAs of a node."""
        node, cluster = self._chosen(), self._seen.cluster
        if event.data_table.id != "first" or node is None or cluster is None:
            return
        sas = self._choice.sas(cluster.sas, node.node)
        rows = [top_draw.sa_cells(sa) for sa in sas[:SAS]]
        more = f", the {SAS} busiest of them" if len(sas) > SAS else ""
        self.push_screen(Page(f"{node.node}: {len(sas)} IKE_SAs{more}", top_draw.SA_COLUMNS, rows))

    # --- what changes something ---------------------------------------------------------------------

    def action_drain(self) -> None:
        """Drain the chosen node, or give it back; ask first."""
        node, wishes = self._chosen(), self._wishes
        if wishes is None or self._seen.cluster is None:
            self.notify(NOT_HERE, severity="warning")
        elif node is None:
            self.notify("choose a node first", severity="warning")
        elif node.drained:
            self._ask(
                f"Give {node.node} back to the cluster?",
                "It takes IKE_SAs again. Nothing comes back at once.",
                lambda: wishes.undrain(node.node),
            )
        else:
            self._ask(
                f"Drain {node.node}?",
                f"Its {node.ike_sas} IKE_SAs are moved to the other nodes, and none to it, until it is given back.",
                lambda: wishes.drain(node.node),
            )

    def action_pause(self) -> None:
        """Pause the cluster, or let it go on; ask first."""
        wishes, cluster = self._wishes, self._seen.cluster
        if wishes is None or cluster is None:
            self.notify(NOT_HERE, severity="warning")
        elif cluster.paused:
            self._ask(
                "Let the cluster go on?",
                "Moves are planned and begun again; drains that stand go on.",
                lambda: wishes.pause(False),
            )
        else:
            self._ask(
                "Pause the cluster?",
                "No further move is planned or begun; what has begun is brought to its end.",
                lambda: wishes.pause(True),
            )

    def _ask(self, question: str, consequence: str, do: Callable[[], Awaitable[str]]) -> None:
        async def carry_out() -> None:
            try:
                said = await do()
            except MobikectlError as error:
                self.notify(visible(str(error)), severity="error", timeout=15, markup=False)
            else:
                self.notify(said, markup=False)

        def answered(answer: bool | None) -> None:
            if answer:
                self.run_worker(carry_out(), name="wish", exit_on_error=True)

        self.push_screen(Ask(question, consequence), answered)
