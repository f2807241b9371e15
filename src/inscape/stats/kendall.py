"""Kendall's tau-a of many pairs of vectors at once, under weights, without comparing every two entries."""

from __future__ import annotations

import numpy as np

LEAST_BLOCK = 32
COMPARED = 2**21  # comparisons that are held at a time


def kendall_tau_a(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Concordant minus discordant pairs of entries over all pairs of entries; an entry of weight w stands for w equal entries.

    Args:
        x: ranks or values, shape [batch, m]; ties must be equal exactly.
        y: the other vectors, shape [batch, m].
        weights: how often each entry counts, whole numbers of shape [m] or [batch, m]; default once.

    Returns:
        One value per batch, from -1 to 1; entries that stand for one another are tied and count as neither.

    Source: Kendall 1938, A new measure of rank correlation; the count of inversions follows Knight 1966.

    Cost: m log m for each batch, in whole-array steps.

    Example:
        >>> import numpy as np
        >>> kendall_tau_a(np.array([[1.0, 2, 3, 4]]), np.array([[1.0, 2, 4, 3]]))[0]  # 5 pairs agree, 1 does not
        np.float64(0.6666666666666666)
    """
    x, y = np.atleast_2d(x), np.atleast_2d(y)
    batch, m = x.shape
    w = np.ones((batch, m)) if weights is None else np.broadcast_to(np.asarray(weights, dtype=np.float64), (batch, m))
    total = w.sum(1)
    dense_x, dense_y = dense_ranks(x), dense_ranks(y)
    order = np.argsort(dense_x * m + dense_y, axis=1)
    xs, ys, ws = (np.take_along_axis(each, order, 1) for each in (dense_x, dense_y, w))
    tied_both = _tied(xs * m + ys, ws)
    tied_x = _tied(xs, ws)
    tied_y, discordant = _in_order(ys, ws)
    pairs = (total**2 - (w**2).sum(1)) / 2
    agree = pairs - tied_x - tied_y + tied_both - 2 * discordant
    return agree / (total * (total - 1) / 2)


def tau_a_in_order(y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Kendall's tau-a of vectors with others that have no ties and by which they are in ascending order; one sort each.

    Args:
        y: whole numbers from 0, shape [batch, m].
        weights: how often each entry counts, whole numbers in the same order [batch, m].
    """
    total = weights.sum(1)
    tied, discordant = _in_order(y, weights)
    pairs = (total**2 - (weights**2).sum(1)) / 2
    return (pairs - tied - 2 * discordant) / (total * (total - 1) / 2)


def _in_order(y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ w_i w_j over pairs that are tied, and over those in the wrong order, of whole numbers [batch, m] that should ascend."""
    batch, m = y.shape
    bits = int(m).bit_length()
    # Ties keep their order, so that none of them counts as an inversion.
    packed = np.sort((y << bits) | np.arange(m), axis=1)
    by_y = packed & ((1 << bits) - 1)
    place = np.empty((batch, m), dtype=np.int32)
    np.put_along_axis(place, by_y, np.broadcast_to(np.arange(m, dtype=np.int32), (batch, m)), 1)
    ascending = packed >> bits
    tied = np.zeros(batch)
    if (ascending[:, 1:] == ascending[:, :-1]).any():
        tied = _tied(ascending, np.take_along_axis(weights, by_y, 1))
    return tied, _inversions(place, weights)


def dense_ranks(values: np.ndarray) -> np.ndarray:
    """Integers from 0 in the order of each row's values, equal where the values are, shape [batch, m]."""
    order = np.argsort(values, axis=1)
    ascending = np.take_along_axis(values, order, 1)
    steps = np.zeros(values.shape, dtype=np.int64)
    steps[:, 1:] = np.cumsum(ascending[:, 1:] != ascending[:, :-1], axis=1)
    ranks = np.empty_like(steps)
    np.put_along_axis(ranks, order, steps, 1)
    return ranks


def _tied(ascending: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Σ w_i w_j over pairs i < j whose keys are equal; keys come in order, shape [batch, m]."""
    first = np.ones(ascending.shape, dtype=bool)
    first[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    starts = np.flatnonzero(first.reshape(-1))
    flat = weights.reshape(-1)
    sums, squares = np.add.reduceat(flat, starts), np.add.reduceat(flat**2, starts)
    return np.add.reduceat((sums**2 - squares) / 2, np.flatnonzero(first.reshape(-1)[starts] & (starts % ascending.shape[1] == 0)))


def _inversions(place: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Σ w_i w_j over i < j with place_i > place_j, where each row of `place` is a permutation of 0 … m − 1.

    Entries are cut into blocks twice, by where they stand and by their place. Pairs that differ in both blocks are counted from the table
    of the weights in each combination, pairs of one block by comparing its entries.
    """
    batch, m = place.shape
    length = max(LEAST_BLOCK, int(m**0.5))
    count = -(-m // length)
    size = count * length
    here = np.empty((batch, size), dtype=np.int32)
    here[:, :m], here[:, m:] = place, np.arange(m, size)
    mass = np.zeros((batch, size), dtype=np.float32)
    mass[:, :m] = weights
    stands = np.broadcast_to(np.arange(size, dtype=np.int32) // length, (batch, size))
    cells = (np.arange(batch)[:, None] * count + stands) * count + here // length
    table = np.bincount(cells.reshape(-1), mass.reshape(-1), batch * count * count).reshape(batch, count, count)
    # before[r, c]: weight of blocks that stand before r and fall behind c.
    before = np.zeros_like(table)
    before[:, 1:, :-1] = np.cumsum(np.cumsum(table[:, :-1, :0:-1], axis=1), axis=2)[:, :, ::-1]
    blocks = (batch, count, length)
    found = (table * before).sum((1, 2)) + _compared(here.reshape(blocks), mass.reshape(blocks))
    by_place = np.empty_like(here)
    np.put_along_axis(by_place, here, np.broadcast_to(np.arange(size, dtype=np.int32), here.shape), 1)
    lines = np.take_along_axis(stands, by_place, 1).reshape(blocks)
    return found + _compared(lines, np.take_along_axis(mass, by_place, 1).reshape(blocks))


def _compared(entries: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Σ w_i w_j over i < j of one block with entry_i > entry_j, shape [batch]; sums of few whole numbers are exact in fp32."""
    batch, count, length = entries.shape
    earlier = np.triu(np.ones((length, length), dtype=bool), 1)
    total = np.zeros(batch)
    step = max(1, COMPARED // (batch * length * length))
    for start in range(0, count, step):
        part, own = entries[:, start : start + step], mass[:, start : start + step]
        larger = (part[..., :, None] > part[..., None, :]) & earlier
        total += ((larger.astype(np.float32) @ own[..., None])[..., 0].astype(np.float64) * own).sum((1, 2))
    return total
