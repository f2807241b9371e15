"""Site × site heatmaps: one panel per measure and pair of systems, cells inside the null hatched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from inscape.errors import ResultError
from inscape.plots.matches import best_places
from inscape.plots.reading import Facts, facts_of, fitting, headline, inside_null, ordered, site_labels, thinned
from inscape.plots.theme import SEQUENTIAL, Theme, drawing, dress, panels, theme_named
from inscape.results import Result, format_number

PRINTED_CELLS = 110


@drawing
def site_heatmaps(
    result: Result, ax: Axes | None = None, *, measures: str | Sequence[str] | None = None, theme: str = "light", columns: int = 3
) -> Figure:
    """Draws a comparison: sites of the first system upward, of the second to the right, both from early to late.

    Colors span the measure's declared range, bright is more alike. Hatched cells are inside the null, a cross is a number that
    could not be computed. A ring (bold type) marks the best match of each row and a line joins them; dots are cells that cannot be
    told from the best, where the comparison has a jackknife.

    Args:
        result: from `compare`.
        ax: draw into this axes; then there must be one measure and one pair of systems.
        measures: which ones; all by default.
        theme: "light", "dark" or "page".
        columns: panels side by side.

    Raises:
        ResultError: the result compares nothing, or one `ax` was given for several panels.
    """
    look = theme_named(theme)
    rows = [row for row in headline(result) if row["site_b"] is not None]
    wanted = {measures} if isinstance(measures, str) else set(measures or (row["measure"] for row in rows))
    groups = ordered(
        (r["measure"], r["system"], r["system_b"], r["label"], r["subject"], r["seed"]) for r in rows if r["measure"] in wanted
    )
    if not groups:
        raise ResultError(f"there is no comparison to draw: {len(rows)} rows have a second site, measures {result.unique('measure')}")
    several = len({group[1:] for group in groups}) > 1
    widest = max(len({r["site_b"] for r in rows}), len({r["site"] for r in rows}))
    size = min(6.0, max(3.3, 0.36 * widest + 1.4))
    figure, axes = panels(len(groups), look, ax=ax, width=size + 0.5, height=size, columns=columns)
    for group, panel in zip(groups, axes, strict=True):
        mine = [r for r in rows if (r["measure"], r["system"], r["system_b"], r["label"], r["subject"], r["seed"]) == group]
        _panel(figure, panel, mine, facts_of(group[0]), look, result=result, several=several)
    return figure


def matrix(rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Values [sites, sites_b] with NaN where there is none, which of them are inside the null, and the names of both axes."""
    sites, others = ordered(row["site"] for row in rows), ordered(row["site_b"] for row in rows)
    values = np.full((len(sites), len(others)), np.nan)
    inside = np.zeros_like(values, dtype=bool)
    for row in rows:
        place = sites.index(row["site"]), others.index(row["site_b"])
        values[place] = math.nan if row["value"] is None else row["value"]
        inside[place] = bool(inside_null(row))
    return values, inside, sites, others


def color_scale(values: np.ndarray, facts: Facts) -> tuple[Colormap, Normalize]:
    """Colors over the declared range, over the data where the range is open; bright is more alike."""
    seen = values[np.isfinite(values)]
    low = facts.low if math.isfinite(facts.low) else float(seen.min()) if seen.size else 0.0
    high = facts.high if math.isfinite(facts.high) else float(seen.max()) if seen.size else 1.0
    # A correlation that is nowhere clearly negative gets the whole scale for its positive half; the color bar shows it.
    if low < 0 < high and seen.size and seen.min() > low / 2:
        low = min(0.0, float(seen.min()))
    return matplotlib.colormaps[SEQUENTIAL + ("_r" if facts.distance else "")], Normalize(low, high if high > low else low + 1.0)


