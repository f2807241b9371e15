"""Persistence diagrams: the scale at which a piece or loop is born against the one at which it is gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inscape.errors import ResultError
from inscape.plots.reading import ordered, site_labels, thinned
from inscape.plots.theme import Theme, drawing, dress, panels, theme_named
from inscape.results import Result

_KINDS = {"persistence_h0": "pieces", "persistence_h1": "loops"}


@drawing
def persistence_diagrams(result: Result, ax: Axes | None = None, *, most: int = 6, theme: str = "light", columns: int = 3) -> Figure:
    """Draws pieces (`persistence_h0`) and loops (`persistence_h1`) of each site: the farther above the diagonal, the more of a feature.

    Args:
        result: rows over the axis "birth".
        ax: draw into this axes; then there must be one site.
        most: panels; of more sites some between the first and the last are shown.
        theme: "light", "dark" or "page".
        columns: panels side by side.

    Raises:
        ResultError: no row lies on a diagram, or one `ax` for several sites.
    """
    look = theme_named(theme)
    rows = [row for row in result.rows() if row["axis"] == "birth"]
    places = ordered((row["system"] or "", row["site"] or "") for row in rows)
    if not places:
        raise ResultError(f"there is no diagram to draw: none of the {len(result)} rows lies on the axis 'birth' (measure persistence_h0)")
    places = [places[index] for index in thinned(len(places), most)] if len(places) > most else places
    figure, axes = panels(len(places), look, ax=ax, width=3.2, height=3.0, columns=columns)
    labels, _ = site_labels([site for _, site in places])
    systems = {system for system, _ in places}
    for (system, site), label, panel in zip(places, labels, axes, strict=True):
        _panel(panel, [row for row in rows if (row["system"] or "", row["site"] or "") == (system, site)], look)
        dress(panel, look, title=f"{system} {label}".strip() if len(systems) > 1 else label or "persistence")
    return figure


def _panel(ax: Axes, rows: Sequence[dict[str, Any]], look: Theme) -> None:
    bars = [row for row in rows if row["at"] is not None and row["value"] is not None]
    top = max((float(row["value"]) for row in bars), default=1.0) * 1.06
    ax.plot([0, top], [0, top], color=look.muted, linewidth=0.9)
    names = ordered(row["measure"].split("(")[0] for row in rows)
    for index, name in enumerate(names):
        mine = [row for row in bars if row["measure"].split("(")[0] == name]
        xs, ys = [float(row["at"]) for row in mine], [float(row["value"]) for row in mine]
        marker, size = ("o", 4) if any(xs) else ("_", 9)  # pieces are all born at 0: ticks beside the axis
        color = look.palette[index % len(look.palette)]
        ax.plot(xs, ys, marker, color=color, markersize=size, alpha=0.75, label=_KINDS.get(name, name))
    ax.set_xlim(-0.04 * top, top)
    ax.set_ylim(0, top)
    ax.set_xlabel("born at scale")
    ax.set_ylabel("gone at scale")
    if bars:
        ax.legend(frameon=False, fontsize=8.5, labelcolor=look.ink, loc="lower right", handletextpad=0.2)
