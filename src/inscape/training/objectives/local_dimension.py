"""Rows that come to lie on thin sheets cost something."""

from __future__ import annotations

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError, TooFewStimuliError
from inscape.training.objectives.base import checked, objective


@objective(
    "rows",
    source="Huang et al. 2024, LDReg",
    improves="mle_dimension",
    invariant={"translation", "rotation", "scale", "row_order"},
)
def local_dimension(rows: Tensor, k: int = 20) -> Tensor:
    r"""Minus the mean logarithm of the dimension around each row: add it to a loss, and neighborhoods keep their directions.

    $-\frac1n \sum_i \log m_i$, where $m_i = \bar r_i / (w_i - \bar r_i)$ is the method of moments on the distances to the k nearest rows of
    the batch, with mean $\bar r_i$ and largest $w_i$. The geometric mean is the right one to raise, since distances of dimensions are
    differences of logarithms.

    Args:
        rows: [n, d] or [b, t, d]; a batch of at least k + 1, better of 2 k.
        k: neighbors.

    Returns:
        A number without axes; −log m where all rows have the dimension m.

    Raises:
        TooFewStimuliError: fewer than k + 1 rows.
        DegenerateInputError: no floats, or k below 2.

    Source:
        Huang, Campello, Erfani, Ma, Houle & Bailey, "LDReg: local dimensionality regularized self-supervised learning", ICLR 2024.

    Cost:
        n² d.

    Bias:
        Too low a dimension where it is above about log₂ of the batch: neighbors of a small batch are far away.

    Example:
        >>> line = torch.arange(200.0, dtype=torch.float64)[:, None]
        >>> round(float(local_dimension(line, k=50).neg().exp()), 1)  # distances 1, 1, 2, 2, … 25: one dimension
        1.0
    """
    X = checked(rows, "local_dimension")
    if k < 2:
        raise DegenerateInputError(f"k={k} neighbors give no dimension; take 2 or more")
    if X.shape[0] <= k:
        raise TooFewStimuliError(f"local_dimension with k={k} needs at least {k + 1} rows, got {X.shape[0]}; take a larger batch")
    C = X - X.detach().mean(0)  # far from the origin distances lose their digits, and the floor below would grow
    with torch.no_grad():
        near = torch.cdist(C, C).fill_diagonal_(torch.inf).topk(k, largest=False).indices
    floor = 1e-12 * C.detach().square().mean() + torch.finfo(X.dtype).tiny ** 0.5
    # From differences and not from cdist: its gradient at equal rows is no number.
    radii = ((C[near] - C[:, None]).square().sum(2) + floor).sqrt()
    mean, widest = radii.mean(1), radii.amax(1)
    return -(mean / (widest - mean).clamp(min=1e-6 * float(widest.detach().max()))).log().mean()
