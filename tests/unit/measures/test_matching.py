"""Matching of units, against assignments by hand and scikit-learn's lasso."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import linprog
from sklearn.linear_model import Lasso, LinearRegression

import inscape as ix
from inscape.errors import DegenerateInputError, InscapeWarning, MemoryBudgetError
from inscape.measures.transport import transport
from inscape.summaries.cross_folds import deal

M = ix.measures


def waves(count: int, n: int = 32) -> np.ndarray:
    """Orthonormal centered columns."""
    t = np.arange(n)
    return np.stack([math.sqrt(2 / n) * np.cos(2 * np.pi * (k + 1) * t / n) for k in range(count)], 1)


def test_assignment_by_hand() -> None:
    a = waves(4)
    # r(x0, y0) = .8 and r(x0, y1) = .6; x1 is y0 with .6 and y1 with −.8: one to one .8 − .8 or .6 + .6.
    X, Y = np.stack([0.8 * a[:, 0] + 0.6 * a[:, 1], 0.6 * a[:, 0] - 0.8 * a[:, 1]], 1), a[:, :2]
    assert M.neuron_match(X, 5 * Y) == pytest.approx(0.6)
    assert M.neuron_match_soft(X, Y) == pytest.approx((0.7 + 0.7) / 2)
    assert M.soft_matching(X, Y) == pytest.approx(0.6)
    assert M.permutation_procrustes(X, 5 * Y) == pytest.approx(math.sqrt(2 + 50 - 2 * 6))


def test_soft_matching_splits_a_unit_by_hand() -> None:
    a = waves(2)
    # Two units against three: x0 = y0 = y1, x1 = y2. Columns carry 1/3, rows 1/2, so 1/6 of x0's column weight must go to x1.
    X, Y = a, np.stack([a[:, 0], a[:, 0], a[:, 1]], 1)
    assert M.soft_matching(X, Y) == pytest.approx(1 / 2 + 1 / 3)


def test_transport_by_copies_equals_the_linear_program(monkeypatch: pytest.MonkeyPatch) -> None:
    gain = np.random.default_rng(0).standard_normal((5, 8))
    by_copies = transport(gain)
    rows = np.kron(np.eye(5), np.ones(8))
    columns = np.kron(np.ones(5), np.eye(8))
    solved = linprog(-gain.ravel(), A_eq=np.vstack([rows, columns]), b_eq=[1 / 5] * 5 + [1 / 8] * 8)
    assert by_copies == pytest.approx(-solved.fun, abs=1e-12)
    monkeypatch.setattr("inscape.measures.transport._COPIES", 1)
    assert transport(gain) == pytest.approx(by_copies, abs=1e-9)


def test_units_that_never_change_are_left_out_and_counted() -> None:
    X = np.random.default_rng(1).standard_normal((50, 4))
    padded = np.column_stack([X, np.full(50, 7.0), np.zeros(50)])
    for name in ("neuron_match", "neuron_match_soft", "soft_matching", "one_to_many_lasso"):
        with pytest.warns(InscapeWarning, match=f"{name}: 2 units that never change are left out"):
            value = M.get(name)(X, padded)
        assert value == pytest.approx(M.get(name)(X, X), abs=1e-9)


@pytest.mark.parametrize("penalty", [0.3, 0.1, 0.01])
def test_lasso_equals_scikit_learn(penalty: float) -> None:
    rng = np.random.default_rng(2)
    X = rng.standard_normal((150, 12)) @ rng.standard_normal((12, 20)) + 3
    Y = np.maximum(X[:, :9] + X[:, 9:18], 0) + rng.standard_normal((150, 9))
    Z, T = ((data - data.mean(0)) / data.std(0) for data in (X, Y))
    fit = Lasso(alpha=penalty, fit_intercept=False, tol=1e-13, max_iter=10**6).fit(Z, T)
    expected = 1 - ((T - fit.predict(Z)) ** 2).mean()
    assert M.one_to_many_lasso(X, Y, penalty=penalty) == pytest.approx(expected, abs=1e-8)


def test_stitching_is_least_squares_held_out() -> None:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((90, 7)) + 1
    Y = X @ rng.standard_normal((7, 5)) + rng.standard_normal((90, 5))
    fold = deal(np.arange(90), 5)
    error = square = 0.0
    for f in range(5):
        train = fold != f
        error += ((Y[~train] - LinearRegression().fit(X[train], Y[train]).predict(X[~train])) ** 2).sum()
        square += ((Y[~train] - Y[train].mean(0)) ** 2).sum()
    assert M.stitch_direct(X, Y) == pytest.approx(1 - error / square, abs=1e-10)


def test_penalties_that_are_none_are_refused() -> None:
    X = np.random.default_rng(4).standard_normal((30, 3))
    with pytest.raises(DegenerateInputError, match=r"one_to_many_lasso.*penalty=0.0 must be positive"):
        M.one_to_many_lasso(X, X, penalty=0.0)


def test_transport_plans_that_would_take_minutes_are_refused() -> None:
    with pytest.raises(MemoryBudgetError, match="between 2,003 and 1,999 units holds 4,003,997 numbers"):
        transport(np.zeros((2003, 1999)))
