"""Kernel products of batches of paired rows, for estimates that never see all rows at once."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from inscape.arrays import as_rows
from inscape.errors import StoreMismatchError, TooFewStimuliError
from inscape.summaries.base import Summary
from inscape.summaries.cross import CrossMoments
from inscape.summaries.products import GramProducts


class BatchProducts(Summary):
    """`GramProducts` of consecutive batches of the rows, in their order or in a shuffled one.

    A last batch of fewer than four rows, which has no unbiased estimate, is left out.

    Cost: n (p + q)² over all batches, or n b (p + q) where a batch of b rows is narrower than the units.

    Example:
        >>> BatchProducts.of(X, Y, batch=64).parts
    """

    additive: ClassVar[bool] = False
    arity: ClassVar[int] = 2

    def __init__(self, parts: list[GramProducts], n: int) -> None:
        self.parts = parts
        self.n = n

    @classmethod
    def of(cls, X: Any, Y: Any, *, batch: int = 256, seed: int | None = None) -> BatchProducts:
        """The products of rows X [n, p] and Y [n, q], paired in order.

        Args:
            X: array, tensor or view, [n, p].
            Y: array, tensor or view, [n, q].
            batch: rows of a batch.
            seed: shuffles the rows first; None keeps their order.

        Raises:
            StoreMismatchError: X and Y have different numbers of rows.
            TooFewStimuliError: batches or rows are fewer than four.
            DegenerateInputError: the rows hold NaN or infinity.
        """
        rows_x, rows_y = as_rows(X, "X"), as_rows(Y, "Y")
        n = rows_x.shape[0]
        if n != rows_y.shape[0]:
            raise StoreMismatchError(f"X has {n} rows, Y has {rows_y.shape[0]}; row i of both must be the same stimulus")
        if min(batch, n) < 4:
            raise TooFewStimuliError(f"batches of {min(batch, n)} rows; an unbiased estimate needs at least 4")
        order = torch.arange(n) if seed is None else torch.from_numpy(np.random.default_rng(seed).permutation(n))
        chosen = [part for part in order.split(batch) if len(part) >= 4]
        return cls([CrossMoments.of(rows_x[part], rows_y[part]).products() for part in chosen], n)
