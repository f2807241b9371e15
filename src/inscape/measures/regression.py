"""How much of one representation a linear map from the other predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.measures.bases import Bases, bases_of_moments, by_rows
from inscape.summaries import CrossMoments
from inscape.summaries.base import Need
from inscape.summaries.cross_folds import CrossFolds

ALPHAS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def _explained(bases: Bases) -> float:
    rank = bases.overlap.shape[0]
    if rank >= bases.n - 1:
        raise DegenerateInputError(
            f"X [{bases.n:g}, {bases.p}] has rank {rank}: with n - 1 or more it explains everything, whatever Y is; use more stimuli or "
            "fewer units, or ridge_r2, which is held out"
        )
    whole = bases.loading_y.square().sum()
    return min(1.0, float((bases.overlap @ bases.loading_y).square().sum() / whole))


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive=set(),
    range=(0, 1),
    source="Kornblith et al. 2019, linear regression",
    higher="more similar",
    minimum=3,
    null="p / (n - 1) for independent Gaussian rows",
    rows=by_rows(_explained),
)
def linear_r2(pair: CrossMoments) -> float:
    r"""The share of Y's variance that least squares on X explains, in the rows that it is fitted on.

    $\lVert Q_x^\top Y_c \rVert_F^2 / \lVert Y_c \rVert_F^2$ with an orthonormal basis $Q_x$ of the centered rows of X, paired rows [n, p]
    and [n, q]. It equals `redundancy`. Any invertible map of X leaves it as it is; of Y, a rotation or a scale.

    Args:
        pair: moments of both sides and across.

    Returns:
        A share of variance, from 0 to 1. Not symmetric: X explains Y.

    Raises:
        DegenerateInputError: the rank of X is n - 1 or more, so it explains anything; or all rows of one input are equal.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Kornblith, Norouzi, Lee & Hinton, "Similarity of neural network representations revisited", ICML 2019, "linear regression".

    Cost:
        n (p + q)² for the moments, shared with all pair measures of this family, and p³ + q³.

    Bias:
        Too high by about p / n: in-sample. `ridge_r2` is held out.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 4))
        >>> round(ix.measures.linear_r2(X, X[:, :2]), 6)
        1.0
    """
    return _explained(bases_of_moments(pair, "linear_r2"))


@measure(
    invariant={"translation", "rotation", "scale"},
    sensitive={"linear", "unit_scale"},
    range=(-math.inf, 1),
    source="Hoerl & Kennard 1970; Yamins et al. 2014 (as a comparison of representations)",
    higher="more similar",
    minimum=4,
    null="0 or a little below for independent rows, at any width",
    reflexive=False,
)
def ridge_r2(
    pair: Annotated[CrossFolds, Need(folds="folds", seed="seed")],
    *,
    folds: int = 5,
    alphas: Sequence[float] = ALPHAS,
    seed: int = 0,
) -> float:
    r"""The share of Y's variance that ridge regression on X predicts in rows that it was not fitted on.

    $1 - \sum_f \lVert Y_f - \hat{Y}_f \rVert_F^2 \,/\, \sum_f \lVert Y_f - \bar{Y}_{-f} \rVert_F^2$ over folds f, paired rows
    [n, p] and [n, q], with $\hat{Y}_f = \bar{Y}_{-f} + (X_f - \bar{X}_{-f})(S + \lambda I)^{-1} M$ fitted on the other rows: their
    scatter S, their cross scatter M. $\lambda = \alpha$ times the mean positive eigenvalue of S; for fold f the α with the least
    error over the other folds is taken, so that a fold never chooses its own penalty.

    Args:
        pair: moments of both sides by fold.
        folds: how many folds; rows of one source are never on both sides.
        alphas: penalties to choose from, in units of the mean eigenvalue.
        seed: of the deal of sources to folds.

    Returns:
        A share of variance, at most 1; below 0 where the prediction is worse than the mean. Not symmetric: X predicts Y.

    Raises:
        DegenerateInputError: all rows of one input are equal, or an α is not positive.
        TooFewStimuliError: fewer than 4 rows, or fewer than two sources a fold.

    Source:
        Hoerl & Kennard, "Ridge regression", Technometrics 1970; as a comparison of a network with a brain Yamins et al.,
        "Performance-optimized hierarchical models predict neural responses in higher visual cortex", PNAS 2014.

    Cost:
        n p (p + q) for the moments; p³ a site and fold, and three products p² q a fold and pair, whatever the number of α.

    Bias:
        Nearly none: held out, and the penalty is chosen on other folds. A little too low, because it is fitted on fewer rows.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((200, 5))
        >>> round(ix.measures.ridge_r2(X, X[:, :3] @ [[1, 2], [0, 1], [1, 0]]), 4)
        1.0
    """
    if not alphas or not all(alpha > 0 and math.isfinite(alpha) for alpha in alphas):
        raise DegenerateInputError(f"alphas={tuple(alphas)} must be positive numbers; the default is {ALPHAS}")
    errors, squares = pair.errors(alphas)
    if not float(squares.sum()) > 0:
        raise DegenerateInputError("all rows of Y are equal, so there is nothing to predict")
    others = errors.sum(0) - errors
    chosen = errors.gather(1, others.argmin(1, keepdim=True))
    return 1 - float(chosen.sum() / squares.sum())


@measure(
    invariant={"translation", "rotation", "scale"},
    sensitive=set(),
    range=(-math.inf, 1),
    source="Lenc & Vedaldi 2015; Csiszárik et al. 2021 (direct matching)",
    higher="more similar",
    minimum=4,
    null="about -p / (n - p) for independent rows: an affine map that was fitted to chance",
)
def stitch_direct(pair: Annotated[CrossFolds, Need(folds="folds", seed="seed")], *, folds: int = 5, seed: int = 0) -> float:
    r"""The share of Y's variance that an affine stitching layer on X reproduces in rows that it was not fitted on.

    $1 - \sum_f \lVert Y_f - X_f T_{-f} - b_{-f} \rVert_F^2 \,/\, \sum_f \lVert Y_f - \bar{Y}_{-f} \rVert_F^2$ with the least-squares map
    T, b of the other folds, paired rows [n, p] and [n, q]: direct matching. A layer that is trained on a downstream loss instead can
    score well without matching anything, so that is another number.

    Args:
        pair: moments of both sides by fold.
        folds: how many folds; rows of one source are never on both sides.
        seed: of the deal of sources to folds.

    Returns:
        A share of variance, at most 1; far below 0 where X has about as many units as there are rows. Not symmetric: from X to Y.

    Raises:
        DegenerateInputError: all rows of one input are equal.
        TooFewStimuliError: fewer than 4 rows, or fewer than two sources a fold.

    Source:
        Lenc & Vedaldi, "Understanding image representations by measuring their equivariance and equivalence", CVPR 2015; Csiszárik,
        Kőrösi-Szabó, Matszangosz, Papp & Varga, "Similarity and matching of neural network representations", NeurIPS 2021.

    Cost:
        As `ridge_r2`.

    Bias:
        Too low for p near n, where least squares fits noise; `ridge_r2` shrinks instead.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((200, 5))
        >>> round(ix.measures.stitch_direct(X, X @ np.ones((5, 2)) + 1), 6)
        1.0
    """
    errors, squares = pair.errors([0.0])
    if not float(squares.sum()) > 0:
        raise DegenerateInputError("all rows of Y are equal, so there is nothing to predict")
    return 1 - float(errors.sum() / squares.sum())
