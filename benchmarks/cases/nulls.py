"""What nulls cost over the products that they cannot avoid, and whether they keep their promises at full size."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
import torch

import inscape as ix
from benchmarks.case import Figure, Setup, Subject, case, ratio
from benchmarks.models import sites


@case("permutation_null")
def permutation_null(tiny: bool) -> Generator[Setup]:
    """Permutation nulls of a pair of sites [2,000 × 512], fp64, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    n, d, draws, solved = (120, 16, 50, 20) if tiny else (2000, 512, 1000, 50)
    x, y = (next(iter(sites(1, n, d, torch.float64, seed).values())) for seed in (0, 1))
    first, second = (torch.from_numpy(rows - rows.mean(0)) for rows in (x, y))
    orders = [torch.from_numpy(np.random.default_rng(k).permutation(n)) for k in range(draws)]

    def products(count: int, solve: Callable[[torch.Tensor], object]) -> None:
        for order in orders[:count]:
            solve(first.T @ second[order])

    def ours(measure: str, null: str, count: int) -> None:
        ix.compare(x, y, measure, null=null, draws=count, interval=None)

    subjects = {
        "cka_bare": Subject(lambda: products(draws, lambda scatter: scatter.square().sum())),
        "cka": Subject(lambda: ours("linear_cka_debiased", "permute", draws)),
        "cka_closed": Subject(lambda: ours("linear_cka_debiased", "closed", draws)),
        "solved_bare": Subject(lambda: products(solved, torch.linalg.svdvals)),
        "procrustes": Subject(lambda: ours("procrustes", "permute", solved)),
        "cca": Subject(lambda: ours("cca_mean", "permute", solved)),
    }
    figures = {
        "cka": Figure(f"CPU of a permutation null of debiased CKA ({draws} draws) over its cross products", ratio("cka", "cka_bare"), 1.2),
        "procrustes": Figure(
            f"CPU of a permutation null of Procrustes ({solved} draws) over its cross products and singular values",
            ratio("procrustes", "solved_bare"),
            1.2,
        ),
        "cca": Figure("the same of mean CCA", ratio("cca", "solved_bare"), 1.2),
        "closed": Figure(
            "CPU of debiased CKA with its closed-form null over the cross products of the permutation null",
            ratio("cka_closed", "cka_bare"),
            0.01,
        ),
    }
    yield Setup(subjects, figures, notes={"threads": 1, "rows": n, "units": d, "draws": [draws, solved]})
    torch.set_num_threads(threads)


def uniform_p(seeds: int, null: str, draws: int) -> tuple[float, float]:
    """How far the distribution of p of independent pairs lies from the uniform one, over the KS bound at .01, and the share of scores
    that stay 0 after calibration."""
    p, calibrated = [], []
    for seed in range(seeds):
        rng = np.random.default_rng((41, seed))
        x, y = rng.standard_normal((40, 6)), rng.standard_normal((40, 50))
        row = ix.compare(x, y, "linear_cka_debiased", null=null, draws=draws, interval=None, seed=seed).rows()[0]
        p.append(row["p"])
        calibrated.append(row["calibrated"])
    # p of K draws takes the values 1/(K + 1), …, 1: the largest distance of the two distributions at those.
    values = np.sort(np.array(p))
    grid = np.arange(1, draws + 2) / (draws + 1) if null == "permute" else values
    distance = float(np.abs(np.searchsorted(values, grid + 1e-12, "right") / seeds - grid).max())
    return distance / (1.628 / np.sqrt(seeds)), float(np.mean(np.array(calibrated) == 0))


def family_errors(seeds: int, draws: int) -> float:
    """How often any of 3 × 3 layers of two independent models is found similar at .05, corrected for the maximum."""
    wrong = 0
    for seed in range(seeds):
        rng = np.random.default_rng((43, seed))
        stores = []
        for _ in range(2):
            shared = rng.standard_normal((40, 5))  # layers of one model resemble each other
            stores.append(ix.Store.from_arrays({f"layer.{i}": shared + rng.standard_normal((40, 5)) for i in range(3)}))
        rows = ix.compare(*stores, "linear_cka_debiased", null="permute", draws=draws, interval=None, seed=seed).rows()
        wrong += min(row["p_corrected"] for row in rows) <= 0.05
    return wrong / seeds


@case("null_calibration")
def null_calibration(tiny: bool) -> Generator[Setup]:
    """Nulls of independent representations at full size: 1,000 pairs, and 2,000 pairs of models with 3 × 3 layers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pairs, models, draws = (20, 10, 39) if tiny else (1000, 2000, 99)
    single: dict[str, tuple[str, float, float, str]] = {}
    notes: dict[str, object] = {"pairs": pairs, "models": models, "draws": draws}
    for null in ("permute", "closed"):
        distance, zero = uniform_p(pairs, null, draws)
        what = "a permutation null" if null == "permute" else "the closed-form null"
        single[f"uniform_{null}"] = (
            f"distance of p from uniform over {pairs} independent pairs, {what}, over the Kolmogorov–Smirnov bound at .01",
            distance,
            1.0,
            "×",
        )
        single[f"calibrated_{null}"] = (f"share of those pairs whose calibrated score is not 0, {what}", 1 - zero, 0.07, "")
    rate = family_errors(models, 19)  # the fewest draws at which p can be .05; more would only take longer
    single["family"] = (
        f"how far the share of {models} independent pairs of models with a similar layer (corrected p ≤ .05) lies from .05",
        abs(rate - 0.05),
        0.015,
        "",
    )
    notes["family_wise_error"] = rate
    yield Setup({}, {}, single, notes)
    torch.set_num_threads(threads)
