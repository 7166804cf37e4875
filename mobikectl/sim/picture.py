"""The report as a picture (matplotlib, the extra ``plot``)."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from mobikectl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobikectl.sim.run import Outcome
    from mobikectl.sim.workload import Scenario

FORMATS = ("svg", "png")
_COLOURS = ("tab:blue", "tab:orange", "tab:green")


def picture(scenario: Scenario, outcomes: Sequence[Outcome], form: str) -> bytes:
    """Given outcomes of one scenario, return an image of the form 'svg' or 'png'.

    Raise ConfigError when matplotlib is not installed or the form is another.
    """
    if form not in FORMATS:
        raise ConfigError(f"a picture cannot be written as {form!r}", hint="name the file .svg or .png")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "matplotlib is not installed, so there is no picture",
            hint="install mobikectl with its extra 'plot', or leave out --picture",
        ) from error
    with rc_context({"svg.hashsalt": "mobikectl"}):  # the same run gives the same file
        figure = Figure(figsize=(10, 9), layout="constrained")
        upper, middle, lower = figure.subplots(3, 1, height_ratios=(3, 2, 2))
        for outcome, colour in zip(outcomes, _COLOURS, strict=False):
            s = outcome.series
            upper.plot(s.at, s.peak, color=colour, label=outcome.strategy, linewidth=1)
            middle.plot(s.at, s.peak / s.mean, color=colour, label=outcome.strategy, linewidth=1)
        best = outcomes[0].series
        upper.plot(best.at, best.best, color="black", linestyle="--", label="best possible", linewidth=1)
        upper.axhline(scenario.overload_limit, color="tab:red", linestyle=":", label="overload limit")
        for axis in (upper, middle):
            axis.axvspan(0, scenario.warmup_s, color="0.92")
            axis.set_xlim(0, scenario.seconds)
            axis.grid(alpha=0.3)
            axis.set_xlabel("virtual seconds (grey: warm-up, not measured)")
        upper.set_ylabel("utilisation of the fullest node")
        figure.legend(
            *upper.get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize="small"
        )
        upper.set_title(
            f"{scenario.nodes} nodes, {scenario.sas:,} IKE_SAs, {scenario.failures} failing, "
            f"{scenario.drains} drained, seed {scenario.seed}"
        )
        middle.set_ylabel("spread (max / mean)")
        names = [outcome.strategy for outcome in outcomes]
        moved = [sum(outcome.moves.values()) for outcome in outcomes]
        places = range(len(outcomes))
        lower.bar([i - 0.2 for i in places], moved, 0.4, color="0.6", label="moved")
        cut = lower.bar(
            [i + 0.2 for i in places],
            [outcome.interrupted for outcome in outcomes],
            0.4,
            color="tab:red",
            label="interrupted by the strategy",
        )
        lower.bar_label(cut)
        lower.set_xticks(list(places), names)
        lower.set_ylabel("IKE_SAs")
        lower.legend(fontsize="small")
        image = BytesIO()
        figure.savefig(image, format=form, metadata={"Date": None} if form == "svg" else None)
    return image.getvalue()
