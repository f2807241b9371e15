"""Measures of spectra and directions against values derived by hand, or by NumPy and SciPy from the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import eigh
from scipy.spatial.distance import pdist

import inscape as ix
from inscape.errors import DegenerateInputError, InscapeWarning, StoreMismatchError, TooFewStimuliError

CROSS = np.array([[2.0, 0], [-2, 0], [0, 1], [0, -1]])


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((70, 9)) * np.linspace(2, 0.5, 9) + 0.4


def units(X: np.ndarray) -> np.ndarray:
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def test_numerical_rank_counts_directions_and_records_its_threshold(rows: np.ndarray) -> None:
    low = rows[:, :4] @ np.random.default_rng(1).standard_normal((4, 30)) + 100
    assert ix.measures.numerical_rank(low) == 4
    assert ix.measures.numerical_rank(rows) == 9
    assert ix.measures.numerical_rank(rows[:5]) == 4
    assert ix.measures.numerical_rank.record(70, 9) == {"relative_eigenvalue_threshold": pytest.approx(70 * 2.220446e-16, rel=1e-6)}


def test_spectrum_decay_is_a_weighted_fit_and_shows_shares() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 90)) / np.arange(1, 91) ** 0.6
    values = np.sort(np.linalg.eigvalsh(np.cov(X.T, bias=True)))[::-1]
    ranks = np.arange(11, 91)
    slope, _ = np.polyfit(np.log(ranks), np.log(values[10:]), 1, w=np.sqrt(1 / ranks))  # polyfit squares its weights
    curve = ix.measures.spectrum_decay(X)
    assert curve.value == pytest.approx(-slope, abs=1e-9)
    assert curve.axis == "rank"
    assert curve.at[:5] == (1, 2, 3, 4, 5) and curve.at[-1] == 90 and len(curve.at) <= 48
    assert curve.values == pytest.approx([values[place - 1] / values.sum() for place in curve.at], rel=1e-9)
    assert ix.measures.spectrum_decay.record(300, 90) == {"first": 11, "last": 500, "first_rank": 11, "last_rank": 90}
    with pytest.raises(DegenerateInputError, match="the spectrum ends at rank 20, inside the window of ranks 11 to 90"):
        ix.measures.spectrum_decay(X[:, :20] @ rng.standard_normal((20, 90)))


def test_entropy_and_volume_of_directions(rows: np.ndarray) -> None:
    second = units(rows).T @ units(rows) / len(rows)
    values = np.linalg.eigvalsh(second)
    assert ix.measures.von_neumann_entropy(rows) == pytest.approx(-(values * np.log(values)).sum(), abs=1e-10)
    for distortion in (0.5, 0.01):
        expected = 0.5 * np.linalg.slogdet(np.eye(9) + 9 / distortion * second)[1]
        assert ix.measures.coding_rate(rows, distortion=distortion) == pytest.approx(expected, rel=1e-10)
    assert ix.measures.von_neumann_entropy(np.eye(8)) == pytest.approx(math.log(8), abs=1e-12)
    assert ix.measures.von_neumann_entropy(np.ones((5, 3))) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="distortion = 0; give the allowed mean squared error"):
        ix.measures.coding_rate(rows, distortion=0)


def test_zero_rows_are_counted_and_left_out(rows: np.ndarray) -> None:
    more = np.concatenate([rows, np.zeros((3, 9))])
    for name in ("von_neumann_entropy", "coding_rate", "uniformity"):
        with pytest.warns(InscapeWarning, match=f"{name}: 3 zero rows have no direction and are left out; 70 rows count"):
            assert ix.measures.get(name)(more) == pytest.approx(ix.measures.get(name)(rows), abs=1e-12)
    with pytest.raises(TooFewStimuliError, match="coding_rate"):
        ix.measures.coding_rate(np.zeros((4, 3)))


def test_partition_isotropy_by_its_definition(rows: np.ndarray) -> None:
    vectors = np.linalg.eigh(rows.T @ rows)[1]
    totals = np.exp(np.concatenate([rows @ vectors, -rows @ vectors], 1)).sum(0)
    assert ix.measures.partition_isotropy(rows) == pytest.approx(totals.min() / totals.max(), rel=1e-10)
    # along the axes Z is 2 cosh(2) + 2 and 2 cosh(1) + 2
    assert ix.measures.partition_isotropy(CROSS) == pytest.approx((math.cosh(1) + 1) / (math.cosh(2) + 1), rel=1e-12)
    assert ix.measures.partition_isotropy(1e5 * rows) == pytest.approx(0, abs=1e-12)  # no overflow


def test_uniformity_is_a_mean_over_all_pairs(rows: np.ndarray) -> None:
    for t in (2.0, 0.5):
        expected = math.log(np.exp(-t * pdist(units(rows), "sqeuclidean")).mean())
        assert ix.measures.uniformity(rows, t=t) == pytest.approx(expected, abs=1e-12)
    assert ix.measures.uniformity(np.ones((4, 3))) == pytest.approx(0, abs=1e-12)


def test_alignment_by_hand() -> None:
    X, Y = np.array([[3.0, 0], [0, 1], [1, 1]]), np.array([[0.0, 2], [0, 5], [-1, -1]])
    assert ix.measures.alignment(X, Y) == pytest.approx((2 + 0 + 4) / 3, abs=1e-12)
    assert ix.measures.alignment(X, Y, power=1) == pytest.approx((math.sqrt(2) + 0 + 2) / 3, abs=1e-12)
    assert ix.compare(X, Y, "alignment", interval=None).value() == pytest.approx(2, abs=1e-12)
    with pytest.raises(StoreMismatchError, match=r"rows of one space; X has 2 units \(shape \[3, 2\]\), Y has 1"):
        ix.measures.alignment(X, Y[:, :1])


def mean_cosine(X: np.ndarray) -> float:
    cosines = units(X) @ units(X).T
    return float(cosines[np.triu_indices(len(X), 1)].mean())


def test_mean_cosines_without_the_mean_and_the_strongest_directions(rows: np.ndarray) -> None:
    centered = rows - rows.mean(0)
    assert ix.measures.mean_cosine_centered(rows) == pytest.approx(mean_cosine(centered), abs=1e-12)
    U, s, Vt = np.linalg.svd(centered, full_matrices=False)
    for removed in (0, 1, 3):
        rest = (U[:, removed:] * s[removed:]) @ Vt[removed:]
        assert ix.measures.mean_cosine_pcs_removed(rows, removed=removed) == pytest.approx(mean_cosine(rest), abs=1e-10)
    wide = rows.T
    U, s, Vt = np.linalg.svd(wide - wide.mean(0), full_matrices=False)
    assert ix.measures.mean_cosine_pcs_removed(wide) == pytest.approx(mean_cosine((U[:, 3:8] * s[3:8]) @ Vt[3:8]), abs=1e-9)
    with pytest.raises(DegenerateInputError, match="nothing is left without 9 of them"):
        ix.measures.mean_cosine_pcs_removed(rows, removed=9)
    with pytest.raises(TooFewStimuliError, match="removing 3 directions needs at least 5 rows, got 4"):
        ix.measures.mean_cosine_pcs_removed(rows[:4])
    with pytest.warns(InscapeWarning, match="mean_cosine_centered: 1 of 5 rows equal the mean and are left out"):
        assert ix.measures.mean_cosine_centered(np.concatenate([CROSS, [[0, 0]]])) == pytest.approx(-1 / 3, abs=1e-12)


def test_feature_correlation_from_the_correlation_matrix(rows: np.ndarray) -> None:
    mixed = rows @ np.random.default_rng(2).standard_normal((9, 6))
    r = np.corrcoef(mixed.T)
    expected = (r[~np.eye(6, dtype=bool)] ** 2).mean()
    assert ix.measures.feature_correlation(mixed) == pytest.approx(expected, abs=1e-12)
    more = np.concatenate([mixed, np.full((70, 2), 0.1)], 1)
    with pytest.warns(InscapeWarning, match="2 of 8 units do not vary and are left out"):
        assert ix.measures.feature_correlation(more) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(DegenerateInputError, match="1 of 1 units vary .* a correlation needs two"):
        ix.measures.feature_correlation(mixed[:, :1])


def test_lidar_from_a_generalized_eigenproblem(rows: np.ndarray) -> None:
    labels = np.arange(70) % 7
    X = rows + 2 * np.random.default_rng(3).standard_normal((7, 9))[labels]
    means = np.stack([X[labels == c].mean(0) for c in range(7)])
    within = sum((X[labels == c] - means[c]).T @ (X[labels == c] - means[c]) for c in range(7)) / 70
    between = np.cov(means.T, bias=True)
    for delta in (1e-4, 0.3):
        values = eigh(between, within + delta * np.eye(9), eigvals_only=True).clip(0)
        p = values / values.sum() + 1e-7
        assert ix.measures.lidar(X, labels, delta=delta) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-9)
    with pytest.raises(DegenerateInputError, match="all 70 rows have the label '0'; at least two objects"):
        ix.measures.lidar(X, np.zeros(70, dtype=int))
    with pytest.raises(TooFewStimuliError, match="70 rows of 70 objects: no object has two views"):
        ix.measures.lidar(X, np.arange(70))
    with pytest.raises(DegenerateInputError, match="all 2 objects have the same mean row"):
        ix.measures.lidar(CROSS, [0, 0, 1, 1])
