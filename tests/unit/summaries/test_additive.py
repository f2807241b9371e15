"""Class, fold, direction, extreme and sample summaries against direct computation."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from inscape.errors import DegenerateInputError, StoreMismatchError, TooFewStimuliError
from inscape.summaries.classes import ClassMoments
from inscape.summaries.directions import Directions
from inscape.summaries.extremes import Extremes
from inscape.summaries.folds import FoldMoments
from inscape.summaries.sample import Sample, row_keys, sample_rows

rng = np.random.default_rng(0)
X = rng.standard_normal((50, 4)) + 2
LABELS = rng.integers(0, 3, 50)


def test_class_moments_split_the_total_scatter() -> None:
    classes = ClassMoments.of(X, LABELS, scatter=True)
    assert classes.labels.tolist() == [0, 1, 2] and classes.n == 50 and classes.d == 4
    for c in range(3):
        rows = X[LABELS == c]
        np.testing.assert_allclose(classes.means[c], rows.mean(0), atol=1e-12)
        assert float(classes.counts[c]) == len(rows)
        assert float(classes.within_trace[c]) == pytest.approx(((rows - rows.mean(0)) ** 2).sum())
    np.testing.assert_allclose(classes.total_scatter, 50 * np.cov(X.T, ddof=0), atol=1e-10)
    assert float(classes.between_scatter.trace()) == pytest.approx(classes.between_trace)
    assert classes.total_trace == pytest.approx(50 * X.var(0).sum())


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.5, 2.0])
def test_class_spread_gives_the_reference_variability(sigma: float, measure_inputs: ModuleType, reference: Callable[[str], Any]) -> None:
    rows, y, _ = measure_inputs.etf_classes(sigma=sigma)
    want = reference("measure")["results"]["nc"][f"etf_C10_D64_sigma{sigma}"]
    parts = [ClassMoments.of(rows[i::3], y[i::3]) for i in range(3)]
    classes = parts[0].merge(parts[1]).merge(parts[2])
    spread, means = classes.within_trace / classes.counts, classes.means
    apart = (means.unsqueeze(1) - means).square().sum(2)
    i, j = np.triu_indices(10, 1)
    cdnv = float(((spread[i] + spread[j]) / (2 * apart[i, j])).mean())
    ratio = float(classes.within_trace.sum()) / classes.between_trace
    assert cdnv == pytest.approx(want["cdnv_mean"]["value"], rel=1e-8, abs=1e-20)
    assert ratio == pytest.approx(want["nc1_trSW_over_trSB"]["value"], rel=1e-8, abs=1e-20)


def test_a_class_can_leave() -> None:
    classes = ClassMoments.of(X, LABELS, scatter=True)
    left = classes.minus(ClassMoments.of(X[LABELS == 1], LABELS[LABELS == 1], scatter=True))
    assert left.labels.tolist() == [0, 2]
    np.testing.assert_allclose(
        left.within_scatter, ClassMoments.of(X[LABELS != 1], LABELS[LABELS != 1], scatter=True).within_scatter, atol=1e-10
    )


def test_class_moments_say_what_is_wrong() -> None:
    with pytest.raises(DegenerateInputError, match=r"labels have shape \(3,\); expected \[50\]"):
        ClassMoments.of(X, [1, 2, 3])
    with pytest.raises(DegenerateInputError, match="1 of 50 labels are NaN"):
        ClassMoments.of(X, [np.nan] + [1.0] * 49)
    with pytest.raises(DegenerateInputError, match="build the summary with scatter=True"):
        ClassMoments.of(X, LABELS).within_scatter
    with pytest.raises(StoreMismatchError, match="build both alike"):
        ClassMoments.of(X, LABELS).merge(ClassMoments.of(X, LABELS, scatter=True))
    with pytest.raises(StoreMismatchError, match="more rows of class"):
        ClassMoments.of(X[:5], LABELS[:5]).minus(ClassMoments.of(X, LABELS))
    with pytest.raises(DegenerateInputError, match="hold no rows yet"):
        ClassMoments().means


def test_fold_moments_leave_one_fold_out() -> None:
    names = np.array(["a", "b", "c"])[np.arange(50) % 3]
    folds = FoldMoments.of(X, names)
    assert folds.folds == ["a", "b", "c"] and folds.n == 50 and folds.d == 4
    np.testing.assert_allclose(folds.train("b").covariance(1), np.cov(X[names != "b"].T), atol=1e-12)
    np.testing.assert_allclose(folds.held_out("b").covariance(1), np.cov(X[names == "b"].T), atol=1e-12)
    np.testing.assert_allclose(folds.total.covariance(1), np.cov(X.T), atol=1e-12)
    weights = rng.integers(0, 3, 50)
    weighted = FoldMoments.of(X, names, weights=weights).train("a")
    np.testing.assert_allclose(weighted.covariance(), np.cov(X[names != "a"].T, ddof=0, fweights=weights[names != "a"]), atol=1e-12)
    with pytest.raises(DegenerateInputError, match="there is no fold 'd'"):
        folds.train("d")
    with pytest.raises(DegenerateInputError, match=r"folds have shape \(2,\); expected \[50\]"):
        FoldMoments.of(X, ["a", "b"])
    with pytest.raises(StoreMismatchError, match="fold 'z' of the part is not in the whole"):
        folds.minus(FoldMoments.of(X[:2], ["z", "z"]))


def test_mean_cosine_is_that_of_all_pairs() -> None:
    cosine = cosine_similarity(X)
    assert Directions.of(X).mean_cosine == pytest.approx((cosine.sum() - 50) / (50 * 49), abs=1e-12)
    with_zero = Directions.of(np.r_[X, np.zeros((2, 4))])
    assert (with_zero.n, with_zero.zero_rows) == (50, 2)
    assert with_zero.mean_cosine == pytest.approx(Directions.of(X).mean_cosine)
    with pytest.raises(TooFewStimuliError, match=r"two rows that are not zero, got 1 \(1 are zero\)"):
        Directions.of(np.array([[1.0, 0], [0, 0]])).mean_cosine


def test_extremes_name_the_largest_entry_and_count_what_is_not_finite() -> None:
    rows = X.copy()
    rows[17, 2], rows[30, 2], rows[3, 1], rows[4, 0] = -90, 90, np.nan, -np.inf
    for whole in (Extremes.of(rows), Extremes.of(rows[20:], first_row=20).merge(Extremes.of(rows[:20]))):
        assert (whole.n, whole.d, whole.nan, whole.infinite) == (50, 4, 1, 1)
        assert (whole.largest, whole.row, whole.unit) == (90, 17, 2)
        finite = np.where(np.isfinite(rows), np.abs(rows), 0)
        np.testing.assert_array_equal(whole.unit_largest, finite.max(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_quantiles_are_within_their_bound(dtype: torch.dtype) -> None:
    rows = torch.as_tensor(np.exp(3 * rng.standard_normal((400, 20))), dtype=dtype)
    extremes = Extremes.of(rows[:150]).merge(Extremes.of(rows[150:], first_row=150))
    for q in (0.0, 0.01, 0.5, 0.9, 0.999, 1.0):
        true = float(np.quantile(rows.double().numpy(), q, method="inverted_cdf" if q == 0 else "higher"))
        assert extremes.quantile(q) == pytest.approx(true, rel=0.017)
    assert Extremes.of(np.zeros((3, 2))).quantile(0.5) == 0
    assert Extremes.of(np.full((3, 2), 1e300)).largest == 1e300
    with pytest.raises(DegenerateInputError, match="got q = 2 and 8000 finite entries"):
        extremes.quantile(2)


def test_sample_is_the_same_at_every_site_and_order() -> None:
    ids = np.repeat([f"s{i}" for i in range(25)], 2)
    position = np.tile([0, 1], 25)
    a = Sample.of(X, ids, position, m=10)
    order = rng.permutation(50)
    b = Sample.of(2 * X[order], ids[order], position[order], m=10)
    assert (a.n, a.d, a.seen) == (10, 4, 50)
    assert a.ids.tolist() == b.ids.tolist() and a.position.tolist() == b.position.tolist()
    torch.testing.assert_close(b.rows, 2 * a.rows)
    chosen = sample_rows(ids, position, m=10)
    assert sorted(chosen.tolist()) == chosen.tolist()
    assert {(ids[i], position[i]) for i in chosen} == set(zip(a.ids.tolist(), a.position.tolist(), strict=True))
    assert sample_rows(ids, position, m=10, seed=1).tolist() != chosen.tolist()
    assert len(sample_rows(ids, position, m=99)) == 50


def test_keys_do_not_depend_on_the_platform() -> None:
    # Fixed once with blake2b and splitmix64: a change would silently change every sample.
    assert row_keys(["cat", 7], [0, 3], [0, 1], seed=0).tolist() == KEYS
    assert row_keys(np.array([7]), [3], [1]).tolist() == KEYS[1:]
    keys = row_keys(np.arange(4000), np.arange(4000) % 7)
    assert len(np.unique(keys)) == 4000
    assert abs(keys.astype(float).mean() / 2**64 - 0.5) < 4 / (12 * 4000) ** 0.5


KEYS = [6745916782162419060, 11244843011395284067]


def test_sample_says_what_is_wrong() -> None:
    with pytest.raises(DegenerateInputError, match="m ≥ 1 rows, got m = 0"):
        Sample.of(X, LABELS, m=0)
    with pytest.raises(DegenerateInputError, match="m ≥ 1 rows, got m = 0"):
        sample_rows(["a"], m=0)
    with pytest.raises(DegenerateInputError, match=r"ids have shape \(1,\); expected \[50\]"):
        Sample.of(X, ["a"], m=3)
    with pytest.raises(StoreMismatchError, match="follow different rules"):
        Sample.of(X, np.arange(50), m=3).merge(Sample.of(X, np.arange(50), m=3, seed=1))
