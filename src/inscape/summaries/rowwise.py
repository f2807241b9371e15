"""The rows themselves, for the few measures that no sum can serve."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from inscape.arrays import as_rows
from inscape.errors import DegenerateInputError
from inscape.summaries.base import Summary
from inscape.summaries.classes import ClassMoments


class Rows(Summary):
    """All rows [n, d] of a site, in the dtype of the input.

    Example:
        >>> Rows.of(X).rows         # [n, d]
    """

    additive: ClassVar[bool] = False

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    @classmethod
    def of(cls, X: Any) -> Rows:
        """The rows X [n, d].

        Raises:
            DegenerateInputError: X is not [n, d] or holds NaN or infinity.
        """
        return cls(as_rows(X))

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.rows.shape[0]

    @property
    def d(self) -> int:
        """Number of units."""
        return self.rows.shape[1]

    def take(self, idx: Any) -> Rows:
        """The rows with these numbers, in this order."""
        return Rows(self.rows[torch.as_tensor(np.asarray(idx))])


class LabeledRows(Summary):
    """All rows [n, d] of a site with the label of each, and the moments of their classes.

    Example:
        >>> labeled = LabeledRows.of(X, labels)     # [n, d], [n]
        >>> labeled.classes.means[labeled.number]   # the class mean of every row
    """

    additive: ClassVar[bool] = False
    labeled: ClassVar[bool] = True

    def __init__(self, rows: Tensor, labels: np.ndarray) -> None:
        self.rows = rows
        self.labels = labels
        self.classes = ClassMoments.of(rows, labels)
        self.number = np.searchsorted(self.classes.labels, labels)

    @classmethod
    def of(cls, X: Any, labels: Any) -> LabeledRows:
        """The rows X [n, d] with labels [n].

        Raises:
            DegenerateInputError: X is not [n, d] or holds NaN or infinity, or there is not one label per row.
        """
        rows, names = as_rows(X), np.asarray(labels)
        if names.shape != (rows.shape[0],):
            raise DegenerateInputError(f"labels have shape {names.shape}; expected [{rows.shape[0]}], one per row")
        return cls(rows, names)

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.rows.shape[0]

    @property
    def d(self) -> int:
        """Number of units."""
        return self.rows.shape[1]

    def take(self, idx: Any) -> LabeledRows:
        """The rows with these numbers, in this order."""
        chosen = np.asarray(idx)
        return LabeledRows(self.rows[torch.as_tensor(chosen)], self.labels[chosen])
