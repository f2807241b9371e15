"""Dissimilarities, kernels and neighbors against SciPy, scikit-learn and rsatoolbox."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.stats import rankdata
from sklearn.neighbors import NearestNeighbors

from inscape.errors import DegenerateInputError, TooFewStimuliError
from inscape.summaries.gram import Gram
from inscape.summaries.neighbors import Neighbors
from inscape.summaries.rdm import RDM, mid_ranks

rng = np.random.default_rng(0)
X = rng.standard_normal((60, 8)) + 1


@pytest.mark.parametrize(
    ("metric", "other", "scale"),
    [
        ("correlation", "correlation", 1),
        ("cosine", "cosine", 1),
        ("euclidean", "euclidean", 1),
        ("squared_euclidean", "sqeuclidean", 1 / 8),
    ],
)
def test_rdm_is_that_of_scipy(metric: Any, other: Any, scale: float) -> None:
    truth = pdist(X, other) * scale
    rdm = RDM.of(X, metric)
    np.testing.assert_allclose(rdm.values, truth, atol=1e-12)
    np.testing.assert_allclose(rdm.square(), squareform(truth), atol=1e-12)
    np.testing.assert_allclose(RDM.of(X.astype(np.float32), metric).values, truth, atol=1e-5)
    some = [7, 3, 50]
    np.testing.assert_allclose(rdm.take(np.array(some)).values, pdist(X[some], other) * scale, atol=1e-12)


@pytest.mark.parametrize(("metric", "key"), [("squared_euclidean", "euclidean"), ("correlation", "correlation")])
def test_rdm_is_that_of_rsatoolbox(metric: Any, key: str, compare_inputs: ModuleType, reference: Callable[[str], Any]) -> None:
    want = reference("compare")["values"][f"rsatoolbox/rdm/{key}/pair.X"]["value"]
    values = RDM.of(compare_inputs.pair()[0], metric).values.numpy()
    assert [values.mean(), values.std(), *values[:4]] == pytest.approx(want, rel=1e-8)


def test_near_duplicates_keep_their_distance() -> None:
    base = rng.standard_normal((5, 8)) * 100
    near = np.r_[base, base + 1e-6 * rng.standard_normal((5, 8))]
    np.testing.assert_allclose(RDM.of(near, "euclidean").values, pdist(near), rtol=1e-9)


def test_ranks_are_mid_ranks() -> None:
    rows = rng.integers(0, 3, (40, 4)) + np.arange(4)
    rdm = RDM.of(rows, "squared_euclidean")
    truth = rankdata(pdist(rows, "sqeuclidean"))  # whole numbers, so ties are exact
    assert len(np.unique(truth)) < len(truth) / 4
    np.testing.assert_array_equal(rdm.ranks, truth)
    np.testing.assert_array_equal(mid_ranks(torch.tensor([2.0, 1.0, 2.0])), [2.5, 1, 2.5])
    order = rng.permutation(40)
    np.testing.assert_array_equal(rdm.take(order).ranks, squareform(squareform(truth)[np.ix_(order, order)]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["correlation", "cosine", "euclidean", "squared_euclidean"])
def test_pairs_that_are_equal_in_truth_are_tied(metric: Any, dtype: Any) -> None:
    labels = np.arange(70) % 7
    rows = (np.eye(7)[labels] + 0.1).astype(dtype)  # one-hot codes, as a model of categories has them
    same = squareform((labels[:, None] == labels).astype(int) - np.eye(70, dtype=int)).astype(bool)
    np.testing.assert_array_equal(RDM.of(rows, metric).ranks, rankdata(~same))


def test_weighted_ranks_are_ranks_of_repeated_pairs() -> None:
    rows = rng.integers(0, 3, (12, 4)) + np.arange(4)
    rdm, truth = RDM.of(rows, "euclidean"), pdist(rows)
    weights = torch.as_tensor(rng.integers(0, 4, truth.shape[0]).astype(float))
    repeated = np.repeat(truth, weights.long().numpy())
    ranks = dict(zip(repeated, rankdata(repeated), strict=True))
    for value, weight, rank in zip(truth, weights, rdm.weighted_ranks(weights), strict=True):
        if weight > 0:
            assert float(rank) == pytest.approx(ranks[value])


def test_pair_weights_leave_out_pairs_of_one_source() -> None:
    rdm = RDM.of(X[:5])
    w = torch.tensor([1.0, 2, 0, 3, 1])
    np.testing.assert_array_equal(rdm.pair_weights(w), squareform(np.outer(w, w) - np.diag(w**2)))
    same = rdm.pair_weights(w, torch.tensor([0, 0, 1, 2, 2]))
    assert float(same[0]) == 0 and float(same[-1]) == 0 and float(same[2]) == 3


def test_rdm_says_what_is_wrong() -> None:
    flat = X.copy()
    flat[[4, 9]] = 0.1
    with pytest.raises(DegenerateInputError, match=r"rows that vary across units; 2 of 60 rows do not \(row 4, 9\)"):
        RDM.of(flat, "correlation")
    flat[[4, 9]] = 0
    with pytest.raises(DegenerateInputError, match=r"rows that are not zero; 2 of 60 rows do not \(row 4, 9\)"):
        RDM.of(flat, "cosine")
    with pytest.raises(DegenerateInputError, match=r"unknown metric 'corr'; nearest: 'correlation'"):
        RDM.of(X, "corr")
    with pytest.raises(TooFewStimuliError, match="at least 2 are needed"):
        RDM.of(X[:1])
    with pytest.raises(DegenerateInputError, match="for draws with replacement use pair_weights"):
        RDM.of(X).take(np.array([1, 1]))


def test_gram_is_the_centered_kernel() -> None:
    H = np.eye(60) - 1 / 60
    for kernel, rows in (("linear", X), ("cosine", X / np.linalg.norm(X, axis=1, keepdims=True))):
        K = Gram.of(X, kernel)
        np.testing.assert_allclose(K.centered, H @ rows @ rows.T @ H, atol=1e-11)
        np.testing.assert_allclose(K.take(np.array([3, 1])).values, K.values[[3, 1]][:, [3, 1]])
    assert Gram.of(X).n == 60
    with pytest.raises(DegenerateInputError, match="unknown kernel 'rbf'"):
        Gram.of(X, "rbf")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbors_are_those_of_scikit_learn(metric: Any, dtype: Any) -> None:
    rows = X.astype(dtype)
    distances, ids = NearestNeighbors(n_neighbors=7, metric=metric, algorithm="brute").fit(rows.astype(float)).kneighbors()
    graph = Neighbors.of(rows, 7, metric, center=False)
    np.testing.assert_array_equal(graph.ids, ids)
    np.testing.assert_allclose(graph.distances, distances, atol=1e-7 if dtype == np.float64 else 1e-6)
    some = Neighbors.of(rows, 7, metric, center=False, queries=np.array([5, 2]))
    np.testing.assert_array_equal(some.ids, ids[[5, 2]])
    assert (graph.n, graph.d, graph.k, graph.metric) == (60, 8, 7, metric) and graph.nbytes == 60 * 15 * 16


def test_centered_cosine_is_the_cosine_about_the_mean() -> None:
    distances = np.sort(cdist(X - X.mean(0), X - X.mean(0), "cosine"), axis=1)[:, 1:5]
    np.testing.assert_allclose(Neighbors.of(X, 4, "cosine").distances, distances, atol=1e-12)


def test_one_huge_coordinate_costs_no_neighbor_in_fp32() -> None:
    rows = rng.standard_normal((400, 32)).astype(np.float32)
    far = rows.copy()
    far[:, 3] += np.float32(1024)  # exact in fp32 up to 6e-5
    want = NearestNeighbors(n_neighbors=10).fit(far.astype(float)).kneighbors(return_distance=False)
    np.testing.assert_array_equal(Neighbors.of(far, 10).ids, want)


def test_ties_are_in_order_of_row_number_and_self_is_never_found() -> None:
    rows = np.repeat(rng.standard_normal((4, 3)), 30, axis=0)  # thirty copies each: more ties than candidates
    graph = Neighbors.of(rows, 10)
    assert graph.duplicates == 120
    for i in (0, 5, 29, 30, 119):
        first = 30 * (i // 30)
        assert graph.ids[i].tolist() == [j for j in range(first, first + 30) if j != i][:10]
    assert Neighbors.of(np.arange(5.0)[:, None], 4).ids[2].tolist() == [1, 3, 0, 4]


@pytest.mark.parametrize(("metric", "center"), [("euclidean", True), ("cosine", False), ("cosine", True)])
@pytest.mark.parametrize("queries", [None, np.arange(0, 60, 2)])
def test_drop_is_a_search_among_the_rows_that_stay(metric: Any, center: bool, queries: np.ndarray | None) -> None:
    for share in (0.05, 0.6):  # the slack suffices, the slack does not
        mask = rng.random(60) < share
        number = np.cumsum(~mask) - 1
        left = None if queries is None else number[queries[~mask[queries]]]
        dropped = Neighbors.of(X, 6, metric, center=center, slack=3, queries=queries).drop(mask)
        fresh = Neighbors.of(X[~mask], 6, metric, center=center, queries=left)
        assert torch.equal(dropped.ids, fresh.ids)
        assert torch.allclose(dropped.distances, fresh.distances, atol=1e-12)


def test_drop_again_after_drop() -> None:
    mask = np.arange(60) < 10
    twice = Neighbors.of(X, 6).drop(mask).drop(mask[:50])
    assert torch.equal(twice.ids, Neighbors.of(X[20:], 6).ids)


def test_neighbors_say_what_is_wrong() -> None:
    with pytest.raises(TooFewStimuliError, match=r"60 neighbors need at least 61 rows, got X of shape \(60, 8\)"):
        Neighbors.of(X, 60)
    with pytest.raises(DegenerateInputError, match="k must be at least 1, got 0"):
        Neighbors.of(X, 0)
    with pytest.raises(DegenerateInputError, match="unknown metric 'cosinus'; nearest: 'cosine'"):
        Neighbors.of(X, 3, "cosinus")
    with pytest.raises(DegenerateInputError, match=r"rows that are not zero; 1 of 61 rows do not \(row 60\)"):
        Neighbors.of(np.r_[X, np.zeros((1, 8))], 3, "cosine", center=False)
    graph = Neighbors.of(X, 3)
    with pytest.raises(TooFewStimuliError, match="only 2 of 60 stay"):
        graph.drop(np.arange(60) > 1)
    with pytest.raises(DegenerateInputError, match=r"mask has shape \(3,\); expected \[60\]"):
        graph.drop(np.ones(3, dtype=bool))
    with pytest.raises(DegenerateInputError, match="every row number 0 … 59 once"):
        graph.relabel(np.zeros(60, dtype=int))
    with pytest.raises(DegenerateInputError, match="some queries cannot be relabeled"):
        Neighbors.of(X, 3, queries=np.arange(5)).relabel(np.arange(60))
