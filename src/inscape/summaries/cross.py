"""Moments of the paired rows of two sites."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from inscape.arrays import as_rows, row_blocks
from inscape.errors import DegenerateInputError, StoreMismatchError
from inscape.summaries.base import Summary
from inscape.summaries.blocks import needs_double, shifted
from inscape.summaries.moments import Moments
from inscape.summaries.products import GramProducts
from inscape.summaries.rows import in_span
from inscape.summaries.spectra import nuclear_norm, singular_values
from inscape.summaries.sums import checked_weights


@dataclass(frozen=True)
class CrossSums:
    """Sums over paired shifted rows (z, t), in fp64: Σ z tᵀ [p, q], Σ‖z‖²t [q], Σ‖t‖²z [p], Σ‖z‖²‖t‖²."""

    matrix: Tensor
    x_square_y: Tensor
    y_square_x: Tensor
    squares: Tensor

    def plus(self, other: CrossSums, sign: int = 1) -> CrossSums:
        """Field by field self + sign·other."""
        return CrossSums(**{name: value + sign * getattr(other, name) for name, value in vars(self).items()})

    def accumulate(self, other: CrossSums) -> CrossSums:
        """Adds a block's sums in place, to sums that nobody else holds."""
        for name, value in vars(self).items():
            value.add_(getattr(other, name))
        return self

    def about(self, x: Moments, y: Moments, move_x: Tensor, move_y: Tensor) -> CrossSums:
        """The same sums over (z − move_x, t − move_y), exactly; x and y hold the one-sided sums of the same rows. Cost p q."""
        sx, sy, n = x.held, y.held, x.n
        ax, ay = move_x @ move_x, move_y @ move_y
        along_x, along_y = move_x @ sx.first, move_y @ sy.first
        down, across = self.matrix.T @ move_x, self.matrix @ move_y
        return CrossSums(
            torch.addr(self.matrix, sx.first - n * move_x, move_y, alpha=-1).addr_(move_x, sy.first, alpha=-1),
            self.x_square_y - 2 * down + ax * sy.first - move_y * sx.square + 2 * move_y * along_x - n * ax * move_y,
            self.y_square_x - 2 * across + ay * sx.first - move_x * sy.square + 2 * move_x * along_y - n * ay * move_x,
            self.squares_about(x, y, move_x, move_y),
        )

    def squares_about(self, x: Moments, y: Moments, move_x: Tensor, move_y: Tensor) -> Tensor:
        """Σ‖z − move_x‖²‖t − move_y‖² alone, from one product of the matrix with a vector."""
        sx, sy, n = x.held, y.held, x.n
        ax, ay = move_x @ move_x, move_y @ move_y
        mixed = ay * (move_x @ sx.first) + ax * (move_y @ sy.first)
        moved = move_y @ self.x_square_y + move_x @ self.y_square_x
        return self.squares - 2 * moved + ay * sx.square + ax * sy.square + 4 * move_x @ (self.matrix @ move_y) - 2 * mixed + n * ax * ay


