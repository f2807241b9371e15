"""`ix.rdm` against rsatoolbox's values, SciPy and sums over folds written out."""

from __future__ import annotations

import importlib.util
import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import pdist

import inscape as ix
from inscape.errors import DegenerateInputError, StoreMismatchError, TooFewStimuliError
from inscape.rsa.noise import of_residuals, residual_rows

REFERENCE = Path(__file__).parents[2] / "reference"
_spec = importlib.util.spec_from_file_location("compare_inputs", REFERENCE / "compare_inputs.py")
assert _spec is not None and _spec.loader is not None
inputs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inputs)
PEERS: dict[str, Any] = {k: v["value"] for k, v in json.loads((REFERENCE / "compare.json").read_text())["values"].items()}
G, COUNTS, CONDITION, RUN, PRECISION = inputs.runs()
COVARIANCE = np.linalg.inv(PRECISION)


def shown(rdms: Any) -> np.ndarray:
    values = rdms.values[0]
    return np.array([values.mean(), values.std(), *values[:4]])


@pytest.mark.parametrize(
    "key,data,distance,options",
    [
        ("euclidean/pair.X", inputs.pair()[0], "squared_euclidean", {}),
        ("correlation/pair.X", inputs.pair()[0], "correlation", {}),
        ("mahalanobis/runs", G, "mahalanobis", {"by": CONDITION, "noise": COVARIANCE}),
        ("crossnobis/runs", G, "crossnobis", {"by": CONDITION, "folds": RUN, "noise": COVARIANCE}),
        ("crossnobis_eye/runs", G, "crossnobis", {"by": CONDITION, "folds": RUN}),
        ("poisson/runs", COUNTS, "poisson", {"by": CONDITION}),
    ],
)
def test_distances_equal_rsatoolbox(key: str, data: np.ndarray, distance: str, options: dict[str, Any]) -> None:
    ours = shown(ix.rdm(data, distance, **options))
    assert ours == pytest.approx(np.array(PEERS[f"rsatoolbox/rdm/{key}"]), rel=1e-8, abs=1e-8)


def test_euclidean_and_cosine_equal_scipy() -> None:
    X = inputs.pair()[0]
    for name in ("euclidean", "cosine"):
        assert ix.rdm(X, name).values[0] == pytest.approx(pdist(X, name), abs=1e-12)


def by_hand(rows: np.ndarray, condition: np.ndarray, run: np.ndarray, a: int, b: int, precision: np.ndarray) -> float:
    """Mean over ordered pairs of runs that have both conditions, written out."""
    deltas = {}
    for r in np.unique(run):
        first, second = rows[(run == r) & (condition == a)], rows[(run == r) & (condition == b)]
        if len(first) and len(second):
            deltas[r] = first.mean(0) - second.mean(0)
    return float(np.mean([deltas[r] @ precision @ deltas[s] for r, s in permutations(deltas, 2)])) / rows.shape[1]


def test_unbalanced_crossnobis_is_the_mean_over_the_runs_that_have_both() -> None:
    kept = np.random.default_rng(0).random(len(G)) > 0.2
    rows, condition, run = G[kept], CONDITION[kept], RUN[kept]
    ours = ix.rdm(rows, "crossnobis", by=condition, folds=run, noise=COVARIANCE)
    square, ids = ours.square()[0], [int(one) for one in ours.ids]
    for i, j in ((0, 1), (2, 7), (4, 9)):
        assert square[i, j] == pytest.approx(by_hand(rows, condition, run, ids[i], ids[j], PRECISION), abs=1e-12)


def test_a_shift_of_a_run_changes_no_crossnobis_distance() -> None:
    shifted = G + 100.0 * np.random.default_rng(1).standard_normal((4, G.shape[1]))[RUN]
    for kept in (np.ones(len(G), dtype=bool), np.random.default_rng(0).random(len(G)) > 0.2):
        options = {"by": CONDITION[kept], "folds": RUN[kept]}
        before, after = (ix.rdm(rows[kept], "crossnobis", **options).values for rows in (G, shifted))
        assert after == pytest.approx(before, abs=1e-8, nan_ok=True)


