"""How far apart two kinds of input lie in the space that they share."""

from __future__ import annotations

import warnings

from torch import linalg

from inscape.errors import InscapeWarning, StoreMismatchError
from inscape.measures.base import measure
from inscape.summaries import Directions


@measure(
    invariant={"scale", "row_order"},
    sensitive={"translation", "rotation", "permutation", "unit_scale"},
    range=(0, 2),
    source="Liang et al. 2022",
    higher="more different",
    symmetric=True,
    undefined=(),
    minimum=1,
    null="near 0 where both kinds fill the same part of the sphere: about sqrt(1/n + 1/m) from chance alone",
    paired=False,
)
def modality_gap(x: Directions, y: Directions) -> float:
    r"""The distance between the centers of two clouds on one sphere, such as images and texts of a model that embeds both.

    $\lVert \frac1n \sum_i x_i / \lVert x_i \rVert - \frac1m \sum_j y_j / \lVert y_j \rVert \rVert$ for rows [n, d] and [m, d] in one space;
    they need no common order.

    Args:
        x: unit rows of the first kind.
        y: unit rows of the second kind.

    Returns:
        A distance, from 0 to 2.

    Raises:
        StoreMismatchError: the two have different numbers of units.
        TooFewStimuliError: all rows of one side are zero.
        DegenerateInputError: the rows hold NaN or infinity.

    Warns:
        InscapeWarning: zero rows, which have no direction, are left out.

    Source:
        Liang, Zhang, Kwon, Yeung & Zou, "Mind the gap: understanding the modality gap in multi-modal contrastive representation learning",
        NeurIPS 2022. Later work finds the same gap within one modality: it comes from the loss, not from the kinds of input.

    Cost:
        (n + m) d.

    Bias:
        Too high by about sqrt(1/n + 1/m) for clouds without a common direction.

    Example:
        >>> import numpy as np, inscape as ix
        >>> round(ix.measures.modality_gap(np.array([[1.0, 0], [2, 0]]), np.array([[0.0, 3]])), 6)
        1.414214
    """
    if x.d != y.d:
        raise StoreMismatchError(f"X has {x.d} units, Y has {y.d}; both kinds must be embedded in one space")
    if x.zero_rows + y.zero_rows:
        warnings.warn(
            f"modality_gap: {x.zero_rows + y.zero_rows} zero rows have no direction and are left out", InscapeWarning, stacklevel=4
        )
    return float(linalg.vector_norm(x.sum / x.n - y.sum / y.n))
