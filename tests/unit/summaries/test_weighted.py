"""Weighted kernel and rank statistics against brute force over distinct sources."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from inscape.stats import bootstrap_weights
from inscape.summaries import RDM, GramProducts
from inscape.summaries.weighted import WeightedKernel, weighted_hsic_biased, weighted_hsic_unbiased, weighted_spearman


def pair(n, p, q, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((n, p))), torch.from_numpy(rng.standard_normal((n, q)))


def test_equal_weights_give_the_unweighted_products():
    X, Y = pair(20, 5, 7)
    source = torch.from_numpy(np.random.default_rng(1).permutation(20))
    K, L = WeightedKernel(X, source), WeightedKernel(Y, source)
    ones = torch.ones(1, 20, dtype=torch.float64)
    products = GramProducts.of(X, Y)
    assert float(weighted_hsic_unbiased(K, L, ones)) == pytest.approx(products.hsic_unbiased()[0], rel=1e-10)
    assert float(weighted_hsic_biased(K, L, ones)) == pytest.approx(products.xy, rel=1e-10)


def test_distinct_sources_by_brute_force():
    X, Y = pair(8, 3, 4)
    source = torch.tensor([0, 0, 1, 2, 2, 3, 4, 5])
    count = torch.tensor([2.0, 1, 0, 3, 1, 1], dtype=torch.float64)
    K, L = WeightedKernel(X, source), WeightedKernel(Y, source)
    k, l, w, s = K.kernel.numpy(), L.kernel.numpy(), count[source].numpy(), source.numpy()
    sums = {}
    for size, term in (
        (2, lambda i, j: k[i, j] * l[i, j]),
        (3, lambda i, j, q: k[i, j] * l[i, q]),
        (4, lambda i, j, q, r: k[i, j] * l[q, r]),
    ):
        total = norm = 0.0
        for rows in itertools.permutations(range(8), size):
            if len(set(s[list(rows)])) == size:
                weight = np.prod(w[list(rows)])
                total, norm = total + weight * term(*rows), norm + weight
        sums[size] = total / norm
    expected = sums[2] - 2 * sums[3] + sums[4]
    assert float(weighted_hsic_unbiased(K, L, count[source][None])) == pytest.approx(expected, rel=1e-10)


def test_independent_data_stay_at_zero_under_the_bootstrap():
    """Resampled copies read about .67 here."""
    X, Y = pair(256, 512, 512, seed=3)
    source = torch.arange(256)
    K, L = WeightedKernel(X, source), WeightedKernel(Y, source)
    weights = torch.from_numpy(bootstrap_weights(np.arange(256), 20, seed=0))
    xy, xx, yy = (weighted_hsic_unbiased(a, b, weights) for a, b in ((K, L), (K, K), (L, L)))
    assert abs(float((xy / (xx * yy).sqrt()).mean())) < 0.03


def test_weighted_spearman_with_ones_is_spearman():
    X, Y = pair(15, 6, 4)
    x, y = RDM.of(X), RDM.of(Y)
    ones = torch.ones(1, 15, dtype=torch.float64)
    expected = spearmanr(x.values.numpy(), y.values.numpy()).statistic
    assert float(weighted_spearman(x, y, ones, torch.arange(15))) == pytest.approx(expected, rel=1e-10)


def test_weighted_spearman_counts_pairs():
    """Whole-number weights are the correlation over a list in which pair (i, j) stands w_i w_j times."""
    X, Y = pair(7, 5, 5)
    x, y = RDM.of(X), RDM.of(Y)
    weights = torch.tensor([1.0, 2, 0, 1, 3, 1, 1], dtype=torch.float64)
    times = x.pair_weights(weights).long().numpy()
    expected = spearmanr(np.repeat(x.values.numpy(), times), np.repeat(y.values.numpy(), times)).statistic
    assert float(weighted_spearman(x, y, weights[None], torch.arange(7))) == pytest.approx(expected, rel=1e-10)
