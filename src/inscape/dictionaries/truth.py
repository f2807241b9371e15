"""How well directions agree: with the features that rows were made of, and between dictionaries of several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.arrays import as_rows
from inscape.dictionaries.codes import Codes
from inscape.dictionaries.directions import best_matches
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.intervals import mean_row
from inscape.errors import DegenerateInputError, DictionaryError
from inscape.results import Result


def recovery(dictionary: Dictionary, features: Any, *, rows: Any = None, codes: Any = None, at: float = 0.9, seed: int = 0) -> Result:
    """Whether a dictionary found the features that the rows were made of.

    Args:
        dictionary: a fitted dictionary.
        features: the true directions, [f, d].
        rows: rows [n, d] whose true codes are known.
        codes: those codes, [n, f]; with them the result says how well matched features tell when a true one is active.
        at: cosine from which a true feature counts as recovered.
        seed: seed of the intervals' groups.

    Returns:
        A `Result`: `mmcs` (mean over true features of the largest cosine with a direction), `mmcs_reverse` (the other way), `recovered`
        (share of true features with a direction at cosine `at` or more), `hungarian_cosine` (mean cosine of the best one-to-one matching)
        and, with codes, `firing_auroc` (mean over matched features). Intervals leave groups of features out.

    Raises:
        DictionaryError: features of another width, or codes that do not fit.

    Example:
        >>> round(recovery(dictionary, dictionary.W_dec).value(measure="mmcs"), 3)
        1.0
    """
    true = as_rows(features, "features").double()
    W = dictionary.W_dec.double().cpu()
    if true.shape[1] != W.shape[1]:
        raise DictionaryError(f"features have {true.shape[1]} units, the directions of the dictionary {W.shape[1]}")
    best, back = best_matches(true, W)[0].numpy(), best_matches(W, true)[0].numpy()
    pairs = matched(true, W)
    bounds = (-1.0, 1.0)
    found = [mean_row("mmcs", best, bounds=bounds, seed=seed), mean_row("mmcs_reverse", back, bounds=bounds, seed=seed)]
    found.append({**mean_row("recovered", best >= at, bounds=(0, 1), seed=seed), "label": f"cosine ≥ {at:g}"})
    found.append(mean_row("hungarian_cosine", pairs[2], bounds=bounds, seed=seed))
    if (rows is None) != (codes is None):
        raise DictionaryError("rows= and codes= belong together: the rows, and the true codes of each")
    if rows is not None:
        areas = _firing(dictionary, rows, codes, pairs, len(true))
        found.append(mean_row("firing_auroc", areas, bounds=(0, 1), seed=seed))
    shared = {"site": dictionary.site or "X", "d": W.shape[1], "n": len(true)}
    settings = {"verb": "dictionaries.recovery", "recipe": dictionary.recipe.describe(), "features": len(true), "at": at}
    return Result([{**shared, **row} for row in found], settings=settings, arrays={"best_cosine": best, "best_cosine_reverse": back})


def stability(dictionaries: Sequence[Dictionary], *, at: float = 0.7, seed: int = 0) -> Result:
    """How much dictionaries of several seeds agree; cosines in blocks, so that any width fits.

    Args:
        dictionaries: two or more over the same site.
        at: cosine from which a direction counts as shared.
        seed: seed of the intervals' groups.

    Returns:
        A `Result` with `mmcs` and `shared` for each ordered pair: over the directions of the first, the mean largest cosine with one of the
        second, and the share at `at` or more.

    Raises:
        DictionaryError: fewer than two, or of different sites' widths.

    Example:
        >>> stability([dictionary, dictionary]).value(measure="shared", label="0 in 1")
        1.0
    """
    if len(dictionaries) < 2:
        raise DictionaryError(f"stability compares dictionaries with each other; give two or more, got {len(dictionaries)}")
    found: list[dict[str, Any]] = []
    for i, j in combinations(range(len(dictionaries)), 2):
        a, b = dictionaries[i].W_dec, dictionaries[j].W_dec
        if a.shape[1] != b.shape[1]:
            raise DictionaryError(f"dictionaries {i} and {j} write {a.shape[1]} and {b.shape[1]} units; fit them on the same site")
        for first, second, label in ((a, b, f"{i} in {j}"), (b, a, f"{j} in {i}")):
            cosines = best_matches(first, second)[0].double().numpy()
            for row in (mean_row("mmcs", cosines, bounds=(-1, 1), seed=seed), mean_row("shared", cosines >= at, bounds=(0, 1), seed=seed)):
                found.append({"site": dictionaries[i].site or "X", "label": label, "n": len(first), "d": a.shape[1], **row})
    settings = {"verb": "dictionaries.stability", "at": at, "recipes": [one.recipe.describe() for one in dictionaries]}
    settings |= {"seeds": [one.info.get("seed") for one in dictionaries]}
    return Result(found, settings=settings)


def matched(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The one-to-one matching of directions with the largest total cosine: rows of a, rows of b, cosines. All pairs are formed."""
    from scipy.optimize import linear_sum_assignment

    unit = [part / torch.linalg.vector_norm(part, dim=1, keepdim=True).clamp(min=1e-300) for part in (a, b)]
    cosines = (unit[0] @ unit[1].T).numpy()
    i, j = linear_sum_assignment(cosines, maximize=True)
    return i, j, cosines[i, j]


def area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the receiver operating characteristic; ties count half."""
    from scipy.stats import rankdata

    ranks, count = rankdata(scores), int(positive.sum())
    rest = len(positive) - count
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * rest))


def _firing(dictionary: Dictionary, rows: Any, codes: Any, pairs: tuple[np.ndarray, ...], count: int) -> list[float]:
    """For each matched true feature that is active in some rows and silent in others, how well its match tells which."""
    true = codes if isinstance(codes, Codes) else Codes.of(torch.as_tensor(codes))
    found = dictionary.encode(rows)
    if true.shape != (found.n, count):
        raise DictionaryError(f"codes have shape {true.shape}, expected ({found.n}, {count}): one row per row, one column per feature")
    areas: list[float] = []
    for i, j in zip(pairs[0], pairs[1], strict=True):
        active = np.zeros(found.n, bool)
        active[true.feature(int(i))[0].numpy()] = True
        if not 0 < active.sum() < found.n:
            continue
        scores = np.zeros(found.n)
        places, values = found.feature(int(j))
        scores[places.numpy()] = values.double().numpy()
        areas.append(area(scores, active))
    if not areas:
        raise DegenerateInputError("no true feature is active in some rows and silent in others")
    return areas
