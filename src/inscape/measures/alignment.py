"""Similarity of two representations after the best linear or orthogonal map between them."""

from __future__ import annotations

import math
import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from inscape.arrays import row_blocks
from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.base import RowRoute, measure
from inscape.measures.spectrum import varying
from inscape.summaries import CrossMoments

_EPS = torch.finfo(torch.float64).eps
# Above this condition of a scatter (its rows have the square root of it) whitening loses more than ten digits' worth of guard.
_CONDITION = 1e6


def _ill_conditioned(pair: CrossMoments) -> bool:
    """Whether a scatter is so ill-conditioned, or so near to losing rank, that the rows should be factored instead."""
    for moments in (pair.x, pair.y):
        full = min(int(moments.n) - 1, moments.d)
        kept = _above_cut(moments.eigenvalues, moments.n)
        if full > 0 and (len(kept) < full or float(kept[0] / kept[-1]) > _CONDITION):
            return True
    return False


def _mean_correlation_of_rows(X: Float[Tensor, "n p"], Y: Float[Tensor, "n q"]) -> float:
    """The same value from triangular factors of the centered rows, which do not square the condition number."""
    n, p = X.shape
    (basis_x, rank_x), (basis_y, rank_y) = (_basis(coordinates, n) for coordinates in _triangular_factor(X, Y))
    _check_ranks(n, p, Y.shape[1], rank_x, rank_y)
    return _mean_correlation(basis_x.T @ basis_y, min(rank_x, rank_y))


@measure(
    invariant={"translation", "linear", "row_order"},
    sensitive=set(),
    range=(0, 1),
    source="Hotelling 1936; Raghu et al. 2017",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="grows with d/n: .43 at n = 256, d = 64 for independent Gaussian rows; 1 when d reaches n",
    rows=RowRoute(_ill_conditioned, _mean_correlation_of_rows),
)
def cca_mean(pair: CrossMoments) -> float:
    r"""The mean canonical correlation: how well the directions of two representations predict each other linearly.

    $\frac{1}{r} \sum_i \rho_i$ with $\rho$ the singular values of $\Sigma_x^{-1/2} \Sigma_{xy} \Sigma_y^{-1/2}$ and $r$ the smaller of
    the two ranks, paired rows [n, p] and [n, q]. Directions below the rounding of their scatter are dropped.

    Arrays whose scatter has a condition above 10⁶ are factored by QR; summaries alone then give the value with a warning that carries
    the condition.

    Args:
        pair: moments of both sides and across.

    Returns:
        A correlation, from 0 to 1.

    Raises:
        DegenerateInputError: the rank of one input is n - 1 or more, so every correlation is 1; or all rows of one input are equal.
        TooFewStimuliError: fewer than 3 rows.

    Warns:
        InscapeWarning: fewer than 5 (p + q) rows, where chance alone gives a high value.

    Source:
        Hotelling, "Relations between two sets of variates", Biometrika 1936; as a similarity of representations Raghu, Gilmer,
        Yosinski & Sohl-Dickstein, "SVCCA", NeurIPS 2017.

    Cost:
        n (p + q)² for the moments, shared with all pair measures of this family, and p³ + q³.

    Bias:
        Too high: chance correlation is of order sqrt((p + q) / n).

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 3))
        >>> round(ix.measures.cca_mean(X, X @ [[1, 2, 0], [0, 1, 5], [0, 0, 1]]), 6)
        1.0
    """
    varying(pair.x)
    varying(pair.y)
    white_x, white_y = pair.x.whitener, pair.y.whitener
    rank_x, rank_y = white_x.shape[1], white_y.shape[1]
    _check_ranks(pair.n, pair.x.d, pair.y.d, rank_x, rank_y)
    kept = [_above_cut(moments.eigenvalues, moments.n) for moments in (pair.x, pair.y)]
    worst = max(float(values[0] / values[-1]) for values in kept)
    if worst > _CONDITION:
        warnings.warn(
            f"cca_mean from moments: the condition of a scatter is {worst:.1e}, above {_CONDITION:.0e}, so about "
            f"{max(0, 16 - math.log10(worst)):.0f} digits are left; ix.measures.cca_mean(X, Y) on the rows keeps twice as many",
            InscapeWarning,
            stacklevel=4,
        )
    return _mean_correlation(white_x.T @ pair.cross @ white_y, min(rank_x, rank_y))


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.pi / 2),
    source="Williams et al. 2021, angular distance",
    higher="more different",
    symmetric=True,
    minimum=3,
    null="shrinks with d/n; π/2 for representations with nothing in common and n far above d",
)
def procrustes(pair: CrossMoments) -> float:
    r"""The angle between two representations after the best rotation: 0 when they are equal up to rotation, shift and scale.

    $\arccos\left(\lVert X_c^\top Y_c \rVert_* / (\lVert X_c \rVert_F \lVert Y_c \rVert_F)\right)$ with the nuclear norm $\lVert\cdot
    \rVert_*$, centered paired rows [n, p] and [n, q]. It is a metric: symmetric, and the triangle inequality holds.

    Args:
        pair: moments of both sides and across.

    Returns:
        An angle in radians, from 0 to π/2. Below 1e-7 it is rounding.

    Raises:
        DegenerateInputError: all rows of one input are equal.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Williams, Kunz, Kornblith & Linderman, "Generalized shape metrics on neural representations", NeurIPS 2021: the angular
        distance, with centering and the orthogonal group.

    Cost:
        n (p + q)² for the moments, shared with all pair measures of this family, and p q min(p, q) for the singular values.

    Bias:
        Too low for n below d: any two clouds can be rotated onto each other. Read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> line, other = np.array([[1.0, 0], [-1, 0], [0, 0]]), np.array([[1.0], [1], [-2]])
        >>> round(ix.measures.procrustes(line, other), 6)
        1.570796
    """
    varying(pair.x)
    varying(pair.y)
    cosine = pair.nuclear_norm / math.sqrt(pair.x.trace * pair.y.trace)
    return math.acos(min(1.0, cosine))


