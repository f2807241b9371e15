"""Laws that every additive summary keeps: parts make the whole in any order, and subtraction undoes merging."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch

from inscape.summaries.classes import ClassMoments
from inscape.summaries.cross import CrossMoments
from inscape.summaries.directions import Directions
from inscape.summaries.extremes import Extremes
from inscape.summaries.folds import FoldMoments
from inscape.summaries.gram import Gram
from inscape.summaries.moments import Moments
from inscape.summaries.neighbors import Neighbors
from inscape.summaries.products import GramProducts
from inscape.summaries.rdm import RDM
from inscape.summaries.sample import Sample

N, D = 90, 7
rng = np.random.default_rng(5)
X = rng.standard_normal((N, D)) * np.linspace(3, 0.3, D) + np.linspace(-2, 5, D)
Y = np.tanh(X[:, :5] @ rng.standard_normal((5, 4))) + 0.2 * rng.standard_normal((N, 4))
LABELS = np.array(["cat", "dog", "owl"])[rng.integers(0, 3, N)]
FOLDS = np.arange(N) % 4
IDS = np.array([f"stimulus {i}" for i in range(N)])

Build = Callable[[Any, slice | np.ndarray], Any]
Read = Callable[[Any], dict[str, Any]]


def read_moments(m: Moments) -> dict[str, Any]:
    centered = m.centered
    return {
        "n": m.n,
        "mean": m.mean,
        "scatter": m.scatter,
        "trace": m.trace,
        "frobenius2": m.frobenius2,
        "fourth": m.fourth,
        "third": centered.third,
        "eigenvalues": m.eigenvalues,
    }


def read_products(p: GramProducts) -> dict[str, Any]:
    return vars(p)


def read_cross(c: CrossMoments) -> dict[str, Any]:
    return {"cross": c.cross, **read_products(c.products())}


def read_classes(c: ClassMoments) -> dict[str, Any]:
    return {
        "labels": list(c.labels),
        "counts": c.counts,
        "means": c.means,
        "within": c.within_trace,
        "between": c.between_trace,
        "scatter": c.within_scatter,
    }


def read_folds(f: FoldMoments) -> dict[str, Any]:
    return {f"{fold}.{name}": value for fold in sorted(f.folds) for name, value in read_moments(f.train(fold)).items()}


def read_directions(u: Directions) -> dict[str, Any]:
    return {"n": u.n, "sum": u.sum, "mean_cosine": u.mean_cosine}


def read_extremes(e: Extremes) -> dict[str, Any]:
    return {
        "largest": e.largest,
        "row": e.row,
        "unit": e.unit,
        "histogram": e.histogram,
        "units": e.unit_largest,
        "median": e.quantile(0.5),
    }


def read_sample(s: Sample) -> dict[str, Any]:
    return {"ids": list(s.ids), "rows": s.rows, "seen": s.seen}


def partner(x: Any) -> Any:
    """Y with the offset of x, as fp32 numbers where x is a tensor (in the dtype of x)."""
    offset = round(float(x[0, 0] - X[0, 0]))
    return torch.as_tensor(Y + offset).float().to(x.dtype) if isinstance(x, torch.Tensor) else Y + offset


def first(rows: slice | np.ndarray) -> int:
    return rows.start or 0 if isinstance(rows, slice) else 0


CASES: dict[str, tuple[Build, Read]] = {
    "Moments": (lambda x, r: Moments().update(x[r]), read_moments),
    "CrossMoments": (lambda x, r: CrossMoments().update(x[r], partner(x)[r]), read_cross),
    "ClassMoments": (lambda x, r: ClassMoments.of(x[r], LABELS[r], scatter=True), read_classes),
    "FoldMoments": (lambda x, r: FoldMoments.of(x[r], FOLDS[r]), read_folds),
    "Directions": (lambda x, r: Directions.of(x[r]), read_directions),
    "Extremes": (lambda x, r: Extremes.of(x[r], first_row=first(r)), read_extremes),
    "Sample": (lambda x, r: Sample.of(x[r], IDS[r], m=11), read_sample),
}
SUBTRACT = [name for name in CASES if name not in ("Extremes", "Sample")]
PARTS = [slice(0, 31), slice(31, 33), slice(33, 70), slice(70, N)]


def assert_equal(a: dict[str, Any], b: dict[str, Any], tol: float) -> None:
    assert a.keys() == b.keys()
    for name in a:
        if isinstance(a[name], list):
            assert a[name] == b[name], name
            continue
        left, right = (torch.as_tensor(v[name], dtype=torch.float64) for v in (a, b))
        assert left.shape == right.shape, name
        scale = max(1.0, float(right.abs().max()))
        assert float((left - right).abs().max()) <= tol * scale, (name, float((left - right).abs().max()), scale)


@pytest.mark.parametrize("name", CASES)
def test_parts_make_the_whole_in_any_order(name: str) -> None:
    build, read = CASES[name]
    whole = read(build(X, slice(0, N)))
    parts = [build(X, part) for part in PARTS]
    assert_equal(read(reduce(lambda a, b: a.merge(b), parts)), whole, 1e-10)
    assert_equal(read(reduce(lambda a, b: a.merge(b), parts[::-1])), whole, 1e-10)
    assert_equal(read(parts[0].merge(parts[1]).merge(parts[2].merge(parts[3]))), whole, 1e-10)


@pytest.mark.parametrize("name", CASES)
def test_merging_changes_neither_part(name: str) -> None:
    build, read = CASES[name]
    a, b = build(X, slice(0, 60)), build(X, slice(60, N))
    before = read(a), read(b)
    a.merge(b)
    assert_equal(read(a), before[0], 0)
    assert_equal(read(b), before[1], 0)


@pytest.mark.parametrize("name", SUBTRACT)
def test_minus_undoes_merge(name: str) -> None:
    build, read = CASES[name]
    whole = build(X, slice(0, N))
    assert_equal(read(whole.minus(build(X, slice(60, N)))), read(build(X, slice(0, 60))), 1e-10)


@pytest.mark.parametrize("name", ["Moments", "CrossMoments", "ClassMoments", "FoldMoments"])
def test_offset_of_ten_thousand_changes_no_shift_invariant_value(name: str) -> None:
    build, read = CASES[name]
    drop = ("mean", "means")
    near = {k: v for k, v in read(build(X, slice(0, N))).items() if k.split(".")[-1] not in drop}
    parts = [build(X + 1e4, part) for part in PARTS]
    far = {k: v for k, v in read(reduce(lambda a, b: a.merge(b), parts)).items() if k.split(".")[-1] not in drop}
    assert_equal(far, near, 1e-9)
    rest = {k: v for k, v in read(build(X + 1e4, slice(0, N)).minus(parts[3])).items() if k.split(".")[-1] not in drop}
    want = {k: v for k, v in read(build(X, slice(0, 70))).items() if k.split(".")[-1] not in drop}
    assert_equal(rest, want, 1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("name", ["Moments", "CrossMoments", "ClassMoments", "Directions"])
def test_narrow_rows_agree_with_fp64(name: str, offset: float) -> None:
    build, read = CASES[name]
    narrow = torch.as_tensor(X + offset, dtype=torch.float32)
    assert_equal(read(build(narrow, slice(0, N))), read(build(narrow.double(), slice(0, N))), 1e-5)


def test_weights_stand_for_repeated_rows() -> None:
    weights = np.random.default_rng(1).integers(0, 4, N)
    copies = np.repeat(np.arange(N), weights)
    assert_equal(read_moments(Moments.of(X, weights=weights)), read_moments(Moments.of(X[copies])), 1e-10)
    pair = CrossMoments.of(X, Y, weights=weights)
    assert_equal(read_cross(pair), read_cross(CrossMoments.of(X[copies], Y[copies])), 1e-10)


def test_weighted_directions_count_pairs_of_distinct_rows() -> None:
    weights = np.random.default_rng(2).integers(0, 4, N).astype(float)
    U = X / np.linalg.norm(X, axis=1, keepdims=True)
    pairs = np.outer(weights, weights)
    np.fill_diagonal(pairs, 0)
    assert Directions.of(X, weights=weights).mean_cosine == pytest.approx((pairs * (U @ U.T)).sum() / pairs.sum(), abs=1e-12)


def test_row_set_summaries_commute_with_reordering() -> None:
    order = np.random.default_rng(3).permutation(N)
    for metric in ("correlation", "cosine", "euclidean", "squared_euclidean"):
        assert torch.allclose(RDM.of(X, metric).take(order).values, RDM.of(X[order], metric).values, atol=1e-12)
    assert torch.allclose(Gram.of(X).take(order).values, Gram.of(X[order]).values, atol=1e-10)
    a, b = Neighbors.of(X, 5).relabel(order), Neighbors.of(X[order], 5)
    assert torch.equal(a.ids, b.ids) and torch.allclose(a.distances, b.distances, atol=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "squared_euclidean"])
def test_offset_changes_no_distance(metric: str) -> None:
    assert torch.allclose(RDM.of(X + 1e4, metric).values, RDM.of(X, metric).values, atol=1e-9)
    assert torch.allclose(Neighbors.of(X + 1e4, 5).distances, Neighbors.of(X, 5).distances, atol=1e-9)
    assert torch.allclose(Gram.of(X + 1e4).centered, Gram.of(X).centered, atol=1e-8)
