"""Whether units that lie near each other respond alike."""

from __future__ import annotations

import math
import warnings
from typing import Annotated

from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.base import measure
from inscape.summaries.base import Need
from inscape.summaries.unit_maps import UnitMaps


@measure(
    invariant={"scale", "row_order"},
    sensitive={"translation", "rotation", "permutation"},
    range=(-math.inf, math.inf),
    source="Moran 1950",
    higher="smoother maps",
    undefined=(),
    minimum=1,
    null="-1 / (d - 1) for values in random places",
)
def moran_i(maps: Annotated[UnitMaps, Need(radius="radius")], *, radius: float = 1.5) -> float:
    r"""The spatial autocorrelation of maps: near 1 where neighboring units have like values, below 0 where they alternate.

    The mean over rows x [d] of $\frac{d}{2p} \sum_{i \sim j} (x_i - \bar x)(x_j - \bar x) / \sum_i (x_i - \bar x)^2$, each of p pairs of
    neighboring units counting in both orders. Give a row for each map: a response, or one row with the selectivity of every unit.

    Args:
        maps: rows [n, d] and positions of the units [d, 1 to 3]; of a view, the columns x, y and z of its unit table.
        radius: how far neighbors may lie apart, in median distances to the nearest unit; 1.5 takes the eight around a unit on a grid.

    Returns:
        A number without unit; for a smooth map near 1, of random values about −1/(d − 1), on a checkerboard with radius 1.2 −1.

    Raises:
        DegenerateInputError: all maps are flat, a single unit, units in one place, or `radius` not positive.
        StoreMismatchError: there is not one position per unit.
        TooFewStimuliError: no row.

    Warns:
        InscapeWarning: flat maps, which are left out, with their number.

    Source:
        Moran, "Notes on continuous stochastic phenomena", Biometrika 1950, with weight 1 for neighbors and 0 otherwise.

    Cost:
        d log d for neighbors, shared by all rows, then n times the pairs.

    Bias:
        −1/(d − 1) for values in random places, 0 only for many units.

    Example:
        >>> import numpy as np, inscape as ix
        >>> stripes = np.array([[0.0, 1, 0, 1]])
        >>> ix.measures.moran_i(stripes, np.arange(4))
        -1.0
    """
    largest = maps.rows.abs().amax(1, keepdim=True)
    scaled = maps.rows / largest.clamp(min=1e-300)  # of a row without a unit: squares of large values would overflow
    centered = scaled - scaled.mean(1, keepdim=True)
    power = centered.square().sum(1)
    varied = power > 1e-24 * scaled.square().sum(1)
    flat = int((~varied).sum())
    if flat == maps.n:
        raise DegenerateInputError(f"all {maps.n} maps are flat (shape [{maps.n}, {maps.d}]): every unit has the same value")
    if flat:
        warnings.warn(f"moran_i: {flat} of {maps.n} maps are flat and left out", InscapeWarning, stacklevel=4)
    first, second = maps.pairs.T
    shared = (centered[varied][:, first] * centered[varied][:, second]).sum(1)
    return float((maps.d * shared / (len(maps.pairs) * power[varied])).mean())
