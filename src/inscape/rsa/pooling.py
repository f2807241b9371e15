"""The matrix that several subjects have in common, in the way that fits the measure it will be compared by."""

from __future__ import annotations

import numpy as np
import torch

from inscape.errors import DegenerateInputError, nearest
from inscape.summaries.rdm import mid_ranks
from inscape.summaries.whitened import whitened_product

QUADRATIC = ("rsa_cosine", "rsa_corr", "rsa_cosine_whitened", "rsa_corr_whitened")
RANKED = ("rsa_spearman", "rsa_rho_a", "rsa_tau_a")


def pooled(values: np.ndarray, measure: str) -> np.ndarray:
    """One matrix [pairs] from several [k, pairs]; NaN where no matrix has the pair."""
    if measure not in (*QUADRATIC, *RANKED):
        raise DegenerateInputError(f"no pooling is known for {measure!r}; nearest: {nearest(measure, (*QUADRATIC, *RANKED))}")
    if measure in RANKED:
        ready = ranked(values)
    else:
        centered = values - np.nanmean(values, axis=1, keepdims=True) if "corr" in measure else values
        ready = centered / sizes(centered, measure)
    missing = np.isnan(ready)
    counts = (~missing).sum(0)
    total = np.where(missing, 0.0, ready).sum(0)
    mean = np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
    return mean - np.nanmin(mean) if "corr" in measure else mean


def sizes(values: np.ndarray, measure: str) -> np.ndarray:
    """The length of each matrix [k, 1] under the measure's inner product, per root pair."""
    if measure.endswith("whitened"):
        if np.isnan(values).any():
            raise DegenerateInputError(f"{int(np.isnan(values).sum())} pairs are missing; {measure} needs complete matrices")
        n = round((1 + (1 + 8 * values.shape[1]) ** 0.5) / 2)
        tensors = [torch.from_numpy(one) for one in values]
        size = np.array([float(whitened_product(one, one, n)) for one in tensors])[:, None] ** 0.5
    else:
        size = np.sqrt(np.nanmean(values**2, axis=1, keepdims=True))
    if not (size > 0).all():
        raise DegenerateInputError(f"matrix {int(np.flatnonzero(~(size[:, 0] > 0))[0])} has equal dissimilarities only; leave it out")
    return size


def ranked(values: np.ndarray) -> np.ndarray:
    """Mid-ranks of each matrix; missing pairs stay missing, and ranks are then stretched to the number of all pairs."""
    ranks = np.full_like(values, np.nan)
    for row, out in zip(values, ranks, strict=True):
        known = ~np.isnan(row)
        present = torch.from_numpy(row[known])
        rounding = 32 * np.finfo(np.float64).eps * float(present.abs().max()) if len(present) else 0.0
        out[known] = mid_ranks(present, rounding).numpy() * ((len(row) + 1) / (known.sum() + 1))
    return ranks
