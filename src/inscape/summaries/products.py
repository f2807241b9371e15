"""Inner products of two centered linear kernels: all that CKA and its relatives need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from inscape.arrays import as_rows, compute_dtype, row_blocks
from inscape.errors import StoreMismatchError, TooFewStimuliError
from inscape.summaries.base import Summary
from inscape.summaries.blocks import added_products


@dataclass(frozen=True)
class GramProducts(Summary):
    """Frobenius products of the centered kernels K = XcXcᵀ and L = YcYcᵀ with a_i = K_ii, b_i = L_ii.

    They come from `CrossMoments.products()` or from kernel tiles, whichever is cheaper, with the same values.

    Attributes:
        n: number of paired rows, or the sum of their weights.
        xy: ⟨K, L⟩, equal to ‖XcᵀYc‖².
        xx: ‖K‖².
        yy: ‖L‖².
        dot_xy: Σ a_i b_i.
        dot_xx: Σ a_i².
        dot_yy: Σ b_i².
        trace_x: Σ a_i.
        trace_y: Σ b_i.
    """

    additive: ClassVar[bool] = False
    arity: ClassVar[int] = 2

    n: float
    xy: float
    xx: float
    yy: float
    dot_xy: float
    dot_xx: float
    dot_yy: float
    trace_x: float
    trace_y: float

    @classmethod
    def of(cls, X: Any, Y: Any) -> GramProducts:
        """The products for rows X [n, p] and Y [n, q], by the cheaper of moments n(p² + q² + pq) and kernel tiles n²(p + q).

        Raises:
            StoreMismatchError: X and Y have different numbers of rows.
            DegenerateInputError: the rows are not [n, d] or hold NaN or infinity.
        """
        rows_x, rows_y = as_rows(X, "X"), as_rows(Y, "Y")
        n, p, q = rows_x.shape[0], rows_x.shape[1], rows_y.shape[1]
        if rows_y.shape[0] != n:
            raise StoreMismatchError(f"X has {n} rows, Y has {rows_y.shape[0]}; row i of both must be the same stimulus")
        return cls.from_tiles(rows_x, rows_y) if n * (p + q) <= p * p + q * q + p * q else cls.from_scatters(rows_x, rows_y)

    @classmethod
    def from_scatters(cls, X: Tensor, Y: Tensor) -> GramProducts:
        """The products from the scatters of resident rows; n(p² + q² + pq) multiplications."""
        A, B = _centered(X), _centered(Y)
        a, b = (rows.square().sum(1, dtype=torch.float64) for rows in (A, B))
        xy, xx, yy = (float(added_products(*pair).square().sum()) for pair in ((A, B), (A, A), (B, B)))
        return cls(X.shape[0], xy, xx, yy, float(a @ b), float(a @ a), float(b @ b), float(a.sum()), float(b.sum()))

    @classmethod
    def from_tiles(cls, X: Tensor, Y: Tensor) -> GramProducts:
        """The products from tiles of both kernels, never whole; n²(p + q) / 2 multiplications, each tile's products summed in fp64."""
        n = X.shape[0]
        A, B = _centered(X), _centered(Y)
        a, b = (rows.square().sum(1, dtype=torch.float64) for rows in (A, B))
        totals = torch.zeros(3, dtype=torch.float64)
        for block in row_blocks(n, n, A.element_size()):
            K, L = A[block] @ A[block.start :].T, B[block] @ B[block.start :].T
            twice = block.stop - block.start  # columns right of the diagonal block stand for their mirror image too
            for index, product in enumerate((K * L, K * K, L * L)):
                rows = product.sum(0, dtype=torch.float64)
                totals[index] += float(rows[:twice].sum() + 2 * rows[twice:].sum())
        xy, xx, yy = (float(value) for value in totals)
        return cls(n, xy, xx, yy, float(a @ b), float(a @ a), float(b @ b), float(a.sum()), float(b.sum()))

    def hsic_biased(self) -> tuple[float, float, float]:
        """HSIC of (x, y), (x, x) and (y, y) as Gretton et al. 2005: ⟨K, L⟩ / (n − 1)².

        Raises:
            TooFewStimuliError: n < 2.
        """
        self._require(2)
        scale = (self.n - 1) ** 2
        return self.xy / scale, self.xx / scale, self.yy / scale

    def hsic_unbiased(self) -> tuple[float, float, float]:
        """The unbiased HSIC of (x, y), (x, x) and (y, y) of Song et al. 2012; may be negative.

        With centered kernels, n(n − 3) HSIC = ⟨K, L⟩ − n/(n − 2) Σ a_i b_i + Σ a_i Σ b_i / ((n − 1)(n − 2)).

        Raises:
            TooFewStimuliError: n < 4.
        """
        self._require(4)
        n = self.n

        def value(product: float, dot: float, traces: float) -> float:
            return (product - n / (n - 2) * dot + traces / ((n - 1) * (n - 2))) / (n * (n - 3))

        return (
            value(self.xy, self.dot_xy, self.trace_x * self.trace_y),
            value(self.xx, self.dot_xx, self.trace_x**2),
            value(self.yy, self.dot_yy, self.trace_y**2),
        )

    def swap(self) -> GramProducts:
        """The same pair with x and y exchanged."""
        return GramProducts(self.n, self.xy, self.yy, self.xx, self.dot_xy, self.dot_yy, self.dot_xx, self.trace_y, self.trace_x)

    def _require(self, least: int) -> None:
        if self.n < least:
            raise TooFewStimuliError(f"this HSIC needs at least {least} paired rows, got n = {self.n:g}")


def _centered(rows: Tensor) -> Tensor:
    """Centered rows in the dtype of their products; the mean is subtracted in fp32 or better."""
    wide = rows.to(compute_dtype(rows.dtype))
    return wide - wide.mean(0, dtype=torch.float64).to(wide.dtype)
