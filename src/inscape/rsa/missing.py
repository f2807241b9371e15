"""Comparison of matrices in which pairs are missing: each two by the pairs that both have."""

from __future__ import annotations

import numpy as np

from inscape.rsa.pooling import RANKED
from inscape.stats.kendall import kendall_tau_a


def masked_scores(a: np.ndarray, b: np.ndarray, weights: np.ndarray, measure: str) -> np.ndarray:
    """The measure of each of a [p, pairs] with each of b [q, pairs] over the pairs that both have; NaN with fewer than 3 of them."""
    return np.array([[_one(x, y, weights, measure) for y in b] for x in a])


def masked_ceiling(data: np.ndarray, weights: np.ndarray, copies: np.ndarray, measure: str) -> np.ndarray:
    """Lower and upper ceiling [2]: each drawn subject against the pool of all others, and of all, where the pool has its pairs."""
    drawn = np.flatnonzero(copies > 0)
    ready = np.stack([_equalized(one, weights, measure) for one in data])
    known = ~np.isnan(ready)
    filled = np.where(known, ready, 0.0)
    lower: list[float] = []
    upper: list[float] = []
    for s in drawn:
        upper.append(_one(_mean(filled, known, copies), data[s], weights, measure))
        others = np.where(np.arange(len(copies)) == s, 0, copies)
        lower.append(_one(_mean(filled, known, others), data[s], weights, measure) if others.any() else np.nan)
    values = [np.array(lower), np.array(upper)]
    return np.array([np.nanmean(one) if not np.isnan(one).all() else np.nan for one in values])


def _mean(filled: np.ndarray, known: np.ndarray, copies: np.ndarray) -> np.ndarray:
    counts = copies @ known
    # Rounded, so that means that are equal in truth stay tied.
    return np.where(counts > 0, np.round(copies @ filled / np.maximum(counts, 1e-300), 12), np.nan)


def _equalized(values: np.ndarray, weights: np.ndarray, measure: str) -> np.ndarray:
    """A matrix as it enters the pool: of one size, standardized or ranked, over the pairs that it has."""
    known = ~np.isnan(values) & (weights > 0)
    out = np.full(values.shape, np.nan)
    v, w = values[known], weights[known]
    if measure in RANKED:
        # As shares, so that subjects with more pairs do not weigh more.
        out[known] = weighted_ranks(v, w) / (w.sum() + 1)
        return out
    centered = v - (w @ v) / w.sum() if measure == "rsa_corr" else v
    size = np.sqrt((w @ centered**2) / w.sum()) if len(v) else 0.0
    out[known] = centered / size if size > 0 else np.nan
    return out


def _one(x: np.ndarray, y: np.ndarray, weights: np.ndarray, measure: str) -> float:
    known = ~np.isnan(x) & ~np.isnan(y) & (weights > 0)
    if known.sum() < 3:
        return np.nan
    a, b, w = x[known], y[known], weights[known]
    if measure in RANKED:
        a, b = weighted_ranks(a, w), weighted_ranks(b, w)
        if measure == "rsa_tau_a":
            return float(kendall_tau_a(a[None], b[None], w)[0])
    total = w.sum()
    if measure != "rsa_cosine":
        a, b = a - (w @ a) / total, b - (w @ b) / total
    size = (total**3 - total) / 12 if measure == "rsa_rho_a" else np.sqrt((w @ a**2) * (w @ b**2))
    return float((w * a) @ b / size) if size > 0 else np.nan


def weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mid-ranks when each entry counts `weights` times."""
    order = np.argsort(values, kind="stable")
    _, group = np.unique(values[order], return_inverse=True)
    mass = np.bincount(group, weights[order])
    start = np.concatenate([[0.0], np.cumsum(mass)[:-1]])
    ranks = np.empty(len(values))
    ranks[order] = (start + mass / 2 + 0.5)[group]
    return ranks
