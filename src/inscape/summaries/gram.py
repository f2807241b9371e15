"""Similarities between all pairs of rows: a kernel matrix."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from inscape.arrays import as_rows, as_tensor, compute_dtype
from inscape.errors import DegenerateInputError, nearest
from inscape.summaries.base import Summary
from inscape.summaries.blocks import gram, unit_rows

KERNELS = ("linear", "cosine")


class Gram(Summary):
    """The kernel matrix of rows: `linear` is x·y about the mean row, `cosine` the cosine of the rows as they are.

    Cost: n² d / 2 multiplications; 4 or 8 bytes for each of n² entries.

    Example:
        >>> K = Gram.of(X).centered                 # [n, n]
    """

    additive: ClassVar[bool] = False

    def __init__(self, values: Float[Tensor, "n n"], kernel: str) -> None:
        self.values = values
        self.kernel = kernel

    @classmethod
    def of(cls, X: Any, kernel: str = "linear") -> Gram:
        """The kernel matrix of rows X [n, d].

        Raises:
            DegenerateInputError: a row is zero (cosine), the rows hold NaN or infinity, or the kernel is unknown.
        """
        rows = as_rows(X)
        if kernel not in KERNELS:
            raise DegenerateInputError(f"unknown kernel {kernel!r}; nearest: {nearest(kernel, KERNELS)}")
        wide = rows.double() if rows.device.type != "mps" else rows.cpu().double()
        ready = wide - wide.mean(0) if kernel == "linear" else unit_rows(wide, rows, "the cosine kernel needs rows that are not zero")
        return cls(gram(ready.to(compute_dtype(rows.dtype)).T), kernel)

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.values.shape[0]

    @cached_property
    def centered(self) -> Float[Tensor, "n n"]:
        """H K H in fp64, with rows and columns that sum to 0; n², kept."""
        K = self.values.double()
        means = K.mean(0)
        return K - means - means.unsqueeze(1) + means.mean()

    def take(self, idx: Int[Tensor, " m"] | np.ndarray) -> Gram:
        """The kernel matrix of rows `idx`, in that order (again about the mean row of all)."""
        order = as_tensor(idx).to(torch.int64)
        return Gram(self.values[order][:, order], self.kernel)