class CrossMoments(Summary):
    """Moments of both sites, their cross scatter, and the mixed fourth moments that debias CKA exactly.

    `x` and `y` may be moments that other pairs share: then only the cross part is computed.

    Cost of a pass: n p q multiplications beside the two `Moments`; 8 p q bytes.

    Example:
        >>> pair = CrossMoments.of(X, Y)            # [n, p], [n, q]
        >>> pair.products().hsic_unbiased()
    """

    additive: ClassVar[bool] = True
    arity: ClassVar[int] = 2

    def __init__(self, *, precise: bool | None = None) -> None:
        self.x = Moments(precise=precise)
        self.y = Moments(precise=precise)
        self._precise = precise
        self._sums: CrossSums | None = None

    @classmethod
    def of(
        cls, X: Any, Y: Any, *, weights: Any = None, x: Moments | None = None, y: Moments | None = None, precise: bool | None = None
    ) -> CrossMoments:
        """The cross moments of rows X [n, p] and Y [n, q], paired in order.

        Args:
            X: array, tensor or view, [n, p].
            Y: array, tensor or view, [n, q].
            weights: nonnegative row weights [n].
            x: ready moments of exactly these rows X (with these weights), to share between pairs.
            y: ready moments of exactly these rows Y.
            precise: form products of narrow rows in fp64; by default a pilot's spectrum decides.

        Raises:
            StoreMismatchError: X and Y have different numbers of rows, or `x` or `y` is of other rows.
            DegenerateInputError: the rows are not [n, d] or hold NaN or infinity.
        """
        rows_x, rows_y = _paired(X, Y)
        pair = cls(precise=precise)
        pair.x = Moments.of(rows_x, weights=weights, precise=precise) if x is None else x
        pair.y = Moments.of(rows_y, weights=weights, precise=precise) if y is None else y
        if pair.x.d != rows_x.shape[1] or pair.y.d != rows_y.shape[1] or abs(pair.x.n - pair.y.n) > 1e-9 * pair.y.n:
            raise StoreMismatchError(
                f"the moments given have n = {pair.x.n:g} and {pair.y.n:g}, d = {pair.x.d} and {pair.y.d}, "
                f"the rows {tuple(rows_x.shape)} and {tuple(rows_y.shape)}; give the moments of these rows"
            )
        pair._add(rows_x, rows_y, weights)
        return pair

    @classmethod
    def in_spans(cls, X: Any, Y: Any, *, precise: bool | None = None) -> CrossMoments:
        """The same for numbers that no rotation of X or of Y changes: rows with more units than rows become coordinates in their span.

        Raises:
            StoreMismatchError: X and Y have different numbers of rows.
            DegenerateInputError: the rows are not [n, d] or hold NaN or infinity.
        """
        rows_x, rows_y = _paired(X, Y)
        pair = cls.of(in_span(rows_x), in_span(rows_y), precise=precise)
        pair.x.spanning(rows_x.shape[1])
        pair.y.spanning(rows_y.shape[1])
        return pair

    @classmethod
    def of_sums(cls, x: Moments, y: Moments, sums: CrossSums, *, precise: bool | None = None) -> CrossMoments:
        """A pair from ready moments and the raw cross sums about their shifts."""
        pair = cls(precise=precise)
        pair.x, pair.y, pair._sums = x, y, sums
        return pair

    def update(self, X: Any, Y: Any, weights: Any = None) -> CrossMoments:
        """Adds paired rows [b, p] and [b, q], in place."""
        rows_x, rows_y = _paired(X, Y)
        if rows_x.shape[0]:
            self.x.update(rows_x, weights)
            self.y.update(rows_y, weights)
            self._add(rows_x, rows_y, weights)
        return self

    def merge(self, other: CrossMoments) -> CrossMoments:
        """The cross moments of both sets of pairs; the other's sums move exactly to these shifts. Cost p² + q² + p q."""
        if other._sums is None:
            return self
        if self._sums is None:
            return other
        return self._with(self.x.merge(other.x), self.y.merge(other.y), self._sums.plus(self._align(other)))

    def minus(self, part: CrossMoments, *, x: Moments | None = None, y: Moments | None = None) -> CrossMoments:
        """The cross moments of the pairs outside `part`, which was merged before.

        Args:
            part: cross moments of some of the pairs.
            x: ready moments of the remaining rows of the first site, to share between pairs.
            y: ready moments of the remaining rows of the second site.
        """
        if part._sums is None:
            return self
        left_x = self.x.minus(part.x) if x is None else x
        left_y = self.y.minus(part.y) if y is None else y
        return self._with(left_x, left_y, self.sums.plus(self._align(part), sign=-1))

    def swap(self) -> CrossMoments:
        """The same pair with x and y exchanged; nothing is computed."""
        sums = self.sums
        return self._with(self.y, self.x, CrossSums(sums.matrix.T, sums.y_square_x, sums.x_square_y, sums.squares))

    @property
    def n(self) -> float:
        """Number of pairs, or the sum of their weights."""
        return self.x.n

    @property
    def sums(self) -> CrossSums:
        """The raw cross sums about the shifts of `x` and `y`."""
        if self._sums is None:
            raise DegenerateInputError("these cross moments hold no rows yet; call update(X, Y) first")
        return self._sums

    @cached_property
    def cross(self) -> Tensor:
        """Centered cross scatter Σ(x−μ)(y−ν)ᵀ, [p, q]."""
        return torch.addr(self.sums.matrix, self.x.held.first, self.y.held.first, alpha=-1 / self.n)

    @cached_property
    def nuclear_norm(self) -> float:
        """Sum of the singular values of `cross`; min(p, q)² max(p, q), kept."""
        return nuclear_norm(self.cross)

    @cached_property
    def overlap(self) -> Tensor:
        """QxᵀQy of orthonormal bases of the centered rows of both sites, [rank x, rank y], in order of ascending variance; p² q."""
        return self.x.whitener.T @ self.cross @ self.y.whitener

    @cached_property
    def canonical_correlations(self) -> Tensor:
        """Singular values of `overlap`, descending, at most 1, [min of the ranks]; kept. Cost min(p, q)² max(p, q)."""
        return singular_values(self.overlap).clamp(max=1)

    def products(self) -> GramProducts:
        """Inner products of the two centered linear kernels, without forming them. Cost d² for each side."""
        squares = self.sums.squares_about(self.x, self.y, self.x.mean - self.x.shift, self.y.mean - self.y.shift)
        return GramProducts(
            n=self.n,
            xy=float(self.cross.square().sum()),
            xx=self.x.frobenius2,
            yy=self.y.frobenius2,
            dot_xy=max(0.0, float(squares)),
            dot_xx=self.x.fourth,
            dot_yy=self.y.fourth,
            trace_x=self.x.trace,
            trace_y=self.y.trace,
        )

    def _add(self, rows_x: Tensor, rows_y: Tensor, weights: Any) -> None:
        self._forget()
        if self._precise is None:
            self._precise = needs_double(rows_x) or needs_double(rows_y)
        dtype = torch.float64 if self._precise or torch.float64 in (rows_x.dtype, rows_y.dtype) else torch.float32
        row_weights = None if weights is None else checked_weights(weights, rows_x)
        total = self._sums
        for block in row_blocks(rows_x.shape[0], max(rows_x.shape[1], rows_y.shape[1]), dtype.itemsize):
            part = cross_sums(
                shifted(rows_x[block], self.x.shift, dtype),
                shifted(rows_y[block], self.y.shift, dtype),
                weights=None if row_weights is None else row_weights[block],
                device=self.x.shift.device,
            )
            total = part if total is None else total.plus(part)
        self._sums = total

    def _align(self, other: CrossMoments) -> CrossSums:
        return other.sums.about(other.x, other.y, self.x.shift - other.x.shift, self.y.shift - other.y.shift)

    def _with(self, x: Moments, y: Moments, sums: CrossSums) -> CrossMoments:
        return CrossMoments.of_sums(x, y, replace(sums), precise=self._precise)