def _above_cut(eigenvalues: Tensor, n: float) -> Tensor:
    """The eigenvalues that are not lost in the rounding of the largest."""
    return eigenvalues[eigenvalues > max(n, len(eigenvalues)) * _EPS * eigenvalues[0]]


def _triangular_factor(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of centered X and Y in one orthonormal basis; block by block, so no n × n appears.

    Returns:
        [m, p] and [m, q] with m at most p + q.
    """
    p = X.shape[1]
    centers = [rows.mean(0, dtype=torch.float64) for rows in (X, Y)]
    factor = torch.zeros(0, p + Y.shape[1], dtype=torch.float64)
    for block in row_blocks(X.shape[0], p + Y.shape[1]):
        pieces = [rows[block].double() - center for rows, center in zip((X, Y), centers, strict=True)]
        factor = torch.linalg.qr(torch.cat([factor, torch.cat(pieces, 1)]), mode="r").R
    return factor[:, :p], factor[:, p:]


def _basis(coordinates: Tensor, n: int) -> tuple[Tensor, int]:
    """An orthonormal basis of the columns' span, and its rank."""
    left, values, _ = torch.linalg.svd(coordinates, full_matrices=False)
    rank = int((values > max(n, coordinates.shape[1]) * _EPS * values[0]).sum())
    return left[:, :rank], rank


def _check_ranks(n: float, p: int, q: int, rank_x: int, rank_y: int) -> None:
    shape = f"X [{n:g}, {p}] of rank {rank_x}, Y [{n:g}, {q}] of rank {rank_y}"
    if max(rank_x, rank_y) >= n - 1:
        raise DegenerateInputError(
            f"{shape}: with a rank of n - 1 or more every canonical correlation is 1, whatever the data; use more stimuli or fewer units"
        )
    if min(rank_x, rank_y) == 0:
        raise DegenerateInputError(f"{shape}: all rows of one input are equal")
    if n < 5 * (p + q):
        warnings.warn(
            f"cca_mean: {n:g} rows for {p} + {q} units are fewer than 5 (p + q) = {5 * (p + q)}; chance alone gives a high value here, "
            "so read it with its null",
            InscapeWarning,
            stacklevel=5,
        )


def _mean_correlation(overlap: Tensor, rank: int) -> float:
    return float(torch.linalg.svdvals(overlap).clamp(max=1).sum()) / rank
