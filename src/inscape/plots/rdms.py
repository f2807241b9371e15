"""Dissimilarity matrices as heat maps: one or several, or two with their difference, each with a map of its stimuli."""

from __future__ import annotations

from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from inscape.errors import ResultError
from inscape.plots.theme import SEQUENTIAL, Theme, drawing, dress, panels, theme_named
from inscape.rsa import RDMs

_MOST = 12
_DIVERGING = "RdBu_r"


@drawing
def rdm_heatmaps(
    rdms: RDMs,
    other: RDMs | None = None,
    ax: Axes | None = None,
    *,
    color: str | None = None,
    scale: Literal["percentile", "value"] = "percentile",
    mds: bool = True,
    theme: str = "light",
) -> Figure:
    """Draws the upper triangle of each matrix, with the stimuli as points in the plane where the lower triangle would be.

    Args:
        rdms: the matrices, at most twelve.
        other: a second matrix; it is drawn beside the first, with their difference (second less first).
        ax: draw into this axes; for one matrix.
        color: a column of the stimuli that colors the points; equal entries that stand together are marked along the matrix.
        scale: "percentile" ranks the entries of each matrix from 0 to 1, so that matrices of different distances can be compared; "value"
            shows them as they are.
        mds: whether to draw the points, by classical scaling; they need complete matrices.
        theme: "light", "dark" or "page".

    Raises:
        ResultError: too many matrices, several where one is needed, or a column that is not there.

    Example:
        >>> rdm_heatmaps(rdms["it"], rdms["v1"], color="category").savefig("rdms.svg")    # doctest: +SKIP
    """
    look = theme_named(theme)
    if other is not None:
        if len(rdms) != 1 or len(other) != 1:
            raise ResultError(f"a difference is of one matrix with one, got {len(rdms)} and {len(other)}; choose (rdms[0]) or pool them")
        other = other.align(rdms)
    shown = [(name, one) for stack in (rdms, other) if stack is not None for name, one in zip(stack.names, stack, strict=True)]
    if len(shown) > _MOST:
        raise ResultError(f"{len(shown)} matrices are too many for one figure (most: {_MOST}); select some, or pool them")
    if color is not None and color not in rdms.stimuli:
        raise ResultError(f"stimuli have no column {color!r}; there are {', '.join(rdms.stimuli)}")
    groups = rdms.stimuli[color] if color is not None else None
    squares = [_scaled(one, scale) for _, one in shown]
    count = len(shown) + (other is not None)
    figure, axes = panels(count, look, ax=ax, width=3.7, height=3.3)
    unit = "percentile of dissimilarity" if scale == "percentile" else f"{rdms.distance or 'dissimilarity'}"
    for panel, (name, one), square in zip(axes, shown, squares, strict=False):
        low, high = (0.0, 1.0) if scale == "percentile" else (float(np.nanmin(one.values)), float(np.nanmax(one.values)))
        _triangle(figure, panel, square, look, unit, SEQUENTIAL, (low, high), groups)
        note = one.distance + (f", {int(np.isnan(one.values).sum())} pairs missing" if not one.complete else "")
        dress(panel, look, title=name, note=note or None)
        _bare(panel)
        if mds and one.complete and one.n >= 3:
            _points(panel, one, groups, look)
    if other is not None:
        panel, difference = axes[-1], squares[1] - squares[0]
        reach = float(np.nanmax(np.abs(difference))) or 1.0
        _triangle(figure, panel, difference, look, f"difference in {unit}", _DIVERGING, (-reach, reach), groups)
        dress(panel, look, title=f"{shown[1][0]} − {shown[0][0]}", note="red: farther apart in the first named")
        _bare(panel)
    return figure


def classical_scaling(square: np.ndarray) -> np.ndarray:
    """Points [n, 2] whose distances come nearest to a matrix of distances [n, n] among principal coordinates; signs are fixed.

    Source: Torgerson 1952.
    """
    squared = square**2
    means = squared.mean(0)
    values, vectors = np.linalg.eigh(-0.5 * (squared - means - means[:, None] + means.mean()))
    points = vectors[:, ::-1][:, :2] * np.sqrt(np.maximum(values[::-1][:2], 0))
    return points * np.where(points[np.abs(points).argmax(0), [0, 1]] < 0, -1.0, 1.0)