def _paired(X: Any, Y: Any) -> tuple[Tensor, Tensor]:
    rows_x, rows_y = as_rows(X, "X"), as_rows(Y, "Y")
    if rows_x.shape[0] != rows_y.shape[0]:
        raise StoreMismatchError(
            f"X has {rows_x.shape[0]} rows (shape {tuple(rows_x.shape)}), Y has {rows_y.shape[0]} (shape {tuple(rows_y.shape)}); "
            "row i of both must be the same stimulus"
        )
    return rows_x, rows_y


def cross_sums(
    Z: Tensor, T: Tensor, *, weights: Tensor | None = None, squares: tuple[Tensor, Tensor] | None = None, device: torch.device | None = None
) -> CrossSums:
    """The sums over one block of paired shifted rows Z [b, p] and T [b, q]; b p q multiplications.

    Args:
        Z: rows of one site about its shift.
        T: rows of the other about its own, in the same dtype.
        weights: nonnegative row weights [b].
        squares: ready squared lengths of both sides' rows in fp64, [b] each.
        device: where the fp64 sums live; that of the rows by default.
    """
    where = Z.device if device is None else device
    z2, t2 = (square_lengths(rows) for rows in (Z, T)) if squares is None else squares
    W = T if weights is None else T * weights.to(T).unsqueeze(1)
    a, b = (z2, t2) if weights is None else (weights.to(z2) * z2, weights.to(t2) * t2)
    return CrossSums((Z.T @ W).to(where).double(), (a.to(T) @ T).to(where).double(), (b.to(Z) @ Z).to(where).double(), (a @ t2).to(where))


def square_lengths(rows: Tensor) -> Tensor:
    """‖row‖² of every row in fp64, [b]."""
    return rows.square().sum(1, dtype=torch.float64)
