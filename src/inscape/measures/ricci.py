"""The curvature of the graph of nearest neighbors, and the communities that fall apart along its negatively curved edges."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

from inscape.errors import DegenerateInputError, TooFewStimuliError
from inscape.measures.base import measure
from inscape.measures.dimension import distinct
from inscape.results import Curve
from inscape.summaries import Landmarks, Neighbors
from inscape.summaries.base import Need

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_ZERO = 1e-9  # curvatures closer to 0 than this are 0: a linear program rounds
_GROUPS = 64  # the largest groups that a curve holds
_AT_ONCE = 8192  # unknowns of one linear program: many small ones together, since a call costs more than its work

Graph = Annotated[Neighbors, Need(metric="euclidean", center=True, k="k")]


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(-2, 1),
    source="Ollivier 2009, on the graph of nearest neighbors",
    higher="neighborhoods overlap more",
    undefined={"constant"},
    minimum=10,
    status="provisional",
    repeatable=False,
)
def ollivier_ricci(neighbors: Graph, *, k: int = 8, idleness: float = 0.5, edges: int = 128) -> Curve:
    r"""The mean curvature of edges between nearest neighbors: above 0 inside crowded groups, below 0 on bridges between groups.

    $\kappa(x, y) = 1 - W_1(m_x, m_y)$ for the edges of the graph that joins every distinct row [d] with its k nearest ones. $m_x$ holds the
    idleness at x and spreads the rest evenly over the rows joined with x; $W_1$ is the exact cost of moving one into the other, in steps
    along edges.

    Args:
        neighbors: Euclidean distances to the nearest rows.
        k: neighbors that every row is joined with, in both directions.
        idleness: mass that stays at the row itself, from 0 to below 1.
        edges: most edges that are looked at, at even quantiles of their length.

    Returns:
        A curve over quantiles of the edges' curvature; its value is the mean.

    Raises:
        TooFewStimuliError: fewer than 10 or k + 1 distinct rows.
        DegenerateInputError: all rows are equal, or the idleness is no mass.

    Warns:
        InscapeWarning: some rows repeat others.

    Source:
        Ollivier, "Ricci curvature of Markov chains on metric spaces", Journal of Functional Analysis 2009, for the lazy walk on an
        unweighted graph, idleness 0.5 as the GraphRicciCurvature package.

    Cost:
        n² d for the neighbors, shared by all measures of neighbors; then a linear program of about k² unknowns per edge: a second for
        some thousand edges. No interval: it would repeat them all.

    Bias:
        None in the edges that are looked at; the value depends on k and on n, so compare at equal ones.

    Example:
        >>> import numpy as np, inscape as ix
        >>> angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        >>> round(float(ix.measures.ollivier_ricci(np.c_[np.cos(angle), np.sin(angle)], k=2)), 6)
        0.0
    """
    if not 0 <= idleness < 1:
        raise DegenerateInputError(f"idleness = {idleness}: the mass that stays at a row lies between 0 and 1")
    graph = distinct(neighbors, "ollivier_ricci", k)
    joined, chosen = neighbor_graph(graph.ids[:, :k].cpu().numpy(), graph.distances[:, :k].cpu().numpy())
    if edges < 1:
        raise DegenerateInputError(f"edges = {edges}: at least one edge is needed")
    picked = np.unique(np.linspace(0, len(chosen) - 1, min(edges, len(chosen))).round().astype(int))
    curvature = edge_curvatures(joined, chosen[picked], idleness)
    return Curve(float(curvature.mean()), axis="quantile", at=_QUANTILES, values=np.quantile(curvature, _QUANTILES))


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive=(),
    range=(0, math.inf),
    source="Sia et al. 2019, with all negative edges cut at once",
    higher="more groups",
    undefined={"constant"},
    minimum=10,
    status="provisional",
    repeatable=False,
)
def ricci_communities(marks: Annotated[Landmarks, Need(count="landmarks")], *, k: int = 8, landmarks: int = 100) -> Curve:
    r"""The number of groups that are left when bridges are cut: edges between nearest neighbors whose curvature is negative.

    In the graph that joins every distinct landmark of the rows [n, d] with its k nearest ones, all edges whose curvature
    (`ollivier_ricci`, idleness 0.5) is below 0 are cut. The pieces with at least two landmarks are the groups.

    Args:
        marks: rows far apart, with their distances.
        k: neighbors that every landmark is joined with, in both directions.
        landmarks: most rows that are used, chosen each as the farthest from those before.

    Returns:
        A curve of the groups' shares of the landmarks, largest first (at most 64); its value is their number.

    Raises:
        TooFewStimuliError: fewer than 10 or k + 1 distinct landmarks.
        DegenerateInputError: all rows are equal, or fewer than 2 landmarks are asked for.

    Source:
        Sia, Jonckheere & Bogdan, "Ollivier-Ricci curvature-based method to community detection in complex networks", Scientific Reports
        2019. The paper cuts one edge at a time and computes curvature again until none is negative, which takes a smooth cloud apart as
        well; here all negative edges are cut once.

    Cost:
        landmarks n d for the choice, then a linear program per edge: half a second for 100 landmarks. No interval.

    Bias:
        Groups smaller than k are joined with others; the number depends on k, so look at several.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((60, 2))
        >>> float(ix.measures.ricci_communities(np.concatenate([X[:30], X[30:] + 100])))
        2.0
    """
    every = marks.distances.cpu().numpy()
    first = np.flatnonzero(~np.tril(every == 0, -1).any(1))  # of rows that are equal, the first
    D = every[np.ix_(first, first)]
    if len(D) == 1:
        raise DegenerateInputError(f"all {marks.n} rows are equal; there is no distance to a neighbor")
    if len(D) < max(10, k + 1):
        raise TooFewStimuliError(f"{len(D)} landmarks are distinct; at least {max(10, k + 1)} are needed; use more rows or a smaller k")
    ids = np.argsort(np.where(np.eye(len(D), dtype=bool), np.inf, D), axis=1, kind="stable")[:, :k]
    joined, edges = neighbor_graph(ids, np.take_along_axis(D, ids, 1))
    kept = edges[edge_curvatures(joined, edges) >= -_ZERO]
    _, piece = connected_components(_adjacency(kept, len(D)), directed=False)
    sizes = np.sort(np.bincount(piece))[::-1]
    groups = sizes[sizes > 1]
    shown = groups[:_GROUPS] / len(D)
    return Curve(float(len(groups)), axis="community", at=list(range(1, len(shown) + 1)), values=shown)


def edge_curvatures(joined: csr_matrix, edges: np.ndarray, idleness: float = 0.5) -> np.ndarray:
    """The Ollivier-Ricci curvature of edges [e, 2] of an unweighted graph, [e]; exact, a linear program each.

    Args:
        joined: symmetric adjacency matrix [n, n] of zeros and ones.
        edges: pairs of nodes that are joined.
        idleness: mass that stays at a node.
    """
    starts, indices = np.asarray(joined.indptr), np.asarray(joined.indices)
    around = [indices[first:last] for first, last in pairwise(starts.tolist())]
    sets = {int(i): set(around[i].tolist()) for i in np.unique(edges)}
    programs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for x, y in edges.tolist():
        mass: dict[int, float] = {}
        for node, sign in ((x, 1.0), (y, -1.0)):
            mass[node] = mass.get(node, 0.0) + sign * idleness
            for other in around[node].tolist():
                mass[other] = mass.get(other, 0.0) + sign * (1 - idleness) / len(around[node])
        give = [node for node, value in mass.items() if value > 1e-15]  # mass that both sides hold stays where it is
        take = [node for node, value in mass.items() if value < -1e-15]
        for node in give:
            sets.setdefault(node, set(around[node].tolist()))
        # Both ends lie within one step of the edge, so no way is longer than 3.
        steps = [[1.0 if b in sets[a] else 2.0 if not sets[a].isdisjoint(around[b].tolist()) else 3.0 for b in take] for a in give]
        programs.append(
            (np.array(steps).reshape(len(give), len(take)), np.array([mass[a] for a in give]), -np.array([mass[b] for b in take]))
        )
    return 1 - _transport(programs)


def _transport(programs: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """The least cost of each transport problem (costs [a, b], supplies [a], demands [b])."""
    found: list[float] = []
    start = size = 0
    for index, (costs, _, _) in enumerate(programs):
        if size + costs.size > _AT_ONCE and index > start:
            found += _solved(programs[start:index])
            start, size = index, 0
        size += costs.size
    return np.array(found + _solved(programs[start:]))


def _solved(batch: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list[float]:
    """Solves transport problems as one linear program with a block each."""
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    first_row = first_column = 0
    for costs, _, _ in batch:
        a, b = costs.shape
        i, j = np.divmod(np.arange(a * b), max(b, 1))
        rows += [first_row + i, first_row + a + j]
        columns += [first_column + np.arange(a * b)] * 2
        first_row, first_column = first_row + a + b, first_column + a * b
    totals = np.concatenate(
        [np.concatenate([supply, demand * (supply.sum() / demand.sum() if len(demand) else 1)]) for _, supply, demand in batch]
    )
    if not first_column:
        return [0.0] * len(batch)
    row, column = np.concatenate(rows), np.concatenate(columns)
    equal = coo_matrix((np.ones(len(row)), (row, column)), shape=(first_row, first_column)).tocsr()
    costs = np.concatenate([one.ravel() for one, _, _ in batch])
    solution = linprog(costs, A_eq=equal, b_eq=totals, bounds=(0, None), method="highs", options={"presolve": False})
    if solution.status != 0:
        raise DegenerateInputError(f"the transport of mass along edges was not solved: {solution.message}")
    ends = np.cumsum([one.size for one, _, _ in batch])
    return [float(part.sum()) for part in np.split(costs * solution.x, ends[:-1])]


def neighbor_graph(ids: np.ndarray, distances: np.ndarray) -> tuple[csr_matrix, np.ndarray]:
    """The symmetric graph of nearest neighbors [n, k], and its edges [e, 2] from short to long."""
    (n, k), lengths = ids.shape, distances.ravel()
    ends = np.stack([np.repeat(np.arange(n), k), ids.ravel()], 1)
    low, high = ends.min(1), ends.max(1)
    _, first = np.unique(low * n + high, return_index=True)
    order = first[np.argsort(lengths[first], kind="stable")]
    edges = np.stack([low[order], high[order]], 1)
    return _adjacency(edges, n), edges


def _adjacency(edges: np.ndarray, n: int) -> csr_matrix:
    both = np.concatenate([edges, edges[:, ::-1]])
    return csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(n, n))
