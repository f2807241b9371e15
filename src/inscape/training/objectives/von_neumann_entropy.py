"""The entropy of the spectrum, as a term to be raised."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from inscape.training.objectives.base import checked, objective, tiny


@objective(
    "rows",
    source="Skean et al. 2024, matrix entropy of the normalized kernel",
    range=(0, float("inf")),
    better="higher",
    improves="von_neumann_entropy",
    invariant={"rotation", "scale", "row_order"},
)
def von_neumann_entropy(rows: Tensor) -> Tensor:
    r"""The entropy of the eigenvalues of the rows' cosines: subtract it from a loss, and the rows spread over directions.

    $-\sum_i \lambda_i \log \lambda_i$ with the eigenvalues $\lambda$ of $Z^\top Z / n$, where Z holds the rows scaled to length 1; the
    measure of the same name with gradients.

    Args:
        rows: [n, d] or [b, t, d].

    Returns:
        A number without axes, in nats; 0 when all rows point one way, log min(n, d) when all directions count alike.

    Raises:
        DegenerateInputError: fewer than 2 rows, or no floats.

    Source:
        Skean, Osorio, Brockmeier & Sanchez Giraldo, "DiME: maximizing mutual information by a difference of matrix-based entropies", 2024.

    Cost:
        n d min(n, d), and the cube of the smaller side.

    Example:
        >>> round(float(von_neumann_entropy(torch.eye(4))), 4)  # log 4
        1.3863
    """
    Z = functional.normalize(checked(rows, "von_neumann_entropy"), dim=1, eps=tiny(rows))
    kernel = (Z @ Z.T if Z.shape[0] <= Z.shape[1] else Z.T @ Z) / Z.shape[0]
    values = torch.linalg.eigvalsh(kernel).clamp(min=torch.finfo(Z.dtype).eps)
    return -(values * values.log()).sum()
