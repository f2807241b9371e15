"""Whether a representation of combinations is a sum of parts, one for each factor."""

from __future__ import annotations

import math
import warnings
from functools import cached_property

import numpy as np

from inscape.errors import DegenerateInputError, InscapeWarning, TooFewStimuliError
from inscape.measures.base import measure
from inscape.results import Curve
from inscape.summaries.factors import Factors

_NULL_R2 = "(values - factors) / (combinations - 1), with the values of all factors together, for means that have nothing to do with them"


class _Cells:
    """Mean rows of the combinations of factors that occur, and the least-squares parts of every value of a factor."""

    def __init__(self, factors: Factors) -> None:
        if any(factors.continuous.values()):
            named = [name for name, continuous in factors.continuous.items() if continuous]
            raise DegenerateInputError(f"{', '.join(named)} is continuous; a combination needs factors with values that come back")
        factors.require(factors=2)
        self.factors = factors
        coded = np.stack(list(factors.codes.values()), 1)
        self.combinations, self.cell = np.unique(coded, axis=0, return_inverse=True)
        self.cell = self.cell.reshape(-1)
        count = len(self.combinations)
        # Taken from the first row: exact where a large offset hides small differences.
        self.rows = (factors.rows - factors.rows[0]).numpy()
        sums = np.zeros((count, factors.d))
        np.add.at(sums, self.cell, self.rows)
        self.means = sums / np.bincount(self.cell)[:, None]
        # Each value of each factor is a column; sums of a factor's parts are fixed at 0 by centering them afterwards.
        self.starts = np.cumsum([0, *factors.sizes.values()])
        self.design = np.zeros((count, self.starts[-1]))
        for i, start in enumerate(self.starts[:-1]):
            self.design[np.arange(count), start + self.combinations[:, i]] = 1
        self.spread = float(((self.means - self.means.mean(0)) ** 2).sum())
        if self.spread <= 1e-24 * float((self.rows**2).sum()) or self.spread == 0:
            raise DegenerateInputError(f"all {count} combinations have the same mean row; there is nothing to take apart")

    @property
    def free(self) -> int:
        """How many numbers a unit's additive fit is free to choose beside the mean."""
        return int(np.linalg.matrix_rank(self.design)) - 1

    @cached_property
    def parts(self) -> list[np.ndarray]:
        """By factor the parts of its values, [values, d], centered."""
        solution = _least_squares(self.design, self.means)
        return [(part := solution[a:b]) - part.mean(0) for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]

    @cached_property
    def explained(self) -> float:
        """Share of the variance of the combinations' means that the sum of parts explains."""
        fitted = self.design @ _least_squares(self.design, self.means)
        return float(np.clip(1 - ((self.means - fitted) ** 2).sum() / self.spread, 0, 1))


