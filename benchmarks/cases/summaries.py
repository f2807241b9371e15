"""What the shared summaries save: many measures in one pass, against the least that any of them needs."""

from __future__ import annotations

from collections.abc import Generator
from itertools import combinations_with_replacement

import torch

import inscape as ix
from benchmarks.case import Figure, Setup, Subject, case, ratio
from benchmarks.models import sites
from inscape.summaries import Neighbors

SPECTRAL = ["effective_rank", "effective_rank_covariance", "participation_ratio", "stable_rank", "isoscore", "alpha_req"]
DIMENSION = ["two_nn", "mle_dimension"]


def _store(tiny: bool) -> tuple[ix.Store, dict[str, torch.Tensor]]:
    arrays = sites(3, 400, 48) if tiny else sites(13, 10_000, 768)
    return ix.Store.from_arrays(arrays), {name: torch.from_numpy(values) for name, values in arrays.items()}


@case("spectral_pass")
def spectral_pass(tiny: bool) -> Generator[Setup]:
    """Six spectral measures of 13 sites [10,000 × 768] in one call."""
    store, arrays = _store(tiny)
    measures = [name if name != "alpha_req" or not tiny else "stable_rank" for name in SPECTRAL]

    def floor() -> None:
        for values in arrays.values():
            centered = values - values.mean(0)
            torch.linalg.eigvalsh((centered.T @ centered).double())

    subjects = {
        "grams_and_eigenvalues": Subject(floor),
        "one_call": Subject(lambda: ix.measure(store, measures, interval=None)),
        "one_at_a_time": Subject(lambda: [ix.measure(store, name, interval=None) for name in measures]),
    }
    figures = {
        "one_call": Figure(
            "CPU of six spectral measures in one call over their Grams and eigenvalues alone",
            ratio("one_call", "grams_and_eigenvalues"),
            2.0,
        ),
        "shared": Figure("how much faster one call is than one measure at a time", ratio("one_at_a_time", "one_call"), 4.0, "higher"),
    }
    yield Setup(subjects, figures, notes={"sites": len(arrays), "measures": measures})


@case("dimension_pass")
def dimension_pass(tiny: bool) -> Generator[Setup]:
    """Two estimates of intrinsic dimension of 13 sites [10,000 × 768] in one call."""
    store, arrays = _store(tiny)

    def graphs() -> None:
        for values in arrays.values():
            Neighbors.of(values, k=20)

    subjects = {"graphs": Subject(graphs), "one_call": Subject(lambda: ix.measure(store, DIMENSION, interval=None))}
    figures = {"one_call": Figure("CPU of both estimates over one neighbor graph per site", ratio("one_call", "graphs"), 1.2)}
    yield Setup(subjects, figures, notes={"sites": len(arrays)})


def moments_route(arrays: dict[str, torch.Tensor]) -> None:
    """The least that cross moments of all pairs need: one product of d × d size a pair, and its norm."""
    centered = [values - values.mean(0) for values in arrays.values()]
    for a, b in combinations_with_replacement(centered, 2):
        (a.T @ b).square_().sum()


def tiles_route(arrays: dict[str, torch.Tensor], rows: int = 512) -> None:
    """The least that kernel tiles need: a strip of each site's kernel at a time, and the inner products of the strips."""
    centered = [values - values.mean(0) for values in arrays.values()]
    for start in range(0, len(centered[0]), rows):
        strips = [(values[start : start + rows] @ values.T).flatten() for values in centered]
        for a, b in combinations_with_replacement(strips, 2):
            torch.dot(a, b)


@case("cka_pairs")
def cka_pairs(tiny: bool) -> Generator[Setup]:
    """Debiased linear CKA of all 13 × 13 pairs of sites [10,000 × 768]."""
    store, arrays = _store(tiny)
    subjects = {
        "moments": Subject(lambda: moments_route(arrays)),
        "tiles": Subject(lambda: tiles_route(arrays)),
        "one_call": Subject(lambda: ix.compare(store, store, "linear_cka_debiased", interval=None)),
    }
    figures = {
        "one_call": Figure(
            "CPU of all pairs in one call over the cheaper of bare cross moments and bare kernel tiles",
            lambda t: t["one_call"].cpu / min(t["moments"].cpu, t["tiles"].cpu),
            1.3,
        )
    }
    yield Setup(subjects, figures, notes={"sites": len(arrays)})
