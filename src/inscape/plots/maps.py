"""Two-dimensional maps of the rows of a site: principal components, or UMAP where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from inscape.arrays import as_rows
from inscape.errors import MissingExtraError, ResultError
from inscape.plots.theme import SEQUENTIAL, Theme, drawing, dress, panels, theme_named

_CATEGORIES = 7
_VECTOR_POINTS = 3000


@drawing
def map2d(
    data: Any,
    ax: Axes | None = None,
    *,
    color: str | Sequence[Any] | np.ndarray | None = None,
    method: Literal["pca", "umap"] = "pca",
    theme: str = "light",
    seed: int = 0,
) -> Figure:
    """Draws every row as a point in the plane; near points are alike, as far as two dimensions can show.

    Args:
        data: a view, or an array [n, d] whose rows are stimuli.
        ax: draw into this axes.
        color: a column of the view's stimuli, or one value per row; at most seven names get a color each, numbers a scale.
        method: "pca" says on its axes how much of the variance is shown; "umap" needs the package umap-learn.
        theme: "light", "dark" or "page".
        seed: start of UMAP; PCA has none.

    Raises:
        MissingExtraError: UMAP is not installed.
        ResultError: `color` does not give one value per row.

    Example:
        >>> map2d(store["blocks.3.resid_post"], color="category").savefig("map.svg")    # doctest: +SKIP
    """
    look = theme_named(theme)
    rows = as_rows(data, "the data of a map", minimum=3)
    if method == "umap":
        points, names = _umap(rows, seed), ("UMAP 1", "UMAP 2")
    else:
        points, shares = principal_plane(rows)
        names = (f"PC 1 ({shares[0]:.0%} of variance)", f"PC 2 ({shares[1]:.0%})")
    figure, (panel,) = panels(1, look, ax=ax, width=4.6, height=4.0)
    values, title = _colors_of(data, color, len(points))
    _scatter(figure, panel, points, values, look)
    panel.set_xlabel(names[0])
    panel.set_ylabel(names[1])
    panel.set_aspect("equal", adjustable="datalim")
    dress(panel, look, title=getattr(data, "site", None) or method.upper(), note=f"color: {title}" if title else None)
    return figure


def principal_plane(rows: Float[Tensor, "n d"]) -> tuple[np.ndarray, tuple[float, float]]:
    """Scores [n, 2] on the first two principal components and their shares of the variance.

    Signs are fixed: in each component the coordinate that weighs most is positive.
    """
    centered = rows.to(torch.float64) - rows.to(torch.float64).mean(0)
    total = float((centered**2).sum())
    n, d = centered.shape
    values, vectors = torch.linalg.eigh(centered.T @ centered if d <= n else centered @ centered.T)
    values, vectors = values.flip(0).clamp(min=0)[:2], vectors.flip(1)[:, :2]
    if d > n:
        vectors = centered.T @ vectors / values.sqrt().clamp(min=1e-300)
    if vectors.shape[1] < 2:  # one unit: the second axis is empty
        values, vectors = torch.cat([values, values.new_zeros(1)]), torch.cat([vectors, torch.zeros_like(vectors)], dim=1)
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    shares = (values / total).tolist() if total > 0 else [0.0, 0.0]
    return (centered @ vectors).numpy(), (shares[0], shares[1])


def _umap(rows: Tensor, seed: int) -> np.ndarray:
    if find_spec("umap") is None:
        raise MissingExtraError(
            "a map with method='umap' needs the package 'umap-learn', which is not installed. Run: pip install umap-learn"
        )
    import umap

    return np.asarray(umap.UMAP(random_state=seed, n_jobs=1).fit_transform(rows.numpy()))


def _colors_of(data: Any, color: Any, n: int) -> tuple[np.ndarray | None, str]:
    if color is None:
        return None, ""
    if isinstance(color, str):
        if not hasattr(data, "column"):
            raise ResultError(f"color={color!r} names a column, but plain arrays have none; give one value per row instead")
        return np.asarray(data.column(color)), color
    values = np.asarray(color)
    if values.shape != (n,):
        raise ResultError(f"color has shape {values.shape}; expected one value for each of the {n} rows")
    return values, ""


def _scatter(figure: Figure, ax: Axes, points: np.ndarray, values: np.ndarray | None, look: Theme) -> None:
    size = float(np.clip(9000 / len(points), 4, 26))
    raster = len(points) > _VECTOR_POINTS
    style: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.75, "rasterized": raster}
    if values is None:
        ax.scatter(points[:, 0], points[:, 1], color=look.palette[0], **style)
        return
    names = list(dict.fromkeys(values.tolist()))
    if values.dtype.kind in "fiu" and len(names) > _CATEGORIES:
        drawn = ax.scatter(points[:, 0], points[:, 1], c=values.astype(float), cmap=SEQUENTIAL, **style)
        bar = figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.03)
        bar.ax.tick_params(colors=look.muted, labelcolor=look.ink)
        return
    if len(names) > _CATEGORIES:
        # more names than colors that can be told apart: the most frequent keep theirs, the rest are gray and say so
        counts = {name: int((values == name).sum()) for name in names}
        names = sorted(names, key=lambda name: -counts[name])[:_CATEGORIES]
        rest = ~np.isin(values, names)
        ax.scatter(points[rest, 0], points[rest, 1], color=look.muted, label=f"{len(counts) - len(names)} others", **style)
    for index, name in enumerate(names):
        mine = values == name
        ax.scatter(points[mine, 0], points[mine, 1], color=look.palette[index % len(look.palette)], label=str(name), **style)
    ax.legend(frameon=False, fontsize=8, labelcolor=look.ink, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.4)
