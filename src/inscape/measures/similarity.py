"""Similarity of two representations from products of their centered linear kernels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.stats.closed_form import KernelInvariants
from inscape.summaries import GramProducts
from inscape.summaries.weighted import WeightedKernel, weighted_hsic_biased, weighted_hsic_unbiased


def _weighted_cka(X: Tensor, Y: Tensor, weights: Tensor, source: Tensor) -> Tensor:
    K, L = WeightedKernel(X, source), WeightedKernel(Y, source)
    xy, xx, yy = (weighted_hsic_biased(a, b, weights) for a, b in ((K, L), (K, K), (L, L)))
    return xy / (xx * yy).sqrt()


def _centered_kernel(X: Tensor) -> KernelInvariants:
    rows = X.double() - X.mean(0, dtype=torch.float64)
    return KernelInvariants.of_rows(rows) if rows.shape[1] < rows.shape[0] else KernelInvariants.of_kernel(rows @ rows.T)


def _unbiased_kernel(X: Tensor) -> KernelInvariants:
    """The kernel whose inner products are Song's estimate: no diagonal, and row sums of zero nonetheless."""
    rows = X.double() - X.mean(0, dtype=torch.float64)
    if rows.shape[1] + 2 < rows.shape[0]:
        return KernelInvariants.of_hollow_rows(rows)
    K, n = (rows @ rows.T).fill_diagonal_(0.0), len(rows)
    sums = K.sum(0)
    centered = K - (sums + sums[:, None]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    return KernelInvariants.of_kernel(centered.fill_diagonal_(0.0))


def _weighted_debiased(X: Tensor, Y: Tensor, weights: Tensor, source: Tensor) -> Tensor:
    K, L = WeightedKernel(X, source), WeightedKernel(Y, source)
    xy, xx, yy = (weighted_hsic_unbiased(a, b, weights) for a, b in ((K, L), (K, K), (L, L)))
    return xy / (xx * yy).sqrt()


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, 1),
    source="Kornblith et al. 2019, eq. 4",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="grows with d/n: .66 at n = 256, d = 512 for independent Gaussian rows",
    weighted=_weighted_cka,
    closed=_centered_kernel,
)
def linear_cka(pair: GramProducts) -> float:
    r"""The similarity of two representations' stimulus kernels: 1 when they are equal up to rotation, shift and scale.

    $\langle K, L \rangle / (\lVert K \rVert \lVert L \rVert)$ with the centered linear kernels $K = X_c X_c^\top$ and
    $L = Y_c Y_c^\top$ of paired rows [n, d].

    Args:
        pair: products of the two kernels.

    Returns:
        A similarity without unit, from 0 to 1.

    Raises:
        DegenerateInputError: the rows of one input are all equal.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Kornblith, Norouzi, Lee & Hinton, "Similarity of neural network representations revisited", ICML 2019, eq. 4, linear kernel.

    Cost:
        n d² (moments) or n² d (kernel tiles), whichever is less.

    Bias:
        Too high, and near 1 for any two representations when d exceeds n; `linear_cka_debiased` corrects it. Read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> round(ix.measures.linear_cka(X, 3 * X[:, ::-1] + 1), 6)
        1.0
    """
    xy, xx, yy = pair.hsic_biased()
    for value, name in ((xx, "X"), (yy, "Y")):
        if value <= 0:
            raise DegenerateInputError(f"all {pair.n:g} rows of {name} are equal, so its kernel is zero")
    return min(1.0, xy / math.sqrt(xx * yy))


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(-1, 1),
    source="Song et al. 2012, eq. 5; Kornblith et al. 2019, eq. 4",
    higher="more similar",
    symmetric=True,
    minimum=4,
    null="0 for independent representations",
    weighted=_weighted_debiased,
    closed=_unbiased_kernel,
)
def linear_cka_debiased(pair: GramProducts) -> float:
    r"""Linear CKA with each term estimated without bias, so that independent representations score 0 at any width.

    $\mathrm{HSIC}_1(K, L) / \sqrt{\mathrm{HSIC}_1(K, K)\, \mathrm{HSIC}_1(L, L)}$ with the U-statistic HSIC₁ of the linear kernels of
    paired rows [n, d].

    Args:
        pair: products of the two kernels.

    Returns:
        A similarity without unit, from -1 to 1; below 0 by chance only.

    Raises:
        DegenerateInputError: the rows of one input are all equal, or all equally far from each other.
        TooFewStimuliError: fewer than 4 rows.

    Source:
        Song, Smola, Gretton, Bedo & Borgwardt, "Feature selection via dependence maximization", JMLR 2012, eq. 5, in the ratio of
        Kornblith et al., ICML 2019, eq. 4.

    Cost:
        n d² (moments) or n² d (kernel tiles), whichever is less.

    Bias:
        None in numerator and denominator; their ratio keeps a bias of order 1/n.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> round(ix.measures.linear_cka_debiased(X, 3 * X[:, ::-1] + 1), 6)
        1.0
    """
    xy, xx, yy = pair.hsic_unbiased()
    _, biased_xx, biased_yy = pair.hsic_biased()
    for value, biased, name in ((xx, biased_xx, "X"), (yy, biased_yy, "Y")):
        if biased <= 0:
            raise DegenerateInputError(f"all {pair.n:g} rows of {name} are equal, so its kernel is zero")
        if value <= 1e-13 * biased:
            raise DegenerateInputError(
                f"the unbiased self-similarity of {name} is {value:.3g} ({pair.n:g} rows): its rows are all equally far from each "
                "other, or too few for their width; use more stimuli"
            )
    return max(-1.0, min(1.0, xy / math.sqrt(xx * yy)))
