"""How well maps between spaces do: retrieval beside chance, or shares of variance and cosines with their intervals."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inscape.errors import ResultError
from inscape.plots.reading import ordered
from inscape.plots.theme import Theme, drawing, dress, panels, theme_named
from inscape.results import Result


@drawing
def map_scores(result: Result, ax: Axes | None = None, *, theme: str = "light") -> Figure:
    """Draws retrieval over k as lines with chance dashed, one for each map; and scores as points, one row for each map.

    Args:
        result: from `Map.retrieval` or `Map.score`, or several of them merged; labels tell the maps apart.
        ax: draw into this axes; then there must be retrieval or scores alone.
        theme: "light", "dark" or "page".

    Raises:
        ResultError: nothing to draw, or one `ax` for two panels.

    Example:
        >>> ix.Result.merge([turn.retrieval(), line.retrieval()]).plot()    # doctest: +SKIP
    """
    look = theme_named(theme)
    rows = [row for row in result.rows() if row["value"] is not None]
    curves = [row for row in rows if row["axis"] == "k"]
    points = [row for row in rows if row["axis"] is None]
    if not rows:
        raise ResultError(f"there is nothing to draw: the result has {len(result)} rows, none of them a score of a map")
    maps = ordered(row["label"] for row in rows)
    measures = ordered(row["measure"] for row in points)
    figure, axes = panels(bool(curves) + len(measures), look, ax=ax)
    if curves:
        _retrieval(axes[0], curves, maps, look)
    for panel, measure in zip(axes[bool(curves) :], measures, strict=True):
        _points(panel, [row for row in points if row["measure"] == measure], maps, look, measure)
    return figure


def _retrieval(panel: Axes, rows: list[dict[str, Any]], maps: list[Any], look: Theme) -> None:
    for index, name in enumerate(maps):
        mine = sorted((row for row in rows if row["label"] == name), key=lambda row: row["at"])
        if not mine:
            continue
        color, at = look.palette[index % len(look.palette)], [row["at"] for row in mine]
        if all(row["low"] is not None for row in mine):
            panel.fill_between(at, [row["low"] for row in mine], [row["high"] for row in mine], color=color, alpha=0.18, linewidth=0)
        panel.plot(at, [row["value"] for row in mine], color=color, linewidth=1.8, marker="o", markersize=3.6, label=name)
    chance = sorted({(row["at"], row["null_mean"]) for row in rows if row["null_mean"] is not None})
    if chance:
        panel.plot([at for at, _ in chance], [value for _, value in chance], color=look.muted, linewidth=1.1, linestyle=(0, (4, 3)))
        panel.annotate("chance", chance[-1], (-2, 3), textcoords="offset points", color=look.muted, fontsize=8.5, ha="right")
    places = sorted({row["at"] for row in rows})
    if places[-1] >= 8 * places[0]:
        panel.set_xscale("log")
    panel.set_xticks(places, [str(place) for place in places])
    panel.set_xticks([], minor=True)
    panel.set_ylim(0, 1.02)
    panel.set_xlabel("k nearest")
    panel.set_ylabel("partner found")
    if len(maps) > 1:
        panel.legend(frameon=False, fontsize=8.5, labelcolor=look.ink)
    dress(panel, look, title="retrieval", note=f"n = {rows[0]['n']:,}" if rows[0]["n"] else None)


def _points(panel: Axes, rows: list[dict[str, Any]], maps: list[Any], look: Theme, measure: str) -> None:
    for row in rows:
        y, color = maps.index(row["label"]), look.palette[maps.index(row["label"]) % len(look.palette)]
        if row["low"] is not None:
            panel.plot([row["low"], row["high"]], [y, y], color=color, linewidth=5, alpha=0.3, solid_capstyle="round")
        panel.plot(row["value"], y, "o", color=color, markersize=5)
        panel.annotate(
            f"{row['value']:.2f}", (row["value"], y), (0, 6), textcoords="offset points", ha="center", color=look.ink, fontsize=8.5
        )
    panel.set_yticks(range(len(maps)), [str(name or "map") for name in maps])
    panel.set_ylim(len(maps) - 0.4, -0.8)
    if min(row["value"] for row in rows) >= 0:
        panel.set_xlim(0, 1.04)
    dress(panel, look, title=measure, note="in rows that were not fitted on" if measure == "map_r2" else None)
