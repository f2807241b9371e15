"""Sums over blocks of rows: products in the precision of the input, totals in fp64."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, linalg

from inscape.arrays import compute_dtype, row_blocks, threads
from inscape.errors import DegenerateInputError

# Rows that the pilot looks at: enough for the spectrum's range, little beside the pass that follows.
PILOT_ROWS = 1024


def gram(Z: Tensor) -> Tensor:
    """Zᵀ Z in the dtype of Z; on the CPU by the symmetric BLAS kernel, which does half of the work. n d² multiplications."""
    if Z.device.type != "cpu":
        return Z.T @ Z
    columns = Z.numpy()
    with np.errstate(over="ignore", invalid="ignore"):  # torch says nothing here either; who needs a finite value checks it
        return torch.from_numpy(columns.T @ columns)


def added_products(A: Tensor, B: Tensor) -> Tensor:
    """Aᵀ B in fp64, each block of rows multiplied in the dtype of A; n p q multiplications, half of it when B is A."""
    total = torch.zeros(A.shape[1], B.shape[1], dtype=torch.float64, device=total_device(A.device))
    for block in row_blocks(A.shape[0], max(A.shape[1], B.shape[1]), A.element_size()):
        total += (gram(A[block]) if A is B else A[block].T @ B[block].to(A)).to(total.device)
    return total


def column_sums(X: Tensor) -> Tensor:
    """The sum of the rows in fp64, [d]: blocks that stay in the caches are widened first, several times faster than a sum that widens."""
    return torch.stack([block.double().sum(0) for block in X.split(256)]).sum(0)


def total_device(device: torch.device) -> torch.device:
    """Where fp64 totals live for rows on `device`: there, or on the CPU where the device has no fp64."""
    return torch.device("cpu") if device.type == "mps" else device


def pilot_shift(X: Tensor) -> Tensor:
    """The mean of the first rows in fp64, rounded to fp32 where X is narrower, so that subtracting it in fp32 uses this very number."""
    first = X[: 16 * PILOT_ROWS].to(total_device(X.device))
    mean = column_sums(first) / first.shape[0]
    return mean if X.dtype == torch.float64 else mean.float().double()


def shifted(X: Tensor, shift: Tensor, dtype: torch.dtype) -> Tensor:
    """X − shift in `dtype`; in fp64 first when the shift is not an fp32 number, since the sums refer to exactly this shift."""
    if dtype == torch.float64:
        return X.to(shift.device, torch.float64) - shift
    narrow = shift.to(dtype)
    if torch.equal(narrow.double(), shift):
        return X.to(dtype) - narrow.to(X.device)
    return (X.to(shift.device, torch.float64) - shift).to(dtype)


def loses_digits(eigenvalues: Tensor, rank: int) -> bool:
    """Whether products in fp32 would leave the smallest of `rank` descending eigenvalues without two digits."""
    last = min(rank, len(eigenvalues))
    return last > 0 and float(eigenvalues[last - 1]) <= 100 * torch.finfo(torch.float32).eps * float(eigenvalues[0])


def needs_double(pilot: Tensor, used: int | None = None) -> bool:
    """Whether products of rows like `pilot` must be formed in fp64: the `used`-th eigenvalue is within 100 times of fp32's error.

    fp64 rows always are. The spectrum is that of the first 1,024 rows, centered, by the smaller side: min(n, d)³ at most 1024³.

    Args:
        pilot: rows [n, d]; only the first 1,024 are read.
        used: how many eigenvalues, from the largest, the measures use; all of them by default.
    """
    if compute_dtype(pilot.dtype) == torch.float64:
        return True
    rows = pilot[:PILOT_ROWS].to(total_device(pilot.device), torch.float64)
    rows = rows - rows.mean(0)
    m, d = rows.shape
    last = min(used or d, m - 1, d)
    if last < 1:
        return False
    share = 100 * torch.finfo(torch.float32).eps
    with threads(1):  # at most 1,024 wide: more threads would wait for each other
        products = gram(rows.T if m < d else rows)
        if m > d and _all_above(products, share):
            return False
        eigenvalues = torch.linalg.eigvalsh(products)
    return float(eigenvalues[-last]) <= share * float(eigenvalues[-1])


def keeps_digits(scatter: Tensor) -> bool:
    """Whether a scatter [d, d] from products in fp32 is certain to hold all of its eigenvalues; d³ / 3. False may mean either.

    The line is four times that of `needs_double`, since the error of the products themselves moves the eigenvalues.
    """
    with threads(1):
        return _all_above(scatter.float(), 400 * torch.finfo(torch.float32).eps)


def _all_above(products: Tensor, share: float) -> bool:
    """Whether every eigenvalue is certain to exceed this share of the largest, for a quarter of the cost of finding them.

    The largest is no more than the Frobenius norm: what stays positive definite without this share of it has no smaller one.
    """
    rest = products.clone()
    rest.diagonal().sub_(share * float(torch.linalg.matrix_norm(products)))
    return int(torch.linalg.cholesky_ex(rest).info) == 0


def unit_rows(wide: Tensor, rows: Tensor, need: str) -> Tensor:
    """Rows of `wide` (fp64, made from `rows`) over their length.

    Raises:
        DegenerateInputError: lengths are 0 up to rounding of the dtype of `rows`; the message starts with `need` and names the rows.
    """
    lengths = linalg.vector_norm(wide, dim=1, keepdim=True)
    rounding = 4 * torch.finfo(rows.dtype).eps * rows.abs().amax(1, keepdim=True).to(lengths)
    zero = (lengths <= rounding * rows.shape[1] ** 0.5).squeeze(1).nonzero().squeeze(1)
    if zero.numel():
        first = ", ".join(str(int(row)) for row in zero[:5])
        raise DegenerateInputError(
            f"{need}; {zero.numel()} of {rows.shape[0]} rows do not (row {first}{', …' if zero.numel() > 5 else ''}); leave those out"
        )
    return wide / lengths
