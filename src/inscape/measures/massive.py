"""Single entries that drown all others."""

from __future__ import annotations

import math

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.results import Curve
from inscape.summaries import Extremes

# The axis of places in a matrix of rows; `ix.measure` says the stimulus and token of each in place of the row.
ROW_UNIT = "row, unit"


@measure(
    invariant={"permutation", "row_order"},
    sensitive={"translation", "rotation", "unit_scale"},
    range=(1, math.inf),
    source="Sun et al. 2024, massive activations",
    higher="one entry stands out more",
    undefined=(),
    minimum=1,
)
def massive_activations(extremes: Extremes) -> Curve:
    r"""How far the largest entry exceeds the typical one, and where the largest entries are.

    $\max_{ij} |x_{ij}| \,/\, \mathrm{median}_{ij} |x_{ij}|$ over the rows [n, d], with the 16 largest entries as a curve. The paper calls
    an entry massive if it is above 100 and more than 1,000 times the median of its layer; small models stay far below that.

    Args:
        extremes: the largest entries and a histogram of all.

    Returns:
        A curve over places "row, unit" (in a result of `ix.measure` "stimulus, position, unit") of the 16 largest entries in units of the
        median, largest first; its value is the first of them.

    Raises:
        DegenerateInputError: more than half of all entries are zero, so the median is.

    Source:
        Sun, Chen, Kolter & Liu, "Massive activations in large language models", COLM 2024.

    Cost:
        n d in one pass.

    Bias:
        A maximum grows with n. The median comes from a histogram and is within 1.6 %.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.ones((10, 4)); X[7, 2] = -500
        >>> ix.measures.massive_activations(X).at[0]
        '7, 2'
    """
    median = extremes.quantile(0.5)
    if median == 0:
        raise DegenerateInputError(
            f"at least half of all entries ({extremes.n} rows of {extremes.d} units) are zero; the median says nothing"
        )
    values = [max(1.0, size / median) for size, _, _ in extremes.top]
    return Curve(values[0], axis=ROW_UNIT, at=[f"{row}, {unit}" for _, row, unit in extremes.top], values=values)
