"""Moments by fold or group, so that the moments of all other rows are a subtraction away."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from inscape.arrays import as_rows
from inscape.errors import DegenerateInputError, StoreMismatchError, nearest
from inscape.summaries.base import Summary
from inscape.summaries.blocks import needs_double, pilot_shift
from inscape.summaries.moments import Moments
from inscape.summaries.spectra import eigenvectors


@dataclass(frozen=True)
class TrainBasis:
    """One side of a regression that leaves a fold out: the training scatter's eigenbasis, and the held-out scatter in it.

    Attributes:
        mean: of the training rows, about the shift of the moments, [p].
        values: eigenvalues of the training scatter, at least 0, [p].
        vectors: its eigenvectors, [p, p].
        held: scatter of the held-out rows about the training mean, in that basis, [p, p].
        held_first: sum of the held-out rows about the shift, [p].
        scale: mean of the eigenvalues that are not rounding; the unit of a penalty.
        inverse: one over the eigenvalues, 0 where these are rounding, [p].
    """

    mean: Tensor
    values: Tensor
    vectors: Tensor
    held: Tensor
    held_first: Tensor
    scale: float
    inverse: Tensor


class FoldMoments(Summary):
    """One `Moments` per fold, all about one shift: `held_out(fold)` are the rows of the fold, `train(fold)` all others.

    Cost of a pass: n d² multiplications, as much as plain moments; 8 d² bytes a fold.

    Example:
        >>> folds = FoldMoments.of(X, fold_of_row)  # [n, d], [n]
        >>> for fold in folds.folds: folds.train(fold).mean
    """

    additive: ClassVar[bool] = True

    def __init__(self, *, shift: Tensor | None = None, precise: bool | None = None) -> None:
        self.parts: dict[Hashable, Moments] = {}
        self._shift = shift
        self._precise = precise

    @classmethod
    def of(cls, X: Any, folds: Any, *, weights: Any = None, shift: Tensor | None = None, precise: bool | None = None) -> FoldMoments:
        """The moments by fold of rows X [n, d].

        Args:
            X: array, tensor or view, [n, d].
            folds: fold or group of each row, [n]: numbers or strings.
            weights: nonnegative row weights [n].
            shift: the point [d] about which sums are taken; the mean of the first rows by default.
            precise: form products of narrow rows in fp64; by default a pilot's spectrum decides.

        Raises:
            DegenerateInputError: X is not [n, d] or holds NaN or infinity, or there is not one fold per row.
        """
        return cls(shift=shift, precise=precise).update(X, folds, weights)

    def update(self, X: Any, folds: Any, weights: Any = None) -> FoldMoments:
        """Adds rows X [b, d] of the given folds [b], in place."""
        rows = as_rows(X, minimum=0)
        names = np.asarray(folds)
        if names.shape != (rows.shape[0],):
            raise DegenerateInputError(f"folds have shape {names.shape}; expected [{rows.shape[0]}], one per row")
        if not rows.shape[0]:
            return self
        self._forget()
        if self._shift is None:
            self._shift = pilot_shift(rows)
        self._precise = needs_double(rows) if self._precise is None else self._precise
        found, number = np.unique(names, return_inverse=True)
        for index, name in enumerate(found.tolist()):
            which = torch.from_numpy(np.flatnonzero(number == index))
            rows_weights = None if weights is None else torch.as_tensor(weights)[which]
            part = Moments(shift=self._shift, precise=self._precise).update(rows[which.to(rows.device)], rows_weights)
            self.parts[name] = self.parts[name].merge(part) if name in self.parts else part
        return self

    def merge(self, other: FoldMoments) -> FoldMoments:
        """The moments of both sets of rows, fold by fold."""
        return self._combined({name: self.parts[name].merge(part) if name in self.parts else part for name, part in other.parts.items()})

    def minus(self, part: FoldMoments) -> FoldMoments:
        """The moments of the rows outside `part`, which was merged before; a fold left without rows is gone."""
        unknown = [name for name in part.parts if name not in self.parts]
        if unknown:
            raise StoreMismatchError(f"fold {unknown[0]!r} of the part is not in the whole, which has {self.folds}")
        result = self._combined({name: self.parts[name].minus(one) for name, one in part.parts.items()})
        result.parts = {name: one for name, one in result.parts.items() if one.n > 0}
        return result

    @property
    def shift(self) -> Tensor:
        """The point [d] about which sums are taken."""
        if self._shift is None:
            raise DegenerateInputError("these moments hold no rows yet; call update(X, folds) first")
        return self._shift

    @property
    def folds(self) -> list[Any]:
        """Names of the folds, in order of first appearance."""
        return list(self.parts)

    @property
    def n(self) -> float:
        """Number of rows of all folds."""
        return sum(part.n for part in self.parts.values())

    @property
    def d(self) -> int:
        """Number of units."""
        return self.total.d

    @cached_property
    def total(self) -> Moments:
        """The moments of all rows."""
        return reduce(Moments.merge, self.parts.values(), Moments())

    def held_out(self, fold: Any) -> Moments:
        """The moments of the rows of `fold`.

        Raises:
            DegenerateInputError: there is no such fold.
        """
        if fold not in self.parts:
            close = nearest(str(fold), map(str, self.parts))
            raise DegenerateInputError(f"there is no fold {fold!r}; nearest: {close} of {len(self.parts)} folds")
        return self.parts[fold]

    def train(self, fold: Any) -> Moments:
        """The moments of all rows outside `fold`: total − fold. Cost d².

        Raises:
            DegenerateInputError: there is no such fold.
        """
        return self.total.minus(self.held_out(fold))

    def basis(self, fold: Any) -> TrainBasis:
        """The eigenbasis of the rows outside `fold`, with the rows of `fold` in it; kept until rows are added. Cost d³.

        Raises:
            DegenerateInputError: there is no such fold, or all training rows are equal.
        """
        if fold not in self._bases:
            held, train = self.held_out(fold).sums, self.train(fold)
            mean, n = train.held.first / train.n, held.n
            values, vectors = eigenvectors(train.scatter)
            values = values.clamp(min=0)
            kept = values > max(train.n, self.d) * torch.finfo(torch.float64).eps * values[-1]
            if float(values[-1]) <= 0:
                raise DegenerateInputError(f"all {train.n:g} training rows outside fold {fold!r} are equal (d = {self.d})")
            assert held.second is not None
            across = torch.outer(held.first, mean)
            scatter = held.second - across - across.T + n * torch.outer(mean, mean)
            inside = vectors.T @ scatter @ vectors
            inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)
            self._bases[fold] = TrainBasis(mean, values, vectors, inside, held.first, float(values[kept].mean()), inverse)
        return self._bases[fold]

    @cached_property
    def _bases(self) -> dict[Any, TrainBasis]:
        return {}

    def _combined(self, changed: dict[Hashable, Moments]) -> FoldMoments:
        result = FoldMoments(shift=self._shift, precise=self._precise)
        result.parts = {**self.parts, **changed}
        return result
