"""Dissimilarities whose two factors come from different folds, so that noise does not add to them."""

from __future__ import annotations

from typing import Any

import numpy as np

from inscape.errors import DegenerateInputError, TooFewStimuliError
from inscape.rsa.noise import Whitening, covariances, product_under


def fold_means(rows: np.ndarray, condition: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean row of each condition in each fold [f, c, d] (0 where there is none) and whether there is one [f, c]."""
    folds, conditions = int(fold.max()) + 1, int(condition.max()) + 1
    sums = np.zeros((folds * conditions, rows.shape[1]))
    cell = fold * conditions + condition
    np.add.at(sums, cell, rows)
    counts = np.bincount(cell, minlength=folds * conditions)
    sums /= np.maximum(counts, 1)[:, None]
    return sums.reshape(folds, conditions, -1), (counts > 0).reshape(folds, conditions)


def crossnobis(means: np.ndarray, present: np.ndarray, noise: Whitening | list[np.ndarray] | None) -> np.ndarray:
    """Mean over ordered pairs of different folds of (a − b)ᵀ Σ⁻¹ (a − b)′ / d, condensed.

    A pair of conditions is estimated from the folds that have both; a shift of a whole fold cancels in each difference.

    Args:
        means: rows of conditions by fold [f, c, d].
        present: whether the fold has the condition [f, c].
        noise: one whitening for all folds, one covariance for each, or None for the identity.

    Cost: f c² d where every fold has every condition, f² c² d / 2 otherwise; never more than the means in memory.
    """
    folds, conditions, d = means.shape
    if isinstance(noise, Whitening):
        means = noise(means.reshape(-1, d)).reshape(means.shape)
    above = np.triu_indices(conditions, 1)
    if present.all() and not isinstance(noise, list):
        total = means.sum(0)
        kernel = total @ total.T
        for one in means:
            kernel -= one @ one.T
        diagonal = np.diag(kernel)
        return (diagonal[above[0]] + diagonal[above[1]] - 2 * kernel[above]) / (folds * (folds - 1) * d)
    spread = covariances(noise, folds, d) if isinstance(noise, list) else None
    total, count = np.zeros(len(above[0])), np.zeros(len(above[0]))
    for a in range(folds):
        for b in range(a + 1, folds):
            shared = present[a] & present[b]
            kernel = means[a] @ means[b].T if spread is None else product_under(means[a], means[b], (spread[a] + spread[b]) / 2)
            diagonal = np.diag(kernel)
            both = shared[above[0]] & shared[above[1]]
            products = diagonal[above[0]] + diagonal[above[1]] - kernel[above] - kernel.T[above]
            total += np.where(both, products, 0.0)
            count += both
    return np.where(count > 0, total / np.maximum(count, 1) / d, np.nan)


def poisson(first: np.ndarray, second: np.ndarray, prior: tuple[float, float] = (1.0, 0.1)) -> np.ndarray:
    """Symmetric Kullback–Leibler divergence of Poisson rates, Σ (a − b)(log a′ − log b′) / d, condensed.

    Rates are shrunk toward the prior rate λ with weight w, (x + w λ) / (1 + w), so that a silent unit has a logarithm.

    Args:
        first: rates a of the conditions [c, d].
        second: rates a′ of other folds [c, d], or the same.
        prior: λ and w.

    Source: Schütt et al. 2023, Statistical inference on representational geometries.

    Raises:
        DegenerateInputError: a rate is negative.
    """
    if min(first.min(), second.min()) < 0:
        raise DegenerateInputError(f"the Poisson distance needs rates of at least 0, got {min(first.min(), second.min()):.3g}")
    rate, weight = prior
    a, b = ((side + rate * weight) / (1 + weight) for side in (first, second))
    kernel = a @ np.log(b).T
    above = np.triu_indices(len(a), 1)
    diagonal = np.diag(kernel)
    return (diagonal[above[0]] + diagonal[above[1]] - kernel[above] - kernel.T[above]) / a.shape[1]


def crossed_poisson(means: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The Poisson distance of each fold against the mean of the others, averaged over folds.

    Raises:
        TooFewStimuliError: a condition is missing in a fold.
    """
    if not present.all():
        fold, condition = (int(index[0]) for index in np.nonzero(~present))
        raise TooFewStimuliError(f"condition {condition} is missing in fold {fold}; the crossvalidated Poisson distance needs all in each")
    rest = (means.sum(0) - means) / (len(means) - 1)
    return np.mean([poisson(other, one) for one, other in zip(means, rest, strict=True)], axis=0)


def check_folds(fold: Any) -> int:
    """The number of folds.

    Raises:
        TooFewStimuliError: there is only one.
    """
    count = len(np.unique(fold))
    if count < 2:
        raise TooFewStimuliError(f"crossvalidated distances need at least 2 folds, got {count}")
    return count
