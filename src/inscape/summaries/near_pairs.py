"""Candidates for the nearest rows of all rows, from every pair of row blocks once: distances are symmetric."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

# Rows of a block: its tile of distances stays in the caches, and the products are large enough for BLAS.
BLOCK = 1024
# Columns of a tile among which a row finds its first candidates; what beats them in the others is little.
FIRST = 256


def near_pairs(Z: Float[Tensor, "n d"], half: Float[Tensor, " n"], count: int) -> tuple[Int[Tensor, "n count"], Float[Tensor, "n count"]]:
    """The `count` other rows of least ‖z_i − z_j‖² / 2 for each row of Z, by products in the dtype of Z, the farthest last.

    A tile of distances serves the rows on both of its sides. Once a row has candidates, only entries nearer than its farthest one are
    looked at, which after the first tiles are few.

    Args:
        Z: rows.
        half: ‖z‖² / 2 of every row.
        count: candidates of each row, fewer than the rows.

    Returns:
        Row numbers and half squared distances, up to the rounding of the products.

    Cost: n² d / 2 multiplications; 12 bytes a candidate, and one tile.
    """
    n = Z.shape[0]
    nearest = torch.full((n, count), torch.inf, dtype=Z.dtype)
    ids = torch.zeros(n, count, dtype=torch.int64)
    starts = range(0, n, BLOCK)
    for offset in range(len(starts)):
        for first in starts[: len(starts) - offset]:
            second = first + offset * BLOCK
            rows, columns = slice(first, min(n, first + BLOCK)), slice(second, min(n, second + BLOCK))
            tile = torch.addmm(half[columns], Z[rows], Z[columns].T, alpha=-1).add_(half[rows, None])
            if offset == 0:
                tile.fill_diagonal_(torch.inf)
                width = max(min(FIRST, tile.shape[1]), min(count + 1, tile.shape[1]))
                kept = min(count, width - 1)
                nearest[rows, :kept], found = tile[:, :width].topk(kept, dim=1, largest=False)
                ids[rows, :kept] = found + first
                if width < tile.shape[1]:
                    _improve(nearest[rows], ids[rows], tile[:, width:], first + width)
                continue
            for side, other, seen in ((rows, second, tile), (columns, first, tile.T)):
                _improve(nearest[side], ids[side], seen, other)
    return ids, nearest


def _improve(nearest: Tensor, ids: Tensor, seen: Tensor, start: int) -> None:
    """Puts entries of `seen` [b, c] that beat the farthest candidate of their row into `nearest` and `ids` [b, count], in place."""
    better = seen < nearest[:, -1:]
    # In the order of memory, which is that of the rows or of the columns; NumPy finds set bytes fastest.
    if seen.stride(1) == 1:
        row, column = np.divmod(np.flatnonzero(better.numpy()), seen.shape[1])
    else:
        column, row = np.divmod(np.flatnonzero(better.T.numpy()), seen.shape[0])
        order = np.argsort(row, kind="stable")
        row, column = row[order], column[order]
    if not len(row):
        return
    counts = np.bincount(row, minlength=len(seen))
    touched = np.flatnonzero(counts)
    counts = counts[touched]
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)  # a new candidate's place among those of its row
    line = np.repeat(np.arange(len(touched)), counts)
    which, at = torch.from_numpy(touched), (torch.from_numpy(line), torch.from_numpy(place + nearest.shape[1]))
    width = nearest.shape[1] + int(counts.max())
    distances = torch.full((len(touched), width), torch.inf, dtype=seen.dtype)
    numbers = torch.zeros(len(touched), width, dtype=torch.int64)
    distances[:, : nearest.shape[1]], numbers[:, : nearest.shape[1]] = nearest[which], ids[which]
    distances[at] = seen[torch.from_numpy(row), torch.from_numpy(column)]
    numbers[at] = torch.from_numpy(column + start)
    # NumPy cuts off the smallest without ordering them, the largest of them last: several times faster than topk here.
    order = torch.from_numpy(np.argpartition(distances.numpy(), nearest.shape[1] - 1, axis=1)[:, : nearest.shape[1]])
    nearest[which], ids[which] = distances.gather(1, order), numbers.gather(1, order)
