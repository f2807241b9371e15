"""How many different units layers have: what is left, and what the network still does, as alike units are joined."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inscape.errors import ResultError
from inscape.plots.reading import ordered
from inscape.plots.theme import drawing, dress, panels, theme_named
from inscape.results import Result


@drawing
def merge_curves(result: Result, ax: Axes | None = None, *, theme: str = "light") -> Figure:
    """Draws the share of units that is left over the threshold, for each layer, and the score of the network beside it.

    Args:
        result: the `curves` of `ix.merge_features`.
        ax: draw into this axes: the network's score over the share of units that is left.
        theme: "light", "dark" or "page".

    Raises:
        ResultError: the result holds no such curves.
    """
    look = theme_named(theme)
    rows = [row for row in result.rows() if row["axis"] == "threshold" and row["value"] is not None]
    whole = _line(rows, "all", "feature_complexity")
    score = _line(rows, "all", "merged_score")
    if not whole or not score:
        raise ResultError(f"there is nothing to draw: the result has {len(result)} rows, none of them a curve of ix.merge_features")
    figure, axes = panels(1 if ax is not None else 2, look, ax=ax)
    last = axes[-1]
    left = dict(whole)
    last.plot(
        [left[at] for at, _ in score], [value for _, value in score], color=look.palette[0], linewidth=1.8, marker="o", markersize=3.2
    )
    heads = [row["value"] for row in result.rows() if row["axis"] is None and row["measure"] == "feature_complexity"]
    if heads:
        last.axvline(heads[0], color=look.muted, linewidth=1.1, linestyle=(0, (4, 3)))
        last.annotate(f"{heads[0]:.2f}", (heads[0], 0.02), (3, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
                      color=look.muted, fontsize=8.5)  # fmt: skip
    last.set_xlim(1.03, -0.03)
    last.set_xlabel("share of units left")
    last.set_ylabel(str(result.settings.get("score", "score")))
    tolerance = result.settings.get("tolerance")
    dress(last, look, title="what the network still does", note=f"dashed: least units within {tolerance} of all" if tolerance else None)
    if ax is None:
        _layers(axes[0], rows, look)
    return figure


def _layers(panel: Axes, rows: list[dict[str, Any]], look: Any) -> None:
    names = [name for name in ordered(row["site"] for row in rows) if name != "all"]
    shown = names if len(names) <= len(look.palette) else []
    for index, name in enumerate(shown):
        line = _line(rows, name, "feature_complexity")
        panel.plot([at for at, _ in line], [value for _, value in line], color=look.palette[index], linewidth=1.4, label=name)
    line = _line(rows, "all", "feature_complexity")
    panel.plot([at for at, _ in line], [value for _, value in line], color=look.ink, linewidth=2.2, label="all")
    panel.set_ylim(-0.02, 1.03)
    panel.set_xlabel("threshold")
    panel.set_ylabel("share of units left")
    panel.legend(frameon=False, fontsize=8, labelcolor=look.ink)
    dress(panel, look, title="feature complexity")


def _line(rows: list[dict[str, Any]], site: str, measure: str) -> list[tuple[float, float]]:
    return [(row["at"], row["value"]) for row in rows if row["site"] == site and row["measure"] == measure]
