"""A million rows on disk, compared within a fixed memory."""

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
from benchmarks.machine import PrivatePeak, alone

MEASURES = ["linear_cka_debiased", "cca_mean", "procrustes", "procrustes_distance", "linear_r2", "gulp", "shape_alpha"]


def write(to: str, n: int, d: int) -> dict[str, int]:
    """Two stores of one site each, fp32, written from maps: never in memory."""
    rng = np.random.default_rng(0)
    mix = (rng.standard_normal((d, d)) / d**0.5).astype(np.float32)
    scale = (np.arange(1, d + 1) ** -0.25).astype(np.float32)
    maps = [np.lib.format.open_memmap(f"{to}/{name}.npy", "w+", np.float32, (n, d)) for name in "xy"]
    for start in range(0, n, 20_000):
        stop = min(n, start + 20_000)
        x = rng.standard_normal((stop - start, d), dtype=np.float32)
        maps[0][start:stop] = x * scale
        maps[1][start:stop] = x @ mix + 0.7 * rng.standard_normal((stop - start, d), dtype=np.float32)
    for one in maps:
        one.flush()
    return {"bytes": 2 * n * d * 4}


def compare(folder: str, memory: str) -> dict[str, object]:
    """The moment family within a budget, with the time and the memory that it took."""
    torch.set_num_threads(1)
    ix.measures.names()
    stores = [ix.Store.from_arrays({"site": np.load(f"{folder}/{name}.npy", mmap_mode="r")}) for name in "xy"]
    cpu, wall = time.process_time(), time.perf_counter()
    with PrivatePeak() as peak:
        before = peak.bytes
        result = ix.compare(*stores, MEASURES, memory=memory, interval=None)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    failed = [row["reason"] for row in result.rows() if row["value"] is None]
    return {"cpu": cpu, "wall": wall, "extra": peak.bytes - before, "failed": failed}


@case("million_rows")
def million_rows(tiny: bool) -> Generator[Setup]:
    """Seven measures of a pair of sites [1,000,000 × 1,024], fp32 on disk, within 4 GB, one thread."""
    n, d, memory = (20_000, 64, "100MB") if tiny else (1_000_000, 1024, "4GB")
    folder = Path(tempfile.mkdtemp())
    try:
        size = alone("benchmarks.cases.million:write", to=str(folder), n=n, d=d)["bytes"]
        seen = alone("benchmarks.cases.million:compare", folder=str(folder), memory=memory)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert not seen["failed"], seen["failed"]
    single = {
        "memory": (
            f"private memory above the interpreter at the peak, {len(MEASURES)} measures of {n:,} rows × {d:,} ({size / 1e9:.1f} GB)",
            seen["extra"] / 1e9,
            4.0,
            "GB",
        )
    }
    yield Setup({}, {}, single, notes={"rows": n, "units": d, "memory": memory, "cpu_s": seen["cpu"], "wall_s": seen["wall"], "threads": 1})
