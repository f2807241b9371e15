"""Trajectories: a measure against the training step, one line per site, steps on a logarithmic axis that also holds zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from inscape.errors import ResultError
from inscape.plots.lines import draw_lines
from inscape.plots.reading import facts_of, ordered
from inscape.plots.theme import Theme, drawing, dress, panels, theme_named
from inscape.results import Result
from inscape.training.phases import phases

_MOST_PHASES = 5


@drawing
def trajectories(
    result: Result, ax: Axes | None = None, *, measures: str | Sequence[str] | None = None, theme: str = "light", columns: int = 3
) -> Figure:
    """Draws how each measure moves while a model trains; sites are colored from early to late.

    Where there are several systems or seeds, each is a line of its own style. Where there is one, and a measure that counts dimensions
    turns, its phases (`inscape.training.phases` of the mean over sites) are named at the top of the panel.

    Args:
        result: rows with `axis="step"` and the step in `at`.
        ax: draw into this axes; then there must be one measure.
        measures: which ones; all by default.
        theme: "light", "dark" or "page".
        columns: panels side by side.

    Raises:
        ResultError: no row has a step, or one `ax` for several measures.
    """
    look = theme_named(theme)
    rows = result.where(axis="step").rows()
    names = [measures] if isinstance(measures, str) else list(measures or ordered(row["measure"] for row in rows))
    if not rows or not names:
        raise ResultError(f"there is no trajectory to draw: none of the {len(result)} rows has axis='step'")
    figure, axes = panels(len(names), look, ax=ax, columns=columns)
    for name, panel in zip(names, axes, strict=True):
        chosen = [row for row in rows if row["measure"] == name]
        facts = facts_of(name)
        draw_lines(panel, chosen, look, facts)
        step_axis(panel, sorted({float(row["at"]) for row in chosen if row["at"] is not None}))
        if facts.higher == "more dimensions" and len({(row["system"], row["seed"]) for row in chosen}) == 1:
            _phase_bands(panel, chosen, name, look)
        panel.set_xlabel("training step")
        dress(panel, look, title=name, note=f"higher: {facts.higher}" if facts.higher else None)
    return figure


def _phase_bands(ax: Axes, rows: list[dict[str, Any]], name: str, look: Theme) -> None:
    """Every other phase on a tint, each with its name where that has room; nothing without a turn, or with too many to say anything."""
    values = [(row["at"], row["value"]) for row in rows if row["value"] is not None]
    if len({at for at, _ in values}) < 2 or min(value for _, value in values) <= 0:
        return
    try:
        found = phases(Result(rows), name)
    except ResultError:  # each site failed at some step: there is no mean to name
        return
    if not 2 <= len(found) <= _MOST_PHASES:
        return
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + 0.14 * (top - bottom))
    place = ax.transData + ax.transAxes.inverted()
    for index, phase in enumerate(found):
        left, right = (float(place.transform((step, top))[0]) for step in (phase.begin, phase.end))
        if index % 2 == 0:
            ax.axvspan(phase.begin, phase.end, color=look.muted, alpha=0.13, linewidth=0)
        if right - left > 0.02 * len(phase.name):  # a letter takes about a fiftieth of a panel
            ax.text((left + right) / 2, 0.98, phase.name, transform=ax.transAxes, color=look.muted, fontsize=8, ha="center", va="top")


def step_axis(ax: Axes, steps: list[float]) -> None:
    """Logarithmic with a linear start, ticks at the steps that were measured; linear if the steps are evenly spaced."""
    if len(steps) < 2:
        return
    positive = [step for step in steps if step > 0]
    if len(positive) < 2 or positive[-1] / positive[0] < 20:
        return
    ax.set_xscale("symlog", linthresh=max(1.0, positive[0]), linscale=0.6)
    # ticks by their distance on the axis, from the end: the last step is the one that is read most
    ticks: list[float] = []
    for step in reversed(steps):
        if not ticks or math.log1p(ticks[-1]) - math.log1p(step) > math.log1p(steps[-1]) / 7:
            ticks.append(step)
    ax.set_xlim(steps[0] - 0.15 * max(1.0, positive[0]), steps[-1] * 1.15)
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, [_step(tick) for tick in ticks])


def _step(step: float) -> str:
    if step >= 1e6:
        return f"{step / 1e6:g}M"
    return f"{step / 1e3:g}k" if step >= 10_000 or (step >= 1000 and step % 1000 == 0) else f"{step:g}"
