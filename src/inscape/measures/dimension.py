"""The intrinsic dimension of the cloud of rows, from distances to nearest neighbors."""

from __future__ import annotations

import math
import warnings
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from inscape.errors import DegenerateInputError, InscapeWarning, TooFewStimuliError
from inscape.measures.base import measure
from inscape.results import Curve
from inscape.summaries import Neighbors
from inscape.summaries.base import Need

_LEAST = 10  # distinct rows below which a dimension says nothing
_DISCARDED = 0.1  # the share of the largest ratios that the fit leaves out
_SPREAD = 1e-12  # mean log ratio of distances below which they differ by rounding


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Facco et al. 2017",
    higher="more dimensions",
    undefined={"constant"},
    minimum=_LEAST,
    beside="gride",
)
def two_nn(neighbors: Annotated[Neighbors, Need(metric="euclidean", center=True, k=2)]) -> float:
    r"""The intrinsic dimension at the smallest scale, from the ratio of each row's two nearest distances.

    The slope through 0 of $-\log(1 - F(\mu))$ on $\log \mu$ with $\mu = r_2 / r_1$ for each row [d] and $F$ its empirical distribution,
    the largest tenth left out. Rows that repeat another row exactly count once.

    Args:
        neighbors: Euclidean distances to the nearest rows.

    Returns:
        A dimension; not an integer in general.

    Raises:
        TooFewStimuliError: fewer than 10 distinct rows.
        DegenerateInputError: all rows are equal, or all distances are.

    Warns:
        InscapeWarning: some rows repeat others.

    Source:
        Facco, d'Errico, Rodriguez & Laio, "Estimating the intrinsic dimension of datasets by a minimal neighborhood information",
        Scientific Reports 2017, linear fit.

    Cost:
        n² d for the neighbors, shared by all measures of neighbors; then n log n.

    Bias:
        Too low for dimensions above about 10 (15.7 for a cube of 20 at n = 5,000), too high where small noise fills the space; look at
        `two_nn_curve` for the scale.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).random((2000, 2))
        >>> round(ix.measures.two_nn(X))
        2
    """
    return _slope(distinct(neighbors, "two_nn").distances)


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Facco et al. 2017, block analysis",
    higher="more dimensions",
    undefined={"constant"},
    minimum=_LEAST,
    status="provisional",
)
def two_nn_curve(
    neighbors: Annotated[Neighbors, Need(metric="euclidean", center=True, k=2)], *, smallest: int = 64, seed: int = 0
) -> Curve:
    r"""The intrinsic dimension from the smallest scale to larger ones, by `two_nn` on ever fewer rows.

    The n distinct rows [n, d] are cut at random into 2, 4, 8 … disjoint blocks, down to blocks of `smallest` rows; the value at a
    scale is the mean of `two_nn` over its blocks. Fewer rows are further apart, so noise that fills the space at a small scale drops out
    at a larger one. A plateau is a dimension; a curve that keeps falling is not.

    Args:
        neighbors: Euclidean distances to the nearest rows.
        smallest: fewest rows of a block.
        seed: of the cut; the value at full n does not depend on it.

    Returns:
        A curve over the number of rows in a block, most rows first; its `value` is `two_nn` on all rows.

    Raises:
        TooFewStimuliError: fewer than 10 distinct rows.
        DegenerateInputError: all rows are equal, or all distances within a block are.

    Warns:
        InscapeWarning: some rows repeat others.

    Source:
        Facco, d'Errico, Rodriguez & Laio, "Estimating the intrinsic dimension of datasets by a minimal neighborhood information",
        Scientific Reports 2017, block analysis.

    Cost:
        n² d for the neighbors, shared by all measures of neighbors; at most as much again for the blocks.

    Bias:
        As `two_nn`; at few rows both the bias and the spread grow.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).random((256, 2))
        >>> ix.measures.two_nn_curve(X).at
        (256, 128, 64)
    """
    if smallest < _LEAST:
        raise DegenerateInputError(f"smallest = {smallest}: a block needs at least {_LEAST} rows")
    whole = distinct(neighbors, "two_nn_curve")
    at, values, blocks = [whole.n], [_slope(whole.distances)], [whole]
    generator = torch.Generator().manual_seed(seed)
    while blocks[0].n // 2 >= smallest:
        blocks = [half for block in blocks for half in _halves(block, generator)]
        at.append(blocks[0].n)
        values.append(sum(_slope(block.distances) for block in blocks) / len(blocks))
    return Curve(values[0], axis="rows", at=at, values=values)


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Levina & Bickel 2004, eq. 8; MacKay & Ghahramani 2005",
    higher="more dimensions",
    undefined={"constant"},
    minimum=_LEAST,
    beside="mle_dimension_curve",
)
def mle_dimension(neighbors: Annotated[Neighbors, Need(metric="euclidean", center=True, k="k")], *, k: int = 20) -> float:
    r"""The intrinsic dimension at the scale of k neighbors, by maximum likelihood.

    The inverse of the mean over rows of $m_i^{-1} = \frac{1}{k - 1} \sum_{j<k} \log(T_k / T_j)$, with $T_j$ the distance of a row [d]
    to its j-th neighbor. Rows that repeat another row exactly count once.

    Args:
        neighbors: Euclidean distances to the nearest rows.
        k: neighbors of each row; the scale.

    Returns:
        A dimension; not an integer in general.

    Raises:
        TooFewStimuliError: fewer than k + 1 distinct rows.
        DegenerateInputError: all rows are equal, or all distances are.

    Warns:
        InscapeWarning: some rows repeat others.

    Source:
        Levina & Bickel, "Maximum likelihood estimation of intrinsic dimension", NeurIPS 2004, eq. 8, averaged over rows as MacKay &
        Ghahramani, "Comments on 'Maximum likelihood estimation of intrinsic dimension'", 2005.

    Cost:
        n² d for the neighbors, shared by all measures of neighbors; then n k.

    Bias:
        Too low for dimensions above about 10 (14.8 for a cube of 20 at n = 5,000, k = 20).

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).random((2000, 2))
        >>> round(ix.measures.mle_dimension(X))
        2
    """
    if k < 2:
        raise DegenerateInputError(f"k = {k}: the likelihood needs at least 2 neighbors")
    distances = distinct(neighbors, "mle_dimension", k).distances[:, :k]
    mean_log_ratio = float((distances[:, -1:] / distances[:, :-1]).log().mean())
    if mean_log_ratio <= _SPREAD:
        raise DegenerateInputError(f"all {k} nearest distances of every row are equal; no dimension fits that")
    return 1 / mean_log_ratio


