"""Disentanglement, completeness and informativeness: from the weights with which sparse regressions read factors off the units."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.measures.lasso import coordinate_descent
from inscape.results import Curve
from inscape.summaries.factors import Factors

_NULL = "near 0 where factors share units evenly; what chance leaves above the penalty otherwise"


class _Reading:
    """Sparse regressions of all factors on all units that change; a category is one column a value."""

    def __init__(self, factors: Factors, penalty: float) -> None:
        if not 0 < penalty < 1:
            raise DegenerateInputError(f"penalty={penalty} must lie between 0 and 1: it is a correlation below which a unit is not used")
        self.factors = factors
        X, columns = factors.standardized, _columns(factors)
        targets = torch.cat([columns[name] for name in factors.names], 1)
        weights, left = coordinate_descent(X.T @ X / factors.n, (correlation := X.T @ targets / factors.n).clone(), penalty)
        explained = (weights * (correlation + left)).sum(0).clamp(0, 1)
        widths = [columns[name].shape[1] for name in factors.names]
        # A factor counts once, however many values it has.
        self.importance = torch.stack([part.abs().mean(1) for part in weights.split(widths, 1)], 1)
        self.explained = torch.stack([part.mean() for part in explained.split(widths)])

    @cached_property
    def used(self) -> Tensor:
        """Importance [units in use, factors]."""
        kept = self.importance[self.importance.sum(1) > 0]
        if not len(kept):
            raise DegenerateInputError("no unit correlates with any factor above the penalty; there are no weights to compare")
        return kept


@measure(
    invariant={"translation", "scale", "permutation", "unit_scale", "row_order"},
    sensitive={"rotation"},
    range=(0, 1),
    source="Eastwood & Williams 2018, disentanglement",
    higher="units for one factor each",
    minimum=3,
    null=_NULL,
)
def dci_disentanglement(factors: Factors, *, penalty: float = 0.1) -> Curve:
    r"""Whether each unit is used for one factor only: 1 when it is, 0 when units serve all factors alike.

    $\sum_i \rho_i (1 - H_F(P_i))$ with $P_{ij} = R_{ij} / \sum_k R_{ik}$ for the importance R of unit i for factor j, the entropy to the
    base of the number of factors F, and $\rho_i$ the unit's share of all importance. R is the mean absolute weight of a lasso on
    standardized units and factors (a category is one column a value); rows [n, d].

    Args:
        factors: rows [n, d] with at least two factors.
        penalty: λ of the lasso, a correlation.

    Returns:
        A curve over units (0 for those not used); its `value` is their weighted mean, from 0 to 1.

    Raises:
        DegenerateInputError: fewer than two factors, a factor with one value, no unit that changes or none in use, `penalty` outside 0 to
            1, or no minimum found for units that almost copy each other.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Eastwood & Williams, "A framework for the quantitative evaluation of disentangled representations", ICLR 2018, with the lasso.
        Libraries that take importance from boosted trees give other numbers.

    Cost:
        n d² for the moments and d² a sweep for each column of the factors.

    Bias:
        Chance correlations above the penalty look like use: too low for few rows.

    Example:
        >>> import numpy as np, inscape as ix
        >>> shape, size = np.arange(12) % 2, np.arange(12) % 3
        >>> round(float(ix.measures.dci_disentanglement(np.stack([shape, size], 1), {"shape": shape, "size": size})), 6)
        1.0
    """
    reading = _Reading(factors.require(factors=2, units=1), penalty)
    one_each = _peaked(reading.importance)
    share = reading.used.sum(1) / reading.used.sum()
    value = float((share * _peaked(reading.used)).sum())
    units = np.zeros(factors.d)
    units[factors.alive] = one_each.numpy()
    return Curve(value, axis="unit", at=range(factors.d), values=units)


@measure(
    invariant={"translation", "scale", "permutation", "unit_scale", "row_order"},
    sensitive={"rotation"},
    range=(0, 1),
    source="Eastwood & Williams 2018, completeness",
    higher="factors in one unit each",
    minimum=3,
    null=_NULL,
)
def dci_completeness(factors: Factors, *, penalty: float = 0.1) -> Curve:
    r"""Whether each factor is read from one unit only: 1 when it is, 0 when all units are needed alike.

    The mean over factors of $1 - H_d(\tilde P_j)$ with $\tilde P_{ij} = R_{ij} / \sum_k R_{kj}$ for the importance R of unit i for factor j
    and the entropy to the base of the number of units that change. R is as in `dci_disentanglement`; rows [n, d].

    Args:
        factors: rows [n, d] with their factors.
        penalty: λ of the lasso, a correlation.

    Returns:
        A curve over factors (0 for one that no unit is used for); its `value` is the mean, from 0 to 1.

    Raises:
        DegenerateInputError: fewer than two units change, a factor has one value, no unit is in use, `penalty` is outside 0 to 1, or no
            minimum was found for units that almost copy each other.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Eastwood & Williams, "A framework for the quantitative evaluation of disentangled representations", ICLR 2018, with the lasso;
        the mean over factors is not weighted.

    Cost:
        n d² for the moments and d² a sweep for each column of the factors.

    Bias:
        Chance correlations above the penalty look like use: too low for few rows.

    Example:
        >>> import numpy as np, inscape as ix
        >>> shape, size = np.arange(12) % 2, np.arange(12) % 3
        >>> round(float(ix.measures.dci_completeness(np.stack([shape, size], 1), {"shape": shape, "size": size})), 6)
        1.0
    """
    reading = _Reading(factors.require(units=2), penalty)
    reading.used  # noqa: B018  refuses factors that nothing is used for
    values = _peaked(reading.importance.T)
    return Curve(float(values.mean()), axis="factor", at=factors.names, values=values.tolist())


@measure(
    invariant={"translation", "scale", "permutation", "unit_scale", "row_order"},
    sensitive={"rotation"},
    range=(0, 1),
    source="Eastwood & Williams 2018, informativeness",
    higher="factors better predicted",
    minimum=3,
    null="0 where all correlations lie below the penalty",
)
def dci_informativeness(factors: Factors, *, penalty: float = 0.1) -> Curve:
    r"""How well sparse regressions predict the factors: the share of their variance that is explained.

    The mean over factors of $1 - \lVert y - Z w \rVert^2 / \lVert y \rVert^2$ for the lasso of `dci_disentanglement`; of a category the
    mean over the columns of its values. Rows [n, d]. The paper gives the error that is left, this is 1 minus it.

    Args:
        factors: rows [n, d] with their factors.
        penalty: λ of the lasso, a correlation.

    Returns:
        A curve over factors; its `value` is the mean, from 0 to 1; (2 − λ) λ below 1 for one unit that is the factor.

    Raises:
        DegenerateInputError: no unit changes, a factor has one value, `penalty` is outside 0 to 1, or no minimum was found for units that
            almost copy each other.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Eastwood & Williams, "A framework for the quantitative evaluation of disentangled representations", ICLR 2018, with the lasso.

    Cost:
        n d² for the moments and d² a sweep for each column of the factors.

    Bias:
        In-sample, and shrunk by the penalty: for a small penalty too high, for a large one too low.

    Example:
        >>> import numpy as np, inscape as ix
        >>> size = np.arange(12) % 2
        >>> round(float(ix.measures.dci_informativeness(np.stack([size, np.arange(12) // 2 % 2], 1), size, penalty=0.1)), 6)
        0.99
    """
    values = _Reading(factors.require(units=1), penalty).explained
    return Curve(float(values.mean()), axis="factor", at=factors.names, values=values.tolist())


def _columns(factors: Factors) -> dict[str, Tensor]:
    """By factor its columns [n, 1 or values], standardized."""
    found: dict[str, Tensor] = {}
    for name in factors.names:
        if factors.continuous[name]:
            columns = torch.from_numpy(factors.table[name].astype(float))[:, None]
        else:
            columns = torch.nn.functional.one_hot(torch.from_numpy(factors.codes[name])).double()
        centered = columns - columns.mean(0)
        found[name] = centered / centered.square().mean(0).sqrt()
    return found


def _peaked(importance: Tensor) -> Tensor:
    """1 − entropy of each row's shares, to the base of the number of columns; 0 for a row of zeros."""
    total = importance.sum(1, keepdim=True)
    share = importance / torch.where(total > 0, total, 1.0)
    entropy = -torch.special.xlogy(share, share).sum(1) / np.log(importance.shape[1])
    return torch.where(total[:, 0] > 0, (1 - entropy).clamp(0, 1), 0.0)
