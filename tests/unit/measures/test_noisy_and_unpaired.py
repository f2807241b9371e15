"""Distances of noisy representations, and comparisons that pair nothing."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.errors import DegenerateInputError, StoreMismatchError, TooFewStimuliError
from inscape.summaries.repeats import Repeats

M = ix.measures
REFERENCE = Path(__file__).parents[2] / "reference"
_spec = importlib.util.spec_from_file_location("compare_inputs", REFERENCE / "compare_inputs.py")
assert _spec is not None and _spec.loader is not None
inputs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inputs)
PEERS = {key: row["value"] for key, row in json.loads((REFERENCE / "compare.json").read_text())["values"].items()}


def of_moments(means: np.ndarray, covariances: np.ndarray) -> Repeats:
    made = Repeats(torch.zeros(len(means), 2, means.shape[1], dtype=torch.float64))
    vars(made)["means"], vars(made)["covariances"] = torch.from_numpy(means), torch.from_numpy(covariances)
    return made


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
def test_gaussian_distance_equals_the_peer_where_its_weights_are_the_paper_s(alpha: float) -> None:
    _, _, x, y = inputs.stochastic()
    value = M.stochastic_shape.evaluate(x=of_moments(*x), y=of_moments(*y))
    assert value >= 0
    given = M.stochastic_shape.with_options(alpha=alpha, center=False, restarts=8)
    assert given.evaluate(x=of_moments(*x), y=of_moments(*y)) == pytest.approx(PEERS[f"netrep/gaussian_stochastic/alpha={alpha}"], abs=2e-6)


@pytest.mark.parametrize("alpha", [0.5, 1.5])
def test_gaussian_distance_is_below_the_peer_s_between_them(alpha: float) -> None:
    """The peer weighs before it squares, so it minimizes something else and its value of the distance is larger."""
    _, _, x, y = inputs.stochastic()
    given = M.stochastic_shape.with_options(alpha=alpha, center=False, restarts=8)
    value = given.evaluate(x=of_moments(*x), y=of_moments(*y))
    assert 0 < PEERS[f"netrep/gaussian_stochastic/alpha={alpha}"] - value < 0.02


def test_energy_distance_equals_the_peer() -> None:
    A, B, *_ = inputs.stochastic()
    assert M.stochastic_shape_energy(A, B, center=False) == pytest.approx(PEERS["netrep/energy_stochastic"], abs=1e-6)


def test_one_unit_by_hand() -> None:
    # Means 1, −1 and noise of variance 2 against means 3, −3 without noise: |1 − 3|² + √2² = 6, for α = 1.
    X = np.array([[[2.0], [0.0]], [[0.0], [-2.0]], [[1.0], [-1.0]]])
    Y = np.array([[[3.0], [3.0]], [[-3.0], [-3.0]], [[0.0], [0.0]]])
    expected = (4 + 4 + 0) / 3 + 2
    assert M.stochastic_shape(X, Y) == pytest.approx(math.sqrt(expected))
    assert M.stochastic_shape(X, Y, alpha=2.0) == pytest.approx(math.sqrt(2 * 8 / 3))
    assert M.stochastic_shape(X, Y, alpha=0.0) == pytest.approx(math.sqrt(2 * 2))
    # Distances of x to y: (1, 3), (3, 1), (1, 1); within x 2 each, within y 0.
    assert M.stochastic_shape_energy(X, Y) == pytest.approx(math.sqrt((2 + 2 + 1) / 3 - 1))


def test_order_of_stimuli_and_a_wider_side_change_nothing() -> None:
    A, B, *_ = inputs.stochastic()
    order = np.random.default_rng(0).permutation(len(A))
    wide = np.concatenate([B, np.zeros((*B.shape[:2], 3))], 2)
    for name in ("stochastic_shape", "stochastic_shape_energy"):
        value = M.get(name)(A, B)
        assert M.get(name)(A[order], B[order]) == pytest.approx(value, abs=1e-6)
        assert M.get(name)(A, wide) == pytest.approx(value, abs=1e-6)


def test_stores_with_repeats_are_compared_by_stimulus() -> None:
    A, B, *_ = inputs.stochastic()
    m, r, d = A.shape
    ids = np.repeat([f"s{i}" for i in range(m)], r)
    first = ix.Store.from_arrays({"v1": A.reshape(-1, d)}, {"stimulus": list(ids)}, system="a")
    moved = np.random.default_rng(1).permutation(m * r)
    second = ix.Store.from_arrays({"it": B.reshape(-1, d)[moved]}, {"stimulus": list(ids[moved])}, system="b")
    row = ix.compare(first, second, "stochastic_shape", null="permute", draws=19, interval=4).rows()[0]
    assert row["value"] == pytest.approx(M.stochastic_shape(A, B), abs=1e-6)
    assert row["n"] == m and row["p"] == pytest.approx(1 / 20) and row["low"] < row["value"] < row["high"]


def test_what_is_no_repeat_is_refused() -> None:
    A, B, *_ = inputs.stochastic()
    with pytest.raises(DegenerateInputError, match=r"stochastic_shape: repeats have shape \(8, 5\); expected \[m, r, d\]"):
        M.stochastic_shape(A[:, 0], B[:, 0])
    with pytest.raises(TooFewStimuliError, match=r"\(8, 1, 5\) show every stimulus once"):
        M.stochastic_shape(A[:, :1], B)
    with pytest.raises(StoreMismatchError, match="X has 8 stimuli and Y 5"):
        M.stochastic_shape(A, B[:5])
    with pytest.raises(DegenerateInputError, match="alpha=3 is outside 0 to 2"):
        M.stochastic_shape(A, B, alpha=3)


# -- nothing is paired ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", ["magnitude", "concentricity", "uniformity"])
def test_statistics_equal_the_peer(statistic: str) -> None:
    value = M.statistics_difference(*inputs.pair(), statistic=statistic)
    assert value == pytest.approx(PEERS[f"resi/{statistic}_difference/pair"], abs=1e-8)


def test_nearest_cosines_by_full_matrix() -> None:
    rng = np.random.default_rng(2)
    X, Y = rng.standard_normal((30, 6)) + 0.5, rng.standard_normal((17, 6))
    C = (X / np.linalg.norm(X, axis=1, keepdims=True)) @ (Y / np.linalg.norm(Y, axis=1, keepdims=True)).T
    assert M.ima_score(X, Y) == pytest.approx((C.max(1).mean() + C.max(0).mean()) / 2, abs=1e-12)
    with pytest.raises(StoreMismatchError, match="ima_score: X has 6 units .* both must live in one space"):
        M.ima_score(X, Y[:, :4])


def test_relative_rows_by_full_matrix() -> None:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((40, 6)) + 2
    Y = X @ rng.standard_normal((6, 9)) + 0.5 * rng.standard_normal((40, 9))
    order = np.random.default_rng(5).permutation(40)
    fixed, others = order[:16], order[16:]

    def relative(Z: np.ndarray) -> np.ndarray:
        Z = Z - Z[fixed].mean(0)
        U = Z / np.linalg.norm(Z, axis=1, keepdims=True)
        return U[others] @ U[fixed].T

    A, B = relative(X), relative(Y)
    expected = np.mean((A * B).sum(1) / np.linalg.norm(A, axis=1) / np.linalg.norm(B, axis=1))
    assert M.relative_similarity(X, Y, seed=5) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(TooFewStimuliError, match="anchors=50 of 40 rows"):
        M.relative_similarity(X, Y, anchors=50)


def test_systems_that_saw_different_stimuli_are_compared_with_intervals_and_without_a_null() -> None:
    rng = np.random.default_rng(4)
    a = ix.Store.from_arrays({"text": rng.standard_normal((40, 6))}, {"stimulus": [f"t{i}" for i in range(40)]}, system="m")
    b = ix.Store.from_arrays({"image": rng.standard_normal((25, 6))}, {"stimulus": [f"i{i}" for i in range(25)]}, system="m")
    result = ix.compare(a, b, ["ima_score", "statistics_difference"], interval=8)
    for row in result.rows():
        assert row["low"] <= row["value"] <= row["high"] and row["n"] == 25
    with pytest.raises(ValueError, match="ima_score pairs none"):
        ix.compare(a, b, "ima_score", null="permute")
    with pytest.raises(StoreMismatchError):
        ix.compare(a, b, ["ima_score", "linear_cka"])
