"""What one pass of class moments serves, and what tens of thousands of classes take."""

from __future__ import annotations

import time
from collections.abc import Generator

import numpy as np
import torch

import inscape as ix
from benchmarks.case import Figure, Setup, Subject, case, ratio
from benchmarks.machine import alone, peak_rss, rss
from benchmarks.models import sites

CLASSES = ["nc1", "nc1_trace", "nc2_equinorm", "nc2_equiangular", "nc2_max_angle", "nc2_etf", "gnc2", "cdnv", "variability_collapse"]
MOMENTS = ["effective_rank", "effective_rank_covariance", "participation_ratio", "stable_rank", "isoscore", "alpha_req", "rankme"]
MANY = ["nc1", "nc2_equinorm", "linguistic_collapse", "variability_collapse"]


def many_classes(classes: int, each: int, d: int) -> dict[str, object]:
    """Measures of collapse of a site with very many classes, with the time and memory that they took above the rows themselves."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    rng.shuffle(labels)
    X = rng.standard_normal((len(labels), d), dtype=np.float32)
    X += 0.7 * rng.standard_normal((classes, d), dtype=np.float32)[labels]
    ix.measures.names()  # loads the room, which belongs to the interpreter's share of the memory
    before = rss()
    cpu, wall = time.process_time(), time.perf_counter()
    result = ix.measure(X, MANY, labels=labels, interval=None)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    values = {str(row["measure"]): row["value"] for row in result.rows() if row["at"] is None}
    assert all(value is not None for value in values.values()), values
    return {"cpu": cpu, "wall": wall, "above": peak_rss() - before, "peak": peak_rss(), "values": values}


@case("collapse_pass")
def collapse_pass(tiny: bool) -> Generator[Setup]:
    """Nine measures of classes and seven of moments of 12 sites [5,000 × 512] in one call, one thread."""
    count, n, d, groups = (3, 400, 48, 5) if tiny else (12, 5_000, 512, 20)
    arrays = sites(count, n, d)
    store = ix.Store.from_arrays(arrays)
    labels = np.random.default_rng(0).permutation(np.arange(n) % groups)
    tensors = [torch.from_numpy(values) for values in arrays.values()]
    wanted = [*CLASSES, *(name for name in MOMENTS if name != "alpha_req" or not tiny)]
    member = torch.from_numpy(labels)

    def floor() -> None:
        for values in tensors:
            rows = values.double()
            means = torch.zeros(groups, d, dtype=torch.float64).index_add_(0, member, rows) / torch.bincount(member).unsqueeze(1)
            apart = rows - means[member]
            centered = values - values.mean(0)
            torch.linalg.eigvalsh((centered.T @ centered).double())
            torch.linalg.eigvalsh(apart.T @ apart)

    subjects = {
        "scatters_and_eigenvalues": Subject(floor),
        "one_call": Subject(lambda: ix.measure(store, wanted, labels=labels, interval=None)),
        "one_at_a_time": Subject(lambda: [ix.measure(store, name, labels=labels, interval=None) for name in wanted]),
    }
    figures = {
        "one_call": Figure(
            "CPU of all measures in one call over the two scatters and their eigenvalues alone",
            ratio("one_call", "scatters_and_eigenvalues"),
            3.0,
        ),
        "shared": Figure("how much faster one call is than one measure at a time", ratio("one_at_a_time", "one_call"), 4.0, "higher"),
    }
    yield Setup(subjects, figures, notes={"sites": count, "measures": wanted})


@case("collapse_classes")
def collapse_classes(tiny: bool) -> Generator[Setup]:
    """Measures of collapse of 30,000 classes of 512 units."""
    size = {"classes": 300, "each": 4, "d": 32} if tiny else {"classes": 30_000, "each": 4, "d": 512}
    seen = alone("benchmarks.cases.collapse:many_classes", **size)
    single = {"memory": ("peak memory of 30,000 classes × 512 units, rows and interpreter included", seen["peak"] / 1e9, 4.0, "GB")}
    yield Setup({}, {}, single, notes={**size, "measures": MANY, "cpu_s": seen["cpu"], "wall_s": seen["wall"]})
