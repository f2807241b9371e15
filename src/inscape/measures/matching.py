"""Similarity of two representations unit by unit: which unit of one corresponds to which of the other."""

from __future__ import annotations

import math
import warnings

import numpy as np
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.base import measure
from inscape.measures.shape import distance
from inscape.measures.transport import transport
from inscape.summaries import CrossMoments, Moments


def correlations(pair: CrossMoments, name: str) -> np.ndarray:
    """Correlation of every unit of X with every unit of Y, [p, q] without the units that never change; a warning counts those.

    Raises:
        DegenerateInputError: no unit of one input changes.
    """
    (first, scale_x), (second, scale_y) = (_alive(moments, side) for moments, side in ((pair.x, "X"), (pair.y, "Y")))
    dead = pair.x.d - len(first) + pair.y.d - len(second)
    if dead:
        warnings.warn(f"{name}: {dead} units that never change are left out", InscapeWarning, stacklevel=5)
    table = pair.cross[first][:, second] / scale_x[:, None] / scale_y
    return table.clamp(-1, 1).numpy()


def _alive(moments: Moments, side: str) -> tuple[Tensor, Tensor]:
    """Numbers of the units that change, and the root of their sum of squares."""
    square = moments.scatter.diagonal()
    rounding = (1e-13 * moments.n**0.5 * moments.mean.abs()) ** 2
    chosen = (square > rounding).nonzero().squeeze(1)
    if not len(chosen):
        raise DegenerateInputError(f"all {moments.n:g} rows of {side} are equal, so no unit correlates with anything")
    return chosen, square[chosen].sqrt()


@measure(
    invariant={"translation", "permutation", "unit_scale", "row_order"},
    sensitive={"rotation"},
    range=(-1, 1),
    source="Li et al. 2015",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="about sqrt(2 log(d) / n) for independent units",
)
def neuron_match(pair: CrossMoments) -> float:
    r"""The mean correlation of units that are paired one to one so that the sum of correlations is largest.

    $\frac{1}{m} \max_\pi \sum_i r(x_i, y_{\pi(i)})$ over one-to-one assignments π of the $m = \min(p, q)$ units of the narrower side;
    paired rows [n, p] and [n, q]. Units that never change are left out and counted.

    Args:
        pair: moments of both sides and across.

    Returns:
        A correlation, from −1 to 1.

    Raises:
        DegenerateInputError: no unit of one input changes.
        TooFewStimuliError: fewer than 3 rows.

    Warns:
        InscapeWarning: units that never change, with their number.

    Source:
        Li, Yosinski, Clune, Lipson & Hopcroft, "Convergent learning: do different neural networks learn the same representations?",
        2015 (bipartite matching).

    Cost:
        n p q for the moments, shared with all pair measures of this family; p³ at most for the assignment.

    Bias:
        Too high: the assignment picks the largest of p q chance correlations of order 1 / sqrt(n). Read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 4))
        >>> round(ix.measures.neuron_match(X, 3 * X[:, [2, 0, 3, 1]]), 6)
        1.0
    """
    table = correlations(pair, "neuron_match")
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].mean())


@measure(
    invariant={"translation", "permutation", "unit_scale", "row_order"},
    sensitive={"rotation"},
    range=(-1, 1),
    source="Li et al. 2015, semi-matching",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="about sqrt(2 log(d) / n) for independent units",
)
def neuron_match_soft(pair: CrossMoments) -> float:
    r"""The mean over units of the correlation with their best partner on the other side, both directions averaged.

    $\frac{1}{2} \left( \frac{1}{p} \sum_i \max_j r_{ij} + \frac{1}{q} \sum_j \max_i r_{ij} \right)$ with the correlations r of units,
    paired rows [n, p] and [n, q]. Several units may share a partner. Units that never change are left out and counted.

    Args:
        pair: moments of both sides and across.

    Returns:
        A correlation, from −1 to 1.

    Raises:
        DegenerateInputError: no unit of one input changes.
        TooFewStimuliError: fewer than 3 rows.

    Warns:
        InscapeWarning: units that never change, with their number.

    Source:
        Li, Yosinski, Clune, Lipson & Hopcroft, "Convergent learning", 2015 (semi-matching), averaged over both directions.

    Cost:
        n p q for the moments, shared with all pair measures of this family; p q beyond them.

    Bias:
        Too high: a maximum over chance correlations of order 1 / sqrt(n). Read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 4))
        >>> round(ix.measures.neuron_match_soft(X, X[:, [0, 0, 1, 2, 3]]), 6)
        1.0
    """
    table = correlations(pair, "neuron_match_soft")
    return float(table.max(1).mean() + table.max(0).mean()) / 2


