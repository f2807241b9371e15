"""An encoder's replacement: retrieval on every route, the scores of the best documents at the old threshold, and segments."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inscape.errors import ResultError
from inscape.plots.reading import ordered
from inscape.plots.theme import Theme, drawing, dress, panels, theme_named
from inscape.results import Result

_SEGMENTS = 12


@drawing
def swap_routes(result: Result, ax: Axes | None = None, *, k: int | None = None, theme: str = "light") -> Figure:
    """Draws recall and overlap of every route with intervals, both encoders' best scores, and recall in each segment.

    Args:
        result: from `ix.swap` (its `result`).
        ax: draw into this axes: recall of every route alone.
        k: how many documents count; the most that were asked for by default.
        theme: "light", "dark" or "page".

    Raises:
        ResultError: the result is of something else, or has no such k.
    """
    look = theme_named(theme)
    known = result.settings.get("k", [])
    if result.kind != "swap" or not known or (k is not None and k not in known):
        raise ResultError(f"there is nothing to draw: this is a result of kind {result.kind!r} with k in {known}")
    k = known[-1] if k is None else k
    segmented = bool(result.where(axis="segment", measure=f"recall@{k}").rows())
    scored = "old/score" in result.arrays and "new/score" in result.arrays
    figure, axes = panels(1 if ax is not None else 2 + scored + segmented, look, ax=ax, width=3.9, columns=2)
    _routes(axes[0], result, f"recall@{k}", look)
    if ax is None:
        _routes(axes[1], result, f"overlap@{k}", look)
        if scored:
            _scores(axes[2], result, look)
        if segmented:
            _segments(axes[-1], result, f"recall@{k}", look)
    return figure


def _routes(panel: Axes, result: Result, measure: str, look: Theme) -> None:
    rows = result.where(measure=measure, axis=None).rows()
    if measure.startswith("overlap"):
        rows = [row for row in rows if row["label"] != "old"]
    for y, row in enumerate(rows):
        color = look.muted if row["label"] == "old" else look.palette[0 if row["label"] == "new" else 1]
        if row["value"] is None:
            panel.annotate("not possible", (0.02, y), xycoords=("axes fraction", "data"), color=look.muted, fontsize=8.5, va="center")
            continue
        if row["low"] is not None:
            panel.plot([row["low"], row["high"]], [y, y], color=color, linewidth=5, alpha=0.3, solid_capstyle="round")
        panel.plot(row["value"], y, "o", color=color, markersize=5)
        panel.annotate(
            f"{row['value']:.2f}", (row["value"], y), (0, 6), textcoords="offset points", ha="center", color=look.ink, fontsize=8.5
        )
    panel.set_yticks(range(len(rows)), [row["label"] for row in rows])
    panel.set_ylim(len(rows) - 0.4, -0.8)
    panel.set_xlim(-0.02, 1.06)
    note = "answers found" if measure.startswith("recall") else "shared with old"
    dress(panel, look, title=measure, note=f"{note}; orange: on the old index")


def _scores(panel: Axes, result: Result, look: Theme) -> None:
    old, new = (np.asarray(result.arrays[f"{name}/score"]) for name in ("old", "new"))
    edges = np.linspace(min(old.min(), new.min()), max(old.max(), new.max()), 31).tolist()
    panel.hist(old, edges, color=look.muted, alpha=0.45, label="old")
    panel.hist(new, edges, histtype="step", color=look.palette[0], linewidth=1.8, label="new")
    threshold = result.settings.get("threshold")
    if threshold is not None:
        panel.axvline(threshold, color=look.ink, linewidth=1.1, linestyle=(0, (4, 3)))
    panel.set_xlabel("score of the best document")
    panel.set_ylabel("queries")
    panel.legend(frameon=False, fontsize=8.5, labelcolor=look.ink)
    flips = [row["value"] for row in result.where(measure="inconsistency", label="new", axis=None).rows()]
    dress(panel, look, title="scores", note=f"dashed: today's threshold; {flips[0]:.0%} of decisions change" if flips else None)


def _segments(panel: Axes, result: Result, measure: str, look: Theme) -> None:
    rows: list[dict[str, Any]] = [row for row in result.where(axis="segment", measure=measure).rows() if row["value"] is not None]
    new = {row["at"]: row for row in rows if row["label"] == "new"}
    old = {row["at"]: row["value"] for row in rows if row["label"] == "old"}
    names = sorted(new, key=lambda name: new[name]["value"])
    shown = names[:_SEGMENTS]
    for y, name in enumerate(shown):
        row = new[name]
        if row["low"] is not None:
            panel.plot([row["low"], row["high"]], [y, y], color=look.palette[0], linewidth=5, alpha=0.3, solid_capstyle="round")
        panel.plot(row["value"], y, "o", color=look.palette[0], markersize=5)
        if name in old:
            panel.plot(old[name], y, "|", color=look.muted, markersize=11, markeredgewidth=2)
    panel.set_yticks(range(len(shown)), [str(name) for name in ordered(shown)])
    panel.set_ylim(len(shown) - 0.4, -0.6)
    panel.set_xlim(-0.02, 1.06)
    rest = len(names) - len(shown)
    dress(panel, look, title=f"{measure} by segment", note="worst first; gray: old" + (f"; {rest} more are better" if rest else ""))
