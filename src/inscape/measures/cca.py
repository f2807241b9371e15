"""Canonical correlations and what is made of them: similarity of two representations up to any invertible linear map."""

from __future__ import annotations

from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.measures.bases import Bases, bases_of_moments, by_rows, check_ranks
from inscape.summaries import CrossMoments, Moments
from inscape.summaries.spectra import left_singular_vectors, singular_vectors


def _mean(bases: Bases) -> float:
    check_ranks(bases, "cca_mean")
    return float(bases.correlations.sum()) / bases.rank


@measure(
    invariant={"translation", "linear", "row_order"},
    sensitive=set(),
    range=(0, 1),
    source="Hotelling 1936; Raghu et al. 2017",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="grows with d/n: .43 at n = 256, d = 64 for independent Gaussian rows; 1 when d reaches n",
    rows=by_rows(_mean),
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
    return _mean(bases_of_moments(pair, "cca_mean"))


def _mean_square(bases: Bases) -> float:
    check_ranks(bases, "cca_r2")
    return min(1.0, float(bases.overlap.square().sum()) / bases.rank)


@measure(
    invariant={"translation", "linear", "row_order"},
    sensitive=set(),
    range=(0, 1),
    source="Yanai 1974, generalized coefficient of determination; R²_CCA in Kornblith et al. 2019",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="grows with d/n, about (p + q) / n times less than 1 for independent Gaussian rows; 1 when d reaches n",
    rows=by_rows(_mean_square),
)
def cca_r2(pair: CrossMoments) -> float:
    r"""The mean squared canonical correlation: the share of one representation's directions that lies in the span of the other's.

    $\frac{1}{r} \sum_i \rho_i^2 = \lVert Q_x^\top Q_y \rVert_F^2 / r$ with orthonormal bases Q of the centered paired rows [n, p] and
    [n, q] and $r$ the smaller of the two ranks.

    Args:
        pair: moments of both sides and across.

    Returns:
        A share, from 0 to 1.

    Raises:
        DegenerateInputError: the rank of one input is n - 1 or more, so every correlation is 1; or all rows of one input are equal.
        TooFewStimuliError: fewer than 3 rows.

    Warns:
        InscapeWarning: fewer than 5 (p + q) rows, where chance alone gives a high value.

    Source:
        Yanai, "Unification of various techniques of multivariate analysis by means of generalized coefficient of determination",
        1974; as R²_CCA in Kornblith, Norouzi, Lee & Hinton, "Similarity of neural network representations revisited", ICML 2019.

    Cost:
        n (p + q)² for the moments, shared with all pair measures of this family, and p³ + q³; no singular values.

    Bias:
        Too high: independent rows give about max(p, q) / n.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 4))
        >>> round(ix.measures.cca_r2(X, X[:, :2]), 6)
        1.0
    """
    return _mean_square(bases_of_moments(pair, "cca_r2"))


def _weighted(bases: Bases) -> float:
    """Canonical correlations weighted by how much of X their variates carry."""
    check_ranks(bases, "pwcca")
    left, correlations = left_singular_vectors(bases.overlap)
    weights = (left.T @ bases.loading_x).abs().sum(1)
    return float(weights @ correlations.clamp(max=1) / weights.sum())


@measure(
    invariant={"translation", "scale", "permutation", "row_order"},
    sensitive=set(),
    range=(0, 1),
    source="Morcos et al. 2018",
    higher="more similar",
    minimum=3,
    null="grows with d/n, like cca_mean; 1 when d reaches n",
    rows=by_rows(_weighted),
)
def pwcca(pair: CrossMoments) -> float:
    r"""The mean canonical correlation, each weighted by how much of X its canonical variate accounts for.

    $\sum_i \alpha_i \rho_i / \sum_i \alpha_i$ with $\alpha_i = \sum_j \lvert \langle h_i, x_j \rangle \rvert$ over the units $x_j$ of X and
    the orthonormal canonical variates $h_i$ of X, i up to the smaller rank; centered paired rows [n, p] and [n, q]. Not symmetric: X
    is the representation that is explained.

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
        Morcos, Raghu & Bengio, "Insights on representational similarity in neural networks with canonical correlation", NeurIPS 2018.
        `pwcca_sim_metric` is the form of a library that divides by the weights of all units of X.

    Cost:
        n (p + q)² for the moments, shared with all pair measures of this family, and p³ + q³ with singular vectors.

    Bias:
        Too high: chance correlation is of order sqrt((p + q) / n).

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 3))
        >>> round(ix.measures.pwcca(X, X @ [[1, 2, 0], [0, 1, 5], [0, 0, 1]]), 6)
        1.0
    """
    return _weighted(bases_of_moments(pair, "pwcca"))


@measure(
    invariant={"translation", "scale", "row_order"},
    sensitive=set(),
    range=(0, 1),
    source="Morcos et al. 2018, as computed by the library sim_metric",
    higher="more similar",
    minimum=3,
    null="grows with d/n, like cca_mean, but below 1 by the weight of X's variates without a partner where Y is narrower",
)
def pwcca_sim_metric(pair: CrossMoments) -> float:
    r"""`pwcca` divided by the weights of all canonical variates of X, those without a partner in Y included.

    $\sum_{i \le r} \alpha_i \rho_i / \sum_{i \le p} \alpha_i$ with the weights and variates of `pwcca`, r the smaller rank: the form in
    the library sim_metric. Where Y has at least the rank of X the two are equal. Where it has not, the variates without a partner are
    an arbitrary basis of what is left, which the singular value decomposition of $S_x^{-1/2} M S_y^{-1/2}$ happens to give, so the last
    digits are convention; `pwcca` has no such freedom.

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
        Ding, Denain & Steinhardt, "Grounding representation similarity with statistical testing", NeurIPS 2021: the library sim_metric.

    Cost:
        As `pwcca`.

    Bias:
        Too high, as `pwcca`.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 4))
        >>> ix.measures.pwcca_sim_metric(X, X[:, :2]) < ix.measures.pwcca(X, X[:, :2])
        True
    """
    check_ranks(bases_of_moments(pair, "pwcca_sim_metric"), "pwcca_sim_metric")
    (root, inverse), (_, inverse_y) = (_square_roots(moments) for moments in (pair.x, pair.y))
    left, correlations, _ = singular_vectors(inverse @ pair.cross @ inverse_y, full=True)
    weights = (left.T @ root).abs().sum(1)
    return float(weights[: len(correlations)] @ correlations.clamp(max=1) / weights.sum())


def _square_roots(moments: Moments) -> tuple[Tensor, Tensor]:
    """The symmetric square root of the scatter and its inverse, on the directions above rounding."""
    values, vectors = moments.eigenbasis
    kept = values > max(moments.n, moments.d) * 2.3e-16 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    return (vectors * values.sqrt()) @ vectors.T, (vectors / values.sqrt()) @ vectors.T


def _redundancy(bases: Bases) -> float:
    if bases.overlap.shape[0] >= bases.n - 1:
        raise DegenerateInputError(
            f"X [{bases.n:g}, {bases.p}] has rank {bases.overlap.shape[0]}: with n - 1 or more it explains everything, whatever Y is; use "
            "more stimuli or fewer units, or ridge_r2, which is held out"
        )
    check_ranks(bases, "redundancy")
    right, correlations = left_singular_vectors(bases.overlap.T)
    carried = (right.T @ bases.loading_y).square().sum(1)
    return min(1.0, float(correlations.square() @ carried / _square(bases.loading_y)))


def _square(matrix: Tensor) -> Tensor:
    return matrix.square().sum()


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive=set(),
    range=(0, 1),
    source="Stewart & Love 1968",
    higher="more similar",
    minimum=3,
    null="p / (n - 1) for independent Gaussian rows",
    rows=by_rows(_redundancy),
)
def redundancy(pair: CrossMoments) -> float:
    r"""The share of Y's variance that the canonical variates of X reproduce: squared correlations weighted by the variance they carry.

    $\sum_i \rho_i^2 \lVert g_i^\top Y_c \rVert^2 / \lVert Y_c \rVert_F^2$ with the orthonormal canonical variates $g_i$ of Y, paired rows
    [n, p] and [n, q]. It equals `linear_r2`.

    Args:
        pair: moments of both sides and across.

    Returns:
        A share of variance, from 0 to 1. Not symmetric: X explains Y.

    Raises:
        DegenerateInputError: the rank of an input is n - 1 or more; or all rows of one input are equal.
        TooFewStimuliError: fewer than 3 rows.

    Warns:
        InscapeWarning: fewer than 5 (p + q) rows, where chance alone gives a high value.

    Source:
        Stewart & Love, "A general canonical correlation index", Psychological Bulletin 1968.

    Cost:
        n (p + q)² for the moments, shared with all pair measures of this family, and p³ + q³ with singular vectors.

    Bias:
        Too high by about p / n: in-sample. `ridge_r2` is held out.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 4))
        >>> round(ix.measures.redundancy(X, X[:, :2]), 6)
        1.0
    """
    return _redundancy(bases_of_moments(pair, "redundancy"))