def distinct(neighbors: Neighbors, name: str, k: int = 2) -> Neighbors:
    """The neighbors among distinct rows: of rows that are equal, the first stays.

    Raises:
        DegenerateInputError: all rows are equal.
        TooFewStimuliError: too few distinct rows.
    """
    rows = torch.arange(neighbors.n, device=neighbors.ids.device)
    # Equal distances are in order of row number, so a copy sees the first of its kind before all others.
    copies = (neighbors.distances[:, 0] == 0) & (neighbors.ids[:, 0] < rows)
    count = int(copies.sum())
    left = neighbors.n - count
    if left == 1:
        raise DegenerateInputError(f"all {neighbors.n} rows are equal; there is no distance to a neighbor")
    if left < max(_LEAST, k + 1):
        raise TooFewStimuliError(
            f"{left} of {neighbors.n} rows are distinct; at least {max(_LEAST, k + 1)} are needed; use more, different stimuli"
        )
    if not count:
        return neighbors
    warnings.warn(
        f"{name}: {count} of {neighbors.n} rows repeat another row exactly; rows that are equal count once", InscapeWarning, stacklevel=5
    )
    return neighbors.drop(copies)


def _halves(block: Neighbors, generator: torch.Generator) -> list[Neighbors]:
    """The neighbors within two random halves of the rows; with an odd count the first half is the smaller one."""
    second = torch.ones(block.n, dtype=torch.bool)
    second[torch.randperm(block.n, generator=generator)[: block.n // 2]] = False
    return [block.drop(second), block.drop(~second)]


def _slope(distances: Float[Tensor, "n k"]) -> float:
    """The linear fit of TwoNN on the first two columns."""
    n = distances.shape[0]
    logs = (distances[:, 1] / distances[:, 0]).log().sort().values[: int(n * (1 - _DISCARDED))]
    squares = float(logs @ logs)
    if squares <= n * _SPREAD**2:
        raise DegenerateInputError(f"the two nearest distances are equal at each of {n} rows; no dimension fits that")
    tail = -torch.log1p(-torch.arange(1, len(logs) + 1, dtype=torch.float64, device=logs.device) / n)
    return float(tail @ logs) / squares
