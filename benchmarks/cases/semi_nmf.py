"""SemiNMF: how fast beside an implementation that forms the residual, and how its memory grows with the rows."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import inscape as ix
from benchmarks.case import Figure, Setup, Subject, case, ratio
from benchmarks.machine import PrivatePeak, alone
from inscape.dictionaries.kinds.semi_nmf import Passes

ITERATIONS = 10


def rows_on_disk(n: int, d: int, folder: str) -> str:
    """A store with rows that are sums of a few directions."""
    generator = torch.Generator().manual_seed(0)
    F = torch.randn(32, d, generator=generator)
    array = np.lib.format.open_memmap(Path(folder) / "x.npy", mode="w+", dtype=np.float32, shape=(n, d))
    for at in range(0, n, 8192):
        g = torch.rand(min(8192, n - at), 32, generator=generator).pow(4)
        array[at : at + len(g)] = (g @ F).numpy()
    path = str(Path(folder) / "store")
    ix.Store.from_arrays({"x": array}, to=path)
    return path


def memory(n: int, d: int, m: int) -> dict[str, float]:
    """Private bytes at the peak of some passes over rows on disk, in a process of its own; pages of mapped files do not count."""
    with tempfile.TemporaryDirectory() as folder:
        store = ix.open(rows_on_disk(n, d, folder))
        torch.randn(4096, d) @ torch.randn(d, m)  # what the first product costs anyway
        with PrivatePeak() as peak:
            before = peak.bytes
            Passes(store["x"], m, 0, Path(folder) / "strengths").run(3, 0.0, lambda F: F)
        return {"extra": float(peak.bytes - before)}


def with_residual(x: Tensor, g: Tensor, iterations: int) -> float:
    """The same updates as published code makes them: all rows at once, and X − GF for the error of each iteration."""
    error = 0.0
    for _ in range(iterations):
        F = torch.linalg.solve(g.T @ g + 1e-6 * torch.eye(g.shape[1]), g.T @ x)
        fit, products = x @ F.T, F @ F.T
        up, down = (products.abs() + products) / 2, (products.abs() - products) / 2
        above, below = (fit.abs() + fit) / 2 + g @ down, (fit.abs() - fit) / 2 + g @ up
        g = g * torch.sqrt(above / (below + 1e-12))
        error = float((x - g @ F).square().sum())
    return error


@case("semi_nmf")
def semi_nmf(tiny: bool) -> Generator[Setup]:
    """SemiNMF of MLP activations: some passes over rows in memory, and its memory over rows on disk."""
    n, d, m = (2048, 64, 16) if tiny else (32_768, 1024, 100)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 32, generator=generator).pow(4) @ torch.randn(32, d, generator=generator)
    view = ix.Store.from_arrays({"x": x})["x"]
    start = torch.rand(n, m, generator=generator) + 0.2
    with tempfile.TemporaryDirectory() as folder:
        passes = Passes(view, m, 0, Path(folder) / "strengths")
        strengths = np.lib.format.open_memmap(passes.path, mode="w+", dtype=np.float32, shape=(n, m))

        def streamed() -> float:
            strengths[:] = start.numpy()
            gg, gx = (start.T @ start).double(), (start.T @ x).double()
            square, error = float(x.square().sum()), 0.0
            for _ in range(ITERATIONS):
                F = torch.linalg.solve(gg + 1e-6 * gg.diagonal().mean() * torch.eye(m, dtype=gg.dtype), gx).float()
                gg, gx = passes._pass(strengths, F)
                F64 = F.double()
                error = square - 2 * float((F64 * gx).sum()) + float((F64 @ F64.T * gg).sum())
            return error

        subjects = {"inscape": Subject(streamed), "residual": Subject(lambda: with_residual(x, start, ITERATIONS))}
        figures = {
            "faster": Figure(
                f"an implementation that forms the residual over inscape's passes (n = {n:,}, d = {d}, {m} directions)",
                ratio("residual", "inscape", "wall"),
                1.5,
                "higher",
            )
        }
        few, many = (
            statistics.median(alone("benchmarks.cases.semi_nmf:memory", n=rows, d=d, m=m)["extra"] / 1e6 for _ in range(1 if tiny else 3))
            for rows in (n, 4 * n)
        )
        single = {"memory": (f"extra private memory over {4 * n:,} rows on disk over that of {n:,}", many / max(few, 1.0), 1.25, "×")}
        agree = abs(streamed() / with_residual(x, start, ITERATIONS) - 1)
        yield Setup(subjects, figures, single, {"MB of extra memory": [few, many], "relative difference of the errors": agree})
