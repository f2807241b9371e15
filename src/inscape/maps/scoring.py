"""How well a map does on rows that it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inscape.errors import DegenerateInputError, MapError
from inscape.maps.search import hits, partner_ranks, unit_rows
from inscape.maps.sides import labels_of, paired
from inscape.results import Result
from inscape.stats.jackknife import jackknife_groups, jackknife_interval

if TYPE_CHECKING:
    from inscape.maps.fitted import Map

GROUPS = 32


def score(fitted: Map, A: Any, B: Any, *, groups: Any, interval: str | int | None, level: float, seed: int) -> Result:
    """See `Map.score`."""
    X, Y, sources = _rows(fitted, A, B, groups)
    middle = fitted.tensors["mean_b"]
    guess, real = fitted.transform(X).double() - middle, Y.double() - middle
    error, spread = (real - guess).square().sum(1).numpy(), real.square().sum(1).numpy()
    lengths = torch.linalg.vector_norm(real, dim=1) * torch.linalg.vector_norm(guess, dim=1)
    cosine = ((real * guess).sum(1) / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)).numpy()
    if float(spread.sum()) == 0:
        raise DegenerateInputError(f"all {len(real)} rows of b lie at the mean that the map was fitted with; there is nothing to predict")
    ones = np.ones(len(error))
    rows = [
        ratio_row("map_r2", (error, spread), lambda e, s: 1 - e / s, sources, interval, level, seed, (-np.inf, 1.0)),
        ratio_row("map_cosine", (cosine, ones), lambda c, n: c / n, sources, interval, level, seed, (-1.0, 1.0)),
    ]
    return _result(fitted, rows, len(error), {"held_out": A is None})


def retrieval(
    fitted: Map, chosen: Sequence[int], A: Any, B: Any, *, csls: int, interval: str | int | None, level: float, seed: int
) -> Result:
    """See `Map.retrieval`."""
    if not chosen or min(chosen) < 1 or csls < 0:
        raise MapError(f"k={tuple(chosen)}, neighbors={csls}: both count rows, so they are at least 1")
    X, Y, sources = _rows(fitted, A, B, None)
    middle = fitted.tensors["mean_b"]
    queries, gallery = (unit_rows(rows.double() - middle) for rows in (fitted.transform(X), Y))
    n = len(Y)
    closer, equal = partner_ranks(queries, gallery, torch.arange(n), csls=csls)
    found: list[dict[str, Any]] = []
    for k in chosen:
        right = hits(closer, equal, k).numpy()
        row = ratio_row("retrieval", (right, np.ones(n)), lambda r, m: r / m, sources, interval, level, seed, (0.0, 1.0))
        found.append(row | {"axis": "k", "at": int(k), "null_mean": min(1.0, k / n)})
    return _result(fitted, found, n, {"held_out": A is None, "csls": csls, "ranked_by": "csls" if csls else "cosine"})


def _rows(fitted: Map, A: Any, B: Any, groups: Any) -> tuple[Tensor, Tensor, np.ndarray]:
    if (A is None) != (B is None):
        raise MapError("score and retrieval take rows of both spaces, or none of either for the rows that were held out")
    if A is None:
        if fitted._held is None:
            raise MapError("no rows were held out for this map (holdout=0, or it was loaded); give rows: .score(A, B)")
        if groups is not None:
            raise MapError("held-out rows keep the groups that ix.align was given; give groups= there, or rows here")
        return fitted._held
    a, b = paired(A, B)
    for view, width, side in ((a, fitted.d_a, "a"), (b, fitted.d_b, "b")):
        if view.d != width:
            name = f"{view.system}/{view.site}"
            raise MapError(f"{name} has shape {view.shape}, but this map's space {side} has {width} units; give rows of that space")
    return a.torch(), b.torch(), labels_of(a, groups)


def ratio_row(
    name: str,
    sums: tuple[np.ndarray, np.ndarray],
    of: Callable[[float, float], float],
    sources: np.ndarray,
    interval: str | int | None,
    level: float,
    seed: int,
    bounds: tuple[float, float],
) -> dict[str, Any]:
    """A ratio of sums over rows, with the jackknife over groups of sources."""
    first, second = sums
    row: dict[str, Any] = {"measure": name, "value": of(float(first.sum()), float(second.sum()))}
    count = _count(interval, len(np.unique(sources)))
    if count < 2:
        return row
    if bounds == (0.0, 1.0) and row["value"] in bounds and np.all((first == 0) | (first == second)):
        # Where all or none are hits, leaving some out changes nothing: the exact binomial bound says how many misses there could be.
        reach = 1 - ((1 - level) / 2) ** (1 / len(np.unique(sources)))
        low, high = (0.0, reach) if row["value"] == 0 else (1 - reach, 1.0)
        return row | {"low": low, "high": high, "interval_method": "binomial"}
    group = jackknife_groups(sources, count, seed=seed)
    parts = [np.bincount(group, weights=values) for values in sums]
    left = [of(float(first.sum() - a), float(second.sum() - b)) for a, b in zip(*parts, strict=True) if second.sum() - b > 0]
    if len(left) < 2:
        return row
    reach = jackknife_interval(row["value"], left, level=level, bounds=bounds)
    return row | {"low": reach.low, "high": reach.high, "interval_method": reach.method}


def _count(interval: str | int | None, sources: int) -> int:
    if interval is None:
        return 0
    if isinstance(interval, str):
        if interval not in ("auto", "jackknife"):
            raise MapError(f"interval={interval!r} is none of 'auto', 'jackknife', a number of groups, or None")
        return min(GROUPS, sources)
    if interval < 2:
        raise MapError(f"interval={interval} groups: a jackknife needs at least 2")
    return min(interval, sources)


def _result(fitted: Map, rows: list[dict[str, Any]], n: int, settings: dict[str, Any]) -> Result:
    a, b = fitted.info.get("a", ""), fitted.info.get("b", "")
    (system, _, site), (system_b, _, site_b) = (str(name).partition("/") for name in (a, b))
    place = {"system": system, "site": site, "system_b": system_b, "site_b": site_b, "label": fitted.method}
    place |= {"n": n, "d": fitted.d_a, "d_b": fitted.d_b}
    return Result([{**place, **row} for row in rows], settings={"result": "map", "map": fitted.info, **settings})
