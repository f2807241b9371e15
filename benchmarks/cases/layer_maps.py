"""Maps of every layer of one model against every layer of another: our one call, the least it could cost, and loops over pairs."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from itertools import product

import numpy as np
import torch

import inscape as ix
from benchmarks.case import Figure, Round, Setup, Subject, case
from benchmarks.models import sites

MEASURES = ["linear_cka_debiased", "cca_mean", "procrustes", "ridge_r2"]
FOLDS, ALPHAS = 5, (1e-3, 1e-2, 1e-1, 1.0, 10.0)
PAIRS = 6  # pairs that a peer is timed on; its time is then scaled to all pairs

Layers = dict[str, np.ndarray]


def systems(count: int, n: int, d: int) -> tuple[Layers, Layers]:
    """The layers of two models, fp32."""
    return sites(count, n, d, seed=0), sites(count, n, d, seed=1)


def bare(left: Layers, right: Layers) -> None:
    """What no route avoids: all cross scatters as one product, two sets of singular values a pair, three products of width³ a fold and
    pair with an eigenbasis a site and fold. Products in fp32 and solvers in fp64, as in our call."""
    first, second = (torch.from_numpy(np.concatenate(list(layers.values()), 1)) for layers in (left, right))
    width = next(iter(left.values())).shape[1]
    stacked = first.T @ second
    for i, j in product(range(len(left)), range(len(right))):
        scatter = stacked[i * width : (i + 1) * width, j * width : (j + 1) * width].contiguous()
        for _ in range(2):
            torch.linalg.svdvals(scatter.double())
        for _ in range(3 * FOLDS):
            scatter @ scatter
    for layer in left.values():
        own = torch.from_numpy(layer.T @ layer).double()
        for _ in range(FOLDS):
            torch.linalg.eigh(own)


def shape_loop(x: np.ndarray, y: np.ndarray) -> None:
    """Angular shape distances with all rotations (Procrustes) and with whitening (CCA), step by step as netrep's LinearMetric.fit_score
    takes them: whiten both, a full decomposition of the cross product, both sides moved by their maps, the angle between them."""

    def whitened(rows: np.ndarray, whiten: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        center = rows.mean(0)
        if not whiten:
            return center, rows - center, np.eye(rows.shape[1])
        values, vectors = np.linalg.eigh((rows - center).T @ (rows - center))
        values = np.maximum(values, 1e-7)
        root = (vectors * np.sqrt(values.mean() / values)) @ vectors.T
        return center, (rows - center) @ root, root

    for whiten in (False, True):
        (mean_x, moved_x, map_x), (mean_y, moved_y, map_y) = whitened(x, whiten), whitened(y, whiten)
        left, _, right = np.linalg.svd(moved_x.T @ moved_y)
        one, other = (x - mean_x) @ (map_x @ left), (y - mean_y) @ (map_y @ right.T)
        cosine = np.dot(one.ravel(), other.ravel()) / (np.linalg.norm(one) * np.linalg.norm(other))
        np.arccos(np.clip(cosine, -1, 1))


def ridge_loop(x: np.ndarray, y: np.ndarray) -> None:
    """scikit-learn's Ridge, fitted for each fold and penalty."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold

    for train, test in KFold(FOLDS, shuffle=True, random_state=0).split(x):
        for alpha in ALPHAS:
            predicted = Ridge(alpha=alpha * len(x)).fit(x[train], y[train]).predict(x[test])
            float(((y[test] - predicted) ** 2).sum())


