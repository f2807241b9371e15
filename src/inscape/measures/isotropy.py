"""How evenly a representation fills its space."""

from __future__ import annotations

import warnings

from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.base import measure
from inscape.measures.spectrum import varying
from inscape.summaries import Directions, Moments


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, 1),
    source="Rudman et al. 2022, in closed form",
    higher="more isotropic",
)
def isoscore(moments: Moments) -> float:
    r"""The share of the space that the representation fills evenly: 1 for an isotropic cloud, 0 for a line.

    $(\mathrm{PR} - 1) / (d - 1)$ with the participation ratio PR of the rows [n, d]. The published algorithm rotates the rows to
    their principal components, normalizes the variances and rescales a distance to the uniform spectrum; algebra turns it into this.

    Args:
        moments: of the rows [n, d].

    Returns:
        A share of dimensions, from 0 to 1.

    Raises:
        DegenerateInputError: all rows are equal, or there is a single unit.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Rudman, Gillman, Rayne & Eickhoff, "IsoScore: measuring the uniformity of embedding space utilization", Findings of ACL 2022,
        algorithm 1, in closed form.

    Cost:
        n d² for the scatter, shared with all spectral measures, then d².

    Bias:
        Too low for small n, and never above (n - 2) / (d - 1).

    Example:
        >>> import numpy as np, inscape as ix
        >>> corners = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
        >>> round(ix.measures.isoscore(corners), 6)
        1.0
    """
    varying(moments)
    if moments.d == 1:
        raise DegenerateInputError(f"one unit (shape [{moments.n:g}, 1]) has no isotropy; at least 2 units are needed")
    return (moments.trace**2 / moments.frobenius2 - 1) / (moments.d - 1)


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(-1, 1),
    source="Ethayarajh 2019, anisotropy",
    higher="directions more alike",
    undefined=(),
    null="0 for rows without a common direction",
)
def mean_cosine(directions: Directions) -> float:
    r"""The mean cosine between two different rows: near 1 when all rows point the same way, near 0 when they point everywhere.

    $\left(\lVert \sum_i u_i \rVert^2 - n\right) / (n (n - 1))$ with $u_i = x_i / \lVert x_i \rVert$ for the rows [n, d] as they are;
    every pair counts and none is sampled.

    Args:
        directions: the unit rows.

    Returns:
        A cosine, from -1/(n - 1) to 1.

    Raises:
        DegenerateInputError: the rows hold NaN or infinity.
        TooFewStimuliError: fewer than 2 rows that are not zero.

    Warns:
        InscapeWarning: some rows are zero, have no direction and are left out.

    Source:
        Ethayarajh, "How contextual are contextualized word representations?", EMNLP 2019: the anisotropy
        baseline, over all pairs.

    Cost:
        n d.

    Bias:
        None: a mean over all pairs of different rows. One large mean or one large unit can carry it alone.

    Example:
        >>> import numpy as np, inscape as ix
        >>> corners = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
        >>> round(ix.measures.mean_cosine(corners), 6)
        -0.333333
    """
    if directions.zero_rows:
        warnings.warn(
            f"mean_cosine: {directions.zero_rows} zero rows have no direction and are left out; {directions.n:g} rows count",
            InscapeWarning,
            stacklevel=4,
        )
    return directions.mean_cosine
