"""Counts, means and spreads of labeled rows."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from inscape.arrays import as_rows, row_blocks
from inscape.errors import DegenerateInputError, StoreMismatchError
from inscape.summaries.base import Summary
from inscape.summaries.blocks import gram, total_device


class ClassMoments(Summary):
    """Per class the count, the mean and Σ‖x−μ_c‖²; with `scatter` also one within-class scatter, pooled over classes.

    Spreads are taken about the class means themselves and merged by the exact formula, so collapsed classes (spread ≪ distance) keep their
    digits. Everything is fp64.

    Cost of a pass: n d, with `scatter` n d² more; 8 C d bytes, with `scatter` 8 d² more.

    Example:
        >>> classes = ClassMoments.of(X, labels)    # [n, d], [n]
        >>> classes.between_trace / classes.within_trace.sum()
    """

    additive: ClassVar[bool] = True
    labeled: ClassVar[bool] = True

    def __init__(self, *, scatter: bool = False) -> None:
        self.has_scatter = scatter
        self.labels = np.zeros(0)
        self._counts: Tensor | None = None  # [C]
        self._means: Tensor | None = None  # [C, d]
        self._within: Tensor | None = None  # [C]
        self._scatter: Tensor | None = None  # [d, d]

    @classmethod
    def of(cls, X: Any, labels: Any, *, scatter: bool = False) -> ClassMoments:
        """The class moments of rows X [n, d] with labels [n] (numbers or strings).

        Args:
            X: array, tensor or view, [n, d].
            labels: the class of each row, [n].
            scatter: also hold the pooled within-class scatter [d, d].

        Raises:
            DegenerateInputError: X is not [n, d] or holds NaN or infinity, or there is not one label per row.
        """
        return cls(scatter=scatter).update(X, labels)

    def update(self, X: Any, labels: Any) -> ClassMoments:
        """Adds labeled rows X [b, d], in place."""
        rows = as_rows(X, minimum=0)
        names = np.asarray(labels)
        if names.shape != (rows.shape[0],):
            raise DegenerateInputError(f"labels have shape {names.shape}; expected [{rows.shape[0]}], one per row")
        if names.dtype.kind == "f" and np.isnan(names).any():
            raise DegenerateInputError(f"{int(np.isnan(names).sum())} of {names.shape[0]} labels are NaN; leave those rows out")
        for block in row_blocks(*rows.shape):
            part = _of_block(rows[block], names[block], self.has_scatter)
            merged = part if self._counts is None else self._combined(part, 1)
            self._forget()
            vars(self).update(vars(merged))
        return self

    def merge(self, other: ClassMoments) -> ClassMoments:
        """The class moments of both sets of rows, label by label. C d, with a scatter C d² more."""
        if other._counts is None:
            return self
        return other if self._counts is None else self._combined(other, 1)

    def minus(self, part: ClassMoments) -> ClassMoments:
        """The class moments of the rows outside `part`, merged before; classes without rows are gone, spreads clipped at 0."""
        return self if part._counts is None else self._combined(part, -1)

    @property
    def counts(self) -> Tensor:
        """Rows of each class, [C], in the order of `labels`."""
        return self._filled(self._counts)

    @property
    def means(self) -> Tensor:
        """Mean row of each class, [C, d]."""
        return self._filled(self._means)

    @property
    def within_trace(self) -> Tensor:
        """Σ‖x−μ_c‖² of each class, [C]."""
        return self._filled(self._within)

    @property
    def within_scatter(self) -> Tensor:
        """Σ_c Σ(x−μ_c)(x−μ_c)ᵀ, [d, d].

        Raises:
            DegenerateInputError: the summary was built without `scatter=True`.
        """
        if not self.has_scatter:
            raise DegenerateInputError("the within-class scatter was not kept; build the summary with scatter=True")
        return self._filled(self._scatter)

    @property
    def n(self) -> float:
        """Number of rows."""
        return 0 if self._counts is None else int(self._counts.sum())

    @property
    def d(self) -> int:
        """Number of units."""
        return self.means.shape[1]

    @cached_property
    def mean(self) -> Tensor:
        """Mean row of all classes, weighted by their counts, [d]."""
        return self.counts @ self.means / self.counts.sum()

    @cached_property
    def between_trace(self) -> float:
        """Σ n_c ‖μ_c−μ‖²."""
        return float(self.counts @ (self.means - self.mean).square().sum(1))

    @property
    def between_scatter(self) -> Tensor:
        """Σ n_c (μ_c−μ)(μ_c−μ)ᵀ, [d, d]; C d²."""
        return gram((self.means - self.mean) * self.counts.sqrt().unsqueeze(1))

    @property
    def total_trace(self) -> float:
        """Σ‖x−μ‖², within and between together."""
        return float(self.within_trace.sum()) + self.between_trace

    @property
    def total_scatter(self) -> Tensor:
        """Σ(x−μ)(x−μ)ᵀ, [d, d]; needs `scatter=True`."""
        return self.within_scatter + self.between_scatter

    def _combined(self, other: ClassMoments, sign: int) -> ClassMoments:
        """Merges (sign 1) or subtracts (sign −1) by the parallel formula for means and spreads."""
        if self.has_scatter != other.has_scatter:
            raise StoreMismatchError("one of the two class moments holds a within-class scatter, the other does not; build both alike")
        if self.d != other.d:
            raise StoreMismatchError(f"class moments of {self.d} and of {other.d} units cannot be combined; they must come from one site")
        labels = np.union1d(self.labels, other.labels)
        n, mean, within = self._spread_over(labels)
        m, other_mean, other_within = other._spread_over(labels)
        left = n + sign * m
        if bool((left < 0).any()):
            short = labels[int((left < 0).nonzero()[0])]
            raise StoreMismatchError(
                f"the part to subtract has more rows of class {short!r} than the whole; subtract what was merged before"
            )
        size = left.clamp(min=1)
        base = torch.where((n > 0).unsqueeze(1), mean, other_mean)
        # Merging adds n m / (n + m) ‖δ‖², taking m of n rows away subtracts n m / (n − m) ‖δ‖², δ being the distance of the two means.
        apart, weight = mean - other_mean, n * m / size * (left > 0)
        spread = within + sign * (other_within + weight * apart.square().sum(1))
        keep = left > 0
        result = type(self)(scatter=self.has_scatter)
        result.labels = labels[keep.cpu().numpy()]
        result._counts = left[keep]
        result._means = (base + sign * (m / size).unsqueeze(1) * (other_mean - base))[keep]
        result._within = spread[keep].clamp(min=0)
        if self._scatter is not None and other._scatter is not None:
            result._scatter = self._scatter + sign * (other._scatter + gram(apart * weight.sqrt().unsqueeze(1)))
            result._scatter.diagonal().clamp_(min=0)
        return result

    def _spread_over(self, labels: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Counts, means and spreads on a larger list of labels, 0 for classes that are absent."""
        place = torch.from_numpy(np.searchsorted(labels, self.labels))
        counts = self.counts.new_zeros(len(labels))
        means = self.means.new_zeros(len(labels), self.d)
        within = self.within_trace.new_zeros(len(labels))
        counts[place], means[place], within[place] = self.counts, self.means, self.within_trace
        return counts, means, within

    def _filled(self, value: Tensor | None) -> Tensor:
        if value is None:
            raise DegenerateInputError("these class moments hold no rows yet; call update(X, labels) first")
        return value


def _of_block(rows: Tensor, names: np.ndarray, scatter: bool) -> ClassMoments:
    """The class moments of one block, in two passes over it: means, then spreads about them."""
    labels, number = np.unique(names, return_inverse=True)
    wide = rows.to(total_device(rows.device), torch.float64)
    index = torch.from_numpy(number).to(wide.device)
    counts = torch.bincount(index, minlength=len(labels)).double()
    shift = wide[0]
    means = shift + wide.new_zeros(len(labels), wide.shape[1]).index_add_(0, index, wide - shift) / counts.unsqueeze(1)
    apart = wide - means[index]
    result = ClassMoments(scatter=scatter)
    result.labels = labels
    result._counts, result._means = counts, means
    result._within = wide.new_zeros(len(labels)).index_add_(0, index, apart.square().sum(1))
    result._scatter = gram(apart) if scatter else None
    return result
