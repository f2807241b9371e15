"""Units that repeat one another cost something."""

from __future__ import annotations

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.training.objectives.base import checked, objective


@objective(
    "rows",
    source="Zbontar et al. 2021; Hua et al. 2021, decorrelation of features",
    range=(0, 1),
    improves="effective_rank",
    invariant={"translation", "scale", "unit_scale", "permutation", "row_order"},
)
def decorrelation(rows: Tensor) -> Tensor:
    r"""The mean squared correlation between two different units: add it to a loss, and units stop repeating one another.

    $\frac{1}{d (d - 1)} \sum_{i \ne j} r_{ij}^2$ over the columns of rows [n, d], the measure `feature_correlation` with gradients. A unit
    that is constant has no correlation and counts as 0.

    Args:
        rows: [n, d] or [b, t, d].

    Returns:
        A number without axes, from 0 to 1.

    Raises:
        DegenerateInputError: fewer than 2 rows or units, or no floats.

    Source:
        Zbontar, Jing, Misra, LeCun & Deny, "Barlow Twins", ICML 2021, for two views; Hua et al., "On feature decorrelation in
        self-supervised learning", ICCV 2021.

    Cost:
        n d².

    Example:
        >>> round(float(decorrelation(torch.tensor([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]))), 4)
        1.0
    """
    X = checked(rows, "decorrelation")
    d = X.shape[1]
    if d < 2:
        raise DegenerateInputError(f"decorrelation needs at least 2 units, got shape {tuple(rows.shape)}")
    centered = X - X.mean(0)
    squares = centered.square().sum(0)
    varies = squares > torch.finfo(X.dtype).eps ** 2 * X.square().sum(0)
    unit = torch.where(varies, centered / torch.where(varies, squares, 1.0).sqrt(), 0.0)
    correlations = unit.T @ unit
    return (correlations.square().sum() - correlations.diagonal().square().sum()) / (d * (d - 1))
