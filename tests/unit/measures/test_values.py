"""Measures against values derived by hand or by NumPy and SciPy from the definitions."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

import inscape as ix
from inscape.errors import DegenerateInputError, InscapeWarning, TooFewStimuliError

# Two perpendicular directions with standard deviations 2 : 1, so variances 4 : 1.
CROSS = np.array([[2.0, 0], [-2, 0], [0, 1], [0, -1]])


def orthonormal(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Centered orthonormal columns."""
    columns = np.random.default_rng(seed).standard_normal((n, d))
    return np.linalg.qr(columns - columns.mean(0))[0]


@pytest.mark.parametrize(
    "name,value",
    [
        ("effective_rank", 3 / 2 ** (2 / 3)),  # p = 2/3, 1/3: H = log 3 - 2/3 log 2
        ("effective_rank_covariance", 5 / 4**0.8),  # p = 4/5, 1/5: H = log 5 - 4/5 log 4
        ("participation_ratio", 25 / 17),  # (4 + 1)² / (16 + 1)
        ("stable_rank", 5 / 4),
        ("isoscore", 8 / 17),  # 25/17 - 1
    ],
)
def test_spectra_with_known_eigenvalues(name: str, value: float) -> None:
    assert ix.measures.get(name)(CROSS) == pytest.approx(value, abs=1e-12)
    assert ix.measures.get(name)(CROSS @ [[0.6, 0.8], [-0.8, 0.6]] + 5) == pytest.approx(value, abs=1e-12)


def test_rankme_is_the_published_formula_on_the_rows_as_they_are() -> None:
    X = np.random.default_rng(0).standard_normal((50, 7)) + 3
    s = np.linalg.svd(X, compute_uv=False)
    p = s / s.sum() + 1e-7
    assert ix.measures.rankme(X) == pytest.approx(math.exp(-(p * np.log(p)).sum()), abs=1e-10)
    assert ix.measures.rankme(CROSS, eps=0.0) == pytest.approx(3 / 2 ** (2 / 3), abs=1e-12)
    assert ix.measures.rankme(np.ones((5, 3))) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(DegenerateInputError, match=r"rankme: all 5 rows are zero \(shape \[5, 3\]\)"):
        ix.measures.rankme(np.zeros((5, 3)))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_req_recovers_an_exact_power_law(alpha: float) -> None:
    X = orthonormal(200, 120) * np.arange(1, 121) ** (-alpha / 2)
    assert ix.measures.alpha_req(X) == pytest.approx(alpha, abs=1e-9)
    assert ix.measures.alpha_req(X, first=1, last=20) == pytest.approx(alpha, abs=1e-9)


def test_alpha_req_uses_the_ranks_that_it_says() -> None:
    spectrum = np.ones(60)
    spectrum[10:40] = np.arange(11, 41) ** -1.5  # ranks 11 to 40 follow a law, the rest does not
    spectrum[40:] = spectrum[39]
    X = orthonormal(100, 60) * np.sqrt(spectrum)
    assert ix.measures.alpha_req(X, last=40) == pytest.approx(1.5, abs=1e-9)
    assert abs(ix.measures.alpha_req(X) - 1.5) > 0.1


def test_alpha_req_refuses_windows_that_say_nothing() -> None:
    X = np.random.default_rng(0).standard_normal((200, 29))
    with pytest.raises(DegenerateInputError, match=r"ranks 11 to min\(100, d, n - 1\) = 29, which is 19 ranks .* at least 20"):
        ix.measures.alpha_req(X)
    with pytest.raises(TooFewStimuliError, match="needs at least 31 rows, got 30"):
        ix.measures.alpha_req(np.random.default_rng(0).standard_normal((30, 90)))
    with pytest.raises(TooFewStimuliError, match="use 70 or more rows"):
        ix.measures.alpha_req(np.random.default_rng(0).standard_normal((60, 90)), first=50)
    low = np.random.default_rng(0).standard_normal((200, 25)) @ np.random.default_rng(1).standard_normal((25, 64))
    with pytest.raises(DegenerateInputError, match="the spectrum ends at rank 25, inside the window of ranks 11 to 64"):
        ix.measures.alpha_req(low)


