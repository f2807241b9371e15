"""Dissimilarities between all pairs of rows."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from inscape.arrays import as_rows, as_tensor, row_blocks
from inscape.errors import DegenerateInputError, nearest
from inscape.summaries.base import Summary
from inscape.summaries.blocks import unit_rows

RDM_METRICS = ("correlation", "cosine", "euclidean", "squared_euclidean")

# Squared distances this far below the squared lengths have lost six digits in the kernel and are taken from differences instead.
CANCELLED = 1e-6


class RDM(Summary):
    """The upper triangle of a dissimilarity matrix, row by row: (0,1), (0,2), …, (1,2), ….

    Metrics: `correlation` 1 − r across units, `cosine` 1 − cos, `euclidean` ‖a − b‖, and `squared_euclidean` ‖a − b‖² / d (the mean squared
    difference per unit, as rsatoolbox has it).

    Values are fp64 whatever the input: rows of few kinds (labels, one-hot codes) have pairs that are equal in truth and must stay tied.

    Cost: n² d / 2 multiplications; 8 bytes for each of the n(n − 1)/2 pairs, one block of rows beside them.

    Example:
        >>> rdm = RDM.of(X, metric="correlation")   # [n, d]
        >>> rdm.values.shape                        # (n * (n - 1) // 2,)
    """

    additive: ClassVar[bool] = False

    def __init__(self, values: Tensor, n: int, metric: str) -> None:
        self.values = values
        self.n = n
        self.metric = metric

    @classmethod
    def of(cls, X: Any, metric: str = "correlation") -> RDM:
        """The dissimilarities of rows X [n, d].

        Raises:
            TooFewStimuliError: there are fewer than two rows.
            DegenerateInputError: a row is constant (correlation) or zero (cosine), the rows hold NaN or infinity, or the metric is unknown.
        """
        rows = as_rows(X, minimum=2)
        if metric not in RDM_METRICS:
            raise DegenerateInputError(f"unknown metric {metric!r}; nearest: {nearest(metric, RDM_METRICS)}")
        wide = rows.double() if rows.device.type != "mps" else rows.cpu().double()
        if metric == "correlation":
            wide = unit_rows(wide - wide.mean(1, keepdim=True), rows, "correlation distance needs rows that vary across units")
        elif metric == "cosine":
            wide = unit_rows(wide, rows, "cosine distance needs rows that are not zero")
        values = _angles(wide) if metric in ("correlation", "cosine") else _squares(wide)
        if metric == "squared_euclidean":
            values /= rows.shape[1]
        elif metric == "euclidean":
            values.sqrt_()
        return cls(values, rows.shape[0], metric)

    def square(self) -> Float[Tensor, "n n"]:
        """The symmetric matrix with zeros on the diagonal, [n, n]."""
        full = self.values.new_zeros(self.n, self.n)
        full[_above(self.n)] = self.values
        return full + full.T

    def take(self, idx: Int[Tensor, " m"] | np.ndarray) -> RDM:
        """The dissimilarities of rows `idx`, in that order; ranks carry over when idx is a permutation. n² gathers.

        Raises:
            DegenerateInputError: idx names a row twice, whose distance to itself is no dissimilarity, or a row that does not exist.
        """
        order = as_tensor(idx).long()
        if order.unique().shape[0] != order.shape[0] or (order.numel() and (int(order.min()) < 0 or int(order.max()) >= self.n)):
            raise DegenerateInputError(f"idx must name distinct rows of 0 … {self.n - 1}; for draws with replacement use pair_weights")
        if order.shape[0] == self.n:
            taken = RDM(self._gathered(self.values, order), self.n, self.metric)
            if "ranks" in vars(self):
                vars(taken)["ranks"] = self._gathered(self.ranks, order)
            return taken
        if bool((order.diff() > 0).all()):
            return self._thinned(order)
        return RDM(self._gathered(self.values, order), order.shape[0], self.metric)

    def _thinned(self, rows: Tensor) -> RDM:
        """The dissimilarities of ascending `rows`, in their order; where the values are sorted already, so are the remaining ones."""
        stays = torch.zeros(self.n, dtype=torch.bool)
        stays[rows] = True
        kept = torch.outer(stays, stays)[_above(self.n)]
        thinner = RDM(self.values[kept], rows.shape[0], self.metric)
        order = self._sorted[0]
        remaining = (kept.cumsum(0) - 1)[order[kept[order]]]
        vars(thinner)["_sorted"] = (remaining, *_tie_groups(thinner.values[remaining], thinner._rounding))
        return thinner

    def _gathered(self, values: Tensor, order: Tensor) -> Tensor:
        """Condensed values of the rows `order`, through the square matrix: two gathers of n² in place of one index per pair."""
        full = values.new_zeros(self.n, self.n)
        full[_above(self.n)] = values
        full += full.T.clone()
        return full[order][:, order][_above(order.shape[0])]

    @cached_property
    def ranks(self) -> Float[Tensor, " pairs"]:
        """Mid-ranks of the values (ties share their mean rank, from 1), in fp64; values within rounding are ties; one sort, kept."""
        order, starts, group = self._sorted
        return _ranks_of(order, starts, group)

    def weighted_ranks(self, pair_weights: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Mid-ranks when each pair counts `pair_weights` times: the weight below plus half of the tied weight plus ½."""
        order, starts, group = self._sorted
        weight = pair_weights.double()[order]
        tied = torch.zeros(starts.shape[0], dtype=torch.float64).index_add_(0, group, weight)
        ranks = torch.empty_like(weight)
        ranks[order] = (tied.cumsum(0) - tied / 2 + 0.5)[group]
        return ranks

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ascending order, where runs of ties start, and the run of each position: one sort for any number of weightings."""
        order = torch.from_numpy(np.argsort(self.values.numpy()))
        return order, *_tie_groups(self.values[order], self._rounding)

    @property
    def _rounding(self) -> float:
        """How far apart equal dissimilarities come out: a few units in the last place of the largest."""
        return 32 * torch.finfo(self.values.dtype).eps * float(self.values.abs().max()) if self.values.numel() else 0.0

    def pair_weights(self, weights: Float[Tensor, " n"], source: Int[Tensor, " n"] | None = None) -> Float[Tensor, " pairs"]:
        """Products w_i w_j for every pair, 0 where both rows come from one `source`; n² / 2."""
        values = weights.double()
        return torch.cat(
            [values[i] * values[i + 1 :] * (1.0 if source is None else (source[i] != source[i + 1 :])) for i in range(self.n - 1)]
        )


def mid_ranks(values: Float[Tensor, " m"], tolerance: float = 0.0) -> Float[Tensor, " m"]:
    """Ranks from 1 in fp64; values that follow each other within `tolerance` are tied and share the mean of their ranks. One sort."""
    order = torch.from_numpy(np.argsort(values.cpu().numpy()))
    return _ranks_of(order, *_tie_groups(values.cpu()[order], tolerance)).to(values.device)


def _ranks_of(order: Tensor, starts: Tensor, group: Tensor) -> Tensor:
    """Mid-ranks from an ascending order, the starts of its runs of ties, and the run of each position."""
    ends = torch.cat([starts[1:], starts.new_tensor([order.shape[0]])])
    ranks = torch.empty(order.shape[0], dtype=torch.float64)
    ranks[order] = (0.5 * (starts + ends + 1).double())[group]
    return ranks


def _above(n: int) -> Tensor:
    """Where the strict upper triangle of an n × n matrix is."""
    return torch.ones(n, n, dtype=torch.bool).triu_(1)


def _tie_groups(ascending: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Where each run of tied values starts, and the run of every position."""
    first = torch.ones(ascending.shape[0], dtype=torch.bool)
    first[1:] = ascending.diff() > tolerance
    return first.nonzero().squeeze(1), first.cumsum(0) - 1


