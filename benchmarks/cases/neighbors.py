"""Exact neighbor graphs beside faiss, and without an n × n array."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch

from benchmarks.case import Figure, Setup, Subject, case, ratio
from benchmarks.machine import alone, peak_rss, rss
from inscape.summaries import Neighbors

K = 10


def points(n: int, d: int) -> torch.Tensor:
    """Rows with a power-law spectrum, fp32, made in pieces: what making them takes must not hide what the graph takes."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, d + 1, dtype=torch.float32) ** -0.5
    rows = torch.empty(n, d)
    for piece in rows.split(2000):
        torch.randn(piece.shape, generator=generator, out=piece).mul_(scale)
    return rows


def memory(n: int, d: int) -> dict[str, float]:
    """Peak memory of one graph above the process that holds the rows."""
    torch.set_num_threads(1)
    rows = points(n, d)
    Neighbors.of(rows[:4000], k=K)  # loads what it needs
    before = rss()
    Neighbors.of(rows, k=K)
    return {"extra": max(0, peak_rss() - before)}


def recall(rows: torch.Tensor, graph: Neighbors) -> float:
    """The share of the k nearest rows, by distances in fp64, that the graph has."""
    wide = rows.double()
    lengths = wide.square().sum(1)
    found = 0
    for block in torch.arange(len(wide)).split(500):
        squares = torch.addmm(lengths, wide[block], wide.T, alpha=-2)
        squares[torch.arange(len(block)), block] = torch.inf
        true = squares.topk(K, dim=1, largest=False).indices
        found += int((graph.ids[block][:, :, None] == true[:, None, :]).sum())
    return found / (len(wide) * K)


@case("neighbor_graph")
def neighbor_graph(tiny: bool) -> Generator[Setup]:
    """The 10 nearest of 20,000 rows × 512, fp32, one thread, beside faiss IndexFlatL2."""
    import faiss

    threads, faiss_threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    n, d, large = (2500, 16, 3000) if tiny else (20_000, 512, 50_000)
    # Before anything large is held: a new process starts with the peak of the one that starts it.
    extra, large_extra = (alone("benchmarks.cases.neighbors:memory", n=count, d=d)["extra"] for count in (n, large))
    rows = points(n, d)

    def flat() -> None:
        index = faiss.IndexFlatL2(d)
        index.add(rows.numpy())
        index.search(rows.numpy(), K + 1)  # each row finds itself too

    single = {
        "missed": (
            "share of the true neighbors (fp64, all distances) that the graph lacks",
            1 - recall(rows, Neighbors.of(rows, k=K)),
            1e-4,
            "",
        ),
        "memory": (
            f"memory of the graph of {n:,} rows above the rows",
            extra / 1e6,
            200.0,
            "MB",
        ),
        "large": (
            f"memory of the graph of {large:,} rows above the rows, over that of an n × n array in fp32",
            large_extra / (4 * large**2),
            0.05 if not tiny else 10.0,
            "×",
        ),
    }
    subjects = {"graph": Subject(lambda: Neighbors.of(rows, k=K)), "faiss": Subject(flat)}
    figures = {
        "graph": Figure("CPU of an exact graph of 10 neighbors, 20,000 rows × 512, over faiss IndexFlatL2", ratio("graph", "faiss"), 1.3)
    }
    notes = {"threads": 1, "rows": n, "units": d, "faiss": faiss.__version__, "numpy": np.__version__}
    yield Setup(subjects, figures, single, notes)
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(faiss_threads)
