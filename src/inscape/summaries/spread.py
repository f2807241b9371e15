"""Three numbers that tell two clouds of rows apart without any pairing: how far out, how narrow, how even."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch

from inscape.arrays import as_rows, row_blocks
from inscape.errors import DegenerateInputError
from inscape.summaries.base import Summary


class Spread(Summary):
    """Length of the mean row, mean cosine of the rows with it, and the log mean Gaussian potential of all pairs of rows.

    Attributes:
        n: number of rows.
        magnitude: ‖x̄‖.
        concentricity: mean cosine of a row with x̄.
        uniformity: log mean over all i, j (i = j too) of exp(−2 ‖x_i − x_j‖²).

    Cost: n² d multiplications.

    Example:
        >>> Spread.of(X).magnitude                  # [n, d]
    """

    additive: ClassVar[bool] = False

    def __init__(self, n: int, magnitude: float, concentricity: float, uniformity: float) -> None:
        self.n = n
        self.magnitude = magnitude
        self.concentricity = concentricity
        self.uniformity = uniformity

    @classmethod
    def of(cls, X: Any) -> Spread:
        """The three numbers of rows X [n, d].

        Raises:
            DegenerateInputError: a row or the mean row is zero, or the rows hold NaN or infinity.
        """
        rows = as_rows(X).double()
        mean, lengths = rows.mean(0), rows.norm(dim=1)
        magnitude = float(mean.norm())
        if float(lengths.min()) <= 0 or magnitude <= 1e-13 * float(lengths.max()):
            raise DegenerateInputError(f"a row, or the mean of the {len(rows)} rows, is zero and has no direction")
        centered = rows - mean
        half = centered.square().sum(1)
        total = 0.0
        for block in row_blocks(len(rows), len(rows)):
            squares = (half[block, None] + half - 2 * centered[block] @ centered.T).clamp(min=0)
            squares[torch.arange(len(squares)), torch.arange(block.start, block.start + len(squares))] = 0.0
            total += float(torch.exp(-2 * squares).sum())
        return cls(len(rows), magnitude, float((rows @ mean / lengths).mean()) / magnitude, math.log(total / len(rows) ** 2))

    def take(self, idx: Any) -> Spread:
        """The same numbers: they do not depend on the order of the rows."""
        return self