@measure(
    invariant={"translation", "permutation", "unit_scale", "row_order"},
    sensitive={"rotation"},
    range=(-1, 1),
    source="Khosla & Williams 2024",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="about sqrt(2 log(d) / n) for independent units",
)
def soft_matching(pair: CrossMoments) -> float:
    r"""The correlation of units under the best transport plan from one set of units to the other: matching for unequal widths.

    $\max_T \sum_{ij} T_{ij} r_{ij}$ over plans $T \ge 0$ with row sums 1/p and column sums 1/q, with the correlations r of units,
    paired rows [n, p] and [n, q]. For p = q it is `neuron_match`. Units that never change are left out and counted.

    Args:
        pair: moments of both sides and across.

    Returns:
        A correlation, from −1 to 1. With unit-norm units the distance of the source is $\sqrt{2 - 2 \cdot}$ of it.

    Raises:
        DegenerateInputError: no unit of one input changes.
        TooFewStimuliError: fewer than 3 rows.
        MemoryBudgetError: very many units whose numbers have no small common multiple.

    Warns:
        InscapeWarning: units that never change, with their number.

    Source:
        Khosla & Williams, "Soft matching distance: a metric on neural representations that captures single-neuron tuning", 2024.

    Cost:
        n p q for the moments, shared with all pair measures of this family; an assignment problem, or a linear program where the
        widths have no small common multiple.

    Bias:
        Too high: the plan picks the largest of p q chance correlations of order 1 / sqrt(n). Read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 3))
        >>> round(ix.measures.soft_matching(X, X[:, [0, 0, 1, 1, 2, 2]]), 6)
        1.0
    """
    table = correlations(pair, "soft_matching")
    return min(1.0, transport(table))


@measure(
    invariant={"translation", "permutation", "row_order"},
    sensitive={"rotation", "scale", "unit_scale"},
    range=(0, math.inf),
    source="Williams et al. 2021, the permutation group",
    higher="more different",
    symmetric=True,
    undefined=(),
    minimum=2,
    null="near sqrt(|X|² + |Y|²) for units with nothing in common",
)
def permutation_procrustes(pair: CrossMoments) -> float:
    r"""The distance between two representations after the best reordering of units, in the units of the activations.

    $\min_P \lVert X_c P - Y_c \rVert_F$ over permutations P (the narrower side padded with units of zeros), centered paired rows [n, p]
    and [n, q]. It is a metric, and never below `procrustes_distance`.

    Args:
        pair: moments of both sides and across.

    Returns:
        A distance, 0 or more, in units of activation; it grows with sqrt(n).

    Raises:
        TooFewStimuliError: fewer than 2 rows.
        DegenerateInputError: the values leave the range of fp64.

    Source:
        Williams, Kunz, Kornblith & Linderman, "Generalized shape metrics on neural representations", NeurIPS 2021.

    Cost:
        n p q for the moments, shared with all pair measures of this family; p³ at most for the assignment.

    Bias:
        Too low for many units and few rows: chance covariances are picked.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[1.0, 0], [-1, 0], [0, 2], [0, -2]])
        >>> round(ix.measures.permutation_procrustes(X, X[:, ::-1].copy()), 6)
        0.0
    """
    table = pair.cross.numpy()
    if not np.isfinite(table).all():
        raise DegenerateInputError("the covariances leave the range of fp64; multiply the rows by a constant first")
    rows, columns = linear_sum_assignment(table, maximize=True)
    return distance(pair.x.trace + pair.y.trace, float(table[rows, columns].sum()))
