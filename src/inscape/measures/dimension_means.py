"""Further estimates of dimension: likelihood at the smallest scale, averages over rows, the covariance, and features against targets."""

from __future__ import annotations

import math
import warnings
from typing import Annotated

from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.base import measure
from inscape.measures.dimension import distinct
from inscape.measures.spectrum import varying
from inscape.summaries import Moments, Neighbors
from inscape.summaries.base import Need

_SPREAD = 1e-12  # mean log ratio of distances below which they differ by rounding

Nearest = Annotated[Neighbors, Need(metric="euclidean", center=True, k=2)]


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Facco et al. 2017, maximum likelihood",
    higher="more dimensions",
    undefined={"constant"},
    minimum=10,
    beside="gride",
)
def two_nn_ml(neighbors: Nearest) -> float:
    r"""The intrinsic dimension at the smallest scale, by maximum likelihood from the ratio of each row's two nearest distances.

    $(n - 1) / \sum_i \log \mu_i$ with $\mu = r_2 / r_1$ for each of n distinct rows [d]. `two_nn` fits a line instead and leaves out the
    largest ratios.

    Args:
        neighbors: Euclidean distances to the nearest rows.

    Returns:
        A dimension; not an integer in general.

    Raises:
        TooFewStimuliError: fewer than 10 distinct rows.
        DegenerateInputError: all rows are equal, or all distances are.

    Warns:
        InscapeWarning: some rows repeat others.

    Source:
        Facco, d'Errico, Rodriguez & Laio, "Estimating the intrinsic dimension of datasets by a minimal neighborhood information",
        Scientific Reports 2017; the likelihood's maximum with n - 1 for n, which is unbiased.

    Cost:
        n² d for the neighbors, shared by all measures of neighbors; then n.

    Bias:
        Too low for dimensions above about 10 (15.8 for a cube of 20 at n = 5,000), too high where small noise fills the space; `gride`
        gives the same number over scales.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).random((2000, 2))
        >>> round(ix.measures.two_nn_ml(X))
        2
    """
    return _two_nn_ml(neighbors, "two_nn_ml")


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Levina & Bickel 2004, eq. 9",
    higher="more dimensions",
    undefined={"constant"},
    minimum=10,
    beside="mle_dimension_curve",
)
def mle_dimension_mean(neighbors: Annotated[Neighbors, Need(metric="euclidean", center=True, k="k")], *, k: int = 20) -> float:
    r"""The mean over rows of the dimension that maximum likelihood finds around each, at the scale of k neighbors.

    The mean of $m_i = \left(\frac{1}{k - 1} \sum_{j<k} \log(T_k / T_j)\right)^{-1}$ with $T_j$ the distance of a row [d] to its j-th
    neighbor. `mle_dimension` averages the inverses, which is less biased. Rows that repeat another row exactly count once.

    Args:
        neighbors: Euclidean distances to the nearest rows.
        k: neighbors of each row; the scale.

    Returns:
        A dimension; not an integer in general.

    Raises:
        TooFewStimuliError: fewer than 10 or k + 1 distinct rows.
        DegenerateInputError: all rows are equal, or all distances are.

    Warns:
        InscapeWarning: some rows repeat others, or have all k neighbors equally far and are left out.

    Source:
        Levina & Bickel, "Maximum likelihood estimation of intrinsic dimension", NeurIPS 2004, equations 8 and 9.

    Cost:
        n² d for the neighbors, shared by all measures of neighbors; then n k.

    Bias:
        Too high by a factor of about (k - 1) / (k - 2) beside `mle_dimension`, and too low for dimensions above about 10.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).random((2000, 2))
        >>> round(ix.measures.mle_dimension_mean(X))
        2
    """
    if k < 2:
        raise DegenerateInputError(f"k = {k}: the likelihood needs at least 2 neighbors")
    found = distinct(neighbors, "mle_dimension_mean", k)
    distances = found.distances[:, :k]
    inverse = (distances[:, -1:] / distances[:, :-1]).log().mean(1)
    kept = inverse > _SPREAD
    count = int(kept.sum())
    if not count:
        raise DegenerateInputError(f"all {k} nearest distances of every row are equal; no dimension fits that")
    if count < found.n:
        warnings.warn(
            f"mle_dimension_mean: {found.n - count} of {found.n} rows have {k} neighbors at one distance and are left out",
            InscapeWarning,
            stacklevel=4,
        )
    return float((1 / inverse[kept]).mean())


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive=(),
    range=(1, "min(n - 1, d)"),
    source="Fukunaga & Olsen 1971",
    higher="more dimensions",
)
def lpca_dimension(moments: Moments, *, share: float = 0.05) -> float:
    r"""The number of directions whose variance is more than a share of the strongest direction's.

    The count of eigenvalues $\lambda_i > \mathrm{share} \cdot \lambda_1$ of the covariance of the rows [n, d]: the dimension of the flat
    space that holds the cloud. A curved sheet fills more directions than it has dimensions; `local_dimension` asks near each row.

    Args:
        moments: of the rows [n, d].
        share: of the largest variance, between 0 and 1.

    Returns:
        A whole number of dimensions, from 1 to min(n - 1, d).

    Raises:
        DegenerateInputError: all rows are equal.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Fukunaga & Olsen, "An algorithm for finding intrinsic dimensionality of data", IEEE Transactions on Computers 1971, on all rows at
        once with the share of the scikit-dimension package, which calls it lPCA ("FO").

    Cost:
        n d² for the scatter, shared with all spectral measures, and d³ for its eigenvalues.

    Bias:
        One direction of large variance hides all others; noise below the share does not count.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((500, 3)) @ np.eye(3, 10)
        >>> ix.measures.lpca_dimension(X)
        3.0
    """
    if not 0 < share < 1:
        raise DegenerateInputError(f"share = {share}: a share of the largest variance lies between 0 and 1, for instance 0.05")
    varying(moments)
    return float((moments.eigenvalues > share * moments.eigenvalues[0]).sum())


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Geometric properties of neural multivariate regression 2025: ID_H and ID_Y",
    higher="more different",
    undefined={"constant"},
    minimum=10,
    reflexive=False,
    null="not 1 in general: two clouds of the same dimension give 1 whatever else they share",
    status="provisional",
)
def regression_dimension(x: Nearest, y: Nearest) -> float:
    r"""The intrinsic dimension of features in units of that of the targets: below 1 the features are compressed too far.

    `two_nn_ml` of the features over `two_nn_ml` of the targets, rows [n, d] and [n, t] paired. The order matters: features first.

    Args:
        x: neighbors among the features.
        y: neighbors among the targets, several numbers a row.

    Returns:
        A ratio without unit, from 0 upward.

    Raises:
        TooFewStimuliError: fewer than 10 distinct rows on a side.
        DegenerateInputError: all rows of a side are equal, or all distances are.

    Warns:
        InscapeWarning: some rows repeat others.

    Source:
        Andriopoulos, Dong, Adhikari & Ross, "Geometric properties of neural multivariate regression", 2025: compares the dimension of
        last-layer features with that of the targets, both by the two nearest neighbors (a summary of the paper says so; its text could
        not be read). The maximum-likelihood form, and the ratio in place of a pair of numbers, are choices of this library.

    Cost:
        n² d for the neighbors of each side, shared by all measures of neighbors; then n.

    Bias:
        Both sides are too low above about 10 dimensions, the larger one more; noise in the targets counts as dimensions.

    Example:
        >>> import numpy as np, inscape as ix
        >>> Y = np.random.default_rng(0).random((2000, 4))
        >>> round(ix.measures.regression_dimension(Y[:, :2], Y), 1)
        0.5
    """
    return _two_nn_ml(x, "regression_dimension") / _two_nn_ml(y, "regression_dimension")


def _two_nn_ml(neighbors: Neighbors, name: str) -> float:
    distances = distinct(neighbors, name).distances
    n = distances.shape[0]
    total = float((distances[:, 1] / distances[:, 0]).log().sum())
    if total <= n * _SPREAD:
        raise DegenerateInputError(f"the two nearest distances are equal at each of {n} rows; no dimension fits that")
    return (n - 1) / total
