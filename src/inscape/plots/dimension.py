"""Curves of a measure over its own axis, above all intrinsic dimension over the scale at which it is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from inscape.errors import ResultError
from inscape.plots.lines import draw_lines
from inscape.plots.reading import SCALE_DEPENDENT, facts_of, ordered, site_labels
from inscape.plots.theme import Theme, drawing, dress, panels, theme_named
from inscape.results import Result

_AXES = {
    "scale": "neighbors averaged over (scale)",
    "neighbors": "neighbors",
    "rows": "rows",
    "n": "rows kept",
    "rank": "rank",
    "k": "neighbors",
}
_FLAGGED = 3  # sites that a flag names


@drawing
def scale_curves(
    result: Result, ax: Axes | None = None, *, measures: str | Sequence[str] | None = None, theme: str = "light", columns: int = 3
) -> Figure:
    """Draws the rows of measures that are curves: value against `at`, one line per site from early to late.

    A dimension that depends on the scale is not one number: its line has rings, and a flag names the site.

    Args:
        result: rows with a numeric `at` on any axis but the training step.
        ax: draw into this axes; then there must be one measure.
        measures: which ones; all that are curves by default.
        theme: "light", "dark" or "page".
        columns: panels side by side.

    Raises:
        ResultError: no row lies on a curve, or one `ax` for several measures.
    """
    look = theme_named(theme)
    rows = [r for r in result.rows() if r["at"] is not None and not isinstance(r["at"], str) and r["axis"] != "step"]
    names = [measures] if isinstance(measures, str) else list(measures or ordered(row["measure"] for row in rows))
    if not rows or not names:
        raise ResultError(f"there is no curve to draw: none of the {len(result)} rows has a numeric place in 'at'")
    figure, axes = panels(len(names), look, ax=ax, columns=columns)
    for name, panel in zip(names, axes, strict=True):
        chosen = [row for row in rows if row["measure"] == name]
        facts = facts_of(name)
        draw_lines(panel, chosen, look, facts)
        _flag(panel, [row for row in result.rows() if row["measure"] == name], look)
        places = [float(row["at"]) for row in chosen]
        if places and min(places) > 0 and max(places) / min(places) >= 10:
            panel.set_xscale("log")
            _plain_ticks(panel, sorted(set(places)))
        axis = chosen[0]["axis"] if chosen else ""
        panel.set_xlabel(_AXES.get(axis, axis or "at"))
        dress(panel, look, title=name, note=f"higher: {facts.higher}" if facts.higher else None)
    return figure


def _flag(ax: Axes, rows: list[dict[str, Any]], look: Theme) -> None:
    """Rings around the points of sites whose dimension depends on the scale, and their names."""
    sites = ordered(row["site"] for row in rows if row["at"] is None and SCALE_DEPENDENT in (row["reason"] or ""))
    if not sites:
        return
    points = [
        (float(row["at"]), row["value"]) for row in rows if row["site"] in sites and row["at"] is not None and row["value"] is not None
    ]
    ax.plot(*zip(*points, strict=True), "o", markersize=7.5, markerfacecolor="none", markeredgecolor=look.muted, markeredgewidth=0.9)
    labels, _ = site_labels(ordered(row["site"] for row in rows))
    named = [labels[index] for index, site in enumerate(ordered(row["site"] for row in rows)) if site in sites]
    text = ", ".join(named[:_FLAGGED]) + (f" and {len(named) - _FLAGGED} more" if len(named) > _FLAGGED else "")
    ax.annotate(
        f"○ depends on the scale: {text}", (1, 1), (0, -4), xycoords="axes fraction", textcoords="offset points", color=look.ink,
        fontsize=8.5, ha="right", va="top",
    )  # fmt: skip


def _plain_ticks(ax: Axes, places: list[float]) -> None:
    """Ticks at the places themselves, well apart, instead of powers of ten."""
    ticks: list[float] = []
    for place in reversed(places):
        if not ticks or math.log(ticks[-1] / place) > math.log(places[-1] / places[0]) / 6:
            ticks.append(place)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
