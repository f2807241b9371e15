"""Features of a dictionary: how often each is active, and how well its description tells when."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from inscape.errors import ResultError
from inscape.plots.theme import drawing, dress, panels, theme_named
from inscape.results import Result

_MOST_DOTS = 1500


@drawing
def feature_map(result: Result, ax: Axes | None = None, *, theme: str = "light") -> Figure:
    """Draws each active feature by its density and its detection score; a histogram of densities where no feature has a score.

    Args:
        result: `Features.result`, whose arrays hold "density" and "detection".
        ax: draw into this axes.
        theme: "light", "dark" or "page".

    Raises:
        ResultError: the result holds no densities, or no feature is active.
    """
    look = theme_named(theme)
    density = np.asarray(result.arrays.get("density", ()), np.float64)
    scores = np.asarray(result.arrays.get("detection", np.full(len(density), np.nan)), np.float64)
    if not (density > 0).any():
        raise ResultError(f"there is nothing to draw: none of {len(density)} features is active (give Features.result)")
    figure, (panel,) = panels(1, look, ax=ax, width=4.6, height=3.0)
    known = (density > 0) & ~np.isnan(scores)
    if known.any():
        places = np.flatnonzero(known)
        places = places[np.linspace(0, len(places) - 1, min(len(places), _MOST_DOTS)).astype(int)]
        # Scores are shares of few answers: dots are moved apart a little, always in the same way.
        moved = scores[places] + 0.012 * np.sin(12.9898 * (places + 1.0))
        panel.axhline(0.5, color=look.muted, linewidth=1.0, linestyle=(0, (4, 3)))
        panel.scatter(density[places], moved, s=9, color=look.palette[0], alpha=0.55, linewidths=0)
        panel.set_ylabel("detection")
        panel.set_ylim(min(0.38, float(moved.min()) - 0.03), 1.04)
        note = "one dot a feature; dashed: chance"
    else:
        low, high = np.log10(density[density > 0]).min(), np.log10(density.max())
        panel.hist(density[density > 0], bins=np.logspace(low - 0.05, high + 0.05, 30), color=look.palette[0])
        panel.set_ylabel("features")
        note = f"{int((density > 0).sum()):,} active features"
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(FuncFormatter(_percent))
    panel.set_xlabel("share of rows in which a feature is active")
    dress(panel, look, title=_title(result), note=note)
    return figure


def _percent(value: float, _: Any) -> str:
    return f"{100 * value:g} %"


def _title(result: Result) -> str:
    return f"features of {result.settings.get('site', 'the data')}"
