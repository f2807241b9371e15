"""Layer curves: one small panel per measure, the sites in order on x, interval band and null line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inscape.errors import ResultError
from inscape.plots.reading import Facts, facts_of, fitting, headline, ordered, site_labels, spread, thinned
from inscape.plots.theme import Theme, drawing, dress, panels, theme_named
from inscape.results import Result


@drawing
def layer_curves(
    result: Result, ax: Axes | None = None, *, measures: str | Sequence[str] | None = None, theme: str = "light", columns: int = 3
) -> Figure:
    """Draws every measure of one system, or of several over each other, along the sites.

    The band is the interval, the dashed line the mean of the null, a cross on the floor a number that could not be computed.

    Args:
        result: from `measure`; rows on a curve are left out, their headline is drawn.
        ax: draw into this axes; then there must be one measure.
        measures: which ones; all by default.
        theme: "light", "dark" or "page".
        columns: panels side by side.

    Raises:
        ResultError: nothing to draw, or one `ax` for several measures.
    """
    look = theme_named(theme)
    rows = headline(result)
    names = [measures] if isinstance(measures, str) else list(measures or ordered(row["measure"] for row in rows))
    if not rows or not names:
        raise ResultError(f"there is nothing to draw: the result has {len(result)} rows, none of them a headline")
    figure, axes = panels(len(names), look, ax=ax, columns=columns)
    for name, panel in zip(names, axes, strict=True):
        chosen = [row for row in rows if row["measure"] == name]
        if not chosen:
            raise ResultError(f"the result has no measure {name!r}; it has {', '.join(result.unique('measure'))}")
        _panel(panel, chosen, facts_of(name), name, look)
    return figure


def _panel(ax: Axes, rows: list[dict[str, Any]], facts: Facts, name: str, look: Theme) -> None:
    sites = ordered(row["site"] for row in rows)
    groups = ordered((row["system"], row["label"], row["seed"]) for row in rows)
    x_of = {site: i for i, site in enumerate(sites)}
    ends: list[tuple[float, float, str, str]] = []
    for index, group in enumerate(groups):
        color = look.palette[index % len(look.palette)]
        mine = {row["site"]: row for row in rows if (row["system"], row["label"], row["seed"]) == group}
        values = [_number(mine.get(site), "value") for site in sites]
        low = [_number(mine.get(site), "low") for site in sites]
        high = [_number(mine.get(site), "high") for site in sites]
        xs = list(range(len(sites)))
        few = len(sites) <= 24
        if len(sites) > 1:
            ax.fill_between(xs, low, high, color=color, alpha=0.18, linewidth=0)
            ax.plot(xs, values, color=color, linewidth=1.8, marker="o" if few else None, markersize=3.6, solid_capstyle="round")
        else:
            _bar(ax, index, values[0], low[0], high[0], color)
        missing = [x_of[site] for site, row in mine.items() if row["value"] is None]
        if missing:
            ax.plot(missing, [0.03] * len(missing), "x", color=color, transform=ax.get_xaxis_transform(), clip_on=False, markersize=5)
        last = next((i for i in reversed(xs) if not math.isnan(values[i])), None)
        if len(groups) > 1 and len(sites) > 1 and last is not None:
            ends.append((last, values[last], _group_name(group, groups), color))
    _null(ax, rows, sites, look)
    _limits(ax, rows, facts)
    _direct_labels(ax, ends)
    if len(sites) > 1:
        labels, title = site_labels(sites)
        ticks = fitting(labels, 2.6)
        if not ticks:
            ticks = thinned(len(sites), 8)
            ax.tick_params(axis="x", labelrotation=35)
        ax.set_xticks(ticks, [labels[i] for i in ticks])
        for tick in ax.get_xticklabels() if len(ticks) and ax.xaxis.get_tick_params().get("labelrotation") else ():
            tick.set_horizontalalignment("right")
            tick.set_rotation_mode("anchor")
        ax.set_xlabel(title)
        ax.set_xlim(-0.35, len(sites) - 0.65)
    else:
        ax.set_xticks(range(len(groups)), [_group_name(group, groups) or str(group[0]) for group in groups])
        ax.set_xlim(-0.6, len(groups) - 0.4)
        ax.set_xlabel(sites[0])
    dress(ax, look, title=name, note=f"higher: {facts.higher}" if facts.higher else None)


def _bar(ax: Axes, x: int, value: float, low: float, high: float, color: str) -> None:
    if not math.isnan(low) and not math.isnan(high):
        ax.plot([x, x], [low, high], color=color, linewidth=5, alpha=0.3, solid_capstyle="round")
    ax.plot([x], [value], "o", color=color, markersize=5)


def _number(row: dict[str, Any] | None, column: str) -> float:
    return math.nan if row is None or row[column] is None else float(row[column])


def _group_name(group: tuple[Any, ...], groups: list[tuple[Any, ...]]) -> str:
    """Only what tells the lines apart."""
    parts = [part for i, part in enumerate(group) if part is not None and len({other[i] for other in groups}) > 1]
    return " ".join(f"seed {part}" if isinstance(part, int) else str(part) for part in parts)


def _null(ax: Axes, rows: list[dict[str, Any]], sites: list[str], look: Theme) -> None:
    null = [next((r["null_mean"] for r in rows if r["site"] == site and r["null_mean"] is not None), math.nan) for site in sites]
    if all(math.isnan(value) for value in null):
        return
    # one site: a short line across the panel; several: along the sites
    xs = list(range(len(sites))) if len(sites) > 1 else [-0.4, 0.4]
    ys = null if len(sites) > 1 else [null[0], null[0]]
    ax.plot(xs, ys, color=look.muted, linewidth=1.1, linestyle=(0, (4, 3)))
    first = next(i for i, value in enumerate(ys) if not math.isnan(value))
    ax.annotate("null", (xs[first], ys[first]), (0, 3), textcoords="offset points", color=look.muted, fontsize=8)


def _limits(ax: Axes, rows: list[dict[str, Any]], facts: Facts) -> None:
    """The declared range where the values fill a good part of it; else the data with some air, never past the range."""
    seen = [row[c] for row in rows for c in ("value", "low", "high", "null_mean") if row[c] is not None and math.isfinite(row[c])]
    if not seen:
        ax.set_ylim(max(facts.low, 0.0), min(facts.high, 1.0))
        return
    bottom, top = min(seen), max(seen)
    if math.isfinite(facts.low) and math.isfinite(facts.high) and (top - bottom) > 0.35 * (facts.high - facts.low):
        bottom, top = facts.low, facts.high
    elif bottom > 0 and bottom < 0.4 * top:
        bottom = 0.0  # a ratio shown from zero does not exaggerate
    air = 0.06 * ((top - bottom) or abs(top) or 1.0)
    ax.set_ylim(bottom if bottom == 0.0 else bottom - air, top + air)


def _direct_labels(ax: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """The name of each line beside its end: no legend to look up."""
    if not ends:
        return
    bottom, top = ax.get_ylim()
    gap = 0.085 * (top - bottom)
    for (x, _, text, color), place in zip(ends, spread([end[1] for end in ends], gap, bottom, top), strict=True):
        ax.annotate(text, (x, place), (6, 0), textcoords="offset points", color=color, fontsize=8.5, va="center", annotation_clip=False)
