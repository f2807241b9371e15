"""Units that stop varying cost something."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from inscape.errors import DegenerateInputError
from inscape.training.objectives.base import checked, objective


@objective(
    "rows",
    source="Bardes et al. 2022, eq. 1",
    range=(0, float("inf")),
    improves="effective_rank",
    invariant={"translation", "permutation", "row_order"},
)
def variance_hinge(rows: Tensor, least: float = 1.0) -> Tensor:
    r"""How far the standard deviation of each unit stays below `least`, averaged: add it to a loss, and no unit dies.

    $\frac1d \sum_j \max(0, \mathrm{least} - \sqrt{\mathrm{Var}(x_j) + \epsilon})$ for rows [n, d], with ε = 10⁻⁴, which keeps the
    gradient of a constant unit finite.

    Args:
        rows: [n, d] or [b, t, d].
        least: the standard deviation that is enough.

    Returns:
        A number without axes, from 0 to `least`.

    Raises:
        DegenerateInputError: fewer than 2 rows, no floats, or `least` not above 0.

    Source:
        Bardes, Ponce & LeCun, "VICReg", ICLR 2022, eq. 1.

    Cost:
        n d.

    Example:
        >>> round(float(variance_hinge(torch.zeros(4, 3))), 2)
        0.99
    """
    if not least > 0:
        raise DegenerateInputError(f"least={least} is a standard deviation; give a number above 0")
    X = checked(rows, "variance_hinge")
    return functional.relu(least - (X.var(0) + 1e-4).sqrt()).mean()