def _angles(Z: Tensor) -> Tensor:
    """1 − cosine of unit rows, condensed."""
    n = Z.shape[0]
    values, end = Z.new_empty(n * (n - 1) // 2), 0
    for block in row_blocks(n, n, Z.element_size()):
        tile = (1 - Z[block] @ Z[block.start :].T).clamp_(0, 2)
        for i in range(min(block.stop, n - 1) - block.start):
            start, end = end, end + n - 1 - block.start - i
            values[start:end] = tile[i, i + 1 :]
    return values


def _squares(rows: Tensor) -> Tensor:
    """Squared Euclidean distances, condensed: from products of centered rows, and from differences where those cancel."""
    Z, n = rows - rows.mean(0), rows.shape[0]
    values, end = Z.new_empty(n * (n - 1) // 2), 0
    lengths = Z.square().sum(1)
    for block in row_blocks(n, n, Z.element_size()):
        sums = lengths[block].unsqueeze(1) + lengths[block.start :]
        tile = (sums - 2 * Z[block] @ Z[block.start :].T).clamp_(min=0)
        close = (tile <= CANCELLED * sums).nonzero()
        for part in close.split(4096):
            difference = rows[block.start + part[:, 0]] - rows[block.start + part[:, 1]]
            tile[part[:, 0], part[:, 1]] = difference.square().sum(1)
        for i in range(min(block.stop, n - 1) - block.start):
            start, end = end, end + n - 1 - block.start - i
            values[start:end] = tile[i, i + 1 :]
    return values
