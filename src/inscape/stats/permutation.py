"""Permutation nulls: what a score is worth when the pairing of rows is broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Ties with the observed score count as "at least as large", with slack for the last bits that thread counts change.
TIE = 1e-9


def reached(observed: float, null: np.ndarray) -> np.ndarray:
    """Which null scores are as large as the observed one, up to the last bits that thread counts change."""
    return np.asarray(null) >= observed - TIE * abs(observed)


@dataclass(frozen=True)
class NullTest:
    """What a permutation null says of one score: p, the null's mean, the threshold at `alpha`, the calibrated score."""

    p: float
    mean: float
    threshold: float
    calibrated: float


def permutations(sources: np.ndarray, draws: int, *, seed: int = 0) -> Iterator[np.ndarray]:
    """Yields `draws` permutations of the rows that keep the rows of one source together.

    One row per source: plain random permutations. Several rows per source (tokens of one text, frames of one sound) are dependent,
    so whole sources change places, rows in their order, with sources that have as many rows: laying blocks of unequal length end to
    end would pair parts of several sources and reject too often. A source whose length no other has stays where it is, which makes
    the test conservative; `exchangeable` tells how much can move. Draw j depends only on (seed, j): the same permutations at every
    site, whatever the number of threads.

    Args:
        sources: one label per row, shape [n]; rows of one source need not be adjacent.
        draws: how many permutations.
        seed: seed of the first draw's stream.

    Example:
        >>> import numpy as np
        >>> [sorted(order.tolist()) for order in permutations(np.arange(3), 2)]
        [[0, 1, 2], [0, 1, 2]]
    """
    _, source = np.unique(np.asarray(sources), return_inverse=True)
    count = int(source.max()) + 1 if source.size else 0
    rows = np.argsort(source, kind="stable")
    blocks = np.split(rows, np.searchsorted(source[rows], np.arange(1, count)))
    sizes = np.bincount(source, minlength=count)
    alike = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    for draw in range(draws):
        rng = np.random.default_rng((seed, draw))
        order = np.empty(count, dtype=np.int64)
        for members in alike:
            order[members] = rng.permutation(members)
        if count == len(source):
            yield order
            continue
        permuted = np.empty_like(rows)
        permuted[rows] = np.concatenate([blocks[chosen] for chosen in order])
        yield permuted


def exchangeable(sources: np.ndarray) -> float:
    """The share of rows whose source can change places with another of as many rows; 0 means that there is no permutation.

    Example:
        >>> import numpy as np
        >>> exchangeable(np.array([0, 0, 1, 1, 2, 2, 2, 2]))
        0.5
    """
    _, source = np.unique(np.asarray(sources), return_inverse=True)
    sizes = np.bincount(source)
    return float(np.mean(np.bincount(sizes)[sizes[source]] > 1))


def permutation_test(
    observed: float, null: np.ndarray, *, best: float, higher: bool = True, alpha: float = 0.05, enough: int | None = None
) -> NullTest:
    """The one-sided permutation test of a score and its calibrated form.

    p = (1 + #{null ≥ observed}) / (K + 1). The threshold τ is the ⌈(1−α)(K+1)⌉-th smallest of the observed score and the null;
    the calibrated score max(0, (observed − τ) / (best − τ)) is 0 where the score does not exceed the null and 1 at the optimum.

    Args:
        observed: the score.
        null: scores with the pairing broken, shape [K].
        best: the score of identical systems.
        higher: whether a higher score means more alike; for distances everything is mirrored.
        alpha: level of the threshold.
        enough: the draws ended once this many null scores had reached the observed one; p is then `enough` over the draws it took.

    Source: Gröger et al. 2026, calibrated similarity; p as in Phipson & Smyth 2010 (never 0), and as in Besag & Clifford
        1991 where draws end early.

    Example:
        >>> import numpy as np
        >>> test = permutation_test(0.9, np.linspace(0, 0.5, 99), best=1.0)
        >>> test.p, test.calibrated > 0.7
        (0.01, True)
    """
    sign = 1.0 if higher else -1.0
    score, scores = sign * observed, sign * np.asarray(null, dtype=np.float64)
    draws = len(scores)
    hits = reached(score, scores)
    p = (1 + int(hits.sum())) / (draws + 1)
    if enough is not None and hits.sum() >= enough:
        p = enough / (int(np.flatnonzero(hits)[enough - 1]) + 1)
    ordered = np.sort(np.append(scores, score))
    threshold = float(ordered[int(np.ceil((1 - alpha) * (draws + 1))) - 1])
    room = sign * best - threshold
    calibrated = max(0.0, (score - threshold) / room) if room > 0 else 0.0
    return NullTest(p, float(np.mean(null)), sign * threshold, min(1.0, calibrated))


def maximum_p(observed: np.ndarray, null: np.ndarray, *, higher: bool = True) -> np.ndarray:
    """p-values corrected for looking at many sites: each score against the null of the best score over all sites.

    Valid under any dependence between sites because every site saw the same permutations. Sites whose score is NaN stay NaN.

    Args:
        observed: scores, shape [s].
        null: null scores, shape [K, s], row k from one permutation.
        higher: whether a higher score means more alike.

    Source: Westfall & Young 1993, single-step maxT.
    """
    sign = 1.0 if higher else -1.0
    scores = sign * np.asarray(observed, dtype=np.float64)
    finite = np.isfinite(scores)
    result = np.full(scores.shape, np.nan)
    if not finite.any():
        return result
    best = np.max(sign * np.asarray(null)[:, finite], axis=1)
    exceed = best[:, None] >= (scores - TIE * np.abs(scores))[finite][None, :]
    result[finite] = (1 + exceed.sum(axis=0)) / (len(best) + 1)
    return result
