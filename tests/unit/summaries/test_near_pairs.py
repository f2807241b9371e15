"""The symmetric search of a neighbor graph against all distances, over more rows than two blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inscape.summaries import Neighbors
from inscape.summaries.near_pairs import BLOCK, near_pairs

N = 2 * BLOCK + 300


def rows(kind: str) -> torch.Tensor:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, 6))
    if kind == "in order":  # like frames of a film: neighbors lie close to the diagonal
        X = np.cumsum(X, 0)
    elif kind == "duplicates":
        X[N // 2 :] = X[: N - N // 2]
    elif kind == "ties":
        X = X.round()
    elif kind == "ever nearer":  # every later block improves on all candidates
        X = X * np.linspace(1, 0.001, N)[:, None]
    return torch.from_numpy(X)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("kind", ["gaussian", "in order", "duplicates", "ties", "ever nearer"])
def test_the_graph_is_that_of_all_distances(kind: str, dtype: torch.dtype) -> None:
    X = rows(kind).to(dtype)
    graph = Neighbors.of(X, k=7)
    distances = torch.cdist(X.double(), X.double(), compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    nearest, order = distances.sort(dim=1, stable=True)
    assert torch.allclose(graph.distances, nearest[:, :7], rtol=1e-6 if dtype == torch.float32 else 1e-12, atol=0)
    if dtype == torch.float64:
        assert torch.equal(graph.ids, order[:, :7])


def test_a_last_block_of_few_rows_finds_its_neighbors_elsewhere() -> None:
    X = torch.from_numpy(np.random.default_rng(1).standard_normal((2 * BLOCK + 2, 3)))
    ids, nearest = near_pairs(X, X.square().sum(1) / 2, 9)
    distances = torch.cdist(X, X, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    true = distances[-2:].sort(dim=1)
    assert torch.equal(ids[-2:], true.indices[:, :9])
    assert torch.allclose(nearest[-2:], true.values[:, :9] ** 2 / 2, rtol=1e-9)
    assert all(len(set(line)) == 9 for line in ids.tolist())
