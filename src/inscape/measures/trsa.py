"""Comparison of dissimilarity matrices between geometry and topology: small distances made 0 and large ones 1, or paths along the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.results import Curve
from inscape.summaries import RDM
from inscape.summaries.base import Need

Correlations = Annotated[RDM, Need(metric="correlation")]

# Quantiles between which the curve of every (low, high) with low < high is drawn.
GRID = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@measure(
    invariant={"scale", "permutation", "row_order"},
    sensitive={"translation", "rotation", "linear", "unit_scale"},
    range=(-1, 1),
    source="Lin & Kriegeskorte 2024",
    higher="more similar",
    symmetric=True,
    undefined={"constant"},
    minimum=4,
    null="0 for independent representations",
)
def trsa(x: Correlations, y: Correlations, *, low: float = 0.2, high: float = 0.8) -> Curve:
    r"""The correlation of two dissimilarity matrices in which small distances count as none and large ones as one and the same.

    Pearson's r of geo-topological matrices: a dissimilarity $1 - r$ becomes 0 below the quantile `low` of its matrix, 1 above `high`, and
    rises linearly in between. Paired rows [n, d]. low = 0 with high = 1 is `rsa_corr`, low near high compares graphs of neighbors. The
    curve has every pair of 0, .2, …, 1.

    Args:
        x: dissimilarities of the first system.
        y: dissimilarities of the second system.
        low: quantile of a matrix's dissimilarities up to which they become 0.
        high: quantile from which they become 1.

    Returns:
        A `Curve` over (low, high), whose value is the correlation at the options, from -1 to 1.

    Raises:
        DegenerateInputError: a row is constant across units, all dissimilarities are equal, or not 0 ≤ low < high ≤ 1.
        TooFewStimuliError: fewer than 4 rows.

    Source:
        Lin & Kriegeskorte, "The topology and geometry of neural representations", PNAS 2024, representational geo-topological matrices.

    Cost:
        n² d for the dissimilarities of each system, one sort, n² for each place on the grid.

    Bias:
        None under independence.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((20, 6))
        >>> round(float(ix.measures.trsa(X, 5 * X)), 6)
        1.0
    """
    return _over_grid(x, y, low, high, lambda values, n, bounds: geotopological(values, bounds))


@measure(
    invariant={"scale", "permutation", "row_order"},
    sensitive={"translation", "rotation", "linear", "unit_scale"},
    range=(-1, 1),
    source="Lin & Kriegeskorte 2024",
    higher="more similar",
    symmetric=True,
    undefined={"constant"},
    minimum=4,
    null="0 for independent representations",
)
def trsa_geodesic(x: Correlations, y: Correlations, *, low: float = 0.0, high: float = 1.0) -> Curve:
    r"""The correlation of two matrices of distances along the data: from stimulus to stimulus in steps that are not too long.

    Geo-topological matrices as in `trsa`, in which steps of 1 are then forbidden and every entry becomes the length of the shortest path;
    pairs without a path get the longest one. Pearson's r over the pairs of paired rows [n, d].

    Args:
        x: dissimilarities of the first system.
        y: dissimilarities of the second system.
        low: quantile of a matrix's dissimilarities up to which a step is free.
        high: quantile from which a step is forbidden.

    Returns:
        A `Curve` over (low, high), whose value is the correlation at the options, from -1 to 1.

    Raises:
        DegenerateInputError: a row is constant across units, all paths are equally long, or not 0 ≤ low < high ≤ 1.
        TooFewStimuliError: fewer than 4 rows.

    Source:
        Lin & Kriegeskorte, "The topology and geometry of neural representations", PNAS 2024, representational geodesic-distance matrices.

    Cost:
        n² d for the dissimilarities of each system, n³ for each place on the grid.

    Bias:
        None under independence.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((20, 6))
        >>> round(float(ix.measures.trsa_geodesic(X, 5 * X)), 6)
        1.0
    """
    return _over_grid(x, y, low, high, geodesic)


def geotopological(values: Tensor, bounds: tuple[float, float]) -> Tensor:
    """0 up to the first bound, 1 from the second, linear in between; a step where both are one."""
    low, high = bounds
    return ((values - low) / (high - low)).clamp(0, 1) if high > low else (values > high).to(values.dtype)


def geodesic(values: Tensor, n: int, bounds: tuple[float, float]) -> Tensor:
    """Lengths of the shortest paths over geo-topological steps below 1, condensed."""
    steps = geotopological(values, bounds).numpy()
    above = np.triu_indices(n, 1)
    paths = np.full((n, n), np.inf)
    paths[above] = paths.T[above] = np.where(steps < 1, steps, np.inf)
    np.fill_diagonal(paths, 0)
    for through in range(n):
        np.minimum(paths, paths[:, through, None] + paths[through], out=paths)
    lengths = paths[above]
    known = np.isfinite(lengths)
    return torch.from_numpy(np.where(known, lengths, lengths[known].max() if known.any() else 1.0))


def _over_grid(x: RDM, y: RDM, low: float, high: float, transformed: Callable[[Tensor, int, tuple[float, float]], Tensor]) -> Curve:
    if not 0 <= low < high <= 1:
        raise DegenerateInputError(f"low={low} and high={high} must be quantiles with 0 ≤ low < high ≤ 1")
    quantiles = sorted({*GRID, low, high})
    bounds = [dict(zip(quantiles, np.quantile(rdm.values.numpy(), quantiles).tolist(), strict=True)) for rdm in (x, y)]

    def at(place: tuple[float, float]) -> float | None:
        a, b = (transformed(rdm.values, rdm.n, (own[place[0]], own[place[1]])) for rdm, own in zip((x, y), bounds, strict=True))
        return _correlation(a, b)

    value = at((low, high))
    if value is None:
        raise DegenerateInputError(f"between the quantiles {low} and {high}, all entries of one matrix are equal ({x.n} rows)")
    grid = [(a, b) for a in GRID for b in GRID if a < b]
    values = [at(place) for place in grid]
    kept = [(place, one) for place, one in zip(grid, values, strict=True) if one is not None]
    return Curve(value, axis="quantiles", at=[f"{a:g}–{b:g}" for (a, b), _ in kept], values=[one for _, one in kept])


def _correlation(a: Tensor, b: Tensor) -> float | None:
    """Pearson's r; None where one side is constant."""
    centered = [v - v.mean() for v in (a, b)]
    sizes = [float(v.norm()) for v in centered]
    if any(size <= 1e-12 * float(v.norm()) or size == 0 for size, v in zip(sizes, (a, b), strict=True)):
        return None
    return min(1.0, max(-1.0, float(centered[0] @ centered[1]) / (sizes[0] * sizes[1])))
