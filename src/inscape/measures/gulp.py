"""Distance of two representations by what ridge regression can read from them."""

from __future__ import annotations

import math

from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.measures.spectrum import varying
from inscape.summaries import CrossMoments, Moments


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"unit_scale"},
    range=(0, math.inf),
    source="Boix-Adserà et al. 2022",
    higher="more different",
    symmetric=True,
    minimum=3,
    null="the sum of both sides' shrunken dimensions for representations with nothing in common",
)
def gulp(pair: CrossMoments, *, penalty: float = 0.01) -> float:
    r"""How differently ridge regression predicts from two representations, at worst-case average over targets: a squared distance.

    $\mathrm{tr}(C_x^\lambda C_x C_x^\lambda C_x) + \mathrm{tr}(C_y^\lambda C_y C_y^\lambda C_y) - 2\, \mathrm{tr}(C_x^\lambda C_{xy}
    C_y^\lambda C_{yx})$ with $C^\lambda = (C + \lambda I)^{-1}$ and covariances of centered paired rows [n, p] and [n, q], each side
    scaled so that its mean squared row norm is 1. λ = 0 gives p + q − 2 Σρ² with the canonical correlations ρ.

    Args:
        pair: moments of both sides and across.
        penalty: λ, in units of the total variance; 0 leaves the directions without variance out.

    Returns:
        A squared distance, 0 or more.

    Raises:
        DegenerateInputError: all rows of one input are equal, or `penalty` is negative.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Boix-Adserà, Lawrence, Stepaniants & Rigollet, "GULP: a prediction-based metric between representations", NeurIPS 2022.

    Cost:
        n (p + q)² for the moments, shared with all pair measures of this family, and p³ + q³.

    Bias:
        Too low for n near d and a small λ, as canonical correlations are too high there.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 3))
        >>> round(ix.measures.gulp(X, 5 * X + 1), 6)
        0.0
    """
    if not penalty >= 0 or math.isinf(penalty):
        raise DegenerateInputError(f"penalty={penalty} must be 0 or a positive number")
    varying(pair.x)
    varying(pair.y)
    (shrunk_x, map_x), (shrunk_y, map_y) = (_shrunk(moments, penalty) for moments in (pair.x, pair.y))
    across = map_x.T @ pair.cross @ map_y / math.sqrt(pair.x.trace * pair.y.trace)
    return max(0.0, float(shrunk_x.square().sum() + shrunk_y.square().sum() - 2 * across.square().sum()))


def _shrunk(moments: Moments, penalty: float) -> tuple[Tensor, Tensor]:
    """μ / (μ + λ) over the eigenvalues μ of the covariance of unit trace, and (C + λ)^(−1/2) on their eigenvectors."""
    values, vectors = moments.eigenbasis
    values = values / moments.trace
    kept = values > max(moments.n, moments.d) * 2.3e-16 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    return values / (values + penalty), vectors / (values + penalty).sqrt()
