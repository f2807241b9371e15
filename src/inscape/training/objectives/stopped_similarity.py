"""Two views of one thing are drawn together, with the gradient stopped on one side."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from inscape.errors import StoreMismatchError
from inscape.training.objectives.base import checked, objective, tiny


@objective(
    "pair",
    source="Chen & He 2021, eq. 2",
    range=(-1, 1),
    invariant={"scale", "rotation", "row_order"},
)
def stopped_similarity(predicted: Tensor, target: Tensor) -> Tensor:
    r"""Minus the mean cosine between predictions and targets; no gradient reaches the targets.

    $-\frac1n \sum_i \cos(p_i, \mathrm{stop}(z_i))$. Without the stop, training draws all rows to one vector.

    Args:
        predicted: rows [n, d] of the predictor.
        target: rows [n, d] of the other view.

    Returns:
        A number without axes, from −1 (all agree) to 1.

    Raises:
        StoreMismatchError: the shapes differ.
        DegenerateInputError: no rows, or no floats.

    Source:
        Chen & He, "Exploring simple siamese representation learning", CVPR 2021, eq. 2.

    Cost:
        n d.

    Example:
        >>> float(stopped_similarity(torch.eye(3), 2 * torch.eye(3)))
        -1.0
    """
    if predicted.shape != target.shape:
        raise StoreMismatchError(f"predictions have shape {tuple(predicted.shape)}, targets {tuple(target.shape)}; they are pairs of rows")
    p, z = checked(predicted, "stopped_similarity", 1), checked(target.detach(), "stopped_similarity", 1)
    return -(functional.normalize(p, dim=1, eps=tiny(p)) * functional.normalize(z, dim=1, eps=tiny(z))).sum(1).mean()