def _panel(figure: Figure, ax: Axes, rows: list[dict[str, Any]], facts: Facts, look: Theme, *, result: Result, several: bool) -> None:
    values, inside, sites, others = matrix(rows)
    cmap, norm = color_scale(values, facts)
    image = ax.imshow(np.ma.masked_invalid(values), cmap=cmap, norm=norm, origin="lower", aspect="equal", interpolation="nearest")
    bright = np.array([[_luminance(cmap(norm(value))) > 0.45 if np.isfinite(value) else False for value in row] for row in values])
    for cells, color in ((inside & ~bright, "#ffffffa0"), (inside & bright, "#00000070")):
        _hatch(ax, cells & np.isfinite(values), color)
    asked = np.zeros_like(inside)
    for row in rows:
        asked[sites.index(row["site"]), others.index(row["site_b"])] = True
    failed = np.argwhere(asked & ~np.isfinite(values))
    if len(failed):
        ax.plot(failed[:, 1], failed[:, 0], "x", color=look.muted, markersize=6)
    best = _best(values, facts)
    tied = best_places(result, rows, sites, others)
    _path(ax, best, tied)
    if values.size <= PRINTED_CELLS:
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                shade = "#000000" if _luminance(cmap(norm(value))) > 0.45 else "#ffffff"
                weight = "bold" if (i, j) in best else "normal"
                ax.text(j, i, _cell(value), ha="center", va="center", fontsize=8, color=shade, fontweight=weight)
    elif best:
        where = np.array(sorted(best))
        ax.plot(where[:, 1], where[:, 0], "o", markersize=3.2, markerfacecolor="none", markeredgecolor="#ffffff", markeredgewidth=0.9)
    first, second = rows[0]["system"], rows[0]["system_b"]
    for axis, names, system in ((ax.yaxis, sites, first), (ax.xaxis, others, second)):
        labels, title = site_labels(names)
        ticks = thinned(len(names), 12)
        axis.set_ticks(ticks, [labels[i] for i in ticks])
        axis.set_label_text(f"{system} · {title}" if system else title)
    labels = site_labels(others)[0]
    side = fitting(labels, 0.36 * len(others))
    if side:
        ax.set_xticks(side, [labels[i] for i in side])
    elif max(map(len, labels)) > 3:
        ax.tick_params(axis="x", labelrotation=35)
        for tick in ax.get_xticklabels():
            tick.set_horizontalalignment("right")
            tick.set_rotation_mode("anchor")
    tags = [str(rows[0][c]) for c in ("label", "subject") if rows[0][c] is not None] if several else []
    dress(ax, look, title=" ".join([rows[0]["measure"], *tags]), note=f"higher: {facts.higher}" if facts.higher else None)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(length=0)
    bar = figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03, aspect=28)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(colors=look.muted, labelcolor=look.ink, length=2)


def _best(values: np.ndarray, facts: Facts) -> set[tuple[int, int]]:
    """The best match of each row, where a row has a choice."""
    if values.shape[1] < 2:
        return set()
    pick = np.nanargmin if facts.distance else np.nanargmax
    return {(i, int(pick(row))) for i, row in enumerate(values) if np.isfinite(row).any()}


def _path(ax: Axes, best: set[tuple[int, int]], tied: dict[int, set[int]]) -> None:
    """A line from best match to best match, and a dot in every cell that could be the best as well."""
    if len(best) > 1:
        heights, places = zip(*sorted(best), strict=True)
        ax.plot(places, heights, color="#ffffff", linewidth=2.2, alpha=0.55, solid_joinstyle="round")
        ax.plot(places, heights, color="#000000", linewidth=0.8, alpha=0.75, solid_joinstyle="round")
    cells = [(place, height + 0.33) for height, places in tied.items() for place in places]
    if cells:
        style: dict[str, Any] = {"markersize": 2.8, "markeredgewidth": 0.5, "markeredgecolor": "#ffffff", "markerfacecolor": "#000000"}
        ax.plot(*zip(*cells, strict=True), "o", **style)


def _hatch(ax: Axes, cells: np.ndarray, color: str) -> None:
    """One path for all hatched cells: a matrix of thousands stays a small file."""
    if not cells.any():
        return
    squares: list[Path] = []
    for i, j in np.argwhere(cells):
        corners = [(j - 0.5, i - 0.5), (j + 0.5, i - 0.5), (j + 0.5, i + 0.5), (j - 0.5, i + 0.5), (j - 0.5, i - 0.5)]
        squares.append(Path(corners, closed=True))
    ax.add_patch(PathPatch(Path.make_compound_path(*squares), facecolor="none", edgecolor=color, hatch="////", linewidth=0))


def _cell(value: float) -> str:
    """Two decimals without the leading zero where that is exact enough: .97."""
    text = f"{value:.2f}"
    if abs(value) < 1 and not text.lstrip("-").startswith("1"):
        return text.replace("0.", ".", 1)
    return text if abs(value) < 10 else format_number(value)


def _luminance(color: tuple[float, ...]) -> float:
    red, green, blue = color[:3]
    return 0.299 * red + 0.587 * green + 0.114 * blue
