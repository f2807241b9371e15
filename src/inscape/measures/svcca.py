"""Canonical correlations of the leading principal components."""

from __future__ import annotations

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.measures.bases import Bases, bases_of_moments, check_ranks
from inscape.measures.spectrum import varying
from inscape.summaries import CrossMoments, Moments
from inscape.summaries.spectra import eigenvectors


def _check_share(variance: float) -> None:
    if not 0 < variance <= 1:
        raise DegenerateInputError(f"variance={variance} is no share; give a number above 0, at most 1")


def _fewest(shares: Tensor, variance: float) -> int:
    reached = shares.cumsum(0) / shares.sum()
    # The last sum may miss 1 by rounding.
    return int((reached < variance * (1 - 1e-12)).sum()) + 1


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear"},
    range=(0, 1),
    source="Raghu et al. 2017",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="grows with the number of components kept over n, like cca_mean",
)
def svcca(pair: CrossMoments, *, variance: float = 0.99) -> float:
    r"""The mean canonical correlation of the leading principal components of two representations.

    `cca_mean` of the fewest components that hold `variance` of the variance $\sum_i s_i^2$ on each side, paired rows [n, p] and [n, q].
    Libraries differ here: some take a share of $\sum_i s_i$ (`svcca_anatome`), and on one input values from .17 to .68 are in the wild.

    Args:
        pair: moments of both sides and across.
        variance: share of the variance to keep.

    Returns:
        A correlation, from 0 to 1.

    Raises:
        DegenerateInputError: n - 1 or more components are kept, all rows of one input are equal, or `variance` is no share.
        TooFewStimuliError: fewer than 3 rows.

    Warns:
        InscapeWarning: fewer than 5 rows for each component kept, where chance alone gives a high value.

    Source:
        Raghu, Gilmer, Yosinski & Sohl-Dickstein, "SVCCA: singular vector canonical correlation analysis", NeurIPS 2017.

    Cost:
        n (p + q)² for the moments, shared with all pair measures of this family, and p³ + q³.

    Bias:
        Too high: chance correlation is of order sqrt((a + b) / n) with a and b components.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 4)) * [9, 9, 0.1, 0.1]
        >>> round(ix.measures.svcca(X, X * [1, 1, -3, 7] ), 6)
        1.0
    """
    _check_share(variance)
    bases = bases_of_moments(pair, "svcca")
    counts = [_fewest(moments.eigenvalues, variance) for moments in (pair.x, pair.y)]
    first, second = (min(count, rank) for count, rank in zip(counts, bases.overlap.shape, strict=True))
    inside = Bases(bases.n, first, second, bases.overlap[-first:, -second:], bases.loading_x[-first:], bases.loading_y[-second:])
    check_ranks(inside, "svcca")
    return float(inside.correlations.sum()) / inside.rank


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"linear", "translation"},
    range=(0, 1),
    source="the library anatome",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="grows with the number of components kept over n, like cca_mean",
)
def svcca_anatome(pair: CrossMoments, *, variance: float = 0.99) -> float:
    r"""`svcca` as the library anatome computes it: components of the rows as they are, by a share of the sum of singular values.

    The mean canonical correlation of the leading right singular directions of X and Y, not centered, paired rows [n, p] and [n, q]; as
    many directions as lie below the share `variance` of $\sum_i s_i$. `svcca` centers first and takes a share of $\sum_i s_i^2$.

    Args:
        pair: moments of both sides and across.
        variance: share of the sum of singular values below which directions are kept.

    Returns:
        A correlation, from 0 to 1; one minus the distance that the library gives.

    Raises:
        DegenerateInputError: n - 1 or more directions are kept, all rows of one input are equal, or `variance` is no share.
        TooFewStimuliError: fewer than 3 rows.

    Warns:
        InscapeWarning: fewer than 5 rows for each direction kept, where chance alone gives a high value.

    Source:
        anatome, `svcca_distance`.

    Cost:
        As `svcca`.

    Bias:
        Too high, as `svcca`.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 4)) * [9, 9, 1, 1]
        >>> round(ix.measures.svcca_anatome(X, X), 6)
        1.0
    """
    _check_share(variance)
    varying(pair.x)
    varying(pair.y)
    first, second = (_raw_directions(moments, variance) for moments in (pair.x, pair.y))
    (white_x, rank_x), (white_y, rank_y) = (
        _whitened(kept.T @ moments.scatter @ kept) for kept, moments in ((first, pair.x), (second, pair.y))
    )
    overlap = white_x.T @ first.T @ pair.cross @ second @ white_y
    inside = Bases(pair.n, rank_x, rank_y, overlap, overlap, overlap)  # nothing asks for the loadings
    check_ranks(inside, "svcca_anatome")
    return float(inside.correlations.sum()) / inside.rank


def _raw_directions(moments: Moments, variance: float) -> Tensor:
    """Right singular directions [d, k] of the rows without centering."""
    values, vectors = eigenvectors(moments.scatter + moments.n * torch.outer(moments.mean, moments.mean))
    values, vectors = values.flip(0).clamp(min=0).sqrt(), vectors.flip(1)
    count = int((values.cumsum(0) / values.sum() < variance).sum())
    return vectors[:, : max(1, count)]


def _whitened(scatter: Tensor) -> tuple[Tensor, int]:
    values, vectors = eigenvectors(scatter)
    kept = values > len(values) * 2.3e-16 * values[-1]
    return vectors[:, kept] / values[kept].sqrt(), int(kept.sum())
