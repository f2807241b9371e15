"""Comparison of two representations by the curvature of their graphs of neighbors; rows need no partner."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from scipy.stats import wasserstein_distance

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.measures.dimension import distinct
from inscape.measures.ricci import edge_curvatures, neighbor_graph
from inscape.summaries import Neighbors
from inscape.summaries.base import Need

Graph = Annotated[Neighbors, Need(metric="euclidean", center=True, k="k")]


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"unit_scale"},
    range=(0, 3),
    source="Torbati et al. 2025, with the curvature of Ollivier 2009",
    higher="more different",
    symmetric=True,
    undefined={"constant"},
    minimum=10,
    null="about 0.05 for samples of one distribution with a few hundred edges",
    paired=False,
    status="provisional",
    repeatable=False,
)
def ricci_difference(x: Graph, y: Graph, *, k: int = 8, idleness: float = 0.5, edges: int = 128) -> float:
    r"""How differently curved the graphs of nearest neighbors are: the distance between the distributions of their edges' curvatures.

    The 1-Wasserstein distance $\int \lvert F_X(\kappa) - F_Y(\kappa) \rvert \, d\kappa$ of the curvatures of edges (`ollivier_ricci`) of
    the two graphs that join each distinct row [n, d] with its k nearest ones. It pairs neither rows nor units.

    Args:
        x: nearest neighbors in the first system.
        y: nearest neighbors in the second system.
        k: neighbors that every row is joined with, in both directions.
        idleness: mass that stays at the row itself, from 0 to below 1.
        edges: most edges of each graph that are looked at, at even quantiles of their length.

    Returns:
        A distance in units of curvature, from 0 to 3.

    Raises:
        TooFewStimuliError: fewer than 10 or k + 1 distinct rows.
        DegenerateInputError: all rows are equal, the idleness is no mass, or no edge is asked for.

    Warns:
        InscapeWarning: some rows repeat others.

    Source:
        Torbati, Gaebler, Hofmann & Scherf, "Exploring geometric representational alignment through Ollivier-Ricci curvature and
        Ricci flow", 2025, compare such distributions; Ollivier, "Ricci curvature of Markov chains on metric spaces", 2009.

    Cost:
        n² d for the neighbors of each system, then a maximum flow of about k² arcs per edge. No interval.

    Bias:
        Depends on k and on n: compare samples of one size.

    Example:
        >>> import numpy as np, inscape as ix
        >>> angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        >>> ring = np.c_[np.cos(angle), np.sin(angle)]
        >>> round(ix.measures.ricci_difference(ring, 3 * ring, k=2), 6)
        0.0
    """
    if not 0 <= idleness < 1:
        raise DegenerateInputError(f"idleness = {idleness}: the mass that stays at a row lies between 0 and 1")
    if edges < 1:
        raise DegenerateInputError(f"edges = {edges}: at least one edge is needed")
    found: list[np.ndarray] = []
    for side in (x, y):
        graph = distinct(side, "ricci_difference", k)
        joined, every = neighbor_graph(graph.ids[:, :k].cpu().numpy(), graph.distances[:, :k].cpu().numpy())
        picked = np.unique(np.linspace(0, len(every) - 1, min(edges, len(every))).round().astype(int))
        found.append(edge_curvatures(joined, every[picked], idleness))
    return float(wasserstein_distance(found[0], found[1]))
