"""Comparison of two representations by how heat spreads over their graphs of neighbors; rows and units need no partner."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from scipy.linalg import eigvalsh

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.summaries import Neighbors
from inscape.summaries.base import Need

Graph = Annotated[Neighbors, Need(metric="euclidean", k="k")]

TIMES = np.logspace(-1, 1, 256)


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive=(),  # to the directions and scales of units, too, but by less than a law test can tell from rounding
    range=(0, 1),
    source="Tsitsulin et al. 2020",
    higher="more different",
    symmetric=True,
    undefined=(),
    minimum=7,
    null="0 only for graphs with one spectrum; independent samples of one distribution are about 1/√n apart",
    paired=False,
)
def imd(x: Graph, y: Graph, *, k: int = 5) -> float:
    r"""How differently heat spreads over the graphs of nearest neighbors of two representations, at the worst time.

    $\max_t e^{-2 (t + 1/t)} \lvert h_X(t) - h_Y(t) \rvert$ with $h(t) = \frac1n \sum_i e^{-t \lambda_i}$, λ the eigenvalues of the
    normalized Laplacian of the graph that joins each row [n, d] to its `k` nearest, and t from .1 to 10. Pairs neither rows nor units.

    Args:
        x: nearest neighbors in the first system.
        y: nearest neighbors in the second system.
        k: neighbors of a row.

    Returns:
        A distance without unit, from 0; at most $e^{-4}$.

    Raises:
        DegenerateInputError: NaN, infinity, or squares that leave the range of fp64.
        TooFewStimuliError: fewer than 7 rows, or not more than k.

    Source:
        Tsitsulin, Munkhoeva, Mottin, Karras, Bronstein, Oseledets & Müller, "The shape of data: intrinsic distance for data
        distributions", ICLR 2020. The spectrum is exact here, where the paper estimates it from random vectors.

    Cost:
        n² d for the neighbors of each system, n³ for each spectrum.

    Bias:
        Different numbers of rows alone give a distance: compare samples of one size.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((60, 4))
        >>> round(ix.measures.imd(X, X[::-1].copy()), 6)
        0.0
    """
    traces = [heat_trace(graph, side) for graph, side in ((x, "X"), (y, "Y"))]
    return float((np.exp(-2 * (TIMES + 1 / TIMES)) * np.abs(traces[0] - traces[1])).max())


def heat_trace(graph: Neighbors, name: str) -> np.ndarray:
    """Σ exp(−t λ) / n of the normalized Laplacian of the graph of neighbors, at `TIMES`."""
    ids = graph.ids.cpu().numpy()
    n = len(ids)
    if ids.max(initial=0) >= n:
        raise DegenerateInputError(f"{name}: neighbors must be rows of the same {n} rows")
    joined = np.zeros((n, n))
    joined[np.repeat(np.arange(n), ids.shape[1]), ids.reshape(-1)] = 1
    joined = np.maximum(joined, joined.T)
    scale = 1 / np.sqrt(joined.sum(1))
    spectrum = eigvalsh(np.eye(n) - joined * scale * scale[:, None])
    return np.exp(-TIMES[:, None] * spectrum).mean(1)
