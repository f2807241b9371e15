"""Rows as maps: values of units that have a place of their own, and which of them are neighbors."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor

from inscape.arrays import as_rows
from inscape.errors import DegenerateInputError, StoreMismatchError
from inscape.summaries.base import Summary


class UnitMaps(Summary):
    """Rows [n, d] and the pairs of units that lie next to each other.

    Units are neighbors when their distance is at most `radius` times the median distance of a unit to its nearest one: on a square grid
    1.5 joins a unit with the eight around it, 1.2 with four.

    Attributes:
        rows: the maps, [n, d].
        pairs: neighbors, each pair once, [pairs, 2].

    Cost: d log d for neighbors, then n pairs.

    Example:
        >>> UnitMaps.of(X, positions).pairs         # [n, d], [d, 1 to 3]
    """

    additive: ClassVar[bool] = False
    beside: ClassVar[str] = "positions"

    def __init__(self, rows: Float[Tensor, "n d"], pairs: np.ndarray) -> None:
        self.rows = rows
        self.pairs = pairs

    @classmethod
    def of(cls, X: Any, positions: Any, *, radius: float = 1.5) -> UnitMaps:
        """The maps of rows X [n, d] over units at positions [d, 1 to 3].

        Raises:
            DegenerateInputError: X is not [n, d], holds NaN or infinity; positions are not finite, or all units share one place.
            StoreMismatchError: there is not one position per unit.
        """
        rows = as_rows(X).double()
        places = np.asarray(positions, dtype=float)
        places = places[:, None] if places.ndim == 1 else places
        if places.ndim != 2 or len(places) != rows.shape[1]:
            raise StoreMismatchError(f"positions have shape {places.shape} for {rows.shape[1]} units; expected [{rows.shape[1]}, 1 to 3]")
        if not np.isfinite(places).all():
            raise DegenerateInputError(f"{int((~np.isfinite(places).all(1)).sum())} of {len(places)} units have no finite position")
        if not radius > 0:
            raise DegenerateInputError(f"radius={radius} must be positive: a multiple of the distance between neighbors")
        if len(places) < 2:
            raise DegenerateInputError(f"one unit (shape {tuple(rows.shape)}) has no neighbor; at least 2 units are needed")
        tree = KDTree(places)
        spacing = float(np.median(tree.query(places, k=2)[0][:, 1]))
        if spacing == 0:
            raise DegenerateInputError(f"most of the {len(places)} units share their place with another; positions must tell them apart")
        return cls(rows, tree.query_pairs(radius * spacing, output_type="ndarray"))

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.rows.shape[0]

    @property
    def d(self) -> int:
        """Number of units."""
        return self.rows.shape[1]

    def take(self, idx: Any) -> UnitMaps:
        """The rows with these numbers, in this order."""
        return UnitMaps(self.rows[torch.as_tensor(np.asarray(idx))], self.pairs)
