"""The one place that knows about dtypes, devices, blocks of rows and bytes."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.errors import DegenerateInputError, TooFewStimuliError

# Rows that one GEMM takes at a time: large enough for BLAS, small enough to stay in the caches of a laptop.
BLOCK_BYTES = 32 * 2**20

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def as_tensor(array: Any) -> Tensor:
    """A CPU-or-device tensor without copying where possible; integers and booleans become fp64."""
    if hasattr(array, "torch") and not isinstance(array, Tensor):
        array = array.torch()  # a View
    if not isinstance(array, Tensor):
        source = np.asarray(array)
        if source.dtype.kind not in "fiub":
            raise DegenerateInputError(f"expected numbers, got an array of dtype {source.dtype} and shape {source.shape}")
        array = torch.from_numpy(np.ascontiguousarray(source)) if source.flags.writeable else torch.tensor(source)
    array = array.detach()
    return array if array.is_floating_point() else array.to(torch.float64)


def as_rows(array: Any, name: str = "X", *, minimum: int = 1) -> Tensor:
    """A tensor of shape [n, d], checked: two axes, at least `minimum` rows, a unit, and only finite numbers.

    Raises:
        DegenerateInputError: the array is not two-dimensional, has no units, or holds NaN or infinity.
        TooFewStimuliError: there are fewer than `minimum` rows.
    """
    rows = as_tensor(array)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise DegenerateInputError(f"{name} has shape {tuple(rows.shape)}; expected [n, d]: one row per stimulus, one column per unit")
    if rows.shape[0] < minimum:
        raise TooFewStimuliError(f"{name} has {rows.shape[0]} rows (shape {tuple(rows.shape)}); at least {minimum} are needed")
    check_finite(rows, name)
    return rows


def check_finite(rows: Tensor, name: str = "X") -> None:
    """Raises `DegenerateInputError` that counts and locates NaN and infinite entries."""
    if bool(torch.isfinite(rows.sum())):  # one cheap pass; a sum may overflow, so the exact test follows only when it fails
        return
    bad = ~torch.isfinite(rows)
    count = int(bad.sum())
    if count:
        row, unit = (int(i) for i in bad.nonzero()[0])
        raise DegenerateInputError(
            f"{name} (shape {tuple(rows.shape)}) holds {count} NaN or infinite values, the first at row {row}, unit {unit} "
            f"({float(rows[row, unit])}); drop those rows or units, or capture in a wider dtype"
        )


def as_numpy(tensor: Tensor) -> np.ndarray:
    """A NumPy copy or view; bfloat16, which NumPy lacks, becomes fp32 (exactly)."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that GEMMs on rows of `dtype` use: fp64 stays fp64, everything narrower is fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def row_blocks(n: int, d: int, itemsize: int = 8) -> Iterator[slice]:
    """Slices that cut n rows of d units into blocks of about `BLOCK_BYTES`."""
    size = max(256, BLOCK_BYTES // max(1, d * itemsize))
    for start in range(0, n, size):
        yield slice(start, min(n, start + size))


def parse_bytes(text: str | int | float) -> int:
    """Bytes in "4GB", "512 MiB" or a plain number."""
    if isinstance(text, (int, float)):
        return int(text)
    match = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]?i?b)?\s*", text.lower())
    if match is None:
        raise ValueError(f"cannot read {text!r} as an amount of memory; write for instance '4GB' or '512MiB'")
    return int(float(match.group(1)) * _UNITS[match.group(2) or "b"])


def format_bytes(count: float) -> str:
    """Bytes for people: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


@contextmanager
def threads(count: int) -> Generator[None]:
    """Runs the body with `count` intra-op threads: small eigen-solves are faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
