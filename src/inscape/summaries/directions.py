"""The sum of unit rows, from which mean cosines follow without any pairs."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, linalg

from inscape.arrays import as_rows, row_blocks
from inscape.errors import DegenerateInputError, StoreMismatchError, TooFewStimuliError
from inscape.summaries.base import Summary
from inscape.summaries.blocks import total_device
from inscape.summaries.sums import checked_weights


class Directions(Summary):
    """Sum of u = x/‖x‖ over rows that are not zero, their count, and the count of zero rows.

    Cost of a pass: n d; 8 d bytes.

    Example:
        >>> Directions.of(X).mean_cosine            # over all pairs of distinct rows of X [n, d]
    """

    additive: ClassVar[bool] = True

    def __init__(self) -> None:
        self.n: float = 0
        self.squares: float = 0  # Σ w², which is n without weights: what a row's cosine with itself adds
        self.zero_rows: int = 0
        self._sum: Tensor | None = None

    @classmethod
    def of(cls, X: Any, *, weights: Any = None) -> Directions:
        """The directions of rows X [n, d], with nonnegative weights [n] (1 each by default).

        Raises:
            DegenerateInputError: X is not [n, d], or holds NaN or infinity.
        """
        return cls().update(X, weights)

    def update(self, X: Any, weights: Any = None) -> Directions:
        """Adds rows X [b, d], in place."""
        rows = as_rows(X, minimum=0)
        total = torch.zeros(rows.shape[1], dtype=torch.float64, device=total_device(rows.device)) if self._sum is None else self._sum
        if total.shape[0] != rows.shape[1]:
            raise StoreMismatchError(f"these directions are of {total.shape[0]} units, the new rows have shape {tuple(rows.shape)}")
        scale = torch.ones(rows.shape[0], dtype=torch.float64) if weights is None else checked_weights(weights, rows).cpu()
        for block in row_blocks(*rows.shape):
            wide = rows[block].to(total.device, torch.float64)
            lengths = linalg.vector_norm(wide, dim=1)
            kept = lengths > 0
            weight = scale[block].to(wide.device) * kept
            total = total + (weight / torch.where(kept, lengths, 1.0)) @ wide
            self.n += int(kept.sum()) if weights is None else float(weight.sum())
            self.squares += float(weight.square().sum())
            self.zero_rows += int((~kept).sum())
        self._sum = total
        return self

    def merge(self, other: Directions) -> Directions:
        """The directions of both sets of rows."""
        return self._combined(other, 1)

    def minus(self, part: Directions) -> Directions:
        """The directions of the rows outside `part`, which was merged before."""
        return self._combined(part, -1)

    @property
    def d(self) -> int:
        """Number of units."""
        return self.sum.shape[0]

    @property
    def sum(self) -> Tensor:
        """Σ x/‖x‖ in fp64, [d]."""
        if self._sum is None:
            raise DegenerateInputError("these directions hold no rows yet; call update(X) first")
        return self._sum

    @property
    def mean_cosine(self) -> float:
        """Mean cosine over pairs of distinct rows, (‖Σu‖² − n) / (n(n − 1)); with weights, pairs count w_i w_j.

        Raises:
            TooFewStimuliError: fewer than two rows are not zero.
        """
        pairs = self.n**2 - self.squares
        if pairs <= 0:
            raise TooFewStimuliError(f"a mean cosine needs two rows that are not zero, got {self.n:g} ({self.zero_rows} are zero)")
        return (float(self.sum @ self.sum) - self.squares) / pairs

    def _combined(self, other: Directions, sign: int) -> Directions:
        if other._sum is None:
            return self
        if self._sum is None and sign > 0:
            return other
        if self.d != other.d:
            raise StoreMismatchError(f"directions of {self.d} and of {other.d} units cannot be combined; they must come from one site")
        result = Directions()
        result._sum = self.sum + sign * other.sum
        result.n, result.squares = self.n + sign * other.n, self.squares + sign * other.squares
        result.zero_rows = self.zero_rows + sign * other.zero_rows
        return result
