"""Reading a store, and how much memory a large capture takes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch

import inscape as ix
from benchmarks.case import Figure, Setup, Subject, case, ratio
from benchmarks.machine import alone, peak_rss, rss
from benchmarks.models import gpt2, token_ids


@case("store_read")
def store_read(tiny: bool) -> Generator[Setup]:
    """Reading fp16 [200,000 × 768] that is in the page cache, against a NumPy memory map of an .npy file."""
    n, d, rows, draws = (2_000, 16, 64, 4) if tiny else (200_000, 768, 4_096, 24)
    folder = Path(tempfile.mkdtemp())
    values = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32).astype(np.float16)
    np.save(folder / "plain.npy", values)
    ix.Store.from_arrays({"x": values}, to=folder / "store")
    del values
    view = ix.open(folder / "store")["x"]
    plain = np.load(folder / "plain.npy", mmap_mode="r")
    chunk = 4_096  # rows come out as arrays of their own on both sides: a model's input is no window on a file
    picks = [np.random.default_rng(seed).integers(0, n, rows) for seed in range(draws)]

    def sequential_plain() -> None:
        for start in range(0, n, chunk):
            stop = min(n, start + chunk)
            np.array(plain[start:stop])

    def sequential_store() -> None:
        for start in range(0, n, chunk):
            stop = min(n, start + chunk)
            view.read(start, stop)

    subjects = {
        "npy_sequential": Subject(sequential_plain),
        "store_sequential": Subject(sequential_store),
        "npy_gather": Subject(lambda: [plain[pick] for pick in picks]),
        "store_gather": Subject(lambda: [view.gather(pick) for pick in picks]),
    }
    figures = {
        "sequential": Figure(
            "speed of reading all rows in order, 4,096 at a time, over copying them out of the memory map",
            ratio("npy_sequential", "store_sequential", "wall"),
            0.80,
            "higher",
        ),
        "gather": Figure(
            f"speed of gathering {rows:,} random rows, over the memory map", ratio("npy_gather", "store_gather", "wall"), 0.60, "higher"
        ),
    }
    yield Setup(subjects, figures, notes={"rows": n, "units": d})
    shutil.rmtree(folder, ignore_errors=True)


def large_capture(to: str, tokens: int, layers: int, width: int) -> dict[str, float]:
    """Captures `tokens` tokens of a random GPT-2 to disk; the memory before, with the model run once, and at the peak."""
    model = gpt2(layers=layers, width=width, heads=4, vocabulary=1000)
    length = 128
    ids = token_ids(tokens // length, length, 1000)
    with torch.inference_mode():
        model.transformer(torch.from_numpy(ids[:8]))
    ready = rss()
    ix.capture(ix.load(model), ids, sites="blocks.*.resid_post", tokens="all", to=to, dtype="float16", progress=False)
    return {"with_model": ready, "peak": peak_rss()}


@case("store_memory")
def store_memory(tiny: bool) -> Generator[Setup]:
    """Peak memory while 10⁶ tokens × 12 sites × 256 units are captured to disk."""
    tokens, layers, width = (4_096, 2, 32) if tiny else (1_000_000, 12, 256)
    folder = Path(tempfile.mkdtemp())
    seen = alone("benchmarks.cases.store:large_capture", to=str(folder / "store"), tokens=tokens, layers=layers, width=width)
    shutil.rmtree(folder, ignore_errors=True)
    over = (seen["peak"] - seen["with_model"]) / 1e9
    yield Setup({}, {}, {"peak": ("peak memory above the process with its model", over, 1.0, "GB")}, notes={"bytes": seen})
