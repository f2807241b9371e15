"""Nulls of pairs: exact moments against all permutations, early stopping, and p that are uniform where nothing is shared."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest

import inscape as ix
from inscape.errors import StoreMismatchError, TooFewStimuliError
from inscape.stats.closed_form import KernelInvariants, permutation_moments
from inscape.stats.permutation import permutation_test


def centered(rng: np.random.Generator, n: int, d: int, power: int) -> torch.Tensor:
    X = torch.from_numpy(rng.standard_normal((n, d)) ** power)
    return X - X.mean(0)


@pytest.mark.parametrize("power", [1, 3], ids=["gaussian", "heavy tails"])
def test_moments_are_those_of_all_permutations(power: int) -> None:
    rng = np.random.default_rng(power)
    X, Y = centered(rng, 7, 3, power), centered(rng, 7, 2, power)
    K, L = X @ X.T, Y @ Y.T
    values = np.array([float((K * L[list(order)][:, list(order)]).sum()) for order in itertools.permutations(range(7))])
    found = permutation_moments(KernelInvariants.of_rows(X), KernelInvariants.of_kernel(L))
    assert found.mean == pytest.approx(values.mean(), rel=1e-10)
    assert found.sd == pytest.approx(values.std(), rel=1e-10)
    assert found.skewness == pytest.approx(((values - values.mean()) ** 3).mean() / values.std() ** 3, abs=1e-8)


@pytest.mark.parametrize("n", [40, 600], ids=["one tile", "several tiles"])
def test_invariants_of_rows_are_those_of_their_kernel(n: int) -> None:
    X = centered(np.random.default_rng(0), n, 6, 2)
    a, b = KernelInvariants.of_rows(X), KernelInvariants.of_kernel(X @ X.T)
    for name, value in vars(a).items():
        assert value == pytest.approx(getattr(b, name), rel=1e-10), name


@pytest.mark.parametrize(("n", "d"), [(40, 6), (600, 3)], ids=["one tile", "several tiles"])
def test_invariants_of_rows_without_a_diagonal_are_those_of_their_kernel(n: int, d: int) -> None:
    X = centered(np.random.default_rng(1), n, d, 2)
    K = (X @ X.T).fill_diagonal_(0.0)
    sums = K.sum(0)
    K = (K - (sums + sums[:, None]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))).fill_diagonal_(0.0)
    assert float(K.sum(0).abs().max()) < 1e-9 * float(K.abs().max())
    a, b = KernelInvariants.of_hollow_rows(X), KernelInvariants.of_kernel(K)
    for name, value in vars(a).items():
        assert value == pytest.approx(getattr(b, name), rel=1e-9, abs=1e-7), name


@pytest.mark.parametrize("measure", ["linear_cka", "linear_cka_debiased"])
@pytest.mark.parametrize("width", [3, 90], ids=["tall", "wide"])
def test_closed_form_agrees_with_many_permutations(measure: str, width: int) -> None:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((60, width))
    Y = rng.standard_normal((60, 5)) + 0.25 * X[:, :1]
    closed = ix.compare(X, Y, measure, null="closed", interval=None).rows()[0]
    drawn = ix.compare(X, Y, measure, null="permute", draws=1000, interval=None).rows()[0]
    assert closed["value"] == drawn["value"]
    assert closed["null_mean"] == pytest.approx(drawn["null_mean"], abs=4 * 0.02 / np.sqrt(1000))
    assert closed["p"] == pytest.approx(drawn["p"], abs=4 * np.sqrt(0.25 / 1000))
    assert closed["calibrated"] == pytest.approx(drawn["calibrated"], abs=0.04)
    assert closed["p_corrected"] == closed["p"]


@pytest.mark.parametrize("null", ["closed", pytest.param("sequential", marks=pytest.mark.slow)])
def test_p_is_uniform_where_nothing_is_shared(null: str) -> None:
    found = []
    for seed in range(200):
        rng = np.random.default_rng((9, seed))
        X, Y = rng.standard_normal((24, 6)), rng.standard_normal((24, 40))
        found.append(ix.compare(X, Y, "linear_cka", null=null, draws=99, interval=None, seed=seed).rows()[0]["p"])
    assert kstest(found, "uniform").pvalue > 0.01
    low, high = binom.ppf([0.0005, 0.9995], 200, 0.05)
    assert low <= np.sum(np.array(found) <= 0.05) <= high


@pytest.mark.slow
def test_calibrated_scores_are_zero_where_nothing_is_shared() -> None:
    scores = []
    for seed in range(200):
        rng = np.random.default_rng((10, seed))
        X, Y = rng.standard_normal((24, 6)), rng.standard_normal((24, 40))
        scores.append(ix.compare(X, Y, "linear_cka_debiased", null="permute", draws=39, interval=None, seed=seed).rows()[0]["calibrated"])
    assert np.sum(np.array(scores) > 0) <= binom.ppf(0.999, 200, 0.05)


@pytest.mark.slow
def test_the_best_of_many_layers_is_found_as_often_as_chance_allows() -> None:
    wrong = 0
    for seed in range(200):
        rng = np.random.default_rng((11, seed))
        systems = []
        for _ in range(2):
            shared = rng.standard_normal((24, 4))
            systems.append(ix.Store.from_arrays({f"layer.{i}": shared + rng.standard_normal((24, 4)) for i in range(2)}))
        rows = ix.compare(*systems, "linear_cka_debiased", null="permute", draws=19, interval=None, seed=seed).rows()
        wrong += min(row["p_corrected"] for row in rows) <= 0.05
    low, high = binom.ppf([0.0005, 0.9995], 200, 0.05)
    assert low <= wrong <= high


def test_a_sequential_null_stops_where_nothing_is_found_and_goes_on_where_something_is() -> None:
    scores = np.array([0.1, 0.9, 0.2, 0.9, 0.8, 0.1, 0.9])
    assert permutation_test(0.5, scores, best=1.0, enough=3).p == pytest.approx(3 / 5)  # the third hit is the fifth draw
    assert permutation_test(0.5, scores, best=1.0, enough=9).p == pytest.approx(5 / 8)
    rng = np.random.default_rng(5)
    X, Y = rng.standard_normal((50, 4)), rng.standard_normal((50, 4))
    nothing = ix.compare(X, Y, ["linear_cka", "procrustes", "mutual_knn", "ridge_r2"], null="sequential", draws=2000, interval=None)
    assert all(row["p"] > 0.02 for row in nothing.rows())
    something = ix.compare(X, X + 0.1 * Y, "procrustes", null="sequential", draws=300, interval=None).rows()[0]
    assert something["p"] == pytest.approx(1 / 301)


def test_sequential_draws_are_the_first_of_all_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    from inscape.measures.pair_run import PairRun

    seen: list[int] = []
    draws = PairRun.draws

    def counted(self, pairs, measures):
        for number, order in enumerate(draws(self, pairs, measures)):
            seen.append(number)
            yield order

    monkeypatch.setattr(PairRun, "draws", counted)
    rng = np.random.default_rng(6)
    ix.compare(rng.standard_normal((40, 4)), rng.standard_normal((40, 4)), "linear_cka", null="sequential", draws=5000, interval=None)
    assert 20 <= len(seen) < 1000


def test_what_has_no_closed_form_is_refused() -> None:
    with pytest.raises(ValueError, match="null='closed' is for pairs of systems"):
        ix.measure(np.eye(4), "effective_rank", null="closed")
    X = np.random.default_rng(7).standard_normal((30, 4))
    with pytest.raises(ValueError, match="null='closed' has no formula for procrustes; use null='permute'"):
        ix.compare(X, X[::-1].copy(), ["linear_cka", "procrustes"], null="closed")
    with pytest.raises(StoreMismatchError, match="needs independent rows: the 30 rows come from 10 sources"):
        ix.compare(X, X[::-1].copy(), "linear_cka", null="closed", groups=np.repeat(np.arange(10), 3))
    with pytest.raises(TooFewStimuliError, match="at least 6 rows, got 5"):
        ix.compare(X[:5], X[5:10], "linear_cka", null="closed", interval=None)
