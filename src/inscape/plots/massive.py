"""Where the massive activations of every layer lie: which units, at which positions, and how large."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from inscape.errors import ResultError
from inscape.measures.places import PLACE, read_place
from inscape.plots.reading import headline, ordered, site_labels, thinned
from inscape.plots.theme import Theme, drawing, dress, panels, theme_named
from inscape.results import Result, format_number

# From this ratio to the median on the paper calls an activation massive (if it is above 100 as well).
_MASSIVE = 1000.0


@drawing
def massive_map(result: Result, ax: Axes | None = None, *, theme: str = "light", columns: int = 2) -> Figure:
    """Draws the largest entries of every site: units to the right, sites upward, area by the logarithm of the ratio to the median.

    Colors tell the first position of a sequence from all others. Units that come back at many sites are named; a ring marks entries
    above 1,000 medians.

    Args:
        result: from `measure(store, "massive_activations")`.
        ax: draw into this axes; then there must be one system.
        theme: "light", "dark" or "page".
        columns: panels side by side.

    Raises:
        ResultError: the result says of no entry where it lies, or one `ax` for several systems.
    """
    look = theme_named(theme)
    rows = [row for row in result.rows() if row["axis"] == PLACE and row["at"] is not None]
    systems = ordered((row["system"], row["seed"]) for row in rows)
    if not rows:
        raise ResultError(f"none of the {len(result)} rows says where an entry lies; measure 'massive_activations' of a store first")
    order = ordered(row["site"] for row in headline(result, measure="massive_activations*"))
    figure, axes = panels(len(systems), look, ax=ax, columns=columns, width=5.4, height=max(2.6, min(6.0, 1.6 + 0.3 * len(order))))
    for system, panel in zip(systems, axes, strict=True):
        mine = [row for row in rows if (row["system"], row["seed"]) == system]
        _panel(panel, mine, order, look, str(system[0] or "") if len(systems) > 1 else "massive_activations")
    return figure


def _panel(ax: Axes, rows: list[dict[str, Any]], sites: list[str], look: Theme, title: str) -> None:
    places = [read_place(row["at"]) for row in rows]
    units, ratios = np.array([unit for _, _, unit in places]), np.array([row["value"] for row in rows])
    heights = np.array([sites.index(row["site"]) for row in rows])
    first = np.array([position == 0 for _, position, _ in places])
    area = 14 + 55 * np.log10(np.clip(ratios, 1, None)) / max(1.0, math.log10(ratios.max()))
    for inside, color, name in ((~first, look.palette[0], "other positions"), (first, look.palette[1], "position 0")):
        if inside.any():
            ax.scatter(units[inside], heights[inside], s=area[inside], color=color, alpha=0.55, linewidths=0, label=name)
    massive = ratios >= _MASSIVE
    if massive.any():
        ax.scatter(units[massive], heights[massive], s=area[massive] + 60, facecolors="none", edgecolors=look.ink, linewidths=0.9)
    common = [int(unit) for unit in np.unique(units) if len(np.unique(heights[units == unit])) >= max(2, len(sites) // 3)]
    width = max(int(row["d"] or 0) for row in rows) or int(units.max()) + 1
    named: list[tuple[int, int]] = []
    for unit in sorted(common, key=lambda u: -float(ratios[units == u].max())):
        at = int(heights[units == unit].max())
        if len(named) == 4 or any(height == at and abs(other - unit) < 0.13 * width for other, height in named):
            continue  # its name would lie on that of a unit that stands out more
        named.append((unit, at))
        ax.annotate(f"unit {unit}", (unit, at), (0, 7), textcoords="offset points", color=look.ink, fontsize=8.5, ha="center")
    for height, site in enumerate(sites):
        own = [row["value"] for row in rows if row["site"] == site]
        if own:
            ax.annotate(
                f"{format_number(max(own), 2)}×", (1, height), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                color=look.muted, fontsize=8.5, va="center", annotation_clip=False,
            )  # fmt: skip
    labels, axis = site_labels(sites)
    ticks = thinned(len(sites), 14)
    ax.set_yticks(ticks, [labels[i] for i in ticks])
    ax.set_ylim(-0.6, len(sites) - 0.3)
    ax.set_ylabel(axis)
    ax.set_xlabel("unit")
    ax.set_xlim(-0.03 * width - 0.5, 1.03 * width - 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if first.any() and not first.all():
        ax.legend(frameon=False, fontsize=8, labelcolor=look.ink, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    dress(ax, look, title=title, note="the 16 largest entries of each site; at the right the largest, in medians")
