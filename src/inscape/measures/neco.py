"""Rows that lie outside the space that a representation uses for what it knows."""

from __future__ import annotations

import torch
from torch import Tensor, linalg

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.summaries import Rows


@measure(
    invariant={"row_order"},
    sensitive={"translation", "rotation", "linear"},
    range=(0, 1),
    source="Ben Ammar et al. 2024, eq. 6",
    higher="more different",
    undefined={"constant"},
    minimum=4,
    null="0.5 for two samples of one distribution; above it where n is not far above d",
    paired=False,
    reflexive=False,
)
def neco(x: Rows, y: Rows, *, share: float = 0.9) -> float:
    r"""How well the part of a row inside the principal space of X tells rows of X from rows of Y.

    Units are standardized by X, $P$ projects on the fewest principal components of X that hold `share` of its variance, and a row
    scores $\lVert P h \rVert / \lVert h \rVert$. The value is the probability that a row of X scores higher than one of Y (ties count
    half), the area under the ROC curve for telling known from unknown.

    Args:
        x: rows [n, d] of what the network knows (in distribution).
        y: rows [m, d] of something else, read at the same site.
        share: of the variance that the principal space holds.

    Returns:
        An area under the ROC curve: .5 where the two cannot be told apart, 1 where every row of X scores higher.

    Raises:
        DegenerateInputError: `share` outside (0, 1], no unit of X varies, equal rows, or the sides have different units.
        TooFewStimuliError: fewer than 4 rows.

    Source:
        Ben Ammar, Belkhir, Popescu, Manzanera & Franchi, "NECO: neural collapse based out-of-distribution detection", ICLR 2024
        (equation 6), without the factor of the largest logit. The choice of the space by `share` is this library's.

    Cost:
        n d² and d³ for the components, (n + m) d².

    Bias:
        Too high unless n is far above d: the space was fitted to the rows of X. Hold rows of X out and score them as Y for a baseline.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((400, 2)) @ np.array([[1.0, 0, 1], [0, 1, 1]])
        >>> ix.measures.neco(X, np.random.default_rng(1).standard_normal((400, 3)))
        1.0
    """
    if not 0 < share <= 1:
        raise DegenerateInputError(f"share={share:g} is no share of the variance; give a number above 0 and up to 1")
    if x.d != y.d:
        raise DegenerateInputError(f"X has {x.d} units and Y {y.d}; both must be read at one site of one model")
    known, other = x.rows.double(), y.rows.double()
    mean, spread = known.mean(0), known.std(0, correction=0)
    used = spread > 1e-12 * known.abs().amax(0)
    if not bool(used.any()):
        raise DegenerateInputError(f"no unit of X varies (shape {tuple(known.shape)})")
    known, other = ((side - mean)[:, used] / spread[used] for side in (known, other))
    values, vectors = linalg.eigh(known.T @ known)
    values = values.flip(0).clamp(min=0)
    reached = values.cumsum(0) >= share * values.sum() * (1 - 1e-12)
    basis = vectors.flip(1)[:, : int(reached.int().argmax()) + 1]
    return _area(_inside(known, basis), _inside(other, basis))


def _inside(rows: Tensor, basis: Tensor) -> Tensor:
    """‖P h‖ / ‖h‖ of each row; 1 for a row at the mean, which leaves nothing outside."""
    length = linalg.vector_norm(rows, dim=1)
    inside = linalg.vector_norm(rows @ basis, dim=1)
    return torch.where(length > 0, inside / torch.where(length > 0, length, 1.0), 1.0)


def _area(high: Tensor, low: Tensor) -> float:
    """The share of pairs in which the first scores higher; scores that differ by rounding alone are ties."""
    values = torch.cat([high, low]).mul(1e12).round()
    _, rank, counts = values.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    middle = ends - (counts - 1).double() / 2  # mean rank of each value, counted from 1
    n, m = len(high), len(low)
    return (float(middle[rank[:n]].sum()) - n * (n + 1) / 2) / (n * m)
