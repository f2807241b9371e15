"""The largest entries of the rows, where they are, and how large the others are."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from inscape.arrays import as_tensor, row_blocks
from inscape.errors import DegenerateInputError, StoreMismatchError
from inscape.summaries.base import Summary

# A bin is one thirty-second of an octave: the leading 5 of the 23 fraction bits of an fp32 number.
FRACTION_BITS = 5
_SHIFT = 23 - FRACTION_BITS
_BINS = 255 << FRACTION_BITS

# How many of the largest entries are kept with their places.
LARGEST = 16


class Extremes(Summary):
    """The 16 largest |x| with row and unit, the largest |x| of each unit, counts of NaN and infinities, and a histogram of |x|.

    The histogram has 32 bins per octave over the whole fp32 range and merges exactly; quantiles from it are within 1.6 % (numbers beyond
    fp32's range count in its outermost bins). NaN and infinite entries are counted and left out of everything else.

    Cost of a pass: n d; 8 d + 65 kB.

    Example:
        >>> extremes = Extremes.of(X)               # [n, d]
        >>> extremes.largest / extremes.quantile(0.5), extremes.row, extremes.unit
    """

    additive: ClassVar[bool] = True

    def __init__(self, first_row: int = 0) -> None:
        self.n = 0
        self.nan = 0
        self.infinite = 0
        self.largest = 0.0
        self.row = -1
        self.unit = -1
        self.top: list[tuple[float, int, int]] = []  # |x|, row and unit of the largest entries, largest first
        self.histogram = torch.zeros(_BINS, dtype=torch.int64)
        self._unit_largest: Tensor | None = None
        self._next_row = first_row

    @classmethod
    def of(cls, X: Any, *, first_row: int = 0) -> Extremes:
        """The extremes of rows X [n, d].

        Args:
            X: array, tensor or view, [n, d]; NaN and infinities are allowed.
            first_row: number of the first row, so that parts of one row set name rows alike.

        Raises:
            DegenerateInputError: X is not [n, d].
        """
        return cls(first_row).update(X)

    def update(self, X: Any) -> Extremes:
        """Adds the next rows X [b, d], in place."""
        rows = as_tensor(X)
        if rows.ndim != 2 or rows.shape[1] == 0:
            raise DegenerateInputError(f"X has shape {tuple(rows.shape)}; expected [n, d]: one row per stimulus, one column per unit")
        if self._unit_largest is not None and self._unit_largest.shape[0] != rows.shape[1]:
            raise StoreMismatchError(
                f"these extremes are of {self._unit_largest.shape[0]} units, the new rows have shape {tuple(rows.shape)}"
            )
        for block in row_blocks(rows.shape[0], rows.shape[1], rows.element_size()):
            self._add(rows[block].cpu())
        return self

    def merge(self, other: Extremes) -> Extremes:
        """The extremes of both sets of rows; of equal maxima the lower row, then the lower unit, is named."""
        if other._unit_largest is None or self._unit_largest is None:
            return self if other._unit_largest is None else other
        if self.d != other.d:
            raise StoreMismatchError(f"extremes of {self.d} and of {other.d} units cannot be combined; they must come from one site")
        result = Extremes(max(self._next_row, other._next_row))
        result.n, result.nan, result.infinite = self.n + other.n, self.nan + other.nan, self.infinite + other.infinite
        first = min((self, other), key=lambda part: (-part.largest, part.row, part.unit))
        result.largest, result.row, result.unit = first.largest, first.row, first.unit
        result.top = sorted([*self.top, *other.top], key=_first)[:LARGEST]
        result.histogram = self.histogram + other.histogram
        result._unit_largest = torch.maximum(self.unit_largest, other.unit_largest)
        return result

    @property
    def d(self) -> int:
        """Number of units."""
        return self.unit_largest.shape[0]

    @property
    def unit_largest(self) -> Tensor:
        """Largest finite |x| of each unit in fp64, [d]."""
        if self._unit_largest is None:
            raise DegenerateInputError("these extremes hold no rows yet; call update(X) first")
        return self._unit_largest

    def quantile(self, q: float) -> float:
        """The q-quantile of |x| over all finite entries, within 1.6 %.

        Raises:
            DegenerateInputError: q is outside [0, 1], or no entry is finite.
        """
        count = int(self.histogram.sum())
        if not 0 <= q <= 1 or count == 0:
            raise DegenerateInputError(f"a quantile needs 0 ≤ q ≤ 1 and finite entries; got q = {q:g} and {count} finite entries")
        rank = min(count - 1, int(q * count))
        code = int(torch.searchsorted(self.histogram.cumsum(0), rank, right=True))
        edges = torch.tensor([code << _SHIFT, (code + 1) << _SHIFT], dtype=torch.int32).view(torch.float32).double()
        low, high = float(edges[0]), float(edges[1])
        return 0.0 if code == 0 else min(self.largest, low if high == float("inf") else (low + high) / 2)

    def _rank(self, sizes: Tensor, largest: float) -> None:
        """Enters the largest of the block's finite entries [b, d] into the list."""
        if len(self.top) == LARGEST and largest <= self.top[-1][0]:
            return
        flat = sizes.flatten()
        least = flat.topk(min(LARGEST, flat.numel())).values[-1]
        # Of entries as large as the last one there may be many: the first of them are those that the list would take.
        places = torch.cat([(flat > least).nonzero()[:, 0], (flat == least).nonzero()[:LARGEST, 0]])
        rows = places // sizes.shape[1] + self._next_row
        found = zip(flat[places].tolist(), rows.tolist(), (places % sizes.shape[1]).tolist(), strict=True)
        self.top = sorted([*self.top, *found], key=_first)[:LARGEST]

    def _add(self, block: Tensor) -> None:
        size = block.abs()
        finite = torch.isfinite(size)
        if not bool(finite.all()):
            self.nan += int(size.isnan().sum())
            self.infinite += int(size.isinf().sum())
            size = torch.where(finite, size, torch.zeros_like(size))
        wide = size.double() if size.dtype == torch.float64 else size.float()
        unit_largest = wide.amax(0).double()
        self._unit_largest = unit_largest if self._unit_largest is None else torch.maximum(self._unit_largest, unit_largest)
        largest = float(unit_largest.max())
        if largest > self.largest or self.row < 0:
            place = int(wide.argmax())
            self.largest, self.row, self.unit = largest, self._next_row + place // block.shape[1], place % block.shape[1]
        self._rank(wide, largest)
        codes = wide.clamp(max=torch.finfo(torch.float32).max).float().contiguous().view(torch.int32) >> _SHIFT
        self.histogram += torch.bincount(codes[finite].long(), minlength=_BINS)
        self.n += block.shape[0]
        self._next_row += block.shape[0]


def _first(entry: tuple[float, int, int]) -> tuple[float, int, int]:
    """Larger entries first, then lower rows, then lower units."""
    return -entry[0], entry[1], entry[2]