def test_isoscore_of_one_unit_is_refused() -> None:
    with pytest.raises(DegenerateInputError, match=r"isoscore: one unit \(shape \[4, 1\]\) has no isotropy"):
        ix.measures.isoscore(CROSS[:, :1])


def test_mean_cosine_by_hand_and_without_zero_rows() -> None:
    X = np.array([[1.0, 0], [0, 2], [3, 3]])
    assert ix.measures.mean_cosine(X) == pytest.approx(math.sqrt(2) / 3, abs=1e-12)  # (0 + 1/√2 + 1/√2) / 3
    with pytest.warns(InscapeWarning, match="mean_cosine: 1 zero rows have no direction and are left out; 3 rows count"):
        assert ix.measures.mean_cosine(np.vstack([X, [0, 0]])) == pytest.approx(math.sqrt(2) / 3, abs=1e-12)


def nearest_distances(X: np.ndarray, k: int) -> np.ndarray:
    return np.sort(cdist(X, X), axis=1)[:, 1 : k + 1]


def test_two_nn_and_mle_from_all_distances() -> None:
    X = np.random.default_rng(0).standard_normal((80, 6))
    r = nearest_distances(X, 20)
    logs = np.sort(np.log(r[:, 1] / r[:, 0]))[:72]
    tail = -np.log(1 - np.arange(1, 73) / 80)
    assert ix.measures.two_nn(X) == pytest.approx((tail @ logs) / (logs @ logs), abs=1e-9)
    for k in (5, 20):
        inverse = np.log(r[:, k - 1 : k] / r[:, : k - 1]).mean(1)
        assert ix.measures.mle_dimension(X, k=k) == pytest.approx(1 / inverse.mean(), abs=1e-9)


def test_rows_that_repeat_count_once() -> None:
    X = np.random.default_rng(0).standard_normal((80, 4))
    repeated = np.concatenate([X, X[:30], X[:5]])
    for name in ("two_nn", "mle_dimension", "two_nn_curve"):
        measure = ix.measures.get(name)
        with pytest.warns(InscapeWarning, match=f"{name}: 35 of 115 rows repeat another row exactly"):
            assert float(measure(repeated)) == pytest.approx(float(measure(X)), abs=1e-9)


def test_dimensions_refuse_what_has_no_neighbors() -> None:
    few = np.repeat(np.random.default_rng(0).standard_normal((6, 3)), 5, axis=0)
    with pytest.raises(TooFewStimuliError, match="two_nn: 6 of 30 rows are distinct; at least 10 are needed"):
        ix.measures.two_nn(few)
    simplex = np.eye(12)
    for name in ("two_nn", "mle_dimension"):
        options = {"k": 5} if name == "mle_dimension" else {}
        with pytest.raises(DegenerateInputError, match="nearest distances .*are equal"):
            ix.measures.get(name)(simplex, **options)
    with pytest.raises(DegenerateInputError, match="k = 1: the likelihood needs at least 2 neighbors"):
        ix.measures.mle_dimension(np.random.default_rng(0).random((30, 2)), k=1)
    with pytest.raises(TooFewStimuliError, match="20 neighbors need at least 21 rows"):
        ix.measures.mle_dimension(np.random.default_rng(0).random((20, 2)))


def test_two_nn_curve_is_the_mean_over_disjoint_blocks() -> None:
    X = np.random.default_rng(0).random((300, 3))
    curve = ix.measures.two_nn_curve(X, smallest=70)
    assert curve.at == (300, 150, 75)
    assert curve.axis == "rows"
    assert curve.value == curve.values[0] == pytest.approx(ix.measures.two_nn(X), abs=1e-12)
    import torch

    order = torch.randperm(300, generator=torch.Generator().manual_seed(0)).numpy()
    halves = [X[np.sort(order[:150])], X[np.sort(order[150:])]]
    assert curve.values[1] == pytest.approx(np.mean([ix.measures.two_nn(half) for half in halves]), abs=1e-9)
    assert ix.measures.two_nn_curve(X, seed=1).values[1] != curve.values[1]
    with pytest.raises(DegenerateInputError, match="smallest = 5: a block needs at least 10 rows"):
        ix.measures.two_nn_curve(X, smallest=5)