def test_crossnobis_of_noise_alone_is_zero_on_average() -> None:
    rng = np.random.default_rng(2)
    condition, run = np.tile(np.arange(20), 8), np.repeat(np.arange(8), 20)
    values = ix.rdm(rng.standard_normal((160, 200)), "crossnobis", by=condition, folds=run).values[0]
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(20)
    assert (values < 0).any()


def test_one_covariance_for_each_run_uses_the_mean_of_two() -> None:
    rng = np.random.default_rng(3)
    spread = []
    for _ in range(4):
        A = rng.standard_normal((16, 20))
        spread.append(A @ A.T / 20 + 0.1 * np.eye(16))
    ours = ix.rdm(G, "crossnobis", by=CONDITION, folds=RUN, noise=spread).square()[0]
    expected = []
    for r, s in permutations(range(4), 2):
        delta = [G[(RUN == one) & (CONDITION == 2)][0] - G[(RUN == one) & (CONDITION == 5)][0] for one in (r, s)]
        expected.append(delta[0] @ np.linalg.inv((spread[r] + spread[s]) / 2) @ delta[1] / 16)
    assert ours[2, 5] == pytest.approx(np.mean(expected), abs=1e-10)
    with pytest.raises(DegenerateInputError, match="lists 3 covariances for 4 folds"):
        ix.rdm(G, "crossnobis", by=CONDITION, folds=RUN, noise=spread[:3])


