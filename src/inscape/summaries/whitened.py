"""Inner products of dissimilarity matrices in which the correlation between their entries is taken out."""

from __future__ import annotations

import torch
from torch import Tensor


def whitened_product(a: Tensor, b: Tensor, n: int) -> Tensor:
    """dᵀ V⁻¹ e of two condensed matrices, with V the covariance of the distances of n patterns under independent noise of one size.

    V is 2 I + B Bᵀ with B the incidence of pairs and stimuli, and B Bᵀ has two eigenvalues besides 0, so that V⁻¹ needs row sums alone.
    """
    above = torch.triu_indices(n, n, 1)
    sums = [torch.zeros(n, dtype=v.dtype).index_add_(0, above[0], v).index_add_(0, above[1], v) for v in (a, b)]
    return 0.5 * (a @ b - sums[0] @ sums[1] / n + sums[0].sum() * sums[1].sum() / (2 * n * n))