def _scaled(one: RDMs, scale: str) -> np.ndarray:
    values = one.values[0].copy()
    if scale == "percentile":
        known = ~np.isnan(values)
        ranks = rankdata(values[known])
        values[known] = (ranks - 1) / max(1, len(ranks) - 1)
    return RDMs(values, distance=one.distance).square()[0]


def _triangle(
    figure: Figure,
    panel: Axes,
    square: np.ndarray,
    look: Theme,
    unit: str,
    colors: str,
    limits: tuple[float, float],
    groups: np.ndarray | None,
) -> None:
    n = len(square)
    shown = np.ma.masked_where(np.tril(np.ones((n, n), dtype=bool)) | np.isnan(square), square)
    drawn = panel.imshow(shown, cmap=matplotlib.colormaps[colors], vmin=limits[0], vmax=limits[1], interpolation="nearest")
    bar = figure.colorbar(drawn, ax=panel, fraction=0.042, pad=0.03)
    bar.set_label(unit, color=look.muted, fontsize=8.5)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(colors=look.muted, labelcolor=look.ink, labelsize=8)
    if groups is None:
        return
    names = list(dict.fromkeys(groups.tolist()))
    for name, start, stop in _runs(groups):
        tone = look.palette[names.index(name) % len(look.palette)]
        panel.plot([start - 0.5, stop - 0.5], [-1.5 - 0.015 * n] * 2, color=tone, linewidth=3.5, solid_capstyle="butt", clip_on=False)
        panel.plot([n + 0.5 + 0.015 * n] * 2, [start - 0.5, stop - 0.5], color=tone, linewidth=3.5, solid_capstyle="butt", clip_on=False)
    panel.set_xlim(-0.5, n + 1 + 0.03 * n)
    panel.set_ylim(n - 0.5, -2 - 0.03 * n)


def _runs(groups: np.ndarray) -> list[tuple[Any, int, int]]:
    """Runs of equal entries: what, from where, to where."""
    starts = [0, *(i for i in range(1, len(groups)) if groups[i] != groups[i - 1])]
    return [(groups[start], start, stop) for start, stop in zip(starts, [*starts[1:], len(groups)], strict=True)]


def _bare(panel: Axes) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    for side in ("left", "bottom"):
        panel.spines[side].set_visible(False)


def _points(panel: Axes, one: RDMs, groups: np.ndarray | None, look: Theme) -> None:
    inset = panel.inset_axes((0.0, 0.0, 0.45, 0.45))
    distances = one.square()[0]
    if one.distance in ("squared_euclidean", "mahalanobis", "crossnobis", "correlation", "cosine"):
        distances = np.sqrt(np.maximum(distances, 0))  # these are squared distances of some points, up to a factor
    points = classical_scaling(distances)
    size = float(np.clip(700 / one.n, 3, 22))
    if groups is None:
        inset.scatter(points[:, 0], points[:, 1], s=size, color=look.palette[0], linewidths=0, alpha=0.85)
    else:
        names = list(dict.fromkeys(groups.tolist()))
        for index, name in enumerate(names):
            mine = groups == name
            tone = look.palette[index % len(look.palette)]
            inset.scatter(points[mine, 0], points[mine, 1], s=size, color=tone, linewidths=0, alpha=0.85, label=str(name))
        if len(names) <= len(look.palette):
            inset.legend(frameon=False, fontsize=6.5, labelcolor=look.ink, loc="upper left", bbox_to_anchor=(0, -0.02), ncols=2)
    inset.set_aspect("equal", adjustable="datalim")
    inset.patch.set_alpha(0.0)
    inset.set_xticks([])
    inset.set_yticks([])
    for spine in inset.spines.values():
        spine.set_visible(False)