@pytest.mark.parametrize("shape", [(30, 12), (30, 80)])
def test_residual_whitening_is_the_inverse_of_the_shrunk_covariance(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    R = rng.standard_normal(shape) * np.linspace(0.5, 2, shape[1]) + rng.standard_normal((shape[0], 1))
    R -= R.mean(0)
    dof = shape[0] - 1
    # Schäfer & Strimmer, with the full matrices that the product never makes.
    S = R.T @ R / dof
    sd = np.sqrt(np.diag(S))
    z = R / sd
    corr, products = z.T @ z / (shape[0] - 1), (z**2).T @ z**2 / (shape[0] - 1)
    off = ~np.eye(shape[1], dtype=bool)
    shrinkage = np.clip((shape[0] / dof**2 * (products - corr**2))[off].sum() / (corr[off] ** 2).sum(), 0, 1)
    shrunk = S * np.where(off, 1 - shrinkage, 1.0)
    rows = rng.standard_normal((5, shape[1]))
    white = of_residuals(R, dof)(rows)
    assert white @ white.T == pytest.approx(rows @ np.linalg.inv(shrunk) @ rows.T, rel=1e-9)


def test_residuals_leave_out_condition_and_run() -> None:
    left, dof = residual_rows(G, CONDITION, RUN, "residual")
    assert dof == 40 - 13
    for label in (CONDITION, RUN):
        for one in np.unique(label):
            assert np.abs(left[label == one].mean(0)).max() < 1e-12
    within, dof = residual_rows(G, CONDITION, RUN, "measurement")
    assert dof == 30 and np.abs(within[CONDITION == 3].mean(0)).max() < 1e-12
    twice, dof = residual_rows(np.concatenate([G, G + 1]), np.tile(CONDITION, 2), np.tile(RUN, 2), "residual")
    assert dof == 40 and np.abs(np.abs(twice) - 0.5).max() < 1e-12


def test_views_average_repeats_and_bring_their_columns() -> None:
    from inscape.store import Store

    rows = np.random.default_rng(5).standard_normal((12, 6))
    table = {"stimulus": ["a", "b", "c", "a", "b", "c", "a", "b", "c", "a", "b", "c"], "kind": ["x", "y", "y"] * 4}
    store = Store.from_arrays({"v1": rows, "it": 2 * rows[:, :4]}, stimuli=table)
    rdms = ix.rdm(store["v1"], "euclidean")
    assert rdms.ids == ["a", "b", "c"] and rdms.stimuli["kind"].tolist() == ["x", "y", "y"]
    assert rdms.values[0] == pytest.approx(pdist(rows.reshape(4, 3, 6).mean(0)))
    crossed = ix.rdm(store["v1"], "crossnobis")
    runs = {"by": np.tile(np.arange(3), 4), "folds": np.repeat(np.arange(4), 3)}
    assert crossed.values[0] == pytest.approx(ix.rdm(rows, "crossnobis", **runs).values[0])
    assert ix.rdm(store, "euclidean").names == ["v1", "it"]
    assert ix.rdm(store["v1"], "euclidean", by="kind").ids == ["x", "y"]


def test_subjects_may_have_different_units() -> None:
    rng = np.random.default_rng(6)
    rdms = ix.rdm({"ann": rng.standard_normal((9, 4)), "bob": rng.standard_normal((9, 7))})
    assert rdms.names == ["ann", "bob"] and rdms.n == 9
    with pytest.raises(StoreMismatchError, match="stimuli differ"):
        ix.rdm({"ann": rng.standard_normal((9, 4)), "bob": rng.standard_normal((8, 7))})


@pytest.mark.parametrize(
    "error,match,options",
    [
        (DegenerateInputError, "unknown distance 'euclid'", {"distance": "euclid"}),
        (ValueError, "noise is for", {"noise": "residual"}),
        (ValueError, "use distance='crossnobis'", {"folds": RUN}),
        (ValueError, "needs noise=", {"distance": "mahalanobis"}),
        (TooFewStimuliError, "needs folds=", {"distance": "crossnobis"}),
        (TooFewStimuliError, "at least 2 folds, got 1", {"distance": "crossnobis", "folds": np.zeros(40)}),
        (StoreMismatchError, "by has 3 entries for 40 rows", {"by": [1, 2, 3]}),
        (StoreMismatchError, "names a column", {"by": "kind"}),
        (TooFewStimuliError, "1 condition", {"by": np.zeros(40)}),
        (DegenerateInputError, "at least 0", {"distance": "poisson"}),
        (DegenerateInputError, "expected a covariance \\[16, 16\\]", {"distance": "mahalanobis", "noise": np.eye(3)}),
        (DegenerateInputError, "full rank", {"distance": "mahalanobis", "noise": np.zeros((16, 16))}),
        (DegenerateInputError, "none of", {"distance": "mahalanobis", "noise": "residuals"}),
        (DegenerateInputError, "degrees of freedom", {"distance": "mahalanobis", "noise": "measurement"}),
        (DegenerateInputError, "for 'crossnobis'", {"distance": "mahalanobis", "noise": [COVARIANCE]}),
    ],
)
def test_bad_requests_teach(error: type[Exception], match: str, options: dict[str, Any]) -> None:
    with pytest.raises(error, match=match):
        ix.rdm(G, **options)


def test_crossed_poisson_averages_all_folds() -> None:
    options = {"by": CONDITION, "folds": RUN}
    ours = ix.rdm(COUNTS, "poisson", **options).square()[0]
    rates = np.stack([COUNTS[RUN == r] for r in range(4)])
    expected = []
    for r in range(4):
        a, b = ((side + 0.1) / 1.1 for side in (np.delete(rates, r, 0).mean(0), rates[r]))
        expected.append(((a[2] - a[5]) * (np.log(b[2]) - np.log(b[5]))).mean())
    assert ours[2, 5] == pytest.approx(np.mean(expected), abs=1e-12)
    # rsatoolbox 0.3.2 returns its last fold alone.
    last = [PEERS["rsatoolbox/rdm/poisson_cv/runs"][2]]
    a, b = ((side + 0.1) / 1.1 for side in (rates[:3].mean(0), rates[3]))
    assert ((a[0] - a[1]) * (np.log(b[0]) - np.log(b[1]))).mean() == pytest.approx(last[0], abs=1e-8)
    with pytest.raises(TooFewStimuliError, match="missing in fold"):
        ix.rdm(COUNTS[1:], "poisson", by=CONDITION[1:], folds=RUN[1:])
