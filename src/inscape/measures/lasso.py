"""How well few units of one representation predict each unit of the other."""

from __future__ import annotations

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.measures.matching import correlations
from inscape.summaries import CrossMoments

_SWEEPS = 10_000
_TOLERANCE = 1e-10


@measure(
    invariant={"translation", "permutation", "unit_scale", "row_order"},
    sensitive=set(),
    range=(0, 1),
    source="Li et al. 2015, sparse prediction",
    higher="more similar",
    minimum=3,
    null="0 for a penalty above the chance correlations, of order sqrt(2 log(p) / n)",
    reflexive=False,
)
def one_to_many_lasso(pair: CrossMoments, *, penalty: float = 0.1) -> float:
    r"""The share of the variance of Y's units that sparse combinations of X's units explain: one unit predicted by a few.

    The mean over units $y_j$ of $1 - \lVert y_j - X w_j \rVert^2 / \lVert y_j \rVert^2$, with $w_j$ the minimum of
    $\frac{1}{2n} \lVert y_j - X w \rVert^2 + \lambda \lVert w \rVert_1$ and every unit centered and of unit variance; paired rows [n, p]
    and [n, q]. Units that never change are left out and counted.

    Args:
        pair: moments of both sides and across.
        penalty: λ, a correlation: a unit that correlates less with every residual than this is never used. With 1 nothing is.

    Returns:
        A share of variance, from 0 to 1; (2 − λ) λ below 1 for one unit that predicts perfectly. Not symmetric: X explains Y.

    Raises:
        DegenerateInputError: no unit of one input changes, `penalty` is not positive, or the minimum was not found.
        TooFewStimuliError: fewer than 3 rows.

    Warns:
        InscapeWarning: units that never change, with their number.

    Source:
        Li, Yosinski, Clune, Lipson & Hopcroft, "Convergent learning", 2015 (sparse weighted predictions).

    Cost:
        n p (p + q) for the moments; p² q a sweep of coordinate descent, all units of Y at once, no rows.

    Bias:
        In-sample, and shrunk by the penalty: for a small penalty too high, for a large one too low.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((500, 4))
        >>> round(ix.measures.one_to_many_lasso(X, X[:, :1], penalty=0.1), 2)
        0.99
    """
    if not penalty > 0:
        raise DegenerateInputError(f"penalty={penalty} must be positive: 0 is least squares, which linear_r2 gives")
    target = torch.from_numpy(correlations(pair, "one_to_many_lasso"))
    alive = pair.x.scatter.diagonal() > (1e-13 * pair.n**0.5 * pair.x.mean.abs()) ** 2
    scale = pair.x.scatter.diagonal()[alive].sqrt()
    gram = pair.x.scatter[alive][:, alive] / scale / scale[:, None]
    weights, left = coordinate_descent(gram, target, penalty)
    # ‖y − Xw‖² / ‖y‖² = 1 − 2 wᵀc + wᵀGw, and the residual correlations are c − Gw.
    explained = (weights * (target + left)).sum(0)
    return float(explained.mean().clamp(0, 1))


def coordinate_descent(gram: Tensor, target: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights [p, q] of all targets at once, and the correlations of what they leave."""
    weights, left = torch.zeros_like(target), target.clone()
    for sweep in range(_SWEEPS):
        largest = 0.0
        # Units that matter move; every few sweeps all are looked at again.
        units = range(len(gram)) if sweep % 5 == 0 else torch.nonzero((weights != 0).any(1)).squeeze(1).tolist()
        for i in units:
            wanted = left[i] + weights[i] * gram[i, i]
            new = torch.sign(wanted) * (wanted.abs() - penalty).clamp(min=0) / gram[i, i]
            change = new - weights[i]
            step = float(change.abs().max())
            if step > 0:
                left -= torch.outer(gram[:, i], change)
                weights[i] = new
                largest = max(largest, step)
        if sweep % 5 == 0 and largest < _TOLERANCE:
            return weights, left
    raise DegenerateInputError(
        f"no minimum found in {_SWEEPS} sweeps at penalty={penalty}: units of X are almost copies of each other; use a larger penalty"
    )
