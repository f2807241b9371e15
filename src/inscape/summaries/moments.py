"""Second and radial fourth moments of the rows of one site."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from inscape.arrays import as_rows, compute_dtype, row_blocks
from inscape.errors import DegenerateInputError, StoreMismatchError
from inscape.summaries.base import Summary
from inscape.summaries.blocks import gram, keeps_digits, needs_double, pilot_shift, shifted
from inscape.summaries.spectra import descending, eigenvectors, inverse_square_root, without_rounding
from inscape.summaries.sums import PowerSums, accumulate, added, checked_weights, sums_of

# Bytes of a block of shifted rows: beyond these, fresh memory from the system costs as much as the products.
FRESH_BYTES = 8 * 2**20


class Moments(Summary):
    """Count, mean, scatter and radial moments of rows, from which spectra, ranks, whitening and PCA follow.

    Sums are taken about a shift (the mean of the first block), so a common offset of the rows costs no digits; products are formed in
    the precision of the input and added in fp64. `of` with fewer rows than units keeps the rows and takes spectra from the
    n×n side; the d×d side is built when something asks for it.

    Cost of a pass: n d² multiplications; 8 d² bytes. Eigenvalues: min(n, d)³, kept.

    Example:
        >>> m = Moments.of(X)                       # [n, d]
        >>> m.eigenvalues.sum() / m.n               # doctest: +SKIP
        >>> Moments.of(X[:50]).merge(Moments.of(X[50:])).scatter
    """

    additive: ClassVar[bool] = True

    def __init__(self, *, shift: Tensor | None = None, precise: bool | None = None) -> None:
        self._shift = None if shift is None else shift.double()
        self._precise = precise
        self._sums: PowerSums | None = None
        self._rows: Tensor | None = None  # resident rows, fewer than units, whose d×d side nobody has asked for
        self._count: int | None = 0  # rows seen; None when unknown after a subtraction
        self._units: int | None = None

    @classmethod
    def of(cls, X: Any, shift: Tensor | None = None, *, weights: Any = None, precise: bool | None = None) -> Moments:
        """The moments of rows X [n, d].

        Args:
            X: array, tensor or view, [n, d].
            shift: the point [d] about which sums are taken; the mean of the first rows by default.
            weights: nonnegative row weights [n]; n becomes their sum.
            precise: form products of narrow rows in fp64; by default a pilot's spectrum decides (`needs_double`).

        Raises:
            DegenerateInputError: X is not [n, d], or holds NaN or infinity.
        """
        rows = as_rows(X)
        moments = cls(shift=shift, precise=precise)
        if weights is None and rows.shape[0] < rows.shape[1]:
            moments._hold(rows)
            return moments
        return moments.update(rows, weights)

    def update(self, X: Any, weights: Any = None) -> Moments:
        """Adds rows X [b, d] with nonnegative weights [b] (1 each by default), in place; n d² multiplications."""
        rows = as_rows(X, minimum=0)
        row_weights = None if weights is None else checked_weights(weights, rows)
        if rows.shape[0] == 0:
            return self
        self._place(rows)
        self._build()
        self._forget()
        parts: PowerSums | None = None
        if self._precise is None and compute_dtype(rows.dtype) == torch.float32 and rows.shape[0] > rows.shape[1]:
            # Most rows allow fp32, which their own scatter tells for less than a pilot costs.
            parts = self._summed(rows, row_weights, torch.float32)
            assert parts.second is not None
            if keeps_digits(parts.second - torch.outer(parts.first, parts.first) / max(parts.n, 1)):
                self._precise = False
        self._decide(rows)
        if parts is None or self._precise:
            parts = self._summed(rows, row_weights, torch.float64 if self._precise else torch.float32)
        self._sums = parts if self._sums is None else added(self._sums, parts)
        self._count = None if self._count is None else self._count + rows.shape[0]
        return self

    def _summed(self, rows: Tensor, weights: Tensor | None, dtype: torch.dtype) -> PowerSums:
        """Power sums of rows about the shift, products in `dtype`."""
        # Blocks of fewer than 2,048 rows would add to the d×d total too often.
        step = max(2048, FRESH_BYTES // (rows.shape[1] * dtype.itemsize))
        total: PowerSums | None = None
        for block in (part for whole in row_blocks(rows.shape[0], rows.shape[1], dtype.itemsize) for part in _cut(whole, step)):
            Z = shifted(rows[block], self.shift, dtype)
            part = sums_of(Z, None if weights is None else weights[block], self.shift.device, matrix=True)
            total = part if total is None else accumulate(total, part)
        assert total is not None  # there is at least one row
        return total

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of rows; the other's sums move exactly to this shift. Cost d²."""
        if other._sums is None:
            return self
        if self._sums is None:
            return other
        self._same_width(other)
        return self._with(added(self.sums, other._sums_about(self.shift)), _plus(self._count, other._count))

    def minus(self, part: Moments) -> Moments:
        """The moments of the rows outside `part`, which was merged before; sums of squares are clipped at 0. Cost d²."""
        if part._sums is None:
            return self
        self._same_width(part)
        if part.n > self.n * (1 + 1e-12):
            raise DegenerateInputError(
                f"the part to subtract has n = {part.n:g}, the whole n = {self.n:g}; subtract what was merged before"
            )
        left = added(self.sums, part._sums_about(self.shift), sign=-1)
        return self._with(left, None if self._count is None or part._count is None else self._count - part._count)

    @property
    def n(self) -> float:
        """Number of rows, or the sum of their weights."""
        return 0 if self._sums is None else self._sums.n

    @property
    def d(self) -> int:
        """Number of units."""
        return self.shift.shape[0]

    @property
    def units(self) -> int:
        """Number of units of the rows as they were given: more than `d` where they were rotated into their span."""
        return self.d if self._units is None else self._units

    def spanning(self, units: int) -> Moments:
        """Notes that the rows are coordinates of rows of `units` units."""
        self._units = units
        return self

    @property
    def shift(self) -> Tensor:
        """The point [d] about which sums are taken."""
        if self._shift is None:
            raise DegenerateInputError("these moments hold no rows yet; call update(X) first")
        return self._shift

    @property
    def sums(self) -> PowerSums:
        """The raw sums about `shift`, the d×d one included."""
        self._build()
        if self._sums is None:
            raise DegenerateInputError("these moments hold no rows yet; call update(X) first")
        return self._sums

    @property
    def dual(self) -> bool:
        """Whether spectra come from the n×n side."""
        return self._rows is not None

    @cached_property
    def mean(self) -> Tensor:
        """Mean row [d]."""
        return self.shift + self._drift

    @cached_property
    def scatter(self) -> Tensor:
        """Σ(x−μ)(x−μ)ᵀ, [d, d]; divide by n for the covariance."""
        sums = self.sums
        assert sums.second is not None
        return sums.second - torch.outer(sums.first, sums.first) / sums.n

    def covariance(self, ddof: float = 0) -> Tensor:
        """Scatter over n − ddof, [d, d]."""
        if self.n <= ddof:
            raise DegenerateInputError(f"the covariance with ddof = {ddof:g} needs more than {ddof:g} rows, got n = {self.n:g}")
        return self.scatter / (self.n - ddof)

    @cached_property
    def trace(self) -> float:
        """Σ‖x−μ‖², the trace of the scatter."""
        return max(0.0, float(self.held.square - self.n * self._drift @ self._drift))

    @cached_property
    def frobenius2(self) -> float:
        """Squared Frobenius norm of the scatter."""
        kernel = self._kernel
        return float((kernel if kernel is not None else self.scatter).square().sum())

    @cached_property
    def centered(self) -> PowerSums:
        """The power sums about the mean: Σ‖x−μ‖⁴ is `.fourth`, Σ‖x−μ‖²(x−μ) is `.third`."""
        sums = self.sums
        assert sums.second is not None
        return sums.about(self._drift, matrix=sums.second)

    @cached_property
    def fourth(self) -> float:
        """Σ‖x−μ‖⁴, without the d×d side."""
        if self._rows is not None:
            rows = shifted(self._rows, self.shift, torch.float64) - self._drift
            return float(rows.square().sum(1).square().sum())
        return max(0.0, float(self.centered.fourth))

    @cached_property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of the covariance (scatter / n), descending, at least 0, [d]; those beyond rank n − 1 are exactly 0."""
        kernel = self._kernel
        if "eigenbasis" in vars(self):
            values = without_rounding(self.eigenbasis[0], self.d)
        else:
            values = descending(self.scatter if kernel is None else kernel, self.d)
        if self._count is not None:
            values[max(0, self._count - 1) :] = 0
        return values / self.n

    @cached_property
    def singular_values(self) -> Tensor:
        """Singular values of the centered rows, descending, [d] (zeros beyond the rank)."""
        return (self.n * self.eigenvalues).sqrt()

    @cached_property
    def raw_eigenvalues(self) -> Tensor:
        """Eigenvalues of XᵀX / n without centering, descending, [d]."""
        if self._rows is not None:
            matrix = gram(self._rows.to(self.shift.device, torch.float64).T)
        else:
            sums = self.sums
            assert sums.second is not None
            matrix = sums.about(-self.shift, matrix=sums.second).second
            assert matrix is not None
        values = descending(matrix, self.d)
        if self._count is not None:
            values[self._count :] = 0
        return values / self.n

    @cached_property
    def raw_singular_values(self) -> Tensor:
        """Singular values of the rows without centering, descending, [d]."""
        return (self.n * self.raw_eigenvalues).sqrt()

    @property
    def rank(self) -> int:
        """Numerical rank of the centered rows: how many eigenvalues exceed max(n, d)·2.2e-16 of the largest."""
        values = self.eigenvalues
        return int((values > max(self.n, self.d) * torch.finfo(torch.float64).eps * values[0]).sum()) if float(values[0]) > 0 else 0

    @cached_property
    def whitener(self) -> Tensor:
        """Columns W [d, rank] with which the centered rows times W are an orthonormal basis of their span; kept. Cost d³.

        Directions lost in the rounding of the largest eigenvalue (below max(n, d)·2.2e-16 of it) are left out.
        """
        values, vectors = self._span
        return vectors / values.sqrt()

    @cached_property
    def eigenbasis(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of the scatter, ascending, as the solver gives them, [d], and its eigenvectors as columns [d, d]; kept. Cost d³."""
        return eigenvectors(self.scatter)

    @cached_property
    def loading(self) -> Tensor:
        """Products [rank, d] of the orthonormal basis that `whitener` gives with the centered rows; kept. Cost d²."""
        values, vectors = self._span
        return (vectors * values.sqrt()).T

    @property
    def _span(self) -> tuple[Tensor, Tensor]:
        """The eigenvalues of the scatter that are above rounding, ascending, [rank], and their eigenvectors [d, rank]."""
        if self._rows is None or self._kernel is None:
            values, vectors = self.eigenbasis
            keep = self._above_rounding(values)
            return values[keep], vectors[:, keep]
        rows = shifted(self._rows, self.shift, torch.float64) - self._drift
        values, left = eigenvectors(self._kernel)
        keep = self._above_rounding(values)
        return values[keep], rows.T @ (left[:, keep] / values[keep].sqrt())

    def _above_rounding(self, values: Tensor) -> Tensor:
        return values > max(self.n, self.d) * torch.finfo(torch.float64).eps * values[-1]

    def inverse_sqrt(self, cut: float = 1e-12) -> Tensor:
        """The symmetric whitener (scatter / n)^(−1/2), [d, d], on eigenvectors above `cut` of the largest eigenvalue; d³."""
        return inverse_square_root(self.scatter / self.n, cut)

    @property
    def held(self) -> PowerSums:
        """The raw sums about `shift` that are at hand: with few resident rows the d×d one may be absent."""
        if self._sums is None:
            raise DegenerateInputError("these moments hold no rows yet; call update(X) first")
        return self._sums

    @property
    def _drift(self) -> Tensor:
        return self.held.first / self.held.n

    @cached_property
    def _kernel(self) -> Tensor | None:
        """The centered n×n Gram matrix of resident rows, in fp64: it is smaller than the scatter."""
        return None if self._rows is None else gram((shifted(self._rows, self.shift, torch.float64) - self._drift).T)

    def _place(self, rows: Tensor) -> None:
        if self._shift is None:
            self._shift = pilot_shift(rows)
        elif self._shift.shape[0] != rows.shape[1]:
            raise StoreMismatchError(f"these moments are of {self._shift.shape[0]} units, the new rows have shape {tuple(rows.shape)}")

    def _decide(self, rows: Tensor) -> None:
        if self._precise is None or rows.dtype == torch.float64:
            self._precise = needs_double(rows)

    def _hold(self, rows: Tensor) -> None:
        """Keeps few resident rows instead of the d×d sums."""
        self._precise = True
        self._place(rows)
        self._rows = rows
        self._count = rows.shape[0]
        self._sums = sums_of(shifted(rows, self.shift, torch.float64), None, self.shift.device, matrix=False)

    def _build(self) -> None:
        """Forms the d×d side of resident rows, once it is asked for."""
        if self._rows is not None and self._sums is not None:
            Z = shifted(self._rows, self.shift, torch.float64)
            self._sums = replace(self._sums, second=gram(Z))
            self._rows = None

    def _sums_about(self, shift: Tensor) -> PowerSums:
        sums = self.sums
        assert sums.second is not None
        return sums if torch.equal(shift, self.shift) else sums.about(shift - self.shift, matrix=sums.second)

    def _with(self, sums: PowerSums, count: int | None) -> Moments:
        result = Moments(shift=self.shift, precise=self._precise)
        result._sums, result._count, result._units = sums, count, self._units
        return result

    def _same_width(self, other: Moments) -> None:
        if self.d != other.d:
            raise StoreMismatchError(f"moments of {self.d} and of {other.d} units cannot be combined; they must come from one site")


def _cut(block: slice, step: int) -> list[slice]:
    return [slice(start, min(block.stop, start + step)) for start in range(block.start, block.stop, step)]


def _plus(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b