def similarity_loop(x: np.ndarray, y: np.ndarray) -> None:
    """One pair at a time, as ReSi and the code that it builds on: CKA from whole kernels; SVCCA and PWCCA from decompositions of the rows,
    the joint covariance, pseudo-inverses and their roots."""
    x, y = x - x.mean(0), y - y.mean(0)

    def centered(kernel: np.ndarray) -> np.ndarray:
        return kernel - kernel.mean(0) - kernel.mean(1, keepdims=True) + kernel.mean()

    def correlations(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        covariance = np.cov(a, b, rowvar=False)
        p = a.shape[1]
        roots = []
        for block in (covariance[:p, :p], covariance[p:, p:]):
            values, vectors = np.linalg.eigh(np.linalg.pinv(block))
            roots.append((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)
        left, found, _ = np.linalg.svd(roots[0] @ covariance[:p, p:] @ roots[1], full_matrices=False)
        return found, a @ (roots[0] @ left)

    K, L = centered(x @ x.T), centered(y @ y.T)
    np.vdot(K, L) / (np.linalg.norm(K) * np.linalg.norm(L))
    reduced = []
    for rows in (x, y):
        left, values, _ = np.linalg.svd(rows, full_matrices=False)
        kept = int((np.cumsum(values**2) / np.sum(values**2) < 0.99).sum()) + 1
        reduced.append(left[:, :kept] * values[:kept])
    correlations(*reduced)[0].mean()
    found, variates = correlations(x, y)
    basis, _ = np.linalg.qr(variates)
    weights = np.abs(basis.T @ x).sum(1)
    (weights * found).sum() / weights.sum()


def on_pairs(loop: Callable[[np.ndarray, np.ndarray], None], left: Layers, right: Layers) -> Callable[[], None]:
    """A loop over the first few pairs."""
    some = list(product(left.values(), right.values()))[:PAIRS]
    return lambda: [loop(x, y) for x, y in some] and None


def scaled(loop: str, ours: str, pairs: int) -> Callable[[Round], float]:
    """The time of a loop over all pairs, from those that it was timed on, over ours."""
    return lambda times: times[loop].cpu * (pairs / min(PAIRS, pairs)) / times[ours].cpu


def once(run: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    cpu = time.process_time()
    run()
    return time.process_time() - cpu


@case("layer_maps")
def layer_maps(tiny: bool) -> Generator[Setup]:
    """Four measures of layers × layers of two models, rows [2,000 × 512], one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the machine's other work would count as threads that wait
    count, n, d = (4, 200, 24) if tiny else (24, 2000, 512)
    left, right = systems(count, n, d)
    one, other = ix.Store.from_arrays(left), ix.Store.from_arrays(right)
    halves = [dict(list(left.items())[part]) for part in (slice(count // 2), slice(count // 2, count))]
    ix.compare(one, other, MEASURES, pairs=[(name, name) for name in list(left)[:2]], interval=None)
    # Too long for rounds: half of the bare work before our call, half of it after.
    before = once(lambda: bare(halves[0], right))
    ours = once(lambda: ix.compare(one, other, MEASURES, interval=None))
    after = once(lambda: bare(halves[1], right))
    text = f"CPU of CKA, CCA, Procrustes and ridge R² of {count} × {count} layers in one call over its bare products and solvers"
    single = {"one_call": (text, ours / (before + after), 1.5, "×")}
    notes = {"threads": 1, "layers": count, "rows": n, "units": d, "interval": None, "cpu_s": ours, "bare_cpu_s": [before, after]}
    yield Setup({}, {}, single, notes)
    torch.set_num_threads(threads)


@case("layer_map_loops")
def layer_map_loops(tiny: bool) -> Generator[Setup]:
    """The same maps against loops over pairs that are written as in other libraries."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    count, n, d = (3, 200, 24) if tiny else (24, 2000, 512)
    left, right = systems(count, n, d)

    one, other = ix.Store.from_arrays(left), ix.Store.from_arrays(right)

    def ours(*measures: str) -> Subject:
        return Subject(lambda: ix.compare(one, other, list(measures), interval=None))

    subjects = {
        "shapes": ours("procrustes", "cca_mean"),
        "shape_loop": Subject(on_pairs(shape_loop, left, right)),
        "ridge": ours("ridge_r2"),
        "ridge_loop": Subject(on_pairs(ridge_loop, left, right)),
        "similarities": ours("linear_cka_debiased", "svcca", "pwcca"),
        "similarity_loop": Subject(on_pairs(similarity_loop, left, right)),
    }
    timed = f"timed on {PAIRS} of {count * count} pairs and scaled"
    figures = {
        "shapes": Figure(
            f"how much faster Procrustes and CCA maps are than a loop that whitens and aligns pair by pair ({timed})",
            scaled("shape_loop", "shapes", count * count),
            3.0,
            "higher",
        ),
        "ridge": Figure(
            f"how much faster maps of ridge R² are than scikit-learn's Ridge, {FOLDS} folds × {len(ALPHAS)} penalties, fp32 rows ({timed})",
            scaled("ridge_loop", "ridge", count * count),
            8.0,
            "higher",
        ),
        "similarities": Figure(
            f"how much faster maps of CKA, SVCCA and PWCCA are than loops from kernels and row decompositions ({timed})",
            scaled("similarity_loop", "similarities", count * count),
            10.0,
            "higher",
        ),
    }
    notes = {
        "threads": 1,
        "layers": count,
        "rows": n,
        "units": d,
        "loops": "written out: netrep and the collections of measures are not on the package index; scikit-learn is the library itself "
        "and solves in fp32 where inscape solves in fp64",
    }
    yield Setup(subjects, figures, notes=notes)
    torch.set_num_threads(threads)
