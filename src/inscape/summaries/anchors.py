"""Rows described by their cosines with some of them, and rows of two sites by the nearest of the other."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from inscape.arrays import as_rows, row_blocks
from inscape.errors import StoreMismatchError, TooFewStimuliError
from inscape.summaries.base import Summary
from inscape.summaries.blocks import unit_rows

_NEED = "a cosine needs rows that are not zero"


class RelativeRows(Summary):
    """Per row the cosine between its relative representations in two systems: its cosines with the same anchor rows in each.

    Anchors are rows chosen by a seed; they are left out of the comparison.

    Cost: n a d for a anchors.

    Example:
        >>> RelativeRows.of(X, Y, anchors=64).cosines           # [n - 64]
    """

    additive: ClassVar[bool] = False
    arity: ClassVar[int] = 2

    def __init__(self, cosines: Float[Tensor, " m"], n: int) -> None:
        self.cosines = cosines
        self.n = n

    @classmethod
    def of(cls, X: Any, Y: Any, *, anchors: int = 64, seed: int = 0, center: bool = False) -> RelativeRows:
        """The cosines of rows X [n, p] and Y [n, q], paired in order.

        Args:
            X: array, tensor or view, [n, p].
            Y: array, tensor or view, [n, q].
            anchors: rows that serve as anchors.
            seed: of their choice.
            center: subtract the anchors' mean first, which makes the representation blind to a common offset.

        Raises:
            StoreMismatchError: X and Y have different numbers of rows.
            TooFewStimuliError: not more rows than anchors.
            DegenerateInputError: a row is zero, or the rows hold NaN or infinity.
        """
        rows = [as_rows(X, "X"), as_rows(Y, "Y")]
        n = rows[0].shape[0]
        if n != rows[1].shape[0]:
            raise StoreMismatchError(f"X has {n} rows, Y has {rows[1].shape[0]}; row i of both must be the same stimulus")
        if anchors < 2 or n <= anchors:
            raise TooFewStimuliError(f"anchors={anchors} of {n} rows; at least 2 anchors and one row beside them are needed")
        order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
        fixed, others = order[:anchors], order[anchors:]
        relative = [_relative(side, fixed, others, center=center) for side in rows]
        first, second = (unit_rows(part, part, "a relative representation must not be zero") for part in relative)
        return cls((first * second).sum(1), n)


def _relative(rows: Tensor, fixed: Tensor, others: Tensor, *, center: bool) -> Tensor:
    wide = rows.double()
    if center:
        wide = wide - wide[fixed].mean(0)
    units = unit_rows(wide, rows, _NEED)
    return units[others] @ units[fixed].T


class NearestCosines(Summary):
    """For every row of one site the largest cosine with a row of the other; the two need no common stimuli.

    Cost: n m d for n and m rows; no n × m matrix is held.

    Example:
        >>> NearestCosines.of(X, Y).forward.mean()              # [n, d], [m, d]
    """

    additive: ClassVar[bool] = False
    arity: ClassVar[int] = 2

    def __init__(self, forward: Float[Tensor, " n"], backward: Float[Tensor, " m"]) -> None:
        self.forward = forward
        self.backward = backward

    @classmethod
    def of(cls, X: Any, Y: Any) -> NearestCosines:
        """The largest cosines of rows X [n, d] with rows Y [m, d], both ways.

        Raises:
            StoreMismatchError: X and Y have different numbers of units.
            DegenerateInputError: a row is zero, or the rows hold NaN or infinity.
        """
        rows = [as_rows(X, "X"), as_rows(Y, "Y")]
        if rows[0].shape[1] != rows[1].shape[1]:
            raise StoreMismatchError(
                f"X has {rows[0].shape[1]} units (shape {tuple(rows[0].shape)}), Y has {rows[1].shape[1]} (shape {tuple(rows[1].shape)}); "
                "rows are compared by their cosine, so both must live in one space"
            )
        first, second = (unit_rows(side.double(), side, _NEED) for side in rows)
        forward = torch.empty(len(first), dtype=torch.float64)
        backward = torch.full((len(second),), -1.0, dtype=torch.float64)
        for block in row_blocks(len(first), len(second)):
            tile = first[block] @ second.T
            forward[block] = tile.amax(1)
            backward = torch.maximum(backward, tile.amax(0))
        return cls(forward, backward)

    @property
    def n(self) -> int:
        """The smaller number of rows."""
        return min(len(self.forward), len(self.backward))
