"""Similarities of every row to the neighbors that it has in either of two systems."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from inscape.arrays import as_rows
from inscape.errors import StoreMismatchError
from inscape.summaries.base import Summary
from inscape.summaries.blocks import unit_rows
from inscape.summaries.neighbors import Neighbors

_BLOCK_BYTES = 64 * 2**20


class NeighborSimilarities(Summary):
    """Per row the cosine between its two vectors of similarities to the union of its neighbors in both systems.

    Cost: n² d for the neighbors of each side, then 2 k dot products a row.

    Example:
        >>> NeighborSimilarities.of(X, Y, k=10).cosines     # [n]
    """

    additive: ClassVar[bool] = False
    arity: ClassVar[int] = 2

    def __init__(self, cosines: Float[Tensor, " n"]) -> None:
        self.cosines = cosines

    @classmethod
    def of(cls, X: Any, Y: Any, *, k: int = 10) -> NeighborSimilarities:
        """The cosines of rows X [n, p] and Y [n, q], paired in order.

        Raises:
            StoreMismatchError: X and Y have different numbers of rows.
            TooFewStimuliError: not more than k rows.
            DegenerateInputError: a row is zero, or the rows hold NaN or infinity.
        """
        rows = [as_rows(X, "X"), as_rows(Y, "Y")]
        if rows[0].shape[0] != rows[1].shape[0]:
            raise StoreMismatchError(f"X has {rows[0].shape[0]} rows, Y has {rows[1].shape[0]}; row i of both must be the same stimulus")
        both = torch.cat([Neighbors.of(side, k, "cosine", center=False).ids[:, :k] for side in rows], 1).sort(1).values
        # A neighbor in both systems is looked at once: its second mention counts 0.
        once = torch.ones_like(both, dtype=torch.float64)
        once[:, 1:] = (both[:, 1:] != both[:, :-1]).double()
        vectors = [once * _similarities(side, both) for side in rows]
        lengths = vectors[0].norm(dim=1) * vectors[1].norm(dim=1)
        return cls((vectors[0] * vectors[1]).sum(1) / torch.where(lengths == 0, 1.0, lengths))

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.cosines)


def _similarities(rows: Tensor, others: Tensor) -> Tensor:
    """Cosines of every row with the rows that `others` [n, m] names, in fp64."""
    units = unit_rows(rows.double(), rows, "cosine neighbors need rows that are not zero")
    step = max(1, _BLOCK_BYTES // (8 * others.shape[1] * rows.shape[1]))
    parts = [
        torch.einsum("id,imd->im", units[start : start + step], units[others[start : start + step]])
        for start in np.arange(0, len(rows), step).tolist()
    ]
    return torch.cat(parts)
