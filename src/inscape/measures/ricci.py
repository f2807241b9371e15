"""The curvature of the graph of nearest neighbors, and the communities that fall apart along its negatively curved edges."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, tril, triu
from scipy.sparse.csgraph import connected_components, maximum_flow

from inscape.errors import DegenerateInputError, TooFewStimuliError
from inscape.measures.base import measure
from inscape.measures.dimension import distinct
from inscape.results import Curve
from inscape.summaries import Landmarks, Neighbors
from inscape.summaries.base import Need

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_ZERO = 1e-9  # curvatures closer to 0 than this are 0: sums of masses round
_GROUPS = 64  # the largest groups that a curve holds
_AT_ONCE = 128  # edges of one maximum flow: a call costs more than its work
_FINEST = 2**26  # parts of all mass, at most: the flows are 32-bit numbers

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
        n² d for the neighbors, shared by all measures of neighbors; then a maximum flow of about k² arcs per edge: a second for
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
        landmarks n d for the choice, then a maximum flow per edge: a tenth of a second for 100 landmarks. No interval.

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
    """The Ollivier-Ricci curvature of edges [e, 2] of an unweighted graph, [e]; exact, by maximum flows.

    Args:
        joined: symmetric adjacency matrix [n, n] of zeros and ones.
        edges: pairs of nodes that are joined.
        idleness: mass that stays at a node.
    """
    return 1 - np.concatenate([_distances(joined, edges[start : start + _AT_ONCE], idleness) for start in range(0, len(edges), _AT_ONCE)])


def _distances(joined: csr_matrix, edges: np.ndarray, idleness: float) -> np.ndarray:
    """The transport distance between the neighborhoods of both ends of each edge."""
    near = _Nearby(joined, edges)
    share = Fraction(idleness).limit_denominator(1000)
    parts = share.denominator if abs(share - idleness) < 1e-12 else _FINEST
    problems: list[_Problem] = []
    for x, y in near.edges.tolist():
        of_x, of_y = near.around[x], near.around[y]
        # Masses are whole numbers of such parts; where that takes too many, each is rounded to the finest.
        unit = min(math.lcm(len(of_x), len(of_y)) * parts, _FINEST)
        amounts = np.zeros(near.size, dtype=np.int64)
        for node, others, sign in ((x, of_x, 1), (y, of_y, -1)):
            amounts[node] += sign * round(unit * idleness)
            amounts[others] += sign * round(unit * (1 - idleness) / len(others))
        give, take = (amounts > 0).nonzero()[0], (amounts < 0).nonzero()[0]  # mass that both sides hold stays where it is
        problems.append(_Problem(near.steps(give, take), amounts[give], -amounts[take], unit))
    return _transport(problems)


class _Nearby:
    """The ends of some edges and their neighbors, numbered anew: which are joined, and which have a neighbor in common.

    A row of bits over all neighbors for each node; a common neighbor is a bit that two rows share.
    """

    def __init__(self, joined: csr_matrix, edges: np.ndarray) -> None:
        n = len(joined.indptr) - 1
        ends, _ = _numbered(edges.ravel(), n)
        nodes, number = _numbered(np.concatenate([ends, joined[ends].indices]), n)
        rows = joined[nodes]
        others, column = _numbered(rows.indices, n)
        self.joined = np.zeros((len(nodes), len(others)), dtype=bool)
        self.joined[np.repeat(np.arange(len(nodes)), np.diff(rows.indptr)), column[rows.indices]] = True
        packed = np.packbits(self.joined, axis=1)
        self.bits = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).view(np.uint64)
        self.column = column[nodes]  # each node here is the neighbor of another one here
        self.size, self.edges = len(nodes), number[edges]
        self.around = {end: number[rows.indices[rows.indptr[end] : rows.indptr[end + 1]]] for end in number[ends].tolist()}

    def steps(self, give: np.ndarray, take: np.ndarray) -> np.ndarray:
        """Steps from each node that gives to each that takes: 1, 2 or 3, since both ends of the edge lie within one step of it."""
        common = (self.bits[give][:, None] & self.bits[take][None]).any(2)
        return np.where(self.joined[give][:, self.column[take]], 1, np.where(common, 2, 3))


def _numbered(nodes: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct ones among `nodes`, ascending, and the place of each of all n nodes among them (-1: not there)."""
    places = np.full(n, -1)
    places[nodes] = 0
    distinct_nodes = np.flatnonzero(places == 0)
    places[distinct_nodes] = np.arange(len(distinct_nodes))
    return distinct_nodes, places


class _Problem(NamedTuple):
    """Mass to move: steps [a, b], what each node gives [a] and takes [b] in whole parts, and how many parts make 1."""

    steps: np.ndarray
    gives: np.ndarray
    takes: np.ndarray
    unit: int


def _transport(problems: list[_Problem]) -> np.ndarray:
    """The least cost of each problem, from one maximum flow through all.

    Three steps a part, less what shorter ways save. By duality the largest saving is the least sum of prices 0, 1 or 2 a part such that
    the prices of two nodes make up for 3 − steps; choosing them is a minimum cut with two nodes for each, one where its price reaches 1 and
    one where it reaches 2.
    """
    tails: list[np.ndarray] = []
    heads: list[np.ndarray] = []
    room: list[np.ndarray] = []
    source, sink, size = 0, 1, 2
    spans: list[tuple[int, int]] = []
    for steps, gives, takes, _ in problems:
        a, b = steps.shape
        give1, take1 = size + np.arange(a), size + 2 * a + np.arange(b)
        give2, take2 = give1 + a, take1 + b
        spans.append((size, size + 2 * a))
        size += 2 * (a + b)
        (i1, j1), (i2, j2) = np.nonzero(steps == 1), np.nonzero(steps == 2)
        tails += [np.full(2 * a, source), take1, take2, give1[i1], give2[i1], give1[i2], give1, take2]
        heads += [np.concatenate([give1, give2]), np.full(2 * b, sink), take2[j1], take1[j1], take1[j2], give2, take1]
        endless = 2 * (int(gives.sum()) + int(takes.sum())) + 1
        room += [gives, gives, takes, takes, np.full(2 * len(i1) + len(i2) + a + b, endless)]
    ends = (np.concatenate(tails), np.concatenate(heads))
    network = csr_matrix((np.concatenate(room).astype(np.int32), ends), shape=(size, size))
    flow = maximum_flow(network, source, sink, method="dinic").flow[source].toarray().ravel()
    return np.array(
        [
            (1.5 * int(gives.sum() + takes.sum()) - flow[first:last].sum()) / unit
            for (first, last), (_, gives, takes, unit) in zip(spans, problems, strict=True)
        ]
    )


def neighbor_graph(ids: np.ndarray, distances: np.ndarray) -> tuple[csr_matrix, np.ndarray]:
    """The symmetric graph of nearest neighbors [n, k], and its edges [e, 2] from short to long."""
    n, k = ids.shape
    found = csr_matrix((distances.ravel(), ids.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    pairs = triu(found, format="csr").maximum(tril(found, format="csr").T.tocsr()).tocoo()
    order = np.argsort(pairs.data, kind="stable")  # equal lengths in order of row number
    edges = np.stack([pairs.row[order], pairs.col[order]], 1)
    return _adjacency(edges, n), edges


def _adjacency(edges: np.ndarray, n: int) -> csr_matrix:
    both = np.concatenate([edges, edges[:, ::-1]])
    return csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(n, n))
