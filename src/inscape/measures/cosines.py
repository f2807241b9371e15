"""The mean cosine of rows after what they have in common is taken away."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError, InscapeWarning, TooFewStimuliError
from inscape.measures.base import measure
from inscape.summaries import Rows
from inscape.summaries.blocks import gram

_ROUNDING = 1e-12  # of the largest row: what is left below this share of it is rounding


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(-1, 1),
    source="Cai et al. 2021, adjusted cosine",
    higher="directions more alike",
)
def mean_cosine_centered(rows: Rows) -> float:
    r"""The mean cosine between two different rows about their common mean: what of `mean_cosine` is not the offset of all rows.

    $\left(\lVert \sum_i u_i \rVert^2 - n\right) / (n (n - 1))$ with $u_i = (x_i - \mu) / \lVert x_i - \mu \rVert$ for the rows [n, d];
    every pair counts.

    Args:
        rows: the rows [n, d].

    Returns:
        A cosine, from -1/(n - 1) to 1; near 0 for most clouds, higher where many rows lie on one side and a few far on the other.

    Raises:
        DegenerateInputError: all rows are equal.
        TooFewStimuliError: fewer than 2 rows, or fewer than 2 that are not the mean.

    Warns:
        InscapeWarning: some rows equal the mean and are left out.

    Source:
        Cai, Huang, Bian & Church, "Isotropy in the contextual embedding space: clusters and manifolds", ICLR 2021: cosines after the
        mean is subtracted.

    Cost:
        n d.

    Bias:
        Slightly below 0 for a symmetric cloud, about -1/(n - 1): the mean was fitted to the rows.

    Example:
        >>> import numpy as np, inscape as ix
        >>> corners = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]) + 7
        >>> round(ix.measures.mean_cosine_centered(corners), 6)
        -0.333333
    """
    wide = rows.rows.double()
    return _mean_cosine(wide - wide.mean(0), wide, "mean_cosine_centered", "equal the mean")


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive=(),
    range=(-1, 1),
    source="Mu & Viswanath 2018, all-but-the-top",
    higher="directions more alike",
    undefined={"constant", "rank_one"},
    minimum=3,
)
def mean_cosine_pcs_removed(rows: Rows, *, removed: int = 3) -> float:
    r"""The mean cosine between two different rows after the mean and the strongest directions are taken away.

    As `mean_cosine_centered`, for the rows [n, d] without their components on the first `removed` principal components.

    Args:
        rows: the rows [n, d].
        removed: principal components to take away; the paper suggests about d / 100.

    Returns:
        A cosine, from -1/(n - 1) to 1.

    Raises:
        TooFewStimuliError: fewer than `removed` + 2 rows.
        DegenerateInputError: nothing is left: the centered rows have no more than `removed` directions.

    Warns:
        InscapeWarning: some rows have nothing left and are left out.

    Source:
        Mu & Viswanath, "All-but-the-top: simple and effective postprocessing for word representations", ICLR 2018, algorithm 1.

    Cost:
        n d min(n, d) and min(n, d)³.

    Bias:
        Slightly below 0 for a symmetric cloud: mean and components were fitted to the rows.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[9.0, 1], [-9, 1], [9, -1], [-9, -1]])
        >>> round(ix.measures.mean_cosine_pcs_removed(X, removed=1), 6)
        -0.333333
    """
    if removed < 0:
        raise ValueError(f"removed = {removed}; give a number of principal components, 0 or more")
    if rows.n < removed + 2:
        raise TooFewStimuliError(f"removing {removed} directions needs at least {removed + 2} rows, got {rows.n}; remove fewer")
    wide = rows.rows.double()
    wide = wide / (float(wide.abs().max()) or 1.0)  # squares of very large rows stay finite
    centered = wide - wide.mean(0)
    tall = rows.n >= rows.d
    values, vectors = torch.linalg.eigh(gram(centered if tall else centered.T))
    rank = int((values > max(rows.n, rows.d) * torch.finfo(torch.float64).eps * values[-1]).sum())
    if rank <= removed:
        raise DegenerateInputError(
            f"the {rows.n} centered rows (shape [{rows.n}, {rows.d}]) have {rank} directions; nothing is left without {removed} of them"
        )
    if removed:
        strongest = vectors[:, -removed:]
        centered = centered - (centered @ strongest @ strongest.T if tall else strongest @ (strongest.T @ centered))
    return _mean_cosine(centered, wide, "mean_cosine_pcs_removed", "have nothing left")


def _mean_cosine(centered: Tensor, rows: Tensor, name: str, why: str) -> float:
    """Of the rows of `centered`, without those that are rounding of `rows`."""
    n = centered.shape[0]
    lengths = torch.linalg.vector_norm(centered, dim=1)
    kept = lengths > _ROUNDING * float(torch.linalg.vector_norm(rows, dim=1).max())
    count = int(kept.sum())
    if count < 2:
        if count == 0:
            raise DegenerateInputError(f"all {n} rows {why} (shape {tuple(rows.shape)}); there are no directions to compare")
        raise TooFewStimuliError(f"{n - count} of {n} rows {why}; a mean cosine needs two others")
    if count < n:
        warnings.warn(f"{name}: {n - count} of {n} rows {why} and are left out", InscapeWarning, stacklevel=5)
    total = (centered[kept] / lengths[kept].unsqueeze(1)).sum(0)
    return (float(total @ total) - count) / (count * (count - 1))
