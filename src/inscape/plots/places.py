"""Measures that are curves, each as its axis asks for: spectra, persistence diagrams, or lines over a scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inscape.errors import ResultError
from inscape.plots.dimension import scale_curves
from inscape.plots.persistence import persistence_diagrams
from inscape.plots.reading import ordered
from inscape.plots.spectra import spectra
from inscape.results import Result

# Axes whose curve says more than its one number along the sites.
CURVED = frozenset({"rank", "birth", "scale", "neighbors", "relative scale", "rows"})

_BY_AXIS: dict[str, Callable[..., Figure]] = {"rank": spectra, "birth": persistence_diagrams}


def curve_figure(result: Result, ax: Axes | None = None, *, theme: str = "light", **options: Any) -> Figure:
    """Draws the curves of a result in the figure that fits their axis; lines over a scale where several kinds meet.

    Args:
        result: rows with a numeric `at` on any axis but the training step.
        ax: draw into this axes; then there must be one panel.
        theme: "light", "dark" or "page".
        **options: those of the figure that fits.

    Raises:
        ResultError: no row lies on a curve, or only on curves of kinds that cannot share a figure.
    """
    axes = ordered(row["axis"] for row in result.rows() if row["at"] is not None and row["axis"] is not None)
    if len(axes) == 1 and axes[0] in _BY_AXIS:
        return _BY_AXIS[axes[0]](result, ax=ax, theme=theme, **options)
    lines = [row["measure"] for row in result.rows() if row["at"] is not None and row["axis"] not in _BY_AXIS]
    if axes and not lines:
        raise ResultError(f"curves over {' and '.join(axes)} do not fit into one figure; choose one with result.where(measure=…)")
    return scale_curves(result.where(measure=ordered(lines)) if lines else result, ax=ax, theme=theme, **options)