def _least_squares(design: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The shortest solution of least squares, [columns, d]."""
    return np.linalg.lstsq(design, means, rcond=None)[0]


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, 1),
    source="Trager et al. 2023; Uselis et al. 2025",
    higher="closer to a sum of parts",
    minimum=4,
    null=_NULL_R2,
)
def linear_factorization(factors: Factors) -> float:
    r"""How far the representation of a combination is the sum of a part for each of its factors: the share of variance explained.

    $1 - \sum_c \lVert \bar z_c - \mu - \sum_f u_{f, c_f} \rVert^2 / \sum_c \lVert \bar z_c - \mu \rVert^2$ for the mean row $\bar z_c$ of
    each combination c of values that occurs, and the parts u that fit best (least squares, every combination weighing the same); rows
    [n, d].

    Args:
        factors: rows [n, d] with at least two factors.

    Returns:
        A share of variance, from 0 to 1; 1 when every combination is exactly the sum of its parts.

    Raises:
        DegenerateInputError: fewer than two factors, a continuous one or one with a single value; so few combinations that any rows are a
            sum of parts; or all combinations have the same mean.
        TooFewStimuliError: fewer than 4 rows.

    Source:
        Trager et al., "Linear spaces of meanings", ICCV 2023; Uselis, Dittadi & Oh, "Does data scaling lead to visual compositional
        generalization?", ICML 2025. Not whitened: directions of large variance count for more.

    Cost:
        n d for the means, C d v for C combinations and v values.

    Bias:
        Noise in the means of few rows counts as lack of structure, and what the parts fit by chance as structure: compare with the null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
        >>> round(ix.measures.linear_factorization((a + b + a * b)[:, None], {"a": a, "b": b}), 6)
        0.947368
    """
    cells = _Cells(factors)
    if cells.free >= len(cells.combinations) - 1:
        raise DegenerateInputError(
            f"{len(cells.combinations)} combinations and {cells.free} free parts: any rows are a sum of parts then; more combinations of "
            "the same values are needed"
        )
    return cells.explained


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, 1),
    source="Uselis et al. 2026, orthogonality of factors",
    higher="factors in more orthogonal directions",
    minimum=4,
    null="1 - sqrt(2 / πd) for directions by chance",
)
def factor_orthogonality(factors: Factors) -> float:
    r"""Whether different factors move the representation in orthogonal directions: 1 when they do, 0 when in the same.

    1 minus the mean of $|\cos(u_{f,a}, u_{g,b})|$ over pairs of different factors f, g and their values a, b, with the parts u of
    `linear_factorization`; rows [n, d]. Values whose part is 0 have no direction and are left out.

    Args:
        factors: rows [n, d] with at least two factors.

    Returns:
        A number without unit, from 0 to 1.

    Raises:
        DegenerateInputError: fewer than two factors, a continuous one or one with a single value; all combinations have the same mean; or
            fewer than two factors have parts.
        TooFewStimuliError: fewer than 4 rows.

    Source:
        Uselis, Dittadi & Oh, "Compositional generalization requires linear, orthogonal representations in vision embedding models",
        2026 (abstract; the form is the mean absolute cosine).

    Cost:
        n d for the means, v² d for v values.

    Bias:
        Too low for small d or parts of few rows: noise has cosines of order 1/√d.

    Example:
        >>> import numpy as np, inscape as ix
        >>> a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
        >>> round(ix.measures.factor_orthogonality(np.stack([a, b], 1), {"a": a, "b": b}), 6)
        1.0
    """
    cells = _Cells(factors)
    smallest = 1e-10 * math.sqrt(cells.spread / len(cells.combinations))
    units: list[np.ndarray] = []
    for part in cells.parts:
        lengths = np.linalg.norm(part, axis=1)
        kept = lengths > smallest
        if kept.any():
            units.append(part[kept] / lengths[kept, None])
    if len(units) < 2:
        raise DegenerateInputError(f"{len(units)} of {len(cells.parts)} factors move the representation at all; at least two must")
    cosines = [np.abs(first @ second.T).ravel() for i, first in enumerate(units) for second in units[:i]]
    return float(np.clip(1 - np.concatenate(cosines).mean(), 0, 1))


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Uselis et al. 2026, rank of factors",
    higher="more dimensions for a factor",
    minimum=4,
    null="near the number of values less 1 for parts by chance in many units",
)
def factor_rank(factors: Factors) -> Curve:
    r"""In how many dimensions the values of a factor differ: the participation ratio of its parts.

    The mean over factors of $(\sum_i \lambda_i)^2 / \sum_i \lambda_i^2$ with the eigenvalues of the scatter of the parts
    $u_{f,1} \dots u_{f,K}$ of `linear_factorization`, centered; rows [n, d]. A factor that is a scale has 1, one whose K values lie
    all equally far apart K − 1.

    Args:
        factors: rows [n, d] with at least two factors.

    Returns:
        A curve over factors (0 for one that moves nothing); its `value` is the mean.

    Raises:
        DegenerateInputError: fewer than two factors, a continuous one or one with a single value; or all combinations have the same mean.
        TooFewStimuliError: fewer than 4 rows.

    Source:
        Uselis, Dittadi & Oh, "Compositional generalization requires linear, orthogonal representations in vision embedding models",
        2026 (abstract; the form is the participation ratio).

    Cost:
        n d for the means, v² d for v values.

    Bias:
        Too high where noise in the parts fills dimensions that the factor does not use.

    Example:
        >>> import numpy as np, inscape as ix
        >>> a, b = np.arange(9) // 3, np.arange(9) % 3
        >>> X = np.concatenate([np.eye(3)[a], b[:, None]], 1)
        >>> [round(rank, 6) for rank in ix.measures.factor_rank(X, {"kind": a, "size": b}).values]
        [2.0, 1.0]
    """
    cells = _Cells(factors)
    values: list[float] = []
    for part in cells.parts:
        scatter = part @ part.T  # [values, values]: the same eigenvalues as of the scatter in d dimensions
        trace = float(np.trace(scatter))
        values.append(trace**2 / float((scatter**2).sum()) if trace > 1e-20 * cells.spread else 0.0)
    return Curve(float(np.mean(values)), axis="factor", at=factors.names, values=values)


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive=set(),
    range=(0, 1),
    source="Uselis et al. 2025, unseen combinations",
    higher="new combinations follow from known ones",
    minimum=4,
    null="about 1 / combinations",
)
def compositional_accuracy(factors: Factors) -> float:
    r"""How often rows of a combination are recognized from the parts of the others: each combination is left out of the fit in turn.

    For each combination, the parts of `linear_factorization` are fitted without it and predict all C combinations; the value is the share
    of its rows [n, d] whose nearest prediction is their own, averaged over combinations.

    Args:
        factors: rows [n, d] with at least two factors.

    Returns:
        A share, from 0 to 1.

    Raises:
        DegenerateInputError: fewer than two factors, a continuous one or one with a single value; or all combinations have the same mean.
        TooFewStimuliError: fewer than 4 rows, or no combination whose values all occur in others that fix their parts.

    Warns:
        InscapeWarning: combinations whose parts are not known without them, with their number; they are left out.

    Source:
        Uselis, Dittadi & Oh, "Does data scaling lead to visual compositional generalization?", ICML 2025: generalization to unseen
        combinations, here by the nearest sum of parts in place of a trained classifier.

    Cost:
        C² v (v + d) for the fits of C combinations with v values, n C d for distances.

    Bias:
        None in the parts, which never saw the combination; its accuracy is noisy for few rows each.

    Example:
        >>> import numpy as np, inscape as ix
        >>> a, b = np.arange(9) // 3, np.arange(9) % 3
        >>> ix.measures.compositional_accuracy(np.stack([a, b], 1), {"a": a, "b": b})
        1.0
    """
    cells = _Cells(factors)
    rank = np.linalg.matrix_rank(cells.design)
    scores: list[float] = []
    unknown = 0
    for number in range(len(cells.combinations)):
        others = np.arange(len(cells.combinations)) != number
        if np.linalg.matrix_rank(cells.design[others]) < rank:
            unknown += 1
            continue
        parts = _least_squares(cells.design[others], cells.means[others])
        predicted = cells.design @ parts
        own = cells.rows[cells.cell == number]
        apart = (own**2).sum(1)[:, None] - 2 * own @ predicted.T + (predicted**2).sum(1)
        # Predictions that coincide share the row.
        nearest = apart <= apart.min(1, keepdims=True) + 1e-9 * cells.spread
        scores.append(float((nearest[:, number] / nearest.sum(1)).mean()))
    if not scores:
        raise TooFewStimuliError(
            f"none of {len(cells.combinations)} combinations can be left out: each has a value whose part is unknown without it; use more "
            "combinations"
        )
    if unknown:
        warnings.warn(
            f"compositional_accuracy: {unknown} of {len(cells.combinations)} combinations have a value whose part is not known without "
            "them; the others count",
            InscapeWarning,
            stacklevel=4,
        )
    return float(np.mean(scores))
