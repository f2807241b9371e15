"""Heads × layers: a number for every head of every layer, as a map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inscape.errors import ResultError
from inscape.plots.reading import facts_of, ordered, site_labels, thinned
from inscape.plots.theme import SEQUENTIAL, drawing, dress, panels, theme_named
from inscape.results import Result


@drawing
def head_map(
    result: Result, ax: Axes | None = None, *, measures: str | Sequence[str] | None = None, theme: str = "light", columns: int = 2
) -> Figure:
    """Draws measures of heads: layers from bottom to top, heads to the right, bright is more.

    Args:
        result: from `measure`, with rows whose axis is "head".
        ax: draw into this axes; then there must be one measure of one system.
        measures: which ones; all that have heads by default.
        theme: "light", "dark" or "page".
        columns: panels side by side.

    Raises:
        ResultError: no measure has heads, or one `ax` for several panels.
    """
    look = theme_named(theme)
    wanted = {measures} if isinstance(measures, str) else set(measures or result.unique("measure"))
    rows = [row for row in result.rows() if row["axis"] == "head" and row["at"] is not None and row["measure"] in wanted]
    groups = ordered((row["measure"], row["system"], row["seed"]) for row in rows)
    if not groups:
        raise ResultError(f"there are no heads to draw: none of the {len(result)} rows has the axis 'head'")
    several = len({group[1:] for group in groups}) > 1
    sizes = [(len({r["site"] for r in rows}), 1 + max(int(r["at"]) for r in rows))]
    height, width = min(6.0, 1.5 + 0.28 * sizes[0][0]), min(6.0, 1.9 + 0.28 * sizes[0][1])
    figure, axes = panels(len(groups), look, ax=ax, columns=columns, width=max(3.2, width), height=max(2.4, height))
    for group, panel in zip(groups, axes, strict=True):
        mine = [row for row in rows if (row["measure"], row["system"], row["seed"]) == group]
        sites = ordered(row["site"] for row in mine)
        values = np.full((len(sites), 1 + max(int(row["at"]) for row in mine)), math.nan)
        for row in mine:
            values[sites.index(row["site"]), int(row["at"])] = math.nan if row["value"] is None else row["value"]
        colors = matplotlib.colormaps[SEQUENTIAL].with_extremes(bad=(0, 0, 0, 0))
        facts = facts_of(group[0])
        low = facts.low if math.isfinite(facts.low) and np.nanmin(values) < 0.5 * np.nanmax(values) else None
        drawn = panel.imshow(values, origin="lower", aspect="auto", cmap=colors, vmin=low, interpolation="nearest")
        bar = figure.colorbar(drawn, ax=panel, fraction=0.046, pad=0.03)
        bar.ax.tick_params(colors=look.muted, labelcolor=look.ink)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        labels, title = site_labels([site.split("|")[0] for site in sites])
        ticks = thinned(len(sites), 12)
        panel.set_yticks(ticks, [labels[i] for i in ticks])
        heads = thinned(values.shape[1], 12)
        panel.set_xticks(heads, [str(head) for head in heads])
        panel.set_xlabel("head")
        panel.set_ylabel(title)
        name = group[0] + (f" of {group[1]}" if several and group[1] else "")
        dress(panel, look, title=name, note=f"bright: {facts.higher}" if facts.higher else None)
    return figure
