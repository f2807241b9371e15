"""PCA, ICA and semi-nonnegative factorization against NumPy, known sources and the published update rules."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

import inscape as ix
from inscape.dictionaries.kinds.semi_nmf import Passes, nonnegative
from inscape.errors import DegenerateInputError, DictionaryError
from tests.unit.dictionaries.scene import sparse_rows

X = sparse_rows(1500)


def test_pca_equals_a_singular_value_decomposition() -> None:
    pca = ix.decompose(X, ix.dictionaries.PCA(width=5))
    centered = X - X.mean(0)
    U, S, V = np.linalg.svd(centered, full_matrices=False)
    np.testing.assert_allclose(np.abs((pca.W_dec.numpy() * V[:5]).sum(1)), 1, atol=1e-6)
    np.testing.assert_allclose(np.abs(pca.encode(X).numpy()), np.abs(U[:, :5] * S[:5]), atol=1e-3)
    lost = (S[5:] ** 2).sum() / (S**2).sum()
    assert pca.score(X).value(measure="fvu") == pytest.approx(lost, rel=1e-4)
    assert bool((pca.W_dec.gather(1, pca.W_dec.abs().argmax(1, keepdim=True)) > 0).all())
    with pytest.raises(DictionaryError, match="width=17 is more than the 16 units"):
        ix.decompose(X, ix.dictionaries.PCA(width=17))


def test_ica_finds_independent_sources() -> None:
    rng = np.random.default_rng(0)
    sources = np.stack([rng.laplace(size=8000), rng.uniform(-1, 1, 8000), rng.exponential(size=8000)], 1)
    mixing = rng.standard_normal((3, 6))
    rows = sources @ mixing + 7
    ica = ix.decompose(rows, ix.dictionaries.ICA(width=3), seed=0)
    found = ica.encode(rows).numpy()
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(3), atol=1e-3)
    agreement = np.abs(np.corrcoef(sources.T, found.T)[:3, 3:])
    assert agreement.max(1).min() > 0.99
    np.testing.assert_allclose(ica.reconstruct(rows).numpy(), rows, atol=1e-3)
    with pytest.raises(DegenerateInputError, match="fewer than 4 directions with variance"):
        ix.decompose(rows, ix.dictionaries.ICA(width=4))


def test_semi_nmf_follows_the_published_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ding et al. 2010, equations 8 and 9, on whole matrices in fp64; ours in fp32, in blocks, without the residual."""
    from inscape.dictionaries.kinds import semi_nmf

    monkeypatch.setattr(semi_nmf, "_ROWS", 400)
    m = 6
    passes = Passes(ix.Store.from_arrays(X)["X"], m, 0, tmp_path / "g")
    first: list[np.ndarray] = []
    passes.run(12, 0.0, lambda F: (first or first.append(np.load(tmp_path / "g").astype(float)), F)[1])
    G, errors = first[0], []
    assert sorted(set(G.flatten().round(3))) == [0.2, 1.2]
    for _ in range(12):
        F = np.linalg.solve(G.T @ G, G.T @ X)
        fit, products = X @ F.T, F @ F.T
        up, down = (lambda a: np.maximum(a, 0)), (lambda a: np.maximum(-a, 0))
        G = G * np.sqrt((up(fit) + G @ down(products)) / (down(fit) + G @ up(products)))
        errors.append(((X - G @ F) ** 2).sum())
    np.testing.assert_allclose(passes.errors, errors, rtol=1e-3)
    assert all(later <= earlier * (1 + 1e-5) for earlier, later in pairwise(passes.errors))


def test_semi_nmf_finds_nonnegative_parts_and_keeps_winners() -> None:
    rng = np.random.default_rng(1)
    parts = np.zeros((4, 20))
    for i in range(4):
        parts[i, 5 * i : 5 * i + 5] = rng.standard_normal(5) + 3 * rng.choice([-1, 1], 5)
    rows = rng.exponential(size=(3000, 4)) * (rng.random((3000, 4)) < 0.4) @ parts
    nmf = ix.decompose(rows, ix.dictionaries.SemiNMF(width=4, iterations=400, winners=0.25, tolerance=0), seed=2)
    unit = parts / np.linalg.norm(parts, axis=1, keepdims=True)
    assert ((unit @ nmf.W_dec.numpy().T).max(1) > 0.99).all()
    assert (nmf.W_dec != 0).sum(1).tolist() == [5] * 4
    assert nmf.score(rows).value(measure="fvu") < 0.01
    coarse = ix.decompose(nmf.W_dec, ix.dictionaries.SemiNMF(width=2), seed=0)
    assert coarse.encode(nmf.W_dec).shape == (4, 2)


def test_strengths_are_the_nonnegative_least_squares() -> None:
    rng = np.random.default_rng(3)
    F, rows = rng.standard_normal((7, 12)), rng.standard_normal((20, 12))
    expected = np.stack([nnls(F.T, row)[0] for row in rows])
    found = nonnegative(torch.from_numpy(rows), torch.from_numpy(F), sweeps=5000, tolerance=1e-12)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-8)
