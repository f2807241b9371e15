"""Measures up to linear maps and rotations, against values worked out by hand or by NumPy on the rows."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import inscape as ix
from inscape.errors import DegenerateInputError, InscapeWarning

M = ix.measures


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 6)) + 2
    return X, np.tanh(X @ rng.standard_normal((6, 4))) + 0.5 * rng.standard_normal((300, 4))


def one_shared_direction() -> tuple[np.ndarray, np.ndarray]:
    """X = (a, 2 b), Y = (a, 3 c) with a, b, c orthogonal, centered and of equal norm: correlations 1 and 0."""
    n = 16
    t = np.arange(n)
    a, b, c = (math.sqrt(2 / n) * np.cos(2 * np.pi * k * t / n) for k in (1, 2, 3))
    return np.stack([a, 2 * b], 1), np.stack([a, 3 * c], 1)


def quiet(measure, *args, **options) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InscapeWarning)
        return measure(*args, **options)


def test_one_shared_direction_by_hand() -> None:
    X, Y = one_shared_direction()
    assert quiet(M.cca_mean, X, Y) == pytest.approx(1 / 2)
    assert quiet(M.cca_r2, X, Y) == pytest.approx(1 / 2)
    assert quiet(M.svcca, X, Y) == pytest.approx(1 / 2)
    assert quiet(M.pwcca, X, Y) == pytest.approx(1 / 3)  # the variates carry 1 and 2 of X
    assert quiet(M.pwcca_sim_metric, X, Y) == pytest.approx(1 / 3)
    assert quiet(M.linear_r2, X, Y) == pytest.approx(1 / 10)  # a is 1 of the 1 + 9 of Y
    assert quiet(M.redundancy, Y, X) == pytest.approx(1 / 5)
    assert M.procrustes_distance(X, Y) == pytest.approx(math.sqrt(5 + 10 - 2))  # the nuclear norm is 1
    assert M.procrustes_normalized(X, Y) == pytest.approx(2 - 2 / math.sqrt(50))
    assert M.procrustes(X, Y) == pytest.approx(math.acos(1 / math.sqrt(50)))
    assert M.shape_alpha(X, Y, alpha=0.0) == pytest.approx(math.acos(1 / 2))
    assert M.gulp(X, Y, penalty=0.0) == pytest.approx(4 - 2)
    # With penalty λ every direction of variance share μ counts μ / (μ + λ); a has 1/5 of X and 1/10 of Y.
    parts = [mu / (mu + 1) for mu in (1 / 5, 4 / 5, 1 / 10, 9 / 10)]
    shared = (1 / math.sqrt(50)) ** 2 / ((1 / 5 + 1) * (1 / 10 + 1))
    assert M.gulp(X, Y, penalty=1.0) == pytest.approx(sum(part**2 for part in parts) - 2 * shared)


def test_partial_whitening_by_hand() -> None:
    X, Y = one_shared_direction()
    # Covariance eigenvalues (1, 4) and (1, 9) over their means 2.5 and 5; α = 1/2 raises each to the power −1/4.
    zx, zy = [(v / 2.5) ** -0.25 for v in (1, 4)], [(v / 5) ** -0.25 for v in (1, 9)]
    size_x, size_y = zx[0] ** 2 + 4 * zx[1] ** 2, zy[0] ** 2 + 9 * zy[1] ** 2
    assert M.shape_alpha(X, Y) == pytest.approx(math.acos(zx[0] * zy[0] / math.sqrt(size_x * size_y)))
    wx, wy = [(1 + 1 / math.sqrt(v)) / 2 for v in (1, 4)], [(1 + 1 / math.sqrt(v)) / 2 for v in (1, 9)]
    size_x, size_y = wx[0] ** 2 + 4 * wx[1] ** 2, wy[0] ** 2 + 9 * wy[1] ** 2
    assert M.shape_alpha_netrep(X, Y) == pytest.approx(math.acos(wx[0] * wy[0] / math.sqrt(size_x * size_y)))


def test_the_power_family_forgets_scale_and_count_where_the_mix_does_not(pair) -> None:
    X, Y = pair
    again = np.concatenate([X, X]), np.concatenate([Y, Y])
    assert M.shape_alpha(100 * X, Y) == pytest.approx(M.shape_alpha(X, Y), abs=1e-10)
    assert M.shape_alpha(*again) == pytest.approx(M.shape_alpha(X, Y), abs=1e-10)
    assert abs(M.shape_alpha_netrep(0.01 * X, Y) - M.shape_alpha_netrep(X, Y)) > 1e-3
    assert abs(M.shape_alpha_netrep(*again) - M.shape_alpha_netrep(X, Y)) > 1e-5


def test_linear_r2_is_least_squares(pair) -> None:
    X, Y = pair
    A = np.column_stack([np.ones(len(X)), X])
    residual = Y - A @ np.linalg.lstsq(A, Y, rcond=None)[0]
    assert M.linear_r2(X, Y) == pytest.approx(1 - (residual**2).sum() / ((Y - Y.mean(0)) ** 2).sum(), abs=1e-12)
    assert M.redundancy(X, Y) == pytest.approx(M.linear_r2(X, Y), abs=1e-12)


def test_ill_conditioned_rows_are_factored(pair) -> None:
    X, Y = pair
    squeezed = X * np.array([1, 1, 1, 1, 1, 1e-5])
    for name in ("cca_mean", "cca_r2", "linear_r2", "redundancy"):
        assert M.get(name)(squeezed, Y) == pytest.approx(M.get(name)(X, Y), abs=1e-9)


def test_ranks_at_which_everything_fits_are_refused() -> None:
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal((20, 30)), rng.standard_normal((20, 3))
    with pytest.raises(DegenerateInputError, match=r"^svcca\(variance=1.0\): .*n - 1"):
        M.svcca(X, Y, variance=1.0)
    for name in ("cca_mean", "cca_r2", "pwcca", "pwcca_sim_metric", "redundancy", "linear_r2"):
        with pytest.raises(DegenerateInputError, match=rf"^{name}: .*n - 1"):
            M.get(name)(X, Y)
    assert 0 < quiet(M.linear_r2, Y, X) < 1, "a wide target is no problem"


def test_few_rows_are_said() -> None:
    rng = np.random.default_rng(2)
    X, Y = rng.standard_normal((40, 6)), rng.standard_normal((40, 5))
    for name in ("cca_mean", "cca_r2", "svcca", "pwcca", "redundancy"):
        with pytest.warns(InscapeWarning, match=rf"{name}: 40 rows .* fewer than 5 \(p \+ q\) = 55"):
            M.get(name)(X, Y)


@pytest.mark.parametrize(
    "name,option", [("svcca", {"variance": 1.5}), ("shape_alpha", {"alpha": 2.0}), ("gulp", {"penalty": -1.0})], ids=lambda x: str(x)
)
def test_options_outside_their_range_are_refused(pair, name, option) -> None:
    with pytest.raises(DegenerateInputError, match=f"{name}.*{next(iter(option))}="):
        M.get(name)(*pair, **option)
