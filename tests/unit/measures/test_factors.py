"""Measures of factors against counts by hand, scikit-learn and SciPy, and how factors are given."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance
from sklearn import feature_selection as selection
from sklearn import linear_model as linear
from sklearn import metrics

import inscape as ix
from inscape.errors import DegenerateInputError, InscapeWarning, MemoryBudgetError, StoreMismatchError, TooFewStimuliError
from inscape.summaries.factors import Factors, factor_table

M = ix.measures
SHAPE, SIZE = np.arange(60) % 2, np.arange(60) // 2 % 3  # a full design, ten rows of each combination
BOTH = {"shape": SHAPE, "size": SIZE}


def noisy(seed: int = 0, n: int = 300) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    shape, size = rng.integers(0, 4, n), rng.integers(0, 3, n)
    X = rng.standard_normal((n, 6))
    X[:, 0] += 2 * shape
    X[:, 1] += 1.5 * size + shape
    return X, {"shape": shape, "size": size}


# -- gaps --------------------------------------------------------------------------------------------------------------------------


def test_mig_by_hand() -> None:
    # Unit 0 is the factor, log 2; unit 1 tells half of one value: it is 1 in two of the four rows of value 1, 0 elsewhere.
    factor = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    X = np.stack([factor, [0, 0, 0, 0, 0, 0, 1, 1]], 1)
    second = 0.5 * math.log(0.5 / (0.5 * 0.75)) + 0.25 * math.log(0.25 / (0.5 * 0.75)) + 0.25 * math.log(0.25 / (0.5 * 0.25))
    assert float(M.mig(X, factor)) == pytest.approx(1 - second / math.log(2), abs=1e-12)


def test_mig_equals_scikit_learn_on_its_bins() -> None:
    X, factors = noisy()
    edges = [np.histogram(column, 20)[1][:-1] for column in X.T]
    units = [np.digitize(column, edge) for column, edge in zip(X.T, edges, strict=True)]
    for name, factor in factors.items():
        known = sorted(metrics.mutual_info_score(factor, unit) for unit in units)
        expected = (known[-1] - known[-2]) / metrics.mutual_info_score(factor, factor)
        found = M.mig(X, factors)
        assert found.values[found.at.index(name)] == pytest.approx(expected, abs=1e-12)


def test_sap_by_every_choice_of_thresholds() -> None:
    rng = np.random.default_rng(1)
    factor = rng.integers(0, 3, 14)
    X = np.round(rng.standard_normal((14, 3)) + factor[:, None] * [1, 0.3, 0], 1)  # rounded: some values are equal
    weight = 1 / (3 * np.bincount(factor))[factor]

    def best(unit: np.ndarray) -> float:
        cuts = [-np.inf, *np.unique(unit)]
        found = 0.0
        for a, b in itertools.combinations_with_replacement(cuts, 2):
            interval = (unit > a).astype(int) + (unit > b)
            found = max(found, sum(max(weight[(interval == i) & (factor == c)].sum() for c in range(3)) for i in range(3)))
        return found

    first, second = sorted((best(unit) for unit in X.T), reverse=True)[:2]
    assert float(M.sap(X, factor)) == pytest.approx(first - second, abs=1e-12)


def test_sap_of_a_continuous_factor_is_the_gap_of_squared_correlations() -> None:
    X, _ = noisy()
    factor = X[:, 2] + 0.5 * X[:, 3]
    squared = sorted(np.corrcoef(factor, column)[0, 1] ** 2 for column in X.T)
    assert float(M.sap(X, factor)) == pytest.approx(squared[-1] - squared[-2], abs=1e-12)


def test_topographic_similarity_equals_scipy() -> None:
    X, factors = noisy(n=60)
    given = {**factors, "angle": X[:, 4]}
    apart = distance.pdist(X)
    differ = distance.pdist(np.stack(list(factors.values()), 1), "hamming") * 2
    differ += distance.pdist(X[:, 4:5] / np.ptp(X[:, 4]))
    assert M.topographic_similarity(X, given) == pytest.approx(stats.spearmanr(apart, differ).statistic, abs=1e-10)


def test_topographic_similarity_refuses_more_pairs_than_fit() -> None:
    with pytest.raises(MemoryBudgetError, match="topographic_similarity: 10,002 rows make 50,015,001 pairs, .*sample at most 10,000 rows"):
        M.topographic_similarity(np.random.default_rng(0).standard_normal((10_002, 1)), np.arange(10_002) % 2)


# -- sparse regressions ------------------------------------------------------------------------------------------------------------


def lasso_weights(X: np.ndarray, factors: dict[str, np.ndarray], penalty: float) -> np.ndarray:
    X = (X - X.mean(0)) / X.std(0)
    columns = []
    for factor in factors.values():
        target = (factor[:, None] == np.unique(factor)).astype(float)
        target = (target - target.mean(0)) / target.std(0)
        columns.append(np.abs([linear.Lasso(alpha=penalty, tol=1e-12, max_iter=100_000).fit(X, y).coef_ for y in target.T]).mean(0))
    return np.stack(columns, 1)


def test_dci_from_weights_of_scikit_learn() -> None:
    X, factors = noisy()
    R = lasso_weights(X, factors, 0.05)
    used = R[R.sum(1) > 0]
    expected = sum(row.sum() / R.sum() * (1 - stats.entropy(row, base=2)) for row in used)
    assert float(M.dci_disentanglement(X, factors, penalty=0.05)) == pytest.approx(expected, abs=1e-6)
    expected = np.mean([1 - stats.entropy(column, base=6) for column in R.T])
    assert float(M.dci_completeness(X, factors, penalty=0.05)) == pytest.approx(expected, abs=1e-6)


def test_informativeness_from_predictions_of_scikit_learn() -> None:
    X, factors = noisy()
    standard = (X - X.mean(0)) / X.std(0)
    shares = []
    for factor in factors.values():
        target = (factor[:, None] == np.unique(factor)).astype(float)
        target = (target - target.mean(0)) / target.std(0)
        shares.append(np.mean([linear.Lasso(alpha=0.1, tol=1e-12).fit(standard, y).score(standard, y) for y in target.T]))
    assert float(M.dci_informativeness(X, factors)) == pytest.approx(np.mean(shares), abs=1e-6)


# -- information -------------------------------------------------------------------------------------------------------------------


def neighbor_information(X: np.ndarray, factors: dict[str, np.ndarray]) -> np.ndarray:
    found = [selection.mutual_info_classif(X, f, n_neighbors=10, discrete_features=False, random_state=0) for f in factors.values()]
    return np.stack([row / metrics.mutual_info_score(f, f) for row, f in zip(found, factors.values(), strict=True)])


def test_infomec_from_information_of_scikit_learn() -> None:
    X, factors = noisy()
    X = X / np.ptp(X, axis=0)
    X[:, 5] *= 0.04  # an inactive unit
    N = neighbor_information(X, factors)[:, :5]
    kept = N[:, N.sum(0) > 0]
    expected = ((kept.max(0) / kept.sum(0)).mean() - 1 / 2) / (1 - 1 / 2)
    with pytest.warns(InscapeWarning, match=f"infomec_modularity: {5 - kept.shape[1]} units share no information with any factor"):
        assert float(M.infomec_modularity(X, factors)) == pytest.approx(expected, abs=1e-6)
    expected = ((N.max(1) / N.sum(1)).mean() - 1 / 5) / (1 - 1 / 5)
    assert float(M.infomec_compactness(X, factors)) == pytest.approx(expected, abs=1e-6)


def test_infomec_of_a_discrete_code_by_counts() -> None:
    # A unit that is the pair of both factors knows as much of each relative to its entropy: modularity 0; compactness halves.
    X = np.stack([SHAPE, SIZE, 10 * SHAPE + SIZE], 1)
    found = M.infomec_modularity(X, BOTH, discrete=True)
    assert found.values == pytest.approx((1, 1, 0), abs=1e-12)
    assert float(M.infomec_compactness(X, BOTH, discrete=True)) == pytest.approx((1 / 2 - 1 / 3) / (1 - 1 / 3), abs=1e-12)


def test_explicitness_equals_logistic_regression_of_scikit_learn() -> None:
    X, factors = noisy()
    left, _, _ = np.linalg.svd(X - X.mean(0), full_matrices=False)
    white = left * math.sqrt(len(X))
    values = []
    for factor in factors.values():
        size = len(np.unique(factor))
        weight = (1 / (size * np.bincount(factor)))[factor]
        model = linear.LogisticRegression(C=1 / 1e-4, tol=1e-10, max_iter=10_000).fit(white, factor, sample_weight=weight)
        values.append(1 - metrics.log_loss(factor, model.predict_proba(white), sample_weight=weight) / math.log(size))
    assert float(M.infomec_explicitness(X, factors)) == pytest.approx(np.mean(values), abs=1e-6)


# -- sums of parts -----------------------------------------------------------------------------------------------------------------


def test_additive_share_by_hand() -> None:
    # Of a + b + ab on {0, 1}², 0 1 1 3, the interaction is ±1/4 · 1: variance about the mean 19/16 · 4 in all, 4 · (1/4)² of it left.
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    total = sum((x - 5 / 4) ** 2 for x in (0, 1, 1, 3))
    assert M.linear_factorization((a + b + a * b)[:, None], {"a": a, "b": b}) == pytest.approx(1 - 4 / 16 / total, abs=1e-12)


def test_additive_share_equals_the_two_way_table_of_a_balanced_design() -> None:
    rng = np.random.default_rng(2)
    cells = rng.standard_normal((3, 4, 5))
    a, b = np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)
    rows, columns, mean = cells.mean(1, keepdims=True), cells.mean(0, keepdims=True), cells.mean((0, 1))
    left = cells - rows - columns + mean
    expected = 1 - (left**2).sum() / ((cells - mean) ** 2).sum()
    X = cells.reshape(12, 5)
    assert M.linear_factorization(X, {"a": a, "b": b}) == pytest.approx(expected, abs=1e-12)
    # Each combination weighs the same, however many rows it has.
    twice = np.concatenate([X, X[:5], X[:1]])
    again = {"a": np.concatenate([a, a[:5], a[:1]]), "b": np.concatenate([b, b[:5], b[:1]])}
    assert M.linear_factorization(twice, again) == pytest.approx(expected, abs=1e-12)


def test_orthogonality_and_rank_of_parts_by_hand() -> None:
    # A factor along (1, 0), another along (1, 1)/√2: all cosines are ±cos 45°.
    a, b = np.arange(6) // 3, np.arange(6) % 3
    X = np.outer(a, [2.0, 0]) + np.outer(b, [1.0, 1])
    assert M.factor_orthogonality(X, {"a": a, "b": b}) == pytest.approx(1 - math.sqrt(0.5), abs=1e-9)
    assert M.factor_rank(X, {"a": a, "b": b}).values == pytest.approx((1, 1), abs=1e-9)
    corners = np.concatenate([np.eye(3)[b], a[:, None]], 1)  # three values equally far apart span a plane evenly
    assert M.factor_rank(corners, {"a": a, "b": b}).values == pytest.approx((1, 2), abs=1e-9)


def test_new_combinations_follow_from_parts_and_not_from_interactions() -> None:
    a, b = np.repeat(np.arange(3), 3), np.tile(np.arange(3), 3)
    assert M.compositional_accuracy(np.stack([a, 3.0 * b], 1), {"a": a, "b": b}) == 1
    # A unit of its own for each combination: the parts predict the left-out one as (row + column mean of the others) without its unit.
    assert M.compositional_accuracy(np.eye(9), {"a": a, "b": b}) == 0


def test_unseen_values_cannot_be_left_out() -> None:
    # Of these five, (2, 0) alone has value 2; the other four form a square, and any one of them follows from three.
    a, b = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0])
    with pytest.warns(InscapeWarning, match="compositional_accuracy: 1 of 5 combinations have a value whose part is not known"):
        M.compositional_accuracy(np.random.default_rng(0).standard_normal((5, 4)), {"a": a, "b": b})
    with pytest.raises(TooFewStimuliError, match="none of 4 combinations can be left out"):
        M.compositional_accuracy(np.eye(4), {"a": np.arange(4), "b": np.arange(4)})


def test_as_many_parts_as_combinations_are_refused() -> None:
    with pytest.raises(DegenerateInputError, match="linear_factorization: 3 combinations and 2 free parts: any rows are a sum of parts"):
        M.linear_factorization(np.eye(4), {"a": [0, 0, 1, 1], "b": [0, 1, 0, 0]})
    with pytest.raises(DegenerateInputError, match="compositional_accuracy: angle is continuous"):
        M.compositional_accuracy(np.eye(4), {"a": [0, 0, 1, 1], "angle": [0.1, 0.2, 0.5, 0.9]})


# -- how factors are given ---------------------------------------------------------------------------------------------------------


def test_factors_come_as_columns_arrays_and_names() -> None:
    X = np.stack([SHAPE, SIZE], 1) + np.random.default_rng(0).standard_normal((60, 2))
    value = float(M.mig(X, BOTH))
    store = ix.Store.from_arrays({"z": X}, {"id": [str(i) for i in range(60)], "shape": SHAPE, "size": SIZE})
    view = store["z"]
    for given in (np.stack([SHAPE, SIZE], 1), factor_table(BOTH), {"shape": SHAPE.astype(str), "size": SIZE}):
        assert float(M.mig(X, given)) == pytest.approx(value, abs=1e-12)
    assert float(M.mig(view, labels=["shape", "size"])) == pytest.approx(value, abs=1e-12)
    assert M.mig(view, labels="shape").at == ("factor 0",)
    for given in (["shape", "size"], BOTH):
        result = ix.measure(store, ["mig", "compositional_accuracy"], labels=given, interval=8, null="permute", draws=9)
        row = result.where(measure="mig", at=None).rows()[0]
        assert row["value"] == pytest.approx(value, abs=1e-12)
        assert row["low"] <= value <= row["high"]
        assert row["label"] == "shape, size" and row["p"] >= 0.1
        assert [one["at"] for one in result.where(measure="mig").rows()] == [None, "shape", "size"]


def test_what_is_wrong_with_factors_is_said() -> None:
    X = np.eye(4)
    with pytest.raises(DegenerateInputError, match="mig: 'shape' is 1 in all 4 rows; a factor needs at least two values"):
        M.mig(X, {"shape": [1, 1, 1, 1]})
    with pytest.raises(DegenerateInputError, match="dci_disentanglement: 1 factor .size. is given, at least 2 are needed"):
        M.dci_disentanglement(X, {"size": [0, 1, 0, 1]})
    with pytest.raises(DegenerateInputError, match=r"mig: factors have 2 columns of lengths \[3, 4\]"):
        M.mig(X, {"a": [1, 2, 3, 4], "b": [1, 2, 3]})
    with pytest.raises(StoreMismatchError, match="mig: 3 labels for 4 rows"):
        M.mig(X, [1, 2, 3])
    with pytest.raises(DegenerateInputError, match="'a' has no value for 1 of 4 rows"):
        M.mig(X, {"a": ["x", None, "y", "x"]})
    with pytest.raises(DegenerateInputError, match="'a' has no finite value for 1 rows"):
        M.mig(X, {"a": [0.5, math.nan, 1, 2]})
    with pytest.raises(DegenerateInputError, match=r"factors have shape \(4, 1, 1\)"):
        M.mig(X, np.zeros((4, 1, 1)))


def test_numbers_that_are_not_whole_are_continuous() -> None:
    X = np.random.default_rng(0).standard_normal((50, 2))
    found = Factors.of(X, {"angle": X[:, 0], "kind": np.arange(50.0) % 3, "name": np.arange(50).astype(str)})
    assert found.continuous == {"angle": True, "kind": False, "name": False}
    assert found.sizes["kind"] == 3 and found.sizes["name"] == 50 and found.sizes["angle"] <= 20
    assert found.take(np.arange(10)).n == 10
