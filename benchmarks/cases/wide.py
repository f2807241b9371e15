"""Many wide sites under a memory budget."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch

import inscape as ix
from benchmarks.case import Setup, case
from benchmarks.machine import alone, peak_rss, rss
from benchmarks.models import sites

MEASURE = "linear_cka_debiased"


def write(to: str, count: int, n: int, d: int, fp64: bool) -> dict[str, str]:
    """A synthetic store."""
    ix.Store.from_arrays(sites(count, n, d, torch.float64 if fp64 else torch.float32), to=to)
    return {"store": to}


def compare(store: str, memory: str) -> dict[str, object]:
    """All pairs within a budget, with the time and the memory that they took."""
    ix.measures.names()  # loads the room, which belongs to the interpreter's share of the memory
    opened = ix.open(store)
    before = rss()
    cpu, wall = time.process_time(), time.perf_counter()
    result = ix.compare(opened, opened, MEASURE, memory=memory, interval=None)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    values = {f"{row['site']} {row['site_b']}": row["value"] for row in result.rows()}
    return {"cpu": cpu, "wall": wall, "interpreter": before, "peak": peak_rss(), "values": values}


def debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """The definition, in fp64 and with whole kernels: the unbiased HSIC of Song et al. 2012 in each place."""

    def kernel(rows: np.ndarray) -> np.ndarray:
        rows = rows.astype(np.float64)
        rows = rows - rows.mean(0)
        k = rows @ rows.T
        np.fill_diagonal(k, 0.0)
        return k

    def hsic(k: np.ndarray, other: np.ndarray) -> float:
        n = len(k)
        return (np.vdot(k, other) + k.sum() * other.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ other.sum(0)) / (n - 2)) / (n * (n - 3))

    k, other = kernel(x), kernel(y)
    return hsic(k, other) / np.sqrt(hsic(k, k) * hsic(other, other))


def difference(store: str, values: dict[str, float], pairs: int) -> float:
    """The largest difference from the definition over some seeded pairs."""
    opened = ix.open(store)
    names = sorted(values)
    chosen = np.random.default_rng(0).choice(len(names), min(pairs, len(names)), replace=False)
    worst = 0.0
    for index in chosen:
        a, b = names[index].split(" ")
        worst = max(worst, abs(values[names[index]] - debiased_cka(opened[a].numpy(), opened[b].numpy())))
    return worst


def rate(n: int, d: int) -> float:
    """Floating-point operations a CPU second that a bare fp32 product [n, d] × [d, n] reaches here."""
    x = torch.randn(n, d)
    x @ x.T
    cpu = time.process_time()
    for _ in range(3):
        x @ x.T
    return 3 * 2 * n * n * d / (time.process_time() - cpu)


@case("wide_pairs")
def wide_pairs(tiny: bool) -> Generator[Setup]:
    """All pairs of debiased CKA of 33 sites [5,000 × 4,096] (fp32, on disk) within 2 GB."""
    count, n, d, memory = (4, 300, 64, "200MB") if tiny else (33, 5_000, 4_096, "2GB")
    folder = Path(tempfile.mkdtemp())
    single: dict[str, tuple[str, float, float, str]] = {}
    store = alone("benchmarks.cases.wide:write", to=str(folder / "wide"), count=count, n=n, d=d, fp64=False)["store"]
    seen = alone("benchmarks.cases.wide:compare", store=store, memory=memory)
    # The kernel route's operations: one n × n kernel a site, and one inner product of kernels a pair.
    kernels, pairs = 2.0 * count * n * n * d, 2.0 * n * n * count * (count + 1) / 2
    cross = 2.0 * n * d * d * count * (count + 1) / 2
    bare = min(kernels + pairs, cross) / rate(n if not tiny else 512, d)
    single["memory"] = ("peak memory above the interpreter, all pairs within 2 GB", (seen["peak"] - seen["interpreter"]) / 1e9, 2.0, "GB")
    single["time"] = ("CPU over that of its route's products alone", seen["cpu"] / bare, 2.0, "×")
    single["fp32_error"] = ("largest difference from the definition in fp64, fp32 store", difference(store, seen["values"], 12), 1e-5, "")
    shutil.rmtree(folder / "wide")

    small = alone("benchmarks.cases.wide:write", to=str(folder / "small"), count=count, n=max(64, n // 10), d=max(16, d // 10), fp64=True)
    tiled = alone("benchmarks.cases.wide:compare", store=small["store"], memory="20MB" if not tiny else memory)
    whole = alone("benchmarks.cases.wide:compare", store=small["store"], memory="16GB")
    worst = max(abs(tiled["values"][name] - value) for name, value in whole["values"].items())
    single["fp64_tiles"] = (
        "largest difference between the tiled and the resident route, fp64 store of a tenth of the size",
        worst,
        1e-10,
        "",
    )
    shutil.rmtree(folder, ignore_errors=True)
    yield Setup({}, {}, single, notes={"sites": count, "rows": n, "units": d, "cpu_s": seen["cpu"], "wall_s": seen["wall"]})
