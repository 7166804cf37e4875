"""A picture of what happened: which path served an IKE_SA when, what caused it to move, what was lost.

Draws SVG, PNG or PDF (by the file's ending) with matplotlib, which is an optional extra.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from mobikectl.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SURFACE, INK, INK_SOFT, GRID = "#fcfcfb", "#0b0b0b", "#52514e", "#e4e3df"
PATH_COLOURS = ("#2a78d6", "#eb6834", "#1baf7a", "#eda100", "#8250c4", "#0b7f8f")
LOSS_COLOUR = "#d03b3b"
CAUSE_STEP = 0.42
"""How much higher each further line of causes stands."""
MANY = 12
"""With more rows than this they are drawn thin, and a legend says what the colours are."""
CAUSE_LENGTH = 60
"""Letters of a cause that are shown at most."""


class MarkKind(Enum):
    """What a mark stands for; the value is its word in the legend."""

    CAUSE = "cause"
    DECISION = "decision"
    MOVE = "move requested"
    VERIFIED = "move verified"
    UNDONE = "move undone"


MARK_STYLE: dict[MarkKind, tuple[str, str]] = {
    MarkKind.CAUSE: ("v", INK),
    MarkKind.DECISION: ("D", "#8250c4"),
    MarkKind.MOVE: (">", "#2a78d6"),
    MarkKind.VERIFIED: ("o", "#1baf7a"),
    MarkKind.UNDONE: ("X", LOSS_COLOUR),
}


@dataclass(frozen=True, slots=True)
class Span:
    """A path in use from ``start`` to ``end`` (seconds from the picture's zero)."""

    start: float
    end: float
    label: str


@dataclass(frozen=True, slots=True)
class Row:
    """One IKE_SA (or node): the spans of what it used, side by side in time."""

    label: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at one moment."""

    at: float
    kind: MarkKind
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """Everything in one picture. Times are seconds from its zero."""

    title: str
    end: float
    rows: tuple[Row, ...]
    marks: tuple[Mark, ...] = ()
    lost: tuple[float, ...] = ()
    """When the packets that were lost had been sent."""
    caption: str = ""
    start: float = 0.0
    loss_known: bool = True
    """Whether ``lost`` was measured: otherwise that none is in it says nothing, and none is drawn."""
    colours: dict[str, str] = field(default_factory=dict)
    """Span label -> colour; labels without one get the next of the palette in order of appearance."""


def draw(timelines: tuple[Timeline, ...], file: Path) -> None:
    """Given one or more timelines, draw them one below the other into ``file``.

    Raise ConfigError when matplotlib is not installed. Raise OSError when the file cannot be written.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ConfigError(
            "pictures need matplotlib, which is not installed", hint="pip install 'mobikectl[plot]'"
        ) from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"font.size": 9, "svg.fonttype": "none", "axes.edgecolor": GRID, "text.color": INK})
    heights = [
        1.8 + (0.13 if _thin(timeline) else 0.5) * len(timeline.rows) + 0.2 * _levels(timeline)
        for timeline in timelines
    ]
    figure, axes = plt.subplots(
        len(timelines), 1, figsize=(11, sum(heights)), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    figure.patch.set_facecolor(SURFACE)
    for axis, timeline in zip(axes[:, 0], timelines, strict=True):
        _draw_one(axis, timeline)
    figure.tight_layout(h_pad=1.5)
    figure.savefig(file, facecolor=SURFACE, metadata={"Date": None} if file.suffix == ".svg" else None)
    plt.close(figure)


def _draw_one(axis: Any, timeline: Timeline) -> None:
    colours = _colours(timeline)
    for place, row in enumerate(timeline.rows):
        for span in row.spans:
            _draw_span(axis, span, place, colours[span.label], timeline)
    unit = 0.5 / 0.13 if _thin(timeline) else 1.0  # what is as high as one row elsewhere
    marks_at, lost_at = len(timeline.rows) - 0.1, -0.85
    places, labels = [*range(len(timeline.rows))], [row.label for row in timeline.rows]
    if timeline.loss_known:
        axis.eventplot(
            list(timeline.lost), lineoffsets=lost_at, linelengths=0.4, linewidths=0.8, colors=LOSS_COLOUR
        )
        labels.append(f"lost ({len(timeline.lost)})")
    _draw_marks(axis, timeline, marks_at, unit)
    axis.set_yticks(
        [*places, *([lost_at] if timeline.loss_known else []), marks_at + 0.25 * unit], [*labels, "happened"]
    )
    if _thin(timeline):
        for tick in axis.get_yticklabels()[: len(places)]:
            tick.set_fontsize(5.5)
        _draw_colours(axis, colours)
    axis.set_ylim(
        (lost_at if timeline.loss_known else 0) - 0.5,
        marks_at + (0.75 + CAUSE_STEP * max(1, _levels(timeline))) * unit,
    )
    axis.set_xlim(timeline.start, max(timeline.end, timeline.start + 0.001))
    axis.set_xlabel("seconds")
    axis.set_title(timeline.title, loc="left", fontweight="bold", color=INK)
    if timeline.caption:
        axis.set_title(timeline.caption, loc="right", color=INK_SOFT, fontsize=8)
    axis.set_facecolor(SURFACE)
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(colors=INK_SOFT, length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _draw_span(axis: Any, span: Span, place: int, colour: str, timeline: Timeline) -> None:
    width = span.end - span.start
    thin = _thin(timeline)
    axis.barh(place, width, left=span.start, height=0.8 if thin else 0.5, color=colour, linewidth=0)
    whole = max(timeline.end - timeline.start, 0.001)
    if not thin and width / whole > 0.012 * len(span.label):  # only where the words fit
        axis.text(
            span.start + width / 2, place, span.label, ha="center", va="center", color="white", fontsize=8
        )


def _thin(timeline: Timeline) -> bool:
    return len(timeline.rows) > MANY


def _draw_colours(axis: Any, colours: dict[str, str]) -> None:
    """Say above the rows which colour is whose."""
    for place, (label, colour) in enumerate(colours.items()):
        axis.annotate(
            f"■ {label}",
            (1.0, 0.0),
            xycoords="axes fraction",
            xytext=(8, 14 * place + 6),
            textcoords="offset points",
            color=colour,
            fontsize=8,
            annotation_clip=False,
        )


def _cause_levels(timeline: Timeline) -> list[tuple[Mark, int]]:
    """Give each cause's words a line of their own where they would run into those of the cause before."""
    whole = max(timeline.end - timeline.start, 0.001)
    placed: list[tuple[Mark, int]] = []
    ends: list[float] = []
    for mark in timeline.marks:
        if mark.kind is not MarkKind.CAUSE:
            continue
        level = next((n for n, end in enumerate(ends) if mark.at >= end), len(ends))
        ends[level : level + 1] = [mark.at + whole * (0.02 + 0.0075 * len(_short(mark.text)))]
        placed.append((mark, level))
    return placed


def _levels(timeline: Timeline) -> int:
    return max((level + 1 for _, level in _cause_levels(timeline)), default=0)


def _short(text: str) -> str:
    return text if len(text) <= CAUSE_LENGTH else text[: CAUSE_LENGTH - 1] + "…"


def _draw_marks(axis: Any, timeline: Timeline, height: float, unit: float) -> None:
    seen: set[MarkKind] = set()
    for mark in timeline.marks:
        symbol, colour = MARK_STYLE[mark.kind]
        name = None if mark.kind in seen else mark.kind.value
        seen.add(mark.kind)
        axis.plot(
            mark.at,
            height + 0.25 * unit,
            symbol,
            color=colour,
            markersize=6,
            label=name,
            clip_on=False,
            linestyle="none",
        )
    for mark, level in _cause_levels(timeline):
        axis.axvline(mark.at, color=INK_SOFT, linewidth=0.8, linestyle=":", zorder=0)
        where = (mark.at, height + (0.55 + CAUSE_STEP * level) * unit)
        axis.annotate(_short(mark.text), where, xytext=(3, 0), textcoords="offset points", fontsize=8)
    if seen:
        axis.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.6 / (0.13 * len(timeline.rows) + 0.8) if _thin(timeline) else -0.22),
            ncols=len(seen),
            frameon=False,
            fontsize=8,
            labelcolor=INK_SOFT,
        )


def _colours(timeline: Timeline) -> dict[str, str]:
    colours = dict(timeline.colours)
    for row in timeline.rows:
        for span in row.spans:
            if span.label not in colours:
                colours[span.label] = PATH_COLOURS[len(colours) % len(PATH_COLOURS)]
    return colours
