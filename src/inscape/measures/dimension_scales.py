"""Intrinsic dimension as a curve over the scale at which it is read, and whether it depends on that scale."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from jaxtyping import Float
from scipy.optimize import root_scalar
from torch import Tensor

from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.base import measure
from inscape.measures.dimension import distinct
from inscape.results import Curve, format_number
from inscape.summaries import Neighbors
from inscape.summaries.base import Need

_SPREAD = 1e-12  # mean log ratio of distances below which they differ by rounding
_FOLD = 1.5  # a dimension that changes by more between two scales is not one number
_CROWD = 50  # scales are compared where a neighborhood is at most this fraction of the rows: larger ones feel the cloud's edge


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Denti et al. 2022, maximum likelihood",
    higher="more dimensions",
    undefined={"constant"},
    minimum=10,
)
def gride(neighbors: Annotated[Neighbors, Need(metric="euclidean", center=True, k="reach")], *, reach: int = 32) -> Curve:
    r"""The intrinsic dimension at growing scales, by the ratio of a row's distance to its 2s-th and its s-th neighbor.

    For the scales $s = 1, 2, 4, \dots$ up to half of `reach`, the $\hat{d}$ that maximizes the likelihood of the ratios
    $\mu_i = r_{2s} / r_s$ of all distinct rows [d]: the root of $\hat{d} \sum_i \left((2s - 1) - \frac{s - 1}{1 - \mu_i^{-\hat{d}}}\right)
    \log \mu_i = n - 1$. At scale 1 it is `two_nn_ml`. A plateau is a dimension; where noise fills the space at small scales the curve
    falls, and no single number is the dimension: then a warning says so.

    Args:
        neighbors: Euclidean distances to the nearest rows.
        reach: neighbors of each row that are looked at; the largest scale is half of them.

    Returns:
        A curve over scales (the nearer neighbor's number); its value is the one at the smallest scale.

    Raises:
        TooFewStimuliError: fewer than 10 or `reach` + 1 distinct rows.
        DegenerateInputError: all rows are equal, or all distances are.

    Warns:
        InscapeWarning: some rows repeat others; or the dimension depends on the scale: it changes by more than half between scales whose
            neighborhoods hold at most a fiftieth of the rows.

    Source:
        Denti, Doimo, Laio & Mira, "The generalized ratios intrinsic dimension estimator", Scientific Reports 2022: maximum likelihood,
        with n - 1 for n, which makes scale 1 unbiased (as the DADApy package).

    Cost:
        n² d for the neighbors, shared by all measures of neighbors; then n per scale and step of a root search.

    Bias:
        Too low for dimensions above about 10 and at scales that reach the edge of the cloud; too high where small noise fills the space.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).random((2000, 2))
        >>> [round(value) for value in ix.measures.gride(X).values]
        [2, 2, 2, 2, 2]
    """
    if reach < 2:
        raise DegenerateInputError(f"reach = {reach}: a ratio needs at least 2 neighbors")
    found = distinct(neighbors, "gride", reach)
    scales = [2**power for power in range(reach.bit_length() - 1)]
    values = [_gride(found.distances, scale) for scale in scales]
    _flag("gride", found.n, [2 * scale for scale in scales], values)
    return Curve(values[0], axis="scale", at=scales, values=values)


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Levina & Bickel 2004, over k",
    higher="more dimensions",
    undefined={"constant"},
    minimum=10,
)
def mle_dimension_curve(neighbors: Annotated[Neighbors, Need(metric="euclidean", center=True, k="k")], *, k: int = 20) -> Curve:
    r"""The intrinsic dimension by maximum likelihood for growing numbers of neighbors.

    `mle_dimension` at k, k/2, k/4 … down to 2 neighbors of each distinct row [d]. Where noise fills the space at small scales the curve
    falls, and no single number is the dimension: then a warning says so.

    Args:
        neighbors: Euclidean distances to the nearest rows.
        k: most neighbors of each row.

    Returns:
        A curve over numbers of neighbors; its value is `mle_dimension` at k.

    Raises:
        TooFewStimuliError: fewer than 10 or k + 1 distinct rows.
        DegenerateInputError: all rows are equal, or all distances are.

    Warns:
        InscapeWarning: some rows repeat others; or the dimension depends on the scale: it changes by more than half between scales whose
            neighborhoods hold at most a fiftieth of the rows.

    Source:
        Levina & Bickel, "Maximum likelihood estimation of intrinsic dimension", NeurIPS 2004, eq. 8, over k; inverse mean over rows as
        MacKay & Ghahramani 2005.

    Cost:
        n² d for the neighbors, shared by all measures of neighbors; then n k.

    Bias:
        As `mle_dimension` at each k; at k = 2 the spread over samples is largest.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).random((2000, 2))
        >>> ix.measures.mle_dimension_curve(X).at
        (2, 5, 10, 20)
    """
    if k < 2:
        raise DegenerateInputError(f"k = {k}: the likelihood needs at least 2 neighbors")
    found = distinct(neighbors, "mle_dimension_curve", k)
    counts = sorted({k >> halved for halved in range(k.bit_length() - 1)})
    values = [_mle(found.distances, count) for count in counts]
    _flag("mle_dimension_curve", found.n, counts, values)
    return Curve(values[-1], axis="neighbors", at=counts, values=values)


def _gride(distances: Float[Tensor, "n k"], scale: int) -> float:
    """The root of the likelihood equation, whose left side grows with d."""
    # NumPy: at this size a call of torch that starts threads costs more than its work.
    logs = (distances[:, 2 * scale - 1] / distances[:, scale - 1]).log().cpu().numpy()
    n, total = len(logs), float(logs.sum())
    if total <= n * _SPREAD:
        raise DegenerateInputError(f"neighbor {scale} and {2 * scale} are equally far at each of {n} rows; no dimension fits that")
    if scale == 1:
        return (n - 1) / total
    apart = logs[logs > 0]
    equal = n - len(apart)

    def excess(d: float) -> float:
        # (s − 1) / (1 − μ^−d) · log μ tends to (s − 1) / d for μ = 1
        falling = float((apart / -np.expm1(-d * apart)).sum()) + equal / d
        return d * ((2 * scale - 1) * total - (scale - 1) * falling) - (n - 1)

    low, high = 1e-6 * n / total, 2.0 * scale * n / total
    while excess(high) < 0:
        high *= 2
    return float(root_scalar(excess, bracket=(low, high), method="brentq", xtol=1e-14 * low, rtol=1e-13).root)


def _mle(distances: Float[Tensor, "n k"], k: int) -> float:
    chosen = distances[:, :k]
    mean_log_ratio = float((chosen[:, -1:] / chosen[:, :-1]).log().mean())
    if mean_log_ratio <= _SPREAD:
        raise DegenerateInputError(f"all {k} nearest distances of every row are equal; no dimension fits that")
    return 1 / mean_log_ratio


def _flag(name: str, n: int, neighbors: Sequence[int], values: Sequence[float]) -> None:
    """Warns where the dimension is not one number, among scales that do not reach the edge of the cloud."""
    small = [(count, value) for count, value in zip(neighbors, values, strict=True) if count * _CROWD <= n]
    if len(small) < 3:
        return
    (least, low), (most, high) = min(small, key=lambda one: one[1]), max(small, key=lambda one: one[1])
    if high > _FOLD * low:
        warnings.warn(
            f"{name}: the dimension depends on the scale, from {format_number(high)} within {most} neighbors to {format_number(low)} "
            f"within {least} of {n} rows; noise fills small scales, or the data have several dimensions: read the curve, not one number",
            InscapeWarning,
            stacklevel=5,
        )
