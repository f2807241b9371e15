"""Second moments of the directions of rows, from which entropies on the sphere follow."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from inscape.arrays import as_rows, compute_dtype
from inscape.errors import TooFewStimuliError
from inscape.summaries.base import Summary
from inscape.summaries.moments import Moments


class DirectionMoments(Summary):
    """The moments of u = x/‖x‖ over rows that are not zero, and the count of zero rows.

    Cost of a pass: n d² multiplications; 8 d² bytes. Eigenvalues: min(n, d)³, kept.

    Example:
        >>> DirectionMoments.of(X).eigenvalues      # of UᵀU / n, descending, sum 1
    """

    additive: ClassVar[bool] = True

    def __init__(self, moments: Moments | None = None, zero_rows: int = 0) -> None:
        self._moments = Moments() if moments is None else moments
        self.zero_rows = zero_rows

    @classmethod
    def of(cls, X: Any) -> DirectionMoments:
        """The moments of the directions of rows X [n, d].

        Raises:
            DegenerateInputError: X is not [n, d], or holds NaN or infinity.
        """
        units, zero = _units(X)
        return cls(Moments.of(units), zero) if len(units) else cls(zero_rows=zero)

    def update(self, X: Any) -> DirectionMoments:
        """Adds rows X [b, d], in place."""
        units, zero = _units(X)
        self._moments.update(units)
        self.zero_rows += zero
        return self

    def merge(self, other: DirectionMoments) -> DirectionMoments:
        """The moments of the directions of both sets of rows."""
        return DirectionMoments(self._moments.merge(other._moments), self.zero_rows + other.zero_rows)

    def minus(self, part: DirectionMoments) -> DirectionMoments:
        """The moments of the rows outside `part`, which was merged before."""
        return DirectionMoments(self._moments.minus(part._moments), self.zero_rows - part.zero_rows)

    @property
    def n(self) -> float:
        """Number of rows that are not zero."""
        return self._moments.n

    @property
    def d(self) -> int:
        """Number of units."""
        return self._moments.d

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of UᵀU / n for the unit rows U, descending, [d]; they sum to 1.

        Raises:
            TooFewStimuliError: no row has a direction.
        """
        if self.n < 1:
            raise TooFewStimuliError(f"none of {self.zero_rows} rows has a direction: all are zero")
        return self._moments.raw_eigenvalues

    @property
    def nbytes(self) -> int:
        """Bytes of the sums."""
        return self._moments.nbytes


def _units(X: Any) -> tuple[Tensor, int]:
    rows = as_rows(X, minimum=0)
    wide = rows.double()
    lengths = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    kept = lengths.squeeze(1) > 0
    return (wide[kept] / lengths[kept]).to(compute_dtype(rows.dtype)), int((~kept).sum())
