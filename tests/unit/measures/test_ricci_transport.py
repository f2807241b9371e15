"""The curvature of edges against a linear program over all nodes of the graph, with shortest paths as costs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import shortest_path

from inscape.measures.ricci import edge_curvatures, neighbor_graph


def by_linear_program(A: np.ndarray, x: int, y: int, idleness: float) -> float:
    n = len(A)
    mass = (1 - idleness) * A[[x, y]] / A[[x, y]].sum(1, keepdims=True)
    mass[[0, 1], [x, y]] += idleness
    rows = np.concatenate([np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))])
    solution = linprog(shortest_path(A, unweighted=True).ravel(), A_eq=rows[:-1], b_eq=mass.ravel()[:-1])
    return 1 - solution.fun


@pytest.mark.parametrize("idleness", [0.5, 0.0, 1 / 3, np.exp(-1)])
def test_curvature_is_that_of_a_linear_program(idleness: float) -> None:
    rng = np.random.default_rng(0)
    half = np.triu(rng.random((30, 30)) < 0.12, 1)
    half[:, 7] = rng.random(30) < 0.6  # a node that most others are joined with, as the rows near a center are
    half[np.arange(29), np.arange(1, 30)] = True  # a way through all, so that no distance is infinite
    A = np.triu(half, 1) | np.triu(half, 1).T | np.tril(half, -1) | np.tril(half, -1).T
    edges = np.argwhere(np.triu(A))[::3]
    expected = [by_linear_program(A.astype(float), x, y, idleness) for x, y in edges]
    assert len({round(value, 6) for value in expected}) > 10
    assert edge_curvatures(csr_matrix(A.astype(float)), edges, idleness) == pytest.approx(
        expected, abs=1e-6 if idleness == np.exp(-1) else 1e-9
    )


def test_many_edges_are_cut_into_several_flows() -> None:
    A = ~np.eye(24, dtype=bool)
    edges = np.argwhere(np.triu(A))  # 276
    # All other nodes are common: only what stays at x beyond its share moves, one step.
    assert edge_curvatures(csr_matrix(A.astype(float)), edges) == pytest.approx([1 - (0.5 - 0.5 / 23)] * 276, abs=1e-12)


def test_graph_joins_both_ways_and_orders_its_edges_by_length() -> None:
    ids = np.array([[1, 2], [0, 2], [1, 0], [2, 1]])
    lengths = np.array([[1.0, 3.0], [1.0, 2.0], [2.0, 3.0], [0.5, 2.0]])
    joined, edges = neighbor_graph(ids, lengths)
    assert edges.tolist() == [[2, 3], [0, 1], [1, 2], [1, 3], [0, 2]]
    assert (joined.toarray() == joined.toarray().T).all() and joined.nnz == 10
