"""How sparse and how faithful a dictionary is on rows: sums over all of them, intervals by leaving groups out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.arrays import as_numpy, check_finite
from inscape.dictionaries.directions import largest_cosines, paired_cosines
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.rows import check_paired
from inscape.errors import DegenerateInputError, DictionaryError, StoreMismatchError
from inscape.results import Result
from inscape.stats import jackknife_groups, jackknife_interval
from inscape.store import Store, View, view_of

# Sums of each group of rows, in this order; then Σ y and Σ (y − ŷ), d numbers each.
_SUMS = ("n", "entries", "error", "square", "square_out", "product", "cosine", "norm_ratio")
_BOUNDS = {"l0": (0.0, np.inf), "fvu": (0.0, np.inf), "fvu_centered": (0.0, np.inf), "cosine": (-1.0, 1.0), "norm_ratio": (0.0, np.inf)}


def score(dictionary: Dictionary, X: Any, *, target: Any, groups: Any, interval: str | int | None, level: float, seed: int) -> Result:
    """See `Dictionary.score`."""
    if dictionary.recipe.sites == "pair" and target is None:
        raise DictionaryError(f"a {dictionary.recipe.kind} reads one site and writes another; give the rows that it is to write as target=")
    view = view_of(_side_by_side(X) if dictionary.recipe.sites == "several" else X)
    goal = view if target is None else view_of(target, "target")
    if goal.n != view.n:
        raise StoreMismatchError(f"X has {view.n} rows, target has {goal.n}; row i of both must be the same token")
    if view.n == 0:
        raise DegenerateInputError(f"{view.system}/{view.site} has no rows to score")
    sources = view.stimulus if groups is None else np.unique(_labels(view, groups), return_inverse=True)[1]
    count = _group_count(interval, len(np.unique(sources)))
    group = torch.from_numpy(jackknife_groups(sources, count, seed=seed)) if count else torch.zeros(view.n, dtype=torch.int64)
    sums, vectors, fired = _sums(dictionary, view, goal, group, max(1, count))
    rows = [_row(name, of, sums, vectors, count, level) for name, of in _VALUES.items()]
    density = fired.double() / view.n
    cosines = largest_cosines(dictionary.W_dec)
    single: dict[str, float] = {
        "alive": float((fired > 0).double().mean()),
        "density_over_1pct": float((density > 0.01).double().mean()),
        "density_over_10pct": float((density > 0.1).double().mean()),
        "decoder_cosine": float(cosines.mean()),
    }
    arrays: dict[str, Any] = {"density": density.numpy(), "decoder_cosine": as_numpy(cosines)}
    if "W_enc" in dictionary.tensors and dictionary.W_enc.shape[0] == dictionary.W_dec.shape[1]:
        arrays["encoder_decoder_cosine"] = as_numpy(paired_cosines(dictionary.W_enc.T, dictionary.W_dec))
        single["encoder_decoder_cosine"] = float(arrays["encoder_decoder_cosine"].mean())
    rows += [{"measure": name, "value": value} for name, value in single.items()]
    shared = {"system": view.system, "site": view.site, "n": view.n, "d": view.d, "label": repr(dictionary.recipe)}
    settings = {"verb": "dictionary.score", "recipe": dictionary.recipe.describe(), "interval": interval, "level": level, "seed": seed}
    settings |= {"width": dictionary.m, "fitted_on": {key: dictionary.info.get(key) for key in ("system", "site", "rows", "seed")}}
    return Result([{**shared, **row} for row in rows], settings=settings, arrays=arrays)


def _side_by_side(X: Any) -> Any:
    """Several sites as one, in memory."""
    parts = [X[site] for site in X.sites] if isinstance(X, Store) else X
    if not isinstance(parts, (list, tuple)):
        return parts
    views = [view_of(part) for part in parts]
    check_paired(views)
    names = views[0].ids if views[0].kind == "stimulus" else None
    joined = Store.from_arrays({"+".join(view.site for view in views): torch.cat([view.torch() for view in views], 1)}, stimuli=names)
    return joined[joined.sites[0]]


def _sums(dictionary: Dictionary, view: View, goal: View, group: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums by group: [count, 8] and [count, 2, out] in fp64; and how often each feature was active, [m]."""
    sums = torch.zeros(count, len(_SUMS), dtype=torch.float64)
    vectors = torch.zeros(count, 2, dictionary.W_dec.shape[1], dtype=torch.float64)
    fired = torch.zeros(dictionary.m, dtype=torch.int64)
    size = max(256, 2**25 // max(dictionary.m, dictionary.d))
    shift: Tensor | None = None
    for at in range(0, view.n, size):
        x, y = view.read(at, at + size), goal.read(at, at + size)
        check_finite(y, f"{goal.system}/{goal.site}")
        codes = dictionary.encode(x)
        guess = dictionary._rebuilt(x.to(dictionary.W_dec.dtype), codes).double()
        if guess.shape[1] != y.shape[1]:
            raise DictionaryError(
                f"this dictionary writes {guess.shape[1]} units, the rows to compare with have {y.shape[1]}; give target="
            )
        y = y.double()
        shift = y.mean(0) if shift is None else shift  # a common offset costs the total variance no digits
        error, moved = y - guess, y - shift
        guess_moved = guess - shift
        length, length_out = torch.linalg.vector_norm(y, dim=1), torch.linalg.vector_norm(guess, dim=1)
        tiny = torch.finfo(torch.float64).tiny
        columns = [torch.ones_like(length), codes.counts.double(), error.square().sum(1), moved.square().sum(1)]
        columns += [guess_moved.square().sum(1), (moved * guess_moved).sum(1)]
        columns += [(y * guess).sum(1) / (length * length_out).clamp(min=tiny), length_out / length.clamp(min=tiny)]
        sums.index_add_(0, group[at : at + size], torch.stack(columns, 1))
        vectors.index_add_(0, group[at : at + size], torch.stack([moved, error], 1))
        fired += torch.bincount(codes.indices, minlength=dictionary.m)
    return sums, vectors, fired


def _spread(s: dict[str, float], moved: Tensor) -> float:
    total = s["square"] - float(moved @ moved) / s["n"]
    if total <= 1e-24 * s["square"]:
        raise DegenerateInputError("all rows are equal, so there is no variance that a dictionary could explain")
    return total


def _shrinkage(s: dict[str, float], moved: Tensor, error: Tensor) -> float:
    """Σ‖ŷ − ȳ‖² / Σ⟨y − ȳ, ŷ − ȳ⟩, from sums about another point than the mean ȳ."""
    mean, out = moved / s["n"], moved - error
    square = s["square_out"] - 2 * float(mean @ out) + s["n"] * float(mean @ mean)
    product = s["product"] - float(mean @ out)
    return square / product if square > 1e-24 * s["square"] and product else float("nan")


_VALUES: dict[str, Callable[[dict[str, float], Tensor, Tensor], float]] = {
    "l0": lambda s, moved, error: s["entries"] / s["n"],
    "fvu": lambda s, moved, error: s["error"] / _spread(s, moved),
    "fvu_centered": lambda s, moved, error: (s["error"] - float(error @ error) / s["n"]) / _spread(s, moved),
    "cosine": lambda s, moved, error: s["cosine"] / s["n"],
    "norm_ratio": lambda s, moved, error: s["norm_ratio"] / s["n"],
    "shrinkage": _shrinkage,
}


def _row(name: str, of: Callable[..., float], sums: Tensor, vectors: Tensor, count: int, level: float) -> dict[str, Any]:
    """The value from all groups, and its interval from leaving each out."""
    whole, both = sums.sum(0), vectors.sum(0)

    def value(left: Tensor, both: Tensor) -> float:
        return of(dict(zip(_SUMS, left.tolist(), strict=True)), both[0], both[1])

    found: dict[str, Any] = {"measure": name, "value": value(whole, both)}
    if np.isnan(found["value"]):
        return {"measure": name, "status": "degenerate", "reason": "every row is reconstructed as the mean"}
    if count:
        left_out = [value(whole - sums[i], both - vectors[i]) for i in range(count)]
        reach = jackknife_interval(found["value"], left_out, level=level, bounds=_BOUNDS.get(name))
        found |= {"low": reach.low, "high": reach.high, "interval_method": reach.method}
    return found


def _labels(view: View, groups: Any) -> np.ndarray:
    values = view.column(groups) if isinstance(groups, str) else np.asarray(groups)
    if len(values) == view.store.stimuli.num_rows != view.n:
        values = values[view.stimulus]
    if len(values) != view.n:
        raise StoreMismatchError(f"groups has {len(values)} entries for {view.n} rows; give one per row or per stimulus")
    return values


def _group_count(interval: str | int | None, sources: int) -> int:
    if interval is None or (interval == "auto" and sources < 2):
        return 0
    if isinstance(interval, str) and interval not in ("auto", "jackknife"):
        raise ValueError(f"interval={interval!r} is none of 'auto', 'jackknife', a number of groups, or None")
    count = min(32 if isinstance(interval, str) else interval, sources)
    if count < 2:
        raise ValueError(f"interval={interval!r} needs at least 2 groups of rows, got {count}")
    return count
