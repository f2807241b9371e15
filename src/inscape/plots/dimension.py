"""Curves of a measure over its own axis, above all intrinsic dimension over the scale at which it is read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from inscape.errors import ResultError
from inscape.plots.lines import draw_lines
from inscape.plots.reading import facts_of, ordered
from inscape.plots.theme import drawing, dress, panels, theme_named
from inscape.results import Result

_AXES = {"scale": "neighbors averaged over (scale)", "n": "rows kept", "rank": "rank", "k": "neighbors", "rows": "rows of a class"}


@drawing
def scale_curves(
    result: Result, ax: Axes | None = None, *, measures: str | Sequence[str] | None = None, theme: str = "light", columns: int = 3
) -> Figure:
    """Draws the rows of measures that are curves: value against `at`, one line per site from early to late.

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
        places = [float(row["at"]) for row in chosen]
        if places and min(places) > 0 and max(places) / min(places) >= 20:
            panel.set_xscale("log")
            _plain_ticks(panel, sorted(set(places)))
        axis = chosen[0]["axis"] if chosen else ""
        panel.set_xlabel(_AXES.get(axis, axis or "at"))
        dress(panel, look, title=name, note=f"higher: {facts.higher}" if facts.higher else None)
    return figure


def _plain_ticks(ax: Axes, places: list[float]) -> None:
    """Ticks at the places themselves, well apart, instead of powers of ten."""
    ticks: list[float] = []
    for place in reversed(places):
        if not ticks or math.log(ticks[-1] / place) > math.log(places[-1] / places[0]) / 6:
            ticks.append(place)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
