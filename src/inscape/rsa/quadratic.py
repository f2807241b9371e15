"""Comparison of matrices under weights for the measures that are a cosine: all draws, models and subjects from a few products.

A draw of stimuli with replacement is a vector of counts m. The pair (i, j) then occurs m_i m_j times, and pairs of a stimulus with
itself are no dissimilarity and drop out. Every inner product of two matrices is a sum over distinct pairs with these weights, so that a
draw costs no copy of any data, and all draws together are one matrix product.
"""

from __future__ import annotations

import numpy as np

# Pairs times draws that are held at a time.
HELD = 2**22


def inner_products(values: np.ndarray, counts: np.ndarray, measure: str, control: int = 0) -> np.ndarray:
    """Inner products [draws, k, k] of k matrices under a measure whose cosine it is.

    Args:
        values: complete matrices [k, pairs].
        counts: how often each stimulus was drawn [draws, n]; 0 leaves it out.
        measure: "rsa_cosine", "rsa_corr", or one of them with "_whitened".
        control: how many of the last matrices are to be taken out of the others by regression; they are not returned.

    Source: Schütt et al. 2023, Statistical inference on representational geometries (draws); Diedrichsen et al. 2020 (whitening).

    Cost: draws · pairs · k² / 2 multiplications.
    """
    k, pairs = values.shape
    n = counts.shape[1]
    shift = values.mean(1, keepdims=True) if "corr" in measure else 0.0
    members = values - shift
    constant = measure == "rsa_corr_whitened"
    if constant:
        members = np.concatenate([members, np.ones((1, pairs))])
    size = len(members)
    above = np.triu_indices(n, 1)
    upper = np.triu_indices(size)
    products = (members[upper[0]] * members[upper[1]]).T
    columns = np.concatenate([products, members.T, np.ones((pairs, 1))], axis=1)
    made = np.empty((len(counts), k - control, k - control))
    step = max(1, HELD // pairs)
    squares = None
    if measure.endswith("whitened"):
        squares = np.zeros((size, n, n))
        squares[:, above[0], above[1]] = squares[:, above[1], above[0]] = members
    for start in range(0, len(counts), step):
        m = counts[start : start + step].astype(np.float64)
        sums = (m[:, above[0]] * m[:, above[1]]) @ columns
        found = np.empty((len(m), size, size))
        found[:, upper[0], upper[1]] = found[:, upper[1], upper[0]] = sums[:, : len(upper[0])]
        means, total = sums[:, len(upper[0]) : -1], sums[:, -1:]
        if squares is not None:
            found = _whitened(found, squares, m)
        if constant:
            mean = means[:, :k] / total
            ones, to_ones = found[:, k, k], found[:, :k, k]
            crossed = mean[:, :, None] * to_ones[:, None, :]
            found = found[:, :k, :k] - crossed - crossed.transpose(0, 2, 1) + mean[:, :, None] * mean[:, None, :] * ones[:, None, None]
        elif measure == "rsa_corr":
            found = found - means[:, :, None] * means[:, None, :] / total[:, :, None]
        made[start : start + step] = _without(found, control)
    return made


def _whitened(Q: np.ndarray, squares: np.ndarray, m: np.ndarray) -> np.ndarray:
    """dᵀ V⁻¹ e from dᵀ e: V is 2 I plus the incidence of pairs and drawn copies, so V⁻¹ needs the sums at each stimulus alone."""
    sums = np.einsum("kij,bj->bik", squares, m, optimize=True)
    room = 2 + m.sum(1, keepdims=True) - 2 * m
    # A stimulus that is half of all copies makes its own equation singular though the system is not; the limit is far below rounding.
    share = m / np.where(np.abs(room) < 1e-9, 1e-9, room)
    weighted = sums * share[:, :, None]
    totals = weighted.sum(1)
    inner = np.swapaxes(weighted, 1, 2) @ sums
    return 0.5 * (Q - inner + totals[:, :, None] * totals[:, None, :] / (1 + share.sum(1))[:, None, None])


def _without(Q: np.ndarray, control: int) -> np.ndarray:
    """Products of what regression on the last matrices leaves of the others."""
    if not control:
        return Q
    kept = Q.shape[1] - control
    own, crossed = Q[:, kept:, kept:], Q[:, :kept, kept:]
    scale = np.sqrt(np.maximum(np.einsum("bii->bi", own), 1e-300))
    inverse = np.linalg.pinv(own / scale[:, :, None] / scale[:, None, :], rcond=1e-10, hermitian=True)
    crossed = crossed / scale[:, None, :]
    return Q[:, :kept, :kept] - crossed @ inverse @ crossed.transpose(0, 2, 1)


def cosines(Q: np.ndarray) -> np.ndarray:
    """Products over lengths; NaN where a matrix has none."""
    squared = np.einsum("bii->bi", Q)
    scale = np.max(squared, axis=1, keepdims=True, initial=0.0)
    length = np.sqrt(np.where(squared > 1e-14 * scale, squared, np.nan))
    return np.clip(Q / length[:, :, None] / length[:, None, :], -1, 1)


def ceilings(D: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Lower and upper noise ceiling [draws, 2] from the cosines of subjects [draws, s, s] and how often each was drawn [draws, s].

    The pooled matrix is the sum of the unit matrices of the drawn subjects; a subject's cosine with it, and with the pool without any of
    its own copies, follow from D alone. Each subject that was drawn counts once.
    """
    cosines = np.broadcast_to(D, (len(copies), *D.shape[1:]))
    copies = copies.astype(np.float64)
    to_pool = np.einsum("bst,bt->bs", cosines, copies)
    size = np.einsum("bs,bs->b", copies, to_pool)
    own = np.einsum("bss->bs", cosines)
    rest = to_pool - copies * own
    rest_size = size[:, None] - 2 * copies * to_pool + copies**2 * own
    drawn = copies > 0
    several = (drawn.sum(1) > 1)[:, None] & drawn
    with np.errstate(divide="ignore", invalid="ignore"):
        upper = np.where(drawn, to_pool / np.sqrt(size)[:, None], np.nan)
        lower = np.where(several & (rest_size > 1e-14), rest / np.sqrt(np.where(rest_size > 0, rest_size, np.nan)), np.nan)
    return np.stack([_mean(lower), _mean(upper)], axis=1)


def _mean(values: np.ndarray) -> np.ndarray:
    """Means over the entries that are not NaN; NaN where there are none."""
    known = ~np.isnan(values)
    return np.where(known.any(1), np.where(known, values, 0.0).sum(1) / np.maximum(known.sum(1), 1), np.nan)
