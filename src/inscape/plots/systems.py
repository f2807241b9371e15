"""Many systems on one sheet: the matrix of their distances in the order of a dendrogram, and a map of them."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform
from scipy.stats import t as student

from inscape.errors import ResultError
from inscape.measures.systems import distances, distances_left_out
from inscape.plots.reading import facts_of, spread
from inscape.plots.theme import SEQUENTIAL, Theme, drawing, dress, panels, theme_named
from inscape.results import Result

PRINTED_SYSTEMS = 10


def classical_mds(matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """Coordinates [s, 2] whose distances come nearest to `matrix` in squares, and the share of the positive spectrum that they hold.

    The two leading eigenvectors of −½ H D² H; signs are fixed so that the first system is not on the negative side.

    Example:
        >>> points, share = classical_mds(np.array([[0.0, 3], [3, 0]]))
        >>> float(abs(points[0, 0] - points[1, 0])), share
        (3.0, 1.0)
    """
    center = np.eye(len(matrix)) - 1 / len(matrix)
    values, vectors = np.linalg.eigh(-0.5 * center @ matrix**2 @ center)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    points = vectors[:, :2] * np.sqrt(values[:2])
    points = points * np.where(points[0] < 0, -1.0, 1.0)
    total = float(values.sum())
    return (np.pad(points, ((0, 0), (0, 2 - points.shape[1]))), float(values[:2].sum()) / total if total > 0 else 1.0)


@drawing
def system_map(
    result: Result, ax: Axes | None = None, *, measure: str | None = None, site: str | None = None, theme: str = "light"
) -> Figure:
    """Draws a comparison of many systems: dendrogram, distance matrix in its order, and a map by classical scaling.

    Where the comparison has a jackknife, distances show the half-width of their 95 % interval, branches how many of the smaller
    experiments (without one group of stimuli) have the same branch, and systems the region in which they lie.

    Args:
        result: of `compare` of several systems.
        ax: draw the map alone into this axes.
        measure: which one; may be left out where there is one.
        site: likewise; without it the mean over sites.
        theme: "light", "dark" or "page".

    Raises:
        ResultError: fewer than three systems, several measures and none named, or a pair without a value.
    """
    look = theme_named(theme)
    chosen = measure or (result.unique("measure")[0] if len(result.unique("measure")) == 1 else None)
    matrix, names = distances(result, chosen, site)
    if len(names) < 3:
        raise ResultError(f"a map needs at least 3 systems, the result has {len(names)}: {', '.join(names)}")
    if np.isnan(matrix).any():
        i, j = np.argwhere(np.isnan(matrix))[0]
        raise ResultError(f"{names[i]} and {names[j]} have no value of {chosen}; select the systems that have, or another measure")
    without = distances_left_out(result, chosen, site)
    if ax is not None:
        figure, axes = panels(1, look, ax=ax, width=4.2, height=4.0, columns=1)
        _map(axes[0], matrix, names, str(chosen), look, without)
        return figure
    figure, axes = panels(3, look, ax=None, width=4.4, height=4.2, columns=3)
    order = _tree(axes[0], matrix, names, look, without)
    reach = None if without is None else _half_widths(without)[np.ix_(order, order)]
    _matrix(figure, axes[1], matrix[np.ix_(order, order)], [names[i] for i in order], look, reach)
    _map(axes[2], matrix, names, str(chosen), look, without)
    away = facts_of(str(chosen)).distance
    notes = [] if away else ["distance: the best value minus this one"]
    notes += [] if without is None else ["%: how often the branch is there without a group of stimuli"]
    dress(axes[0], look, title=str(chosen), note="\n".join(notes))
    if len(notes) > 1:
        axes[0].set_title(axes[0].get_title(loc="left"), loc="left", color=look.ink, fontweight="bold", pad=30)
    return figure


def _half_widths(without: np.ndarray) -> np.ndarray:
    """Half of the 95 % jackknife interval of each distance [s, s]."""
    groups = len(without)
    error = np.sqrt((groups - 1) / groups * ((without - without.mean(0)) ** 2).sum(0))
    return float(student.ppf(0.975, groups - 1)) * error


def _joined(matrix: np.ndarray) -> tuple[np.ndarray, list[frozenset[int]]]:
    """The tree by average linkage, and the systems under each of its branches."""
    tree = linkage(squareform(matrix, checks=False), "average", optimal_ordering=True)
    groups = [frozenset({i}) for i in range(len(matrix))]
    for first, second in tree[:, :2].astype(int).tolist():
        groups.append(groups[first] | groups[second])
    return tree, groups


def _tree(ax: Axes, matrix: np.ndarray, names: list[str], look: Theme, without: np.ndarray | None) -> list[int]:
    tree, groups = _joined(matrix)
    drawn = dendrogram(tree, labels=names, orientation="left", ax=ax, color_threshold=0, above_threshold_color=look.ink)
    for line in ax.collections:
        line.set_linewidth(1.2)
    ax.spines[["left", "right", "top"]].set_visible(False)
    ax.tick_params(axis="y", length=0, labelsize=8)
    ax.set_xlabel("mean distance of the groups that join")
    leaves = [int(leaf) for leaf in drawn["leaves"] or []]
    if without is not None:
        again = [set(_joined(one)[1]) for one in without]
        heights: list[float] = [10.0 * leaves.index(i) + 5 for i in range(len(names))]  # dendrogram's own places
        for (first, second, far), group in zip(tree[:, :3].tolist(), groups[len(names) :], strict=True):
            heights.append((heights[int(first)] + heights[int(second)]) / 2)
            if len(group) < len(names):
                share = sum(group in one for one in again) / len(again)
                ax.annotate(
                    f"{share:.0%}", (far, heights[-1]), (-3, 3), textcoords="offset points", fontsize=7, color=look.muted, ha="right"
                )
    return leaves


def _matrix(figure: Figure, ax: Axes, matrix: np.ndarray, names: list[str], look: Theme, reach: np.ndarray | None) -> None:
    image = ax.imshow(matrix, cmap=matplotlib.colormaps[SEQUENTIAL + "_r"], origin="lower", vmin=0)
    if len(names) <= PRINTED_SYSTEMS:
        high = float(matrix.max()) or 1.0
        for (i, j), value in np.ndenumerate(matrix):
            shade = "#000000" if value < high / 2 else "#ffffff"
            text = f"{value:.2f}".replace("0.", ".", 1)
            if reach is not None and i != j:
                text += f"\n±{reach[i, j]:.2f}".replace("0.", ".", 1)
            ax.text(j, i, text, ha="center", va="center", fontsize=7 if len(names) <= 8 else 6, color=shade)
    ticks = range(len(names))
    ax.set_yticks(ticks, names, fontsize=8)
    ax.set_xticks(ticks, names, fontsize=8, rotation=35, ha="right", rotation_mode="anchor")
    dress(ax, look, title="distance", note=None if reach is None else "± half of the 95 % interval")
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(length=0)
    bar = figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03, aspect=28)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(colors=look.muted, labelcolor=look.ink, length=2)


def _map(ax: Axes, matrix: np.ndarray, names: list[str], measure: str, look: Theme, without: np.ndarray | None) -> None:
    points, share = classical_mds(matrix)
    if without is not None:
        _regions(ax, points, without, look)
    ax.plot(points[:, 0], points[:, 1], "o", color=look.ink, markersize=5)
    reach = float(np.ptp(points, axis=0).max()) or 1.0
    right = points[:, 0] >= points[:, 0].mean()
    for side in (right, ~right):
        # Names of systems that lie on each other stand below each other.
        chosen = np.flatnonzero(side)
        heights = spread([float(points[i, 1]) for i in chosen], 0.07 * reach)
        for i, height in zip(chosen, heights, strict=True):
            away = 0.03 * reach * (1 if side is right else -1)
            ax.text(points[i, 0] + away, height, names[i], fontsize=8, color=look.ink, va="center", ha="left" if side is right else "right")
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.25)
    ax.set_xticks([])
    ax.set_yticks([])
    region = "" if without is None else "; regions of 95 %"
    dress(ax, look, title=f"map by {measure}", note=f"two axes hold {share:.0%} of the squared distances{region}")
    ax.spines[["left", "bottom"]].set_visible(False)


def _regions(ax: Axes, points: np.ndarray, without: np.ndarray, look: Theme) -> None:
    """95 % regions of the places, from maps of the smaller experiments that are turned onto the whole one's."""
    center = points - points.mean(0)
    maps: list[np.ndarray] = []
    for matrix in without:
        other = classical_mds(matrix)[0]
        other = other - other.mean(0)
        left, _, right = np.linalg.svd(other.T @ center)
        maps.append(other @ left @ right)
    groups = len(maps)
    around = np.stack(maps) - np.stack(maps).mean(0)
    for point, moved in zip(points, around.transpose(1, 0, 2), strict=True):
        values, vectors = np.linalg.eigh((groups - 1) / groups * moved.T @ moved)
        sizes = 2 * np.sqrt(5.99 * values.clip(min=0))
        angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
        ax.add_patch(Ellipse((point[0], point[1]), sizes[1], sizes[0], angle=angle, color=look.palette[0], alpha=0.18, linewidth=0))
