"""How a drain is shown: a bar and a line per outcome while it goes on, a summary in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mobikectl.cli.drain_watch import End
from mobikectl.cli.journal import COLOUR, outcome
from mobikectl.cli.output import console, counted, print_table

if TYPE_CHECKING:
    from types import TracebackType

    from mobikectl.cli.drain_watch import Summary
    from mobikectl.cluster.records import MoveRecord

MOST_SHOWN = 50
"""IKE_SAs that stay and are shown; JSON has them all."""
ENDED = {
    End.EMPTY: "is empty",
    End.STUCK: "is not empty, and nothing more will leave it by itself",
    End.TIMEOUT: "is not empty yet, and the time is over",
    End.INTERRUPTED: "stays drained and goes on being emptied; only the waiting was ended",
    End.AWAY: "is away: its peers come back to other nodes by themselves",
    End.UNDRAINED: "is no longer drained",
}


class DrainDisplay:
    """A bar on the terminal, and a line for each move that ended. ``quiet``: on standard error, without lines."""

    def __init__(self, node: str, *, quiet: bool) -> None:
        self._console = Console(stderr=True, highlight=False) if quiet else console
        self._lines = not quiet
        self._note = ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("IKE_SAs gone"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(node, total=None, note="")

    def __enter__(self) -> DrainDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def moved(self, move: MoveRecord) -> None:
        """See `Display.moved`: one line for each that ended."""
        if move.done and self._lines:
            self._console.print(outcome(move), style=COLOUR.get(move.state, ""), markup=False, soft_wrap=True)

    def progress(self, remaining: int, total: int, note: str) -> None:
        """See `Display.progress`. Without a terminal the notes alone are told, each once."""
        if note and note != self._note and self._lines and not self._console.is_terminal:
            self._console.print(f"note: {note}", markup=False, soft_wrap=True)
        self._note = note
        self._progress.update(self._task, total=total, completed=total - remaining, note=note)


def as_dict(summary: Summary) -> dict[str, Any]:
    """Given a summary, return it for JSON."""
    return {
        "node": summary.node,
        "end": summary.end.value,
        "drained": summary.end is not End.UNDRAINED,
        "empty": summary.end is End.EMPTY,
        "at_start": summary.at_start,
        "left": {"total": sum(summary.left.values()), "by_mechanism": dict(summary.left)},
        "ended_otherwise": summary.otherwise,
        "came": summary.came,
        "under_way": summary.under_way,
        "stays": None
        if summary.stays is None
        else [{"sa": stay.key, "peer": stay.peer_id, "why": stay.why} for stay in summary.stays],
        "notes": list(summary.notes),
    }


def show(summary: Summary) -> None:
    """Print a summary for people."""
    console.print(f"{summary.node} {ENDED[summary.end]}", style="bold", markup=False)
    for text in _counts(summary):
        console.print(f"  {text}", markup=False)
    for note in summary.notes:
        console.print(f"  {note}", markup=False, soft_wrap=True)
    if summary.stays:
        print_table(
            ["stays", "peer", "why"],
            [[stay.key, stay.peer_id, stay.why] for stay in summary.stays[:MOST_SHOWN]],
        )
        if len(summary.stays) > MOST_SHOWN:
            console.print(f"  and {len(summary.stays) - MOST_SHOWN} more (--json lists all)")


def _counts(summary: Summary) -> list[str]:
    how = ", ".join(f"{count} by {word}" for word, count in summary.left.items())
    left = sum(summary.left.values())
    found = [f"{left} of {counted(summary.at_start)} moved" + (f": {how}" if how else "")]
    if summary.otherwise:
        found.append(f"{summary.otherwise} ended without a move (their peers left)")
    if summary.came:
        found.append(f"{summary.came} came while it was drained")
    if summary.under_way:
        found.append(f"{summary.under_way} on the way")
    if summary.stays is None:
        found.append("what is there now is not known")
    elif summary.stays:
        found.append(f"{len(summary.stays)} still there")
    return found
