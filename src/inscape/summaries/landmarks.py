"""Few rows that lie far apart and stand for the whole cloud, with all distances between them: what topology is computed on."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from inscape.arrays import as_rows
from inscape.errors import DegenerateInputError
from inscape.summaries.base import Summary


class Landmarks(Summary):
    """Rows chosen one after the other, each the farthest from those before, and their distances.

    The first is the row farthest from the mean, so the choice does not depend on the order of rows. With no more rows than landmarks
    all rows are taken, in their order.

    Cost: count n d for the choice, count² d for the distances; 8 count² bytes.

    Example:
        >>> Landmarks.of(X, count=50).distances     # [50, 50]
    """

    additive: ClassVar[bool] = False

    def __init__(self, ids: Int[Tensor, " m"], distances: Float[Tensor, "m m"], n: int, d: int) -> None:
        self.ids = ids
        self.distances = distances
        self.n = n
        self.d = d

    @classmethod
    def of(cls, X: Any, *, count: int = 500) -> Landmarks:
        """Landmarks of rows X [n, d].

        Args:
            X: array, tensor or view, [n, d].
            count: most landmarks.

        Raises:
            DegenerateInputError: X is not [n, d], holds NaN or infinity, or fewer than 2 landmarks are asked for.
        """
        rows = as_rows(X)
        if count < 2:
            raise DegenerateInputError(f"{count} landmarks have no shape; at least 2 are needed")
        wide = rows.double()
        ids = torch.arange(rows.shape[0]) if rows.shape[0] <= count else _farthest(wide - wide.mean(0), count)
        chosen = wide[ids]
        distances = torch.cdist(chosen, chosen, compute_mode="donot_use_mm_for_euclid_dist")  # a product would lose short distances
        return cls(ids, distances, *rows.shape)

    @cached_property
    def deaths(self) -> np.ndarray:
        """Scales at which separate pieces join, [m − 1], ascending: the edges of a minimum spanning tree."""
        D = self.distances.cpu().numpy()
        nearest, found = D[0].copy(), np.empty(len(D) - 1)
        outside = np.ones(len(D), dtype=bool)
        outside[0] = False
        for step in range(len(D) - 1):
            joined = int(np.where(outside, nearest, np.inf).argmin())
            found[step] = nearest[joined]
            outside[joined] = False
            np.minimum(nearest, D[joined], out=nearest)
        return np.sort(found)


def _farthest(rows: Float[Tensor, "n d"], count: int) -> Int[Tensor, " m"]:
    """Greedy maximin choice of rows."""
    chosen = [int(rows.square().sum(1).argmax())]
    away = (rows - rows[chosen[0]]).square().sum(1)
    while len(chosen) < count:
        chosen.append(int(away.argmax()))
        away = torch.minimum(away, (rows - rows[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen)