def test_two_nn_curve_shows_noise_that_fills_small_scales() -> None:
    rng = np.random.default_rng(0)
    plane = np.concatenate([rng.random((2048, 2)), np.zeros((2048, 18))], axis=1)
    noisy = ix.measures.two_nn_curve(plane + 0.01 * rng.standard_normal(plane.shape)).values
    clean = ix.measures.two_nn_curve(plane).values
    assert noisy[0] > 2 * noisy[-1]
    assert max(clean) < 1.3 * min(clean)


def test_class_separation_by_hand() -> None:
    # means 1 and 8, overall 5.2: between 2 · 17.64 + 3 · 7.84, within 2 + 6
    X = np.array([[0.0], [2], [7], [7], [10]])
    assert ix.measures.class_separation(X, ["a", "a", "b", "b", "b"]) == pytest.approx(58.8 / 8, abs=1e-12)
    assert ix.measures.class_separation(X, labels=[0, 0, 1, 1, 1]) == pytest.approx(58.8 / 8, abs=1e-12)
    with pytest.raises(DegenerateInputError, match="all 5 rows have the label 'a'; at least two classes"):
        ix.measures.class_separation(X, ["a"] * 5)
    with pytest.raises(DegenerateInputError, match=r"no class has any spread inside \(2 classes, 4 rows\)"):
        ix.measures.class_separation(np.array([[0.1], [0.1], [0.7], [0.7]]), [0, 0, 1, 1])


def test_cka_of_three_points_by_hand() -> None:
    X, Y = np.array([[-1.0], [0], [1]]), np.array([[0.0], [0], [1]])
    assert ix.measures.linear_cka(X, Y) == pytest.approx(0.75, abs=1e-12)  # XᵀY = 1, |X|² = 2, |Y|² = 2/3
    assert ix.measures.linear_cka(X, np.array([[1.0], [-2], [1]])) == pytest.approx(0.0, abs=1e-12)


def test_debiased_cka_from_whole_kernels() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((9, 4)), rng.standard_normal((9, 5))

    def hsic(K: np.ndarray, L: np.ndarray) -> float:
        K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
        n, ones = len(K), np.ones(len(K))
        whole = (ones @ K @ ones) * (ones @ L @ ones) / ((n - 1) * (n - 2))
        return ((K * L).sum() + whole - 2 / (n - 2) * ones @ K @ L @ ones) / (n * (n - 3))

    K, L = X @ X.T, Y @ Y.T
    expected = hsic(K, L) / math.sqrt(hsic(K, K) * hsic(L, L))
    assert ix.measures.linear_cka_debiased(X, Y) == pytest.approx(expected, abs=1e-10)


def test_debiased_cka_refuses_rows_that_are_all_equally_far() -> None:
    with pytest.raises(DegenerateInputError, match="the unbiased self-similarity of X is"):
        ix.measures.linear_cka_debiased(np.eye(8), np.random.default_rng(0).standard_normal((8, 3)))


def test_cca_of_constructed_correlations() -> None:
    U = orthonormal(100, 6)
    a, b = 0.3, 1.1
    X = U[:, :2] @ [[2, 1], [0.5, 3]] + 7
    Y = np.stack([U[:, 0] * math.cos(a) + U[:, 2] * math.sin(a), U[:, 1] * math.cos(b) + U[:, 3] * math.sin(b), U[:, 4]], 1)
    assert ix.measures.cca_mean(X, Y @ np.diag([1, 20, 0.1])) == pytest.approx((math.cos(a) + math.cos(b)) / 2, abs=1e-10)


def test_cca_says_when_chance_or_rank_decide() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DegenerateInputError, match=r"X \[20, 19\] of rank 19, Y \[20, 3\] of rank 3: with a rank of n - 1"):
        ix.measures.cca_mean(rng.standard_normal((20, 19)), rng.standard_normal((20, 3)))
    with pytest.warns(InscapeWarning, match=r"cca_mean: 39 rows for 5 \+ 3 units are fewer than 5 \(p \+ q\) = 40"):
        ix.measures.cca_mean(rng.standard_normal((39, 5)), rng.standard_normal((39, 3)))


