"""Spectra: the share of variance by rank on logarithmic axes, with the power law that was fitted to the tail."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inscape.errors import ResultError
from inscape.plots.reading import ordered, site_labels, spread, thinned
from inscape.plots.theme import Theme, depth_colors, drawing, dress, panels, theme_named
from inscape.results import Result, format_number

_MOST = 6  # lines that are named with their exponent


@drawing
def spectra(result: Result, ax: Axes | None = None, *, theme: str = "light") -> Figure:
    """Draws the spectra of `spectrum_decay`: one line per site from early to late, dashed where the power law was fitted.

    Args:
        result: rows over the axis "rank", with the exponent as headline.
        ax: draw into this axes; then there must be one system.
        theme: "light", "dark" or "page".

    Raises:
        ResultError: no row lies on a spectrum, or one `ax` for several systems.
    """
    look = theme_named(theme)
    rows = [row for row in result.rows() if row["axis"] == "rank"]
    systems = ordered(row["system"] or "" for row in rows if row["at"] is not None)
    if not systems:
        raise ResultError(f"there is no spectrum to draw: none of the {len(result)} rows lies on the axis 'rank' (measure spectrum_decay)")
    options = result.settings.get("options")
    figure, axes = panels(len(systems), look, ax=ax, width=4.6, height=3.4)
    for system, panel in zip(systems, axes, strict=True):
        _panel(panel, [row for row in rows if (row["system"] or "") == system], options if isinstance(options, dict) else {}, look)
        dress(panel, look, title=f"spectra of {system}" if system else "spectra", note="dashed: fitted power law, with its exponent")
    return figure


def _panel(ax: Axes, rows: list[dict[str, Any]], options: dict[str, Any], look: Theme) -> None:
    sites = ordered(row["site"] for row in rows)
    labels, _ = site_labels(sites)
    colors = depth_colors(len(sites), look) if len(sites) > 1 else [look.palette[0]]
    ends: list[tuple[float, float, int, float | None]] = []
    for index, site in enumerate(sites):
        mine = sorted((row for row in rows if row["site"] == site and row["at"] is not None and row["value"]), key=lambda row: row["at"])
        if not mine:
            continue
        xs, ys = [float(row["at"]) for row in mine], [float(row["value"]) for row in mine]
        ax.plot(xs, ys, color=colors[index], linewidth=1.7, solid_capstyle="round")
        head = next((row for row in rows if row["site"] == site and row["at"] is None and row["value"] is not None), None)
        if head is not None:
            _fit(ax, xs, ys, head, options, look)
        ends.append((xs[-1], ys[-1], index, None if head is None else head["value"]))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("rank")
    ax.set_ylabel("share of variance")
    chosen = [ends[i] for i in thinned(len(ends), _MOST)]
    bottom, top = (math.log(limit) for limit in ax.get_ylim())
    right = max(end[0] for end in ends)
    places = spread([math.log(end[1]) for end in chosen], 0.075 * (top - bottom), bottom, top)
    for (_, _, index, exponent), place in zip(chosen, places, strict=True):
        text = (labels[index] if len(sites) > 1 else "") + (f"  α = {format_number(exponent, 3)}" if exponent is not None else "")
        ax.annotate(
            text.strip(), (right, math.exp(place)), (6, 0), textcoords="offset points", color=colors[index], fontsize=8.5, va="center",
            annotation_clip=False,
        )  # fmt: skip


def _fit(ax: Axes, xs: list[float], ys: list[float], head: dict[str, Any], options: dict[str, Any], look: Theme) -> None:
    """The fitted law over its window, through the spectrum there."""
    recorded = options.get(head["measure"])  # one entry for each shape of input
    window: dict[str, Any] = recorded[0] if isinstance(recorded, list) and recorded else {}
    first, last = float(window.get("first_rank", 11)), min(float(window.get("last_rank", xs[-1])), xs[-1])
    inside = [(x, y) for x, y in zip(xs, ys, strict=True) if first <= x <= last]
    if len(inside) < 2:
        return
    weight = [1 / x for x, _ in inside]
    level = sum(w * (math.log(y) + head["value"] * math.log(x)) for w, (x, y) in zip(weight, inside, strict=True)) / sum(weight)
    ax.plot(
        [first, last], [math.exp(level) * x ** -head["value"] for x in (first, last)], color=look.ink, linewidth=1.0,
        linestyle=(0, (4, 3)), zorder=5,
    )  # fmt: skip
