"""The collapse dashboard: four small panels that show variability, geometry, duality and decisions along the sites."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inscape.errors import ResultError
from inscape.plots.reading import fitting, headline, ordered, site_labels, spread, thinned
from inscape.plots.theme import Theme, drawing, dress, panels, theme_named
from inscape.results import Result

# Panel title, what its numbers do when classes collapse, scale, and the measures that share it.
GROUPS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("variability inside classes", "falls to 0 with collapse", "log", ("nc1", "nc1_trace", "cdnv", "linguistic_collapse")),
    (
        "geometry of class means",
        "falls to 0 with collapse",
        "linear",
        ("nc2_equinorm", "nc2_equiangular", "nc2_max_angle", "nc2_etf", "gnc2"),
    ),
    ("classifier against class means", "falls to 0 with collapse", "linear", ("nc3_duality",)),
    ("shares", "variability falls to 0, agreement rises to 1", "share", ("variability_collapse", "nc4_agreement")),
)
MEASURES = frozenset(name for group in GROUPS for name in group[3])


@drawing
def collapse_dashboard(result: Result, ax: Axes | None = None, *, theme: str = "light", columns: int = 2) -> Figure:
    """Draws the measures of collapse of one system along its sites, those that mean the same kind of thing in one panel.

    Lines are named where they end; the band is the interval. A variability of exactly 0 lies on the floor of its logarithmic panel.

    Args:
        result: from `measure`, with one system or one of several.
        ax: draw into this axes; then the measures must be of one panel.
        theme: "light", "dark" or "page".
        columns: panels side by side.

    Raises:
        ResultError: no measure of collapse has a number, several systems, or one `ax` for several panels.
    """
    look = theme_named(theme)
    rows = [row for row in headline(result) if row["measure"].split("(")[0] in MEASURES and row["value"] is not None]
    systems = ordered((row["system"], row["seed"]) for row in rows)
    if not rows:
        raise ResultError(f"there is no measure of collapse to draw; the result has {', '.join(result.unique('measure')) or 'no measure'}")
    if len({(row["system"], row["seed"], row["label"]) for row in rows}) > 1:
        raise ResultError(
            f"a dashboard shows one system and label, the result has {len(systems)} systems; choose with result.where(system=…)"
        )
    shown = [group for group in GROUPS if any(row["measure"].split("(")[0] in group[3] for row in rows)]
    figure, axes = panels(len(shown), look, ax=ax, columns=columns, width=4.2, height=2.7)
    sites = ordered(row["site"] for row in rows)
    for group, panel in zip(shown, axes, strict=True):
        _panel(panel, group, rows, sites, look)
    return figure


def _panel(ax: Axes, group: tuple[str, str, str, tuple[str, ...]], rows: list[dict[str, Any]], sites: list[str], look: Theme) -> None:
    title, note, scale, names = group
    mine = [row for row in rows if row["measure"].split("(")[0] in names]
    positive = [row["value"] for row in mine if row["value"] > 0]
    floor = min(positive) / 3 if scale == "log" and positive else 0.0
    if scale == "log" and positive and max(positive) > 3 * min(positive):
        ax.set_yscale("log")
    ends: list[tuple[float, float, str, str]] = []
    for index, name in enumerate(ordered(row["measure"] for row in mine)):
        color = look.palette[index % len(look.palette)]
        own = sorted((row for row in mine if row["measure"] == name), key=lambda row: sites.index(row["site"]))
        xs = [sites.index(row["site"]) for row in own]
        ys = [max(row["value"], floor) for row in own]
        band = [row for row in own if row["low"] is not None and row["high"] is not None]
        if band:
            ax.fill_between(
                [sites.index(row["site"]) for row in band], [max(row["low"], floor) for row in band],
                [max(row["high"], floor) for row in band], color=color, alpha=0.16, linewidth=0,
            )  # fmt: skip
        ax.plot(xs, ys, color=color, linewidth=1.8, marker="o" if len(sites) <= 24 else None, markersize=3.6, solid_capstyle="round")
        ends.append((xs[-1], ys[-1], name, color))
    if scale == "share":
        ax.set_ylim(-0.03, 1.03)
    elif ax.get_yscale() == "linear":
        ax.set_ylim(bottom=0, top=1.12 * max(max(row["value"], row["high"] or 0.0) for row in mine) or 1.0)
    _name(ax, ends)
    labels, axis = site_labels(sites)
    ticks = fitting(labels, 3.0) or thinned(len(sites), 8)
    ax.set_xticks(ticks, [labels[i] for i in ticks])
    ax.set_xlim(-0.35, max(0.35, len(sites) - 0.65))
    ax.set_xlabel(axis)
    dress(ax, look, title=title, note=note)


def _name(ax: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Names at the ends of the lines, moved apart in the units of the axis as drawn."""
    logarithmic = ax.get_yscale() == "log"
    bottom, top = ax.get_ylim()
    low, high = (math.log10(bottom), math.log10(top)) if logarithmic else (bottom, top)
    places = [math.log10(y) if logarithmic else y for _, y, _, _ in ends]
    for (x, _, text, color), place in zip(ends, spread(places, 0.1 * (high - low), low, high), strict=True):
        y = 10**place if logarithmic else place
        ax.annotate(text, (x, y), (6, 0), textcoords="offset points", color=color, fontsize=8.5, va="center", annotation_clip=False)
