"""Rows beside the factors that made them: shape, size, color of what was shown, one column each."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from inscape.arrays import as_rows
from inscape.errors import DegenerateInputError
from inscape.summaries.base import Summary

# Equal-width bins that stand for the values of a continuous factor, as in the published scores.
BINS = 20


def factor_table(factors: Any) -> np.ndarray:
    """Factors as one structured array [n] with a named field each.

    Args:
        factors: a dictionary (or data frame) of columns, a structured array, an array [n, f], or one column [n].

    Raises:
        DegenerateInputError: the columns differ in length or lack values, or the array has more than two axes.
    """
    given: Any = factors
    if isinstance(given, np.ndarray) and given.dtype.names is not None:
        return given
    keys = getattr(given, "keys", None)  # dictionaries and data frames
    if keys is not None:
        columns = {str(name): np.asarray(given[name]) for name in keys()}
    else:
        values = np.asarray(given)
        if values.ndim not in (1, 2):
            raise DegenerateInputError(f"factors have shape {values.shape}; expected [n] or [n, f]: one column per factor")
        columns = {f"factor {i}": column for i, column in enumerate(np.atleast_2d(values.T))}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        raise DegenerateInputError(f"factors have {len(columns)} columns of lengths {sorted(lengths)}; expected one value per row in each")
    for name, column in columns.items():
        missing = sum(value is None for value in column.tolist()) if column.dtype.kind == "O" else 0
        if missing:
            raise DegenerateInputError(f"{name!r} has no value for {missing} of {len(column)} rows; fill them or leave those rows out")
    # Objects would not compare or sort as a field; what is neither a number nor text counts by its text.
    columns = {name: column.astype(str) if column.dtype.kind in "OUS" else column for name, column in columns.items()}
    table = np.empty(lengths.pop(), dtype=[(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        table[name] = column
    return table


class Factors(Summary):
    """Rows [n, d] together with their factors [n]; everything that needs to know both, row by row.

    A factor whose column holds numbers that are not all whole is continuous; any other is a category, ordered by value.

    Cost: 8 n d bytes.

    Example:
        >>> found = Factors.of(X, {"shape": shapes, "size": sizes})    # [n, d], [n] each
        >>> found.codes["shape"]                                       # [n], from 0
    """

    additive: ClassVar[bool] = False
    labeled: ClassVar[bool] = True
    factored: ClassVar[bool] = True

    def __init__(self, rows: Float[Tensor, "n d"], table: np.ndarray) -> None:
        self.rows = rows
        self.table = table

    @classmethod
    def of(cls, X: Any, factors: Any) -> Factors:
        """The rows X [n, d] with their factors.

        Raises:
            DegenerateInputError: X is not [n, d] or holds NaN or infinity; a factor has one value only, or no value for a row.
        """
        rows = as_rows(X)
        table = factor_table(factors)
        if len(table) != rows.shape[0]:
            raise DegenerateInputError(f"factors have {len(table)} entries for {rows.shape[0]} rows; give one per row")
        for name in table.dtype.names or ():
            column = table[name]
            if column.dtype.kind == "f" and not np.isfinite(column).all():
                raise DegenerateInputError(f"{name!r} has no finite value for {int((~np.isfinite(column)).sum())} rows; leave them out")
            if len(column) and (column == column[0]).all():
                raise DegenerateInputError(f"{name!r} is {column[0]!s} in all {len(column)} rows; a factor needs at least two values")
        return cls(rows.double(), table)

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.rows.shape[0]

    @property
    def d(self) -> int:
        """Number of units."""
        return self.rows.shape[1]

    @property
    def names(self) -> tuple[str, ...]:
        """The factors."""
        return tuple(self.table.dtype.names or ())

    @cached_property
    def continuous(self) -> dict[str, bool]:
        """Whether a factor's values are numbers that are not all whole."""
        return {name: _continuous(self.table[name]) for name in self.names}

    @cached_property
    def codes(self) -> dict[str, np.ndarray]:
        """By factor the number of its value in each row, [n], from 0; values of a continuous factor fall into equal-width bins."""
        found: dict[str, np.ndarray] = {}
        for name in self.names:
            column = self.table[name]
            coded = binned(column[:, None].astype(float))[:, 0] if self.continuous[name] else column
            found[name] = np.unique(coded, return_inverse=True)[1]
        return found

    @cached_property
    def sizes(self) -> dict[str, int]:
        """How many values (or filled bins) each factor has."""
        return {name: int(codes.max()) + 1 for name, codes in self.codes.items()}

    @cached_property
    def alive(self) -> np.ndarray:
        """The units whose value changes over the rows, [≤ d]."""
        X = self.rows.numpy()
        return np.flatnonzero((X != X[:1]).any(0))

    @cached_property
    def standardized(self) -> Float[Tensor, "n u"]:
        """The units that change, each with mean 0 and variance 1."""
        part = self.rows[:, torch.from_numpy(self.alive)]
        part = part - part[0]  # exact where a large offset hides small differences
        centered = part - part.mean(0)
        return centered / centered.square().mean(0).sqrt()

    def require(self, factors: int = 1, units: int = 1) -> Factors:
        """The same, checked to have so many factors and units that change.

        Raises:
            DegenerateInputError: it has fewer.
        """
        if len(self.names) < factors:
            raise DegenerateInputError(
                f"{len(self.names)} factor ({', '.join(self.names)}) is given, at least {factors} are needed; pass a dictionary of columns"
            )
        if len(self.alive) < units:
            raise DegenerateInputError(f"{len(self.alive)} of {self.d} units change over the {self.n} rows; at least {units} must")
        return self

    def take(self, idx: Any) -> Factors:
        """The rows with these numbers, in this order."""
        chosen = np.asarray(idx)
        return Factors.of(self.rows[torch.from_numpy(chosen)], self.table[chosen])


def binned(values: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Numbers of equal-width bins between the smallest and the largest value of each column of [n, d], from 0."""
    low, high = values.min(0), values.max(0)
    share = (values - low) / np.where(high > low, high - low, 1)
    # A value on an edge lies there whatever the rounding of the division.
    return np.clip(np.floor(share * bins + 1e-9), 0, bins - 1).astype(np.int64)


def _continuous(column: np.ndarray) -> bool:
    return column.dtype.kind == "f" and bool((column != np.round(column)).any())
