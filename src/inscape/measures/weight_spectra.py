"""Spectra of matrices of parameters: how many directions they use, and whether their tail follows a power law."""

from __future__ import annotations

import math

import numpy as np
import torch

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.summaries import Weights

# A power law is fitted to at least so many eigenvalues.
_FEWEST = 50

# Stephens' 5 % point of the modified Kolmogorov-Smirnov distance of an exponential law with estimated mean.
_CRITICAL = 1.094


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(0, 1),
    source="Roy & Vetterli 2007; Diehl Martinez et al. 2024 (proportional effective rank)",
    higher="more directions in use",
    undefined=(),
)
def parameter_effective_rank(weights: Weights) -> float:
    r"""The share of its directions that a matrix of parameters uses, counted by the entropy of its singular values.

    $\exp\left(-\sum_i p_i \log p_i\right) / \min(n, d)$ with $p_i = s_i / \sum_j s_j$, where $s$ are the singular values of the matrix
    [n, d] as it is, not centered.

    Args:
        weights: the matrix.

    Returns:
        A share, from 1 / min(n, d) (one direction) to 1 (all singular values equal).

    Raises:
        DegenerateInputError: the matrix is zero.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Roy & Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007, over the smaller side as in Diehl
        Martinez, Lesci & Buttery, "Tending towards stability: convergence challenges in small language models", EMNLP Findings 2024.

    Cost:
        n d min(n, d).

    Bias:
        None: the matrix is no sample. A Gaussian matrix has about .87 when square.

    Example:
        >>> import numpy as np, inscape as ix
        >>> round(ix.measures.parameter_effective_rank(np.diag([1.0, 1, 0, 0])), 6)
        0.5
    """
    s = weights.singular_values
    if float(s[0]) == 0:
        raise DegenerateInputError(f"the matrix is zero (shape {tuple(weights.matrix.shape)})")
    p = s / s.sum()
    return min(1.0, math.exp(-float(torch.special.xlogy(p, p).sum())) / len(s))


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation"},
    range=(1, math.inf),
    source="Martin & Mahoney 2021; Clauset et al. 2009",
    higher="a lighter tail",
    undefined={"constant", "rank_one"},
    domain="heavy_tailed",
)
def weight_alpha(weights: Weights) -> float:
    r"""The exponent of the power law in the tail of a matrix's eigenvalues, where there is one.

    $\alpha = 1 + m \left(\sum_{i \le m} \log(\lambda_i / \lambda_{\min})\right)^{-1}$ over the m eigenvalues $\lambda = s^2$ of
    $W W^\top$ from $\lambda_{\min}$ up, the start at which the Kolmogorov-Smirnov distance between tail and law is least. Two gates come
    first: some eigenvalue must leave the bulk that a matrix of independent entries with the same variance would have, and the distance must
    be one that a power law has in 19 of 20 samples. A Gaussian matrix is refused.

    Args:
        weights: the matrix [n, d].

    Returns:
        The exponent; no unit. Martin and Mahoney read 2 to 4 as well trained and above 6 as no heavy tail.

    Raises:
        DegenerateInputError: fewer than 50 eigenvalues above rounding, none beyond the bulk of a random matrix, or a tail that no power law
            fits; the text holds the exponent that was fitted.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Martin & Mahoney, "Implicit self-regularization in deep neural networks", JMLR 2021; the fit is that of Clauset, Shalizi & Newman,
        "Power-law distributions in empirical data", SIAM Review 2009, with D as in `weightwatcher`. The bulk's edge is Marchenko and
        Pastur's, its width Tracy and Widom's; the distance is judged by Stephens' table for an exponential law with estimated mean (1974).

    Cost:
        n d min(n, d) for the eigenvalues, then min(n, d)².

    Bias:
        Too high for fast tails, since the largest eigenvalue ends the sample. The start is chosen by the fit, which makes the second gate
        mild.

    Example:
        >>> import numpy as np, inscape as ix
        >>> W = np.diag(np.arange(1, 201) ** -0.5)  # eigenvalues 1 / rank: the density falls with exponent 2
        >>> round(ix.measures.weight_alpha(W), 1)
        2.0
    """
    values = weights.singular_values.square().numpy()
    kept = values[values > values[0] * max(weights.n, weights.d) * np.finfo(float).eps] if values[0] > 0 else values[:0]
    if len(kept) < _FEWEST:
        raise DegenerateInputError(
            f"the matrix of shape [{weights.n}, {weights.d}] has {len(kept)} eigenvalues above rounding; a tail needs at least {_FEWEST}"
        )
    alpha, start, distance = tail_fit(kept)
    tail = int((kept >= start).sum())
    entries = float(weights.matrix.square().mean())
    edge = entries * (math.sqrt(weights.n) + math.sqrt(weights.d)) ** 2 * (1 + 4 * min(weights.n, weights.d) ** (-2 / 3))
    fitted = f"the fit gives alpha {alpha:.2f} from {tail} of {len(kept)} eigenvalues, at distance {distance:.3f}"
    if values[0] <= edge:
        raise DegenerateInputError(
            f"the largest eigenvalue {values[0]:.3g} lies within the bulk of a random matrix of this variance (up to {edge:.3g}), so there "
            f"is no heavy tail; {fitted}"
        )
    modified = (distance - 0.2 / tail) * (math.sqrt(tail) + 0.26 + 0.5 / math.sqrt(tail))
    if modified > _CRITICAL:
        raise DegenerateInputError(f"no power law fits the tail (p < .05): {fitted}, as a bulk with a few eigenvalues beyond it gives")
    return alpha


def tail_fit(values: np.ndarray) -> tuple[float, float, float]:
    """Exponent, start and Kolmogorov-Smirnov distance of the best power-law tail of positive values [n]; n²."""
    x = np.sort(values)
    logs = np.log(x)
    sums = np.cumsum(logs[::-1])[::-1]
    best = (math.nan, math.nan, math.inf)
    for first in range(len(x) - 1):
        count = len(x) - first
        excess = sums[first] - count * logs[first]
        if excess <= 1e-12 * count:
            continue
        alpha = 1 + count / excess
        law = 1 - np.exp((1 - alpha) * (logs[first:] - logs[first]))
        distance = float(np.abs(np.arange(count) / count - law).max())
        if distance < best[2]:
            best = (float(alpha), float(x[first]), distance)
    if not math.isfinite(best[2]):
        raise DegenerateInputError(f"all {len(x)} eigenvalues are equal; there is no tail")
    return best
