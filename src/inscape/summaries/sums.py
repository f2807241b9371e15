"""Power sums over shifted rows, the raw material of moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inscape.arrays import as_tensor
from inscape.errors import DegenerateInputError
from inscape.summaries.blocks import gram

_FIELDS = ("first", "second", "square", "fourth", "third")


@dataclass(frozen=True)
class PowerSums:
    """Weighted sums over rows z = x − s, in fp64: Σz, Σzzᵀ, Σ‖z‖², Σ‖z‖⁴ and Σ‖z‖²z.

    `second` may be absent (None) where only the other sums are followed.
    """

    n: float
    first: Tensor
    second: Tensor | None
    square: Tensor
    fourth: Tensor
    third: Tensor

    def about(self, move: Tensor, *, matrix: Tensor) -> PowerSums:
        """The same sums over z − move, exactly; `matrix` is Σzzᵀ. Cost d²."""
        n, norm2 = self.n, move @ move
        along, image = move @ self.first, matrix @ move
        outer = torch.outer(self.first, move)
        return PowerSums(
            n,
            self.first - n * move,
            matrix - outer - outer.T + n * torch.outer(move, move),
            self.square - 2 * along + n * norm2,
            self.fourth + 4 * move @ image + n * norm2**2 - 4 * move @ self.third + 2 * norm2 * self.square - 4 * norm2 * along,
            self.third - move * self.square - 2 * image + 2 * move * along + norm2 * self.first - n * norm2 * move,
        )


def checked_weights(weights: Any, rows: Tensor) -> Tensor:
    """Weights as fp64 [n], or the error that says what is wrong with them."""
    values = as_tensor(weights).double()
    if values.shape != rows.shape[:1]:
        raise DegenerateInputError(f"weights have shape {tuple(values.shape)}; expected [{rows.shape[0]}], one per row")
    if not bool((values >= 0).all()):
        raise DegenerateInputError(f"weights must be nonnegative numbers; the smallest is {float(values.min()):g}")
    return values


def sums_of(Z: Tensor, weights: Tensor | None, device: torch.device, *, matrix: bool) -> PowerSums:
    """Power sums of one block of shifted rows."""
    norms = Z.square().sum(1).to(device).double()  # a row's own sum is short enough for the rows' precision; totals are fp64
    scale = torch.ones_like(norms) if weights is None else weights.to(norms.device)
    root = Z if weights is None else Z * scale.sqrt().to(Z).unsqueeze(1)
    weighted = norms * scale
    return PowerSums(
        Z.shape[0] if weights is None else float(scale.sum()),
        (scale.to(Z) @ Z).to(device).double(),
        gram(root).to(device).double() if matrix else None,
        weighted.sum().to(device),
        (weighted * norms).sum().to(device),
        (weighted.to(Z) @ Z).to(device).double(),
    )


def added(a: PowerSums, b: PowerSums, sign: int = 1) -> PowerSums:
    """Field by field a + sign·b; a subtraction leaves sums of squares at 0 or above."""
    values: dict[str, Any] = {}
    for name in _FIELDS:
        left, right = getattr(a, name), getattr(b, name)
        values[name] = None if left is None or right is None else left + sign * right
    if sign < 0:
        values["square"], values["fourth"] = values["square"].clamp(min=0), values["fourth"].clamp(min=0)
        if values["second"] is not None:
            values["second"].diagonal().clamp_(min=0)
    return PowerSums(a.n + sign * b.n, **values)


def accumulate(total: PowerSums, part: PowerSums) -> PowerSums:
    """Adds a block to sums that nobody else holds, in place: a d×d copy per block would cost more than it is worth."""
    for name in _FIELDS:
        getattr(total, name).add_(getattr(part, name))
    return PowerSums(total.n + part.n, total.first, total.second, total.square, total.fourth, total.third)
