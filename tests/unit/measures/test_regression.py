"""Cross-validated ridge regression from fold moments, against scikit-learn on the rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

import inscape as ix
from inscape.errors import DegenerateInputError, TooFewStimuliError
from inscape.summaries.cross_folds import CrossFolds, deal

ALPHAS = [1e-3, 1e-1, 10.0]


def data(n: int, p: int, q: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p)) + 5
    return X, X @ rng.standard_normal((p, q)) + 2 * rng.standard_normal((n, q))


def by_rows(X: np.ndarray, Y: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    errors, squares = [], []
    for f in np.unique(fold):
        train, held = fold != f, fold == f
        values = np.linalg.eigvalsh(np.cov(X[train].T, bias=True) * train.sum())
        scale = values[values > 1e-9 * values[-1]].mean()
        fits = [Ridge(alpha=alpha * scale).fit(X[train], Y[train]) for alpha in ALPHAS]
        errors.append([((Y[held] - fit.predict(X[held])) ** 2).sum() for fit in fits])
        squares.append(((Y[held] - Y[train].mean(0)) ** 2).sum())
    return np.array(errors), np.array(squares)


@pytest.mark.parametrize("shape", [(120, 10, 7), (60, 90, 80)], ids=["tall", "wide"])
def test_held_out_errors_equal_scikit_learn(shape: tuple[int, int, int]) -> None:
    X, Y = data(*shape)
    pair = CrossFolds.of(X, Y)
    errors, squares = pair.errors(ALPHAS)
    order = [list(np.unique(deal(np.arange(len(X)), 5))).index(f) for f in pair.parts]
    expected, total = by_rows(X, Y, deal(np.arange(len(X)), 5))
    np.testing.assert_allclose(errors.numpy(), expected[order], rtol=1e-9)
    np.testing.assert_allclose(squares.numpy(), total[order], rtol=1e-10)


def test_value_lets_no_fold_choose_its_own_penalty() -> None:
    X, Y = data(80, 20, 5)
    errors, squares = by_rows(X, Y, deal(np.arange(80), 5))
    chosen = [errors[f, (errors.sum(0) - errors[f]).argmin()] for f in range(5)]
    assert ix.measures.ridge_r2(X, Y, alphas=ALPHAS) == pytest.approx(1 - sum(chosen) / squares.sum(), abs=1e-10)


def test_independent_rows_score_about_zero_at_any_width() -> None:
    rng = np.random.default_rng(1)
    for width in (4, 64, 512):
        assert abs(ix.measures.ridge_r2(rng.standard_normal((200, width)), rng.standard_normal((200, 8)))) < 0.06


def test_rows_of_one_source_share_a_fold() -> None:
    sources = np.repeat(np.arange(12), 3)
    fold = deal(sources, 4, seed=3)
    assert all(len(set(fold[sources == s])) == 1 for s in range(12))
    assert set(fold) == {0, 1, 2, 3}
    with pytest.raises(TooFewStimuliError, match="7 folds of 12 independent rows"):
        deal(sources, 7)


def test_compare_gives_the_function_and_the_jackknife_of_refits() -> None:
    X, Y = data(90, 8, 6)
    result = ix.compare(X, Y, "ridge_r2", interval=6, null="permute", draws=50)
    row = result.rows()[0]
    assert row["value"] == pytest.approx(ix.measures.ridge_r2(X, Y), abs=1e-12)
    from inscape.stats import jackknife_groups

    groups, fold = jackknife_groups(np.arange(90), 6, seed=0), deal(np.arange(90), 5)
    left = []
    for g in range(6):
        kept = groups != g
        pair = CrossFolds.of(X[kept], Y[kept], assigned=fold[kept])
        left.append(ix.measures.ridge_r2.evaluate(pair=pair))
    spread = np.sqrt(5 / 6 * np.sum((np.array(left) - np.mean(left)) ** 2))
    assert row["high"] - row["low"] == pytest.approx(2 * 2.570581835636314 * spread, rel=1e-6)  # t(5) at .975
    assert row["p"] == pytest.approx(1 / 51)
    assert abs(row["null_mean"]) < 0.05


def test_odd_options_are_refused() -> None:
    X, Y = data(40, 4, 3)
    with pytest.raises(DegenerateInputError, match=r"alphas=\(0.0,\) must be positive"):
        ix.measures.ridge_r2(X, Y, alphas=(0.0,))
    with pytest.raises(TooFewStimuliError, match="30 folds of 40 independent rows"):
        ix.measures.ridge_r2(X, Y, folds=30)
