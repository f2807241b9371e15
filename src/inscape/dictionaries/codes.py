"""Sparse codes: which features are active in each row, and how strongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.arrays import as_numpy
from inscape.errors import DictionaryError


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes [n, m] of rows, kept as their nonzero entries (compressed sparse rows).

    Arrays and measures may be given codes where rows are expected; they are then made dense.

    Attributes:
        indices: [e] int64, the feature of each entry; ascending inside a row for what `Dictionary.encode` gives.
        values: [e], its activation.
        offsets: [n + 1] int64, where the entries of each row begin, and the end.
        width: m, the number of features.

    Example:
        >>> codes = Codes.of(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]]))
        >>> codes.counts.tolist(), codes.indices.tolist()
        ([1, 2], [1, 0, 2])
    """

    indices: Tensor
    values: Tensor
    offsets: Tensor
    width: int

    @staticmethod
    def of(dense: Any) -> Codes:
        """The codes of a dense array [n, m]."""
        array = torch.as_tensor(dense)
        if array.ndim != 2:
            raise DictionaryError(f"codes have shape [n, m], got {tuple(array.shape)}")
        rows, indices = array.nonzero(as_tuple=True)
        return Codes(indices, array[rows, indices], offsets_of(torch.bincount(rows, minlength=len(array))), array.shape[1])

    @staticmethod
    def cat(parts: Sequence[Codes]) -> Codes:
        """The rows of all parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        counts = torch.cat([part.counts for part in parts])
        indices, values = torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])
        return Codes(indices, values, offsets_of(counts), parts[0].width)

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.offsets.shape[0] - 1

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        return self.n, self.width

    @cached_property
    def counts(self) -> Tensor:
        """[n]: number of entries of each row."""
        return self.offsets.diff()

    @cached_property
    def rows(self) -> Tensor:
        """[e] int64: the row of each entry."""
        return torch.repeat_interleave(torch.arange(self.n, device=self.offsets.device), self.counts, output_size=len(self.indices))

    @cached_property
    def by_feature(self) -> tuple[Tensor, Tensor]:
        """The order [e] that sorts entries by feature, and where each feature begins [m + 1]; one sort, kept."""
        order = torch.argsort(self.indices, stable=True)
        return order, offsets_of(torch.bincount(self.indices, minlength=self.width))

    def feature(self, index: int) -> tuple[Tensor, Tensor]:
        """The rows in which a feature is active, and its activations there."""
        if not -self.width <= index < self.width:
            raise DictionaryError(f"there are {self.width} features (0 to {self.width - 1}); there is no feature {index}")
        order, starts = self.by_feature
        index %= self.width
        chosen = order[int(starts[index]) : int(starts[index + 1])]
        return self.rows[chosen], self.values[chosen]

    def select(self, rows: Any) -> Codes:
        """The codes of some rows: numbers or a mask."""
        wanted = torch.as_tensor(rows, device=self.offsets.device)
        wanted = wanted.nonzero().flatten() if wanted.dtype == torch.bool else wanted.long() % max(1, self.n)
        counts = self.counts[wanted]
        starts = torch.repeat_interleave(self.offsets[wanted], counts)
        fresh = offsets_of(counts)
        within = torch.arange(len(starts), device=starts.device) - torch.repeat_interleave(fresh[:-1], counts)
        return Codes(self.indices[starts + within], self.values[starts + within], fresh, self.width)

    def torch(self) -> Tensor:
        """The dense array [n, m]."""
        dense = self.values.new_zeros(self.n, self.width)
        dense[self.rows, self.indices] = self.values
        return dense

    def numpy(self) -> np.ndarray:
        """The dense array [n, m]."""
        return as_numpy(self.torch())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.numpy() if dtype is None else self.numpy().astype(dtype, copy=False)

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        return f"Codes({self.n} rows × {self.width} features, {len(self.indices) / max(1, self.n):.3g} active a row)"


def offsets_of(counts: Tensor) -> Tensor:
    """[n + 1]: running sums of counts [n], from 0."""
    offsets = counts.new_zeros(len(counts) + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=offsets[1:])
    return offsets


def from_mask(values: Tensor, mask: Tensor) -> Codes:
    """The entries of values [n, m] where a mask [n, m] is true."""
    flat = mask.flatten().nonzero().flatten()
    width = values.shape[1]
    rows = torch.div(flat, width, rounding_mode="floor")
    return Codes(flat - rows * width, values.flatten()[flat], offsets_of(torch.bincount(rows, minlength=len(values))), width)


def from_pairs(indices: Tensor, values: Tensor, width: int) -> Codes:
    """The same number of entries for each row: indices and values [n, k]."""
    n, k = indices.shape
    offsets = torch.arange(0, n * k + 1, max(1, k), device=indices.device) if k else indices.new_zeros(n + 1)
    return Codes(indices.flatten(), values.flatten(), offsets, width)


def tidy(codes: Codes) -> Codes:
    """Without zeros, features ascending inside each row."""
    kept = (codes.values != 0).nonzero().flatten()
    rows, indices, values = codes.rows[kept], codes.indices[kept], codes.values[kept]
    order = torch.argsort(rows * codes.width + indices)
    return Codes(indices[order], values[order], offsets_of(torch.bincount(rows, minlength=codes.n)), codes.width)
