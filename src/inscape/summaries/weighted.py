"""Kernel and rank statistics under row weights: sums over pairs of *distinct* sources, for many weightings at once.

A bootstrap draw that repeats a stimulus would pair it with itself; a U-statistic then no longer stays at 0 for independent data (debiased
CKA of copies reads .67 at n = 256, d = 512). Here a draw is a vector of weights and no source ever meets itself.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inscape.summaries.rdm import RDM


class WeightedKernel:
    """A linear kernel prepared for weighted products.

    Args:
        rows: centered or not, [n, d].
        source: which source each row comes from, [n], numbered from 0.

    Cost: n² d multiplications, 8 n² bytes.
    """

    def __init__(self, rows: Float[Tensor, "n d"], source: Int[Tensor, " n"]) -> None:
        wide = rows.double() - rows.double().mean(0)
        self.source = source
        self.count = int(source.max()) + 1
        self.kernel = wide @ wide.T
        self.between = self.kernel * (source[:, None] != source[None, :])
        self.by_source = _summed(self.between.T, source, self.count).T


def weighted_hsic_unbiased(K: WeightedKernel, L: WeightedKernel, weights: Float[Tensor, "draws n"]) -> Float[Tensor, " draws"]:
    """The unbiased HSIC under weights that are equal within a source, one value per draw.

    S₂/N₂ − 2 S₃/N₃ + S₄/N₄ with S_m the weighted sum over m distinct sources of K_ij L_ij, K_ij L_iq and K_ij L_qr, and N_m the same sum of
    the weights alone. With all weights 1 and one row a source it is HSIC₁ of Song et al. 2012, eq. 5.

    Cost: n² for each draw, by GEMMs over all draws.
    """
    source, count = K.source, K.count
    first = torch.zeros(count, dtype=torch.long).scatter_(0, source, torch.arange(len(source)))
    v = weights[:, first]
    block = _square(K.between * L.between, source, count)
    pairs = (v @ block * v).sum(1)
    sums_k, sums_l = weights @ K.between, weights @ L.between
    meeting = _summed(K.by_source * L.by_source, source, count)
    triples = (weights * sums_k * sums_l).sum(1) - (v @ meeting * v**2).sum(1)
    U, V = _summed(K.by_source, source, count), _summed(L.by_source, source, count)
    along_k, along_l = v @ U, v @ V
    quadruples = (along_k * v).sum(1) * (along_l * v).sum(1)
    quadruples = quadruples - 4 * (v**2 * along_k * along_l).sum(1) + 2 * (v**2 @ (U * V) * v**2).sum(1)
    a = v * torch.bincount(source, minlength=count).double()
    s1, s2, s3, s4 = (a.pow(power).sum(1) for power in (1, 2, 3, 4))
    n2, n3 = s1**2 - s2, s1**3 - 3 * s1 * s2 + 2 * s3
    n4 = s1**4 - 6 * s1**2 * s2 + 3 * s2**2 + 8 * s1 * s3 - 6 * s4
    return pairs / n2 - 2 * triples / n3 + quadruples / n4


def weighted_hsic_biased(K: WeightedKernel, L: WeightedKernel, weights: Float[Tensor, "draws n"]) -> Float[Tensor, " draws"]:
    """⟨K, L⟩ of the kernels centered and summed under weights, one value per draw; n² for each draw."""
    total = weights.sum(1)
    rows_k, rows_l = weights @ K.kernel, weights @ L.kernel
    whole_k, whole_l = (rows_k * weights).sum(1), (rows_l * weights).sum(1)
    return (
        (weights @ (K.kernel * L.kernel) * weights).sum(1) - 2 / total * (weights * rows_k * rows_l).sum(1) + whole_k * whole_l / total**2
    )


def weighted_spearman(x: RDM, y: RDM, weights: Float[Tensor, "draws n"], source: Int[Tensor, " n"]) -> Float[Tensor, " draws"]:
    """Spearman's correlation of two RDMs where pair (i, j) counts w_i w_j and pairs within a source count 0; one sort a draw and RDM."""
    values: list[Tensor] = []
    for draw in weights:
        pair = x.pair_weights(draw, source)
        kept = pair > 0
        ranks = [rdm.weighted_ranks(pair)[kept] for rdm in (x, y)]
        share = pair[kept] / pair[kept].sum()
        a, b = (r - (share * r).sum() for r in ranks)
        values.append((share * a * b).sum() / ((share * a * a).sum() * (share * b * b).sum()).sqrt())
    return torch.stack(values)


def _summed(rows: Tensor, source: Tensor, count: int) -> Tensor:
    """Rows added up by source, [count, columns]."""
    return torch.zeros(count, rows.shape[1], dtype=rows.dtype).index_add_(0, source, rows)


def _square(matrix: Tensor, source: Tensor, count: int) -> Tensor:
    return _summed(_summed(matrix, source, count).T, source, count)
