"""Models of dissimilarities as bars: values with intervals, each subject, the noise ceiling, and which models differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from inscape.errors import ResultError
from inscape.plots.theme import Theme, drawing, dress, new_figure, panels, theme_named
from inscape.results import Result

ALPHA = 0.05
CEILING = "noise ceiling"


@drawing
def model_bars(
    result: Result,
    ax: Axes | None = None,
    *,
    measure: str | None = None,
    site: str | None = None,
    sort: bool = True,
    theme: str = "light",
) -> Figure:
    """Draws a bar with its interval for each model, a circle for each subject, and the noise ceiling as a band; beside it, which differ.

    Args:
        result: what `ix.compare` gave for models of dissimilarities.
        ax: draw the bars into this axes, without the table of differences.
        measure: which measure, where there are several; default the first.
        site: which site of the data, where there are several; default the first.
        sort: the best model first; else in the order they were given.
        theme: "light", "dark" or "page".

    Raises:
        ResultError: there is no model with a value.

    Example:
        >>> model_bars(result).savefig("models.svg")    # doctest: +SKIP
    """
    look = theme_named(theme)
    which = measure or str(result.unique("measure")[0])
    sites = result.unique("site_b")
    chosen = result.where(measure=which, site_b=site or sites[0]) if sites else result.where(measure=which)
    rows = chosen.rows()
    heads = [row for row in rows if row["axis"] is None and row["value"] is not None]
    if not heads:
        raise ResultError(f"no model has a value of {which}: {rows[0]['reason'] if rows else 'the result has no rows'}")
    if sort:
        heads.sort(key=lambda row: -row["value"])
    names = [row["system"] if row["site"] is None or row["site"] == row["system"] else f"{row['system']} {row['site']}" for row in heads]
    differences = [row for row in rows if row["axis"] == "difference" and row["at"] != CEILING and row["p"] is not None]
    beside = ax is None and len(heads) > 1 and bool(differences)
    if beside:
        width = max(4.6, 1.6 + 0.55 * len(heads))
        side = 1.3 + 0.3 * len(heads)
        figure = new_figure(width + side + 0.6, 3.9, look)
        bars, table = figure.subplots(1, 2, width_ratios=[width, side])
    else:
        figure, (bars,) = panels(1, look, ax=ax, width=max(4.2, 1.6 + 0.55 * len(heads)), height=3.7)
        table = None
    _bars(bars, heads, names, rows, which, look)
    if table is not None:
        _table(table, heads, names, differences, look)
    return figure


def _bars(
    ax: Axes, heads: Sequence[dict[str, Any]], names: Sequence[str], rows: Sequence[dict[str, Any]], measure: str, look: Theme
) -> None:
    places = np.arange(len(heads))
    band = {row["at"]: row["value"] for row in rows if row["axis"] == CEILING and row["value"] is not None}
    parts: list[str] = []
    if len(band) == 2:
        ax.axhspan(band["lower"], band["upper"], color=look.muted, alpha=0.22, linewidth=0, zorder=0)
        ax.axhline(band["lower"], color=look.muted, linewidth=0.7, zorder=0)
        parts.append("gray: ceiling")
    ax.bar(places, [row["value"] for row in heads], width=0.68, color=look.palette[0], alpha=0.85, zorder=2)
    for place, row in zip(places, heads, strict=True):
        mine = [one["value"] for one in rows if one["axis"] == "subject" and (one["system"], one["site"]) == (row["system"], row["site"])]
        if mine:
            spots = place + np.linspace(-0.16, 0.16, len(mine))
            ax.scatter(spots, mine, s=11, facecolor=look.paper or "none", edgecolor=look.ink, linewidth=0.6, zorder=3, alpha=0.9)
    known = [(place, row) for place, row in zip(places, heads, strict=True) if row["low"] is not None]
    if known:
        reach = [[row["value"] - row["low"] for _, row in known], [row["high"] - row["value"] for _, row in known]]
        ax.errorbar(
            [p for p, _ in known], [row["value"] for _, row in known], yerr=reach, fmt="none", ecolor=look.ink, elinewidth=1.3, zorder=4
        )
    if any(row["axis"] == "subject" for row in rows):
        parts.append("○ subjects")
    ax.axhline(0, color=look.muted, linewidth=0.8, zorder=1)
    low, high = ax.get_ylim()
    low = min(low, -0.06 * (high - low))
    ax.set_ylim(low, high)
    above = [place for place, row in zip(places, heads, strict=True) if _p(row) is not None and _p(row) < ALPHA]
    if above:
        ax.scatter(above, [low + 0.025 * (high - low)] * len(above), marker="*", s=34, color=look.palette[1], zorder=5, linewidth=0)
        parts.append(f"★ p < {ALPHA:g}")
    ax.set_xticks(places, names, rotation=38 if max(map(len, names)) > 4 else 0, ha="right" if max(map(len, names)) > 4 else "center")
    ax.set_xlim(-0.6, len(heads) - 0.4)
    ax.set_ylabel(measure + (f"\n(interval {_over(known[0][1])})" if known else ""))
    dress(ax, look, title="How well each model fits", note="; ".join(parts))


def _over(row: dict[str, Any]) -> str:
    """What the interval generalizes to, from "t(3) over stimuli and subjects, dual bootstrap(1000)"."""
    words = (row["interval_method"] or "").split(" over ")
    return f"over {words[1].split(',')[0]}" if len(words) == 2 else row["interval_method"] or ""


def _p(row: dict[str, Any]) -> Any:
    return row["p"] if row["p_corrected"] is None else row["p_corrected"]


def _table(ax: Axes, heads: Sequence[dict[str, Any]], names: Sequence[str], differences: Sequence[dict[str, Any]], look: Theme) -> None:
    """Row model less column model, below the diagonal, with a mark where the difference is reliable."""
    count = len(heads)
    number = {(row["system"]): index for index, row in enumerate(heads)}
    square = np.full((count, count), np.nan)
    marks: list[tuple[int, int]] = []
    for row in differences:
        if row["system"] not in number or row["at"] not in number:
            continue
        i, j = number[row["system"]], number[row["at"]]
        value = row["value"]
        if i < j:
            i, j, value = j, i, -value
        square[i, j] = value
        if _p(row) is not None and _p(row) < ALPHA:
            marks.append((i, j))
    reach = float(np.nanmax(np.abs(square), initial=0.0)) or 1.0
    colors = matplotlib.colormaps["RdBu_r"]
    for i in range(count):
        for j in range(i):
            if np.isnan(square[i, j]):
                continue
            tone = colors(0.5 + 0.5 * square[i, j] / reach)
            ax.add_patch(Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, facecolor=tone, linewidth=0))
    for i, j in marks:
        dark = abs(square[i, j]) > 0.6 * reach
        ax.scatter([j], [i], marker="*", s=38, color="#ffffff" if dark else "#1c1c1a", linewidth=0)
    ax.set_xlim(-0.6, count - 1.4)
    ax.set_ylim(count - 0.4, 0.4)
    ax.set_aspect("equal", anchor="NW")
    ax.set_xticks(
        range(count - 1), names[:-1], rotation=38 if max(map(len, names)) > 4 else 0, ha="right" if max(map(len, names)) > 4 else "center"
    )
    ax.set_yticks(range(1, count), names[1:])
    dress(ax, look, title="Row less column", note=f"★ p < {ALPHA:g}, corrected")
    ax.tick_params(length=0)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