def test_cca_keeps_its_digits_where_the_moments_lose_them() -> None:
    from inscape.summaries import CrossMoments

    U = orthonormal(200, 6)
    X = U[:, :3] * [1.0, 1e-3, 1e-6]  # the scatter has condition 10¹²
    Y = 0.6 * U[:, :3] + 0.8 * U[:, 3:]
    assert ix.measures.cca_mean(X, Y) == pytest.approx(0.6, abs=1e-9)
    with pytest.warns(InscapeWarning, match=r"the condition of a scatter is 1\.0e\+12, above 1e\+06, so about 4 digits are left"):
        assert ix.measures.cca_mean.evaluate(pair=CrossMoments.of(X, Y)) == pytest.approx(0.6, abs=1e-3)


def test_cca_counts_the_directions_that_are_there() -> None:
    U = orthonormal(100, 4)
    X = U[:, :2] @ np.random.default_rng(0).standard_normal((2, 5))  # five units of rank two
    Y = np.stack([U[:, 0], 0.5 * U[:, 1] + math.sqrt(0.75) * U[:, 2], U[:, 3]], 1)
    assert ix.measures.cca_mean(X, Y) == pytest.approx(0.75, abs=1e-9)


def test_procrustes_angle_by_hand() -> None:
    X, Y = np.array([[-1.0], [0], [1]]), np.array([[0.0], [0], [1]])
    assert ix.measures.procrustes(X, Y) == pytest.approx(math.pi / 6, abs=1e-9)
    assert ix.measures.procrustes(X, -3 * X) == pytest.approx(0.0, abs=1e-7)


def test_mutual_knn_by_hand() -> None:
    def at(degrees: list[float]) -> np.ndarray:
        angles = np.radians(degrees)
        return np.stack([np.cos(angles), np.sin(angles)], 1) * [[1.0], [5.0], [2.0], [3.0]]

    X, Y = at([0, 10, 100, 112]), at([0, 10, 100, 300])  # pairs 0-1 and 2-3; then 2 is nearest to 1 and 3 to 0
    assert ix.measures.mutual_knn(X, Y, k=1) == 0.5
    with pytest.raises(TooFewStimuliError, match="k = 3 neighbors need at least 5 rows, got 4"):
        ix.measures.mutual_knn(X, Y, k=3)


def test_rsa_is_the_rank_correlation_of_correlation_distances() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((15, 8)), rng.standard_normal((15, 5))
    upper = np.triu_indices(15, 1)
    expected = spearmanr((1 - np.corrcoef(X))[upper], (1 - np.corrcoef(Y))[upper])[0]
    assert ix.measures.rsa_spearman(X, Y) == pytest.approx(expected, abs=1e-12)


def test_rsa_refuses_distances_without_order() -> None:
    simplex = np.eye(6)
    with pytest.raises(DegenerateInputError, match=r"all dissimilarities of Y are equal \(6 rows\); there is no order"):
        ix.measures.rsa_spearman(np.random.default_rng(0).standard_normal((6, 6)), simplex)


@pytest.mark.parametrize("n,d,low,high", [(256, 8, 0.02, 0.05), (256, 512, 0.63, 0.70)])
def test_biased_cka_of_independent_rows_grows_with_width_and_the_debiased_form_does_not(n: int, d: int, low: float, high: float) -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((n, d)), rng.standard_normal((n, d))
    assert low < ix.measures.linear_cka(X, Y) < high
    assert abs(ix.measures.linear_cka_debiased(X, Y)) < 0.02


def test_one_unit_with_a_huge_offset_does_not_move_a_dimension_in_fp32() -> None:
    rng = np.random.default_rng(0)
    X = (rng.random((500, 5)) @ rng.standard_normal((5, 64))).astype(np.float32)
    moved = X.copy()
    moved[:, 3] += np.float32(1024)  # exact in fp32 up to its ulp of 1e-4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ix.measures.two_nn(moved) == pytest.approx(ix.measures.two_nn(X), rel=2e-2)
        assert ix.measures.mle_dimension(moved) == pytest.approx(ix.measures.mle_dimension(X), rel=1e-3)
