"""Which figure suits a profile: maps where the numbers have places, the dashboard of collapse, else curves along the sites."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inscape.measures.places import PLACE
from inscape.plots.collapse import MEASURES, collapse_dashboard
from inscape.plots.curves import layer_curves
from inscape.plots.heads import head_map
from inscape.plots.massive import massive_map
from inscape.plots.places import CURVED, curve_figure
from inscape.results import Result


def profile(result: Result, ax: Axes | None = None, **options: Any) -> Figure:
    """Draws a result of `measure` in the way that suits what was measured; see the functions for the options.

    Only measures of heads: `head_map`; only massive activations with their places: `massive_map`; three or more measures of collapse and
    nothing else: `collapse_dashboard`; only curves over ranks or scales, and diagrams: `curve_figure`; else `layer_curves`.
    """
    names = {name.split("(")[0] for name in result.unique("measure")}
    axes = {row["axis"] for row in result.rows() if row["at"] is not None}
    if "measures" not in options:
        if axes == {PLACE} and names == {"massive_activations"}:
            return massive_map(result, ax, **options)
        single = len({(row["system"], row["seed"], row["label"]) for row in result.rows()}) == 1
        numbers = any(row["value"] is not None for row in result.rows())
        if len(names) >= 3 and names <= MEASURES and single and numbers:
            return collapse_dashboard(result, ax, **options)
    if (
        axes == {"head"}
        and len(result.unique("site")) > 1
        and len(names) == len({r["measure"] for r in result.rows() if r["axis"] == "head"})
    ):
        return head_map(result, ax, **options)
    if axes and axes <= CURVED and {row["measure"] for row in result.rows() if row["at"] is not None} == set(result.unique("measure")):
        return curve_figure(result, ax, **options)
    return layer_curves(result, ax, **options)
