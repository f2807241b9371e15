"""Kernels, distances and neighbor lists, against values by hand and by the definitions on full matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import inscape as ix
from inscape.errors import DegenerateInputError, TooFewStimuliError

M = ix.measures


def pair(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 8)) + 0.5
    return X, np.tanh(X @ rng.standard_normal((8, 6))) + 0.4 * rng.standard_normal((n, 6))


def center(K: np.ndarray) -> np.ndarray:
    H = np.eye(len(K)) - 1 / len(K)
    return H @ K @ H


def nearest(X: np.ndarray, k: int) -> np.ndarray:
    U = X / np.linalg.norm(X, axis=1, keepdims=True)
    S = U @ U.T
    np.fill_diagonal(S, -np.inf)
    return np.argsort(-S, axis=1, kind="stable")[:, :k]


def test_rbf_cka_by_full_matrices() -> None:
    X, Y = pair()
    K, L = (np.exp(-(D**2) / (2 * (0.5 * np.median(D[np.triu_indices(60, 1)])) ** 2)) for D in (cdist(X, X), cdist(Y, Y)))
    expected = (center(K) * center(L)).sum() / np.linalg.norm(center(K)) / np.linalg.norm(center(L))
    # The median of an even number of distances lies between two of them; torch takes the lower one.
    assert M.rbf_cka(X, Y) == pytest.approx(expected, abs=1e-3)
    assert M.rbf_cka(X, Y, bandwidth=1e4) == pytest.approx(M.linear_cka(X, Y), abs=1e-6)


def test_distance_correlations_by_full_matrices() -> None:
    X, Y = pair()
    A, B = center(cdist(X, X)), center(cdist(Y, Y))
    expected = math.sqrt((A * B).sum() / np.linalg.norm(A) / np.linalg.norm(B))
    assert M.distance_correlation(X, Y) == pytest.approx(expected, abs=1e-12)

    def u(D: np.ndarray) -> np.ndarray:
        n = len(D)
        out = D - D.sum(0) / (n - 2) - D.sum(1)[:, None] / (n - 2) + D.sum() / (n - 1) / (n - 2)
        np.fill_diagonal(out, 0)
        return out

    C, E = u(cdist(X, X)), u(cdist(Y, Y))
    assert M.distance_correlation_debiased(X, Y) == pytest.approx((C * E).sum() / np.linalg.norm(C) / np.linalg.norm(E), abs=1e-12)


def test_debiased_forms_stay_at_zero_for_independent_rows() -> None:
    rng = np.random.default_rng(1)
    draws = [M.distance_correlation_debiased(rng.standard_normal((40, 100)), rng.standard_normal((40, 80))) for _ in range(40)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / math.sqrt(40)
    adjusted = [M.mutual_knn_adjusted(rng.standard_normal((60, 5)), rng.standard_normal((60, 5)), k=5) for _ in range(60)]
    assert abs(np.mean(adjusted)) < 3 * np.std(adjusted) / math.sqrt(60)


def test_norm_of_the_difference_by_full_matrices() -> None:
    X, Y = pair()
    assert M.rsm_norm_difference(X, Y) == pytest.approx(np.linalg.norm(np.corrcoef(X) - np.corrcoef(Y)), abs=1e-10)


def test_minibatch_cka_is_the_ratio_of_summed_estimates() -> None:
    X, Y = pair(50)

    def hsic(X: np.ndarray, Y: np.ndarray) -> float:
        K, L, n = X @ X.T, Y @ Y.T, len(X)
        np.fill_diagonal(K, 0)
        np.fill_diagonal(L, 0)
        return ((K * L).sum() + K.sum() * L.sum() / (n - 1) / (n - 2) - 2 / (n - 2) * (K.sum(0) @ L.sum(0))) / n / (n - 3)

    cut = [slice(0, 20), slice(20, 40), slice(40, 50)]
    xy, xx, yy = (sum(hsic(a[s], b[s]) for s in cut) for a, b in ((X, Y), (X, X), (Y, Y)))
    assert M.minibatch_cka(X, Y, batch=20) == pytest.approx(xy / math.sqrt(xx * yy), abs=1e-10)
    assert M.minibatch_cka(X, Y, batch=50) == pytest.approx(M.linear_cka_debiased(X, Y), abs=1e-12)
    assert M.minibatch_cka(X[:43], Y[:43], batch=20) == M.minibatch_cka(X[:40], Y[:40], batch=20), "three last rows have no estimate"
    order = np.random.default_rng(7).permutation(50)
    assert M.minibatch_cka(X, Y, batch=20, seed=7) == pytest.approx(M.minibatch_cka(X[order], Y[order], batch=20), abs=1e-12)
    row = ix.compare(X, Y, M.minibatch_cka.with_options(batch=20), interval=None)
    assert row.settings["options"]["minibatch_cka(batch=20)"] == [{"batch": 20, "seed": None, "batches": 3, "order": "as given"}]


def levenshtein(a: list[int], b: list[int]) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(levenshtein(a[1:], b) + 1, levenshtein(a, b[1:]) + 1, levenshtein(a[1:], b[1:]) + (a[0] != b[0]))


def subsequence(a: list[int], b: list[int]) -> int:
    if not a or not b:
        return 0
    return subsequence(a[1:], b[1:]) + 1 if a[0] == b[0] else max(subsequence(a[1:], b), subsequence(a, b[1:]))


def test_neighbor_lists_by_their_definitions() -> None:
    X, Y, k = *pair(30), 4
    first, second = nearest(X, k), nearest(Y, k)
    rows = range(30)
    common = [len(set(first[i]) & set(second[i])) for i in rows]
    assert M.mutual_knn(X, Y, k=k) == pytest.approx(sum(common) / 30 / k)
    chance = k / 29
    assert M.mutual_knn_adjusted(X, Y, k=k) == pytest.approx((sum(common) / 30 / k - chance) / (1 - chance))
    assert M.jaccard_knn(X, Y, k=k) == pytest.approx(np.mean([c / (2 * k - c) for c in common]))
    assert M.cycle_knn(X, Y, k=k) == pytest.approx(np.mean([any(i in first[j] for j in second[i]) for i in rows]))
    assert M.lcs_knn(X, Y, k=k) == pytest.approx(np.mean([subsequence(list(first[i]), list(second[i])) for i in rows]) / k)
    assert M.edit_knn(X, Y, k=k) == pytest.approx(1 - np.mean([levenshtein(list(first[i]), list(second[i])) for i in rows]) / k)
    total = 0.0
    for i in rows:
        ranks = [(list(first[i]).index(j) + 1, list(second[i]).index(j) + 1) for j in set(first[i]) & set(second[i])]
        if ranks:
            total += sum(2 / ((1 + abs(a - b)) * (a + b)) for a, b in ranks) / sum(1 / m for m in range(1, len(ranks) + 1))
    assert M.rank_similarity(X, Y, k=k) == pytest.approx(total / 30)


def test_second_order_cosine_by_its_definition() -> None:
    X, Y, k = *pair(30), 4
    first, second = nearest(X, k), nearest(Y, k)
    U, W = (Z / np.linalg.norm(Z, axis=1, keepdims=True) for Z in (X, Y))
    cosines = []
    for i in range(30):
        near = sorted(set(first[i]) | set(second[i]))
        a, b = U[near] @ U[i], W[near] @ W[i]
        cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert M.second_order_cosine(X, Y, k=k) == pytest.approx(np.mean(cosines), abs=1e-12)


def test_cknna_by_full_masks_and_its_end_at_debiased_cka() -> None:
    X, Y, k = *pair(30), 5
    U, W = (Z / np.linalg.norm(Z, axis=1, keepdims=True) for Z in (X, Y))

    def masked(Z: np.ndarray) -> np.ndarray:
        mask = np.zeros((30, 30))
        np.put_along_axis(mask, nearest(Z, k), 1, axis=1)
        return mask

    def hsic(K: np.ndarray, L: np.ndarray, n: int = 30) -> float:
        return (K * L.T).sum() + K.sum() * L.sum() / (n - 1) / (n - 2) - 2 * (K @ L).sum() / (n - 2)

    A, B = masked(X), masked(Y)
    K, L = U @ U.T, W @ W.T
    expected = hsic(A * B * K, A * B * L) / math.sqrt(hsic(A * K, A * K) * hsic(B * L, B * L))
    assert M.cknna(X, Y, k=k) == pytest.approx(expected, abs=1e-12)
    assert M.cknna(X, Y, k=28) == pytest.approx(M.linear_cka_debiased(U, W), abs=0.05), "with almost every row a neighbor"


def test_small_inputs_are_refused_with_the_number() -> None:
    X, Y = pair(8)
    for name in ("mutual_knn_adjusted", "jaccard_knn", "cycle_knn", "lcs_knn", "edit_knn", "rank_similarity"):
        with pytest.raises(TooFewStimuliError, match=f"{name}: .*neighbors need at least"):
            M.get(name)(X, Y)
    with pytest.raises(TooFewStimuliError, match="minibatch_cka.*batches of 3 rows"):
        M.minibatch_cka(X, Y, batch=3)
    with pytest.raises(DegenerateInputError, match="rbf_cka.*bandwidth=0 must be positive"):
        M.rbf_cka(X, Y, bandwidth=0)
    with pytest.raises(DegenerateInputError, match="rbf_cka: at least half of the distances of X are 0"):
        M.rbf_cka(np.repeat(X[:2], [7, 1], 0), Y)
