"""Kernel tiles against kernels written out, with every group left out."""

import numpy as np
import pytest
import torch

from inscape.store import Store
from inscape.summaries import CrossMoments, KernelTiles, SiteRows


def centered_kernel(X):
    H = np.eye(len(X)) - 1 / len(X)
    return H @ X @ X.T @ H


@pytest.fixture(params=[np.float64, np.float32])
def system(request):
    rng = np.random.default_rng(0)
    n = 90
    arrays = {f"s{i}": (rng.standard_normal((n, d)) + 3 * i).astype(request.param) for i, d in enumerate((5, 17, 40))}
    return arrays, rng.permutation(np.arange(n) % 7), 1e-10 if request.param is np.float64 else 1e-4


def tiles_of(arrays, groups, budget=2**30, load=True):
    store = Store.from_arrays(arrays)
    sites = [SiteRows(store[name]) for name in arrays]
    return KernelTiles([site.load() for site in sites] if load else sites, groups, budget=budget)


@pytest.mark.parametrize("without", [None, 0, 6])
def test_products_equal_the_kernels(system, without):
    arrays, groups, tolerance = system
    tiles = tiles_of(arrays, groups)
    kept = np.ones(90, bool) if without is None else groups != without
    kernels = [centered_kernel(X[kept].astype(np.float64)) for X in arrays.values()]
    for x in range(3):
        for y in range(3):
            got = tiles.products(x, y, without=without)
            K, L = kernels[x], kernels[y]
            expected = [(K * L).sum(), (K * K).sum(), (L * L).sum(), np.diag(K) @ np.diag(L), np.trace(K), np.trace(L)]
            np.testing.assert_allclose([got.xy, got.xx, got.yy, got.dot_xy, got.trace_x, got.trace_y], expected, rtol=tolerance)
            assert got.n == kept.sum()


def test_small_tiles_and_rows_from_the_store_give_the_same(system, monkeypatch):
    arrays, groups, tolerance = system
    monkeypatch.setattr("inscape.summaries.tiles.ROWS", 8)  # groups of 13 rows are cut, blocks hold parts of groups
    small = tiles_of(arrays, groups, budget=20_000, load=False)
    large = tiles_of(arrays, groups)
    for group in (None, 3):
        a, b = small.products(0, 2, without=group), large.products(0, 2, without=group)
        np.testing.assert_allclose([a.xy, a.dot_xy, a.trace_x], [b.xy, b.dot_xy, b.trace_x], rtol=tolerance)


def test_tiles_equal_moments():
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal((60, 8)) + 100, rng.standard_normal((60, 9)) - 50
    got = tiles_of({"x": X, "y": Y}, np.arange(60) % 5).products(0, 1)
    expected = CrossMoments.of(torch.from_numpy(X), torch.from_numpy(Y)).products()
    for name in ("xy", "xx", "yy", "dot_xy", "dot_xx", "dot_yy", "trace_x", "trace_y"):
        assert getattr(got, name) == pytest.approx(getattr(expected, name), rel=1e-9)
