"""Exact nearest neighbors of every row, found once and shared by all measures that ask for them."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from inscape.arrays import as_rows, as_tensor, compute_dtype, row_blocks
from inscape.errors import DegenerateInputError, TooFewStimuliError, nearest
from inscape.summaries.base import Summary
from inscape.summaries.blocks import column_sums, unit_rows
from inscape.summaries.near_pairs import BLOCK, near_pairs

NEIGHBOR_METRICS = ("euclidean", "cosine")

# Scores held at a time: they stay near the caches.
TILE_BYTES = 16 * 2**20
# Gathered candidate rows held at a time: three passes over them stay in the second cache.
CLOSE_BYTES = 2**20


class Neighbors(Summary):
    """The k nearest other rows of each row, with their distances, ascending; equal distances are in order of row number.

    Candidates come from blocked GEMMs in the precision of the input after centering and are ranked again by distances from differences, so
    neither a common offset nor cancellation costs a neighbor. A row whose last neighbor could have been missed is searched again with more
    candidates until it cannot. A row is never its own neighbor, duplicates of it are, at distance 0.

    Metrics: `euclidean` ‖a − b‖; `cosine` 1 − cos, after centering only if `center`.

    Cost: n² d / 2 multiplications (queries × n × d with `queries`), 16 (k + slack) bytes a row; no n×n matrix.

    Example:
        >>> graph = Neighbors.of(X, k=20)           # [n, d]
        >>> graph.ids.shape, graph.distances.shape  # (n, 20), (n, 20)
    """

    additive: ClassVar[bool] = False

    def __init__(self, found: _Found, k: int, slack: int, points: _Points, queries: Tensor | None) -> None:
        self.k = k
        self.slack = slack
        self.queries = queries
        self._found = found
        self._points = points

    @classmethod
    def of(
        cls,
        X: Any,
        k: int,
        metric: str = "euclidean",
        *,
        center: bool = True,
        slack: int = 8,
        queries: Int[Tensor, " q"] | np.ndarray | None = None,
    ) -> Neighbors:
        """The neighbors of rows X [n, d].

        Args:
            X: array, tensor or view, [n, d].
            k: neighbors of each row.
            metric: "euclidean" or "cosine".
            center: subtract the mean row first; changes no Euclidean distance, but what a cosine means.
            slack: further neighbors kept, so that rows can be dropped without a new search.
            queries: row numbers whose neighbors (among all rows) are wanted; all rows by default.

        Raises:
            TooFewStimuliError: there are not more than k rows.
            DegenerateInputError: a row is zero (cosine), the rows hold NaN or infinity, or the metric is unknown.
        """
        if k < 1:
            raise DegenerateInputError(f"k must be at least 1, got {k}")
        rows = as_rows(X)
        if rows.shape[0] <= k:
            raise TooFewStimuliError(f"{k} neighbors need at least {k + 1} rows, got X of shape {tuple(rows.shape)}; use a smaller k")
        if metric not in NEIGHBOR_METRICS:
            raise DegenerateInputError(f"unknown metric {metric!r}; nearest: {nearest(metric, NEIGHBOR_METRICS)}")
        points = _Points(rows, metric, center)
        chosen = None if queries is None else as_tensor(queries).long().to(rows.device)
        asked = torch.arange(rows.shape[0], device=rows.device) if chosen is None else chosen
        return cls(points.search(asked, k, slack), k, slack, points, chosen)

    @property
    def n(self) -> int:
        """Number of rows among which neighbors are sought."""
        return self._points.rows.shape[0]

    @property
    def d(self) -> int:
        """Number of units."""
        return self._points.rows.shape[1]

    @property
    def metric(self) -> str:
        """The metric, "euclidean" or "cosine"."""
        return self._points.metric

    @property
    def ids(self) -> Int[Tensor, "q k"]:
        """Row numbers of the neighbors, nearest first."""
        return self._found.ids[:, : self.k]

    @property
    def distances(self) -> Float[Tensor, "q k"]:
        """Distances to the neighbors in fp64, ascending."""
        return self._found.distances[:, : self.k]

    @cached_property
    def duplicates(self) -> int:
        """Rows whose nearest neighbor is at distance 0."""
        return int((self._found.distances[:, 0] == 0).sum())

    @property
    def nbytes(self) -> int:
        """Bytes of ids and distances, not of the rows, which belong to the caller."""
        return 16 * self._found.ids.nelement()

    def drop(self, mask: Bool[Tensor, " n"] | np.ndarray) -> Neighbors:
        """The neighbors among the rows where `mask` is False, renumbered: exact, from the slack where it suffices, else searched again.

        Raises:
            TooFewStimuliError: not more than k rows stay.
        """
        dropped = as_tensor(mask).bool().to(self._found.ids.device)
        if dropped.shape != (self.n,):
            raise DegenerateInputError(f"the mask has shape {tuple(dropped.shape)}; expected [{self.n}], True for rows to drop")
        stay = (~dropped).nonzero().squeeze(1)
        if stay.shape[0] <= self.k:
            raise TooFewStimuliError(f"{self.k} neighbors need at least {self.k + 1} rows, only {stay.shape[0]} of {self.n} stay")
        asked = torch.arange(self.n, device=stay.device) if self.queries is None else self.queries
        kept = ~dropped[asked]
        number = torch.cumsum(~dropped, 0) - 1  # new row numbers
        queries = None if self.queries is None else number[asked[kept]]
        points = self._points.subset(stay)
        if points.moved:  # a cosine about the mean: the mean is another one now
            everyone = torch.arange(stay.shape[0], device=stay.device) if queries is None else queries
            return Neighbors(points.search(everyone, self.k, self.slack), self.k, self.slack, points, queries)
        found = self._found.rows(kept).without(dropped)
        found = _Found(number[found.ids], found.distances, found.certain)
        short = (found.certain < self.k).nonzero().squeeze(1)
        if short.numel():
            everyone = number[asked[kept]]
            found.replace(short, points.search(everyone[short], self.k, self.slack))
        return Neighbors(found, self.k, self.slack, points, queries)

    def relabel(self, perm: Int[Tensor, " n"] | np.ndarray) -> Neighbors:
        """The neighbors of the rows X[perm]: row i is the former row perm[i]. n (k + slack) gathers, no search.

        Raises:
            DegenerateInputError: perm is no permutation of the rows, or the graph holds only some queries.
        """
        order = as_tensor(perm).long().to(self._found.ids.device)
        if self.queries is not None:
            raise DegenerateInputError("a graph of some queries cannot be relabeled; build it for all rows")
        if not torch.equal(order.sort().values, torch.arange(self.n, device=order.device)):
            raise DegenerateInputError(f"perm (shape {tuple(order.shape)}) must hold every row number 0 … {self.n - 1} once")
        renamed = torch.empty_like(order)
        renamed[order] = torch.arange(self.n, device=order.device)
        found = self._found.rows(order)
        found = _Found(renamed[found.ids], found.distances, found.certain)
        return Neighbors(found, self.k, self.slack, self._points.subset(order), None)

    def take(self, idx: Int[Tensor, " n"] | np.ndarray) -> Neighbors:
        """The same as `relabel`: neighbors change when rows leave, so idx must be a permutation (`drop` leaves rows out)."""
        return self.relabel(idx)


class _Found:
    """Neighbors of some rows: ids and distances [q, c], ascending, and how many leading columns are certain, [q]."""

    def __init__(self, ids: Tensor, distances: Tensor, certain: Tensor) -> None:
        self.ids = ids
        self.distances = distances
        self.certain = certain

    def rows(self, which: Tensor) -> _Found:
        return _Found(self.ids[which], self.distances[which], self.certain[which])

    def without(self, dropped: Tensor) -> _Found:
        """Moves certain neighbors that stay to the front, in order."""
        columns = torch.arange(self.ids.shape[1], device=self.ids.device)
        stays = ~dropped[self.ids] & (columns < self.certain.unsqueeze(1))
        order = torch.argsort((~stays).to(torch.int8), dim=1, stable=True)
        return _Found(self.ids.gather(1, order), self.distances.gather(1, order), stays.sum(1))

    def replace(self, which: Tensor, found: _Found) -> None:
        """Puts rows that were searched again in place of `which`; only their common columns are kept."""
        width = min(self.ids.shape[1], found.ids.shape[1])
        self.ids, self.distances = self.ids[:, :width].clone(), self.distances[:, :width].clone()
        self.ids[which], self.distances[which] = found.ids[:, :width], found.distances[:, :width]
        self.certain = self.certain.clamp(max=width)
        self.certain[which] = found.certain.clamp(max=width)


def _joined(parts: list[_Found]) -> _Found:
    return _Found(*(torch.cat([getattr(part, name) for part in parts]) for name in ("ids", "distances", "certain")))


class _Points:
    """Rows made ready for GEMM distances: centered for euclidean, on the unit sphere for cosine (1 − cos is half a squared distance)."""

    def __init__(self, rows: Tensor, metric: str, center: bool) -> None:
        self.rows = rows
        self.metric = metric
        self.center = center

    @cached_property
    def ready(self) -> Tensor:
        dtype = compute_dtype(self.rows.dtype)
        if self.metric == "euclidean":
            center = column_sums(self.rows) / len(self.rows)
            return self.rows.to(dtype) - center.to(dtype)
        wide = self.rows.double()
        return unit_rows(wide - wide.mean(0) if self.center else wide, self.rows, "cosine neighbors need rows that are not zero").to(dtype)

    @property
    def exact(self) -> Tensor:
        """The rows whose differences are distances: the given ones for euclidean, since centering would round them."""
        return self.rows.to(compute_dtype(self.rows.dtype)) if self.metric == "euclidean" else self.ready

    @cached_property
    def half(self) -> Tensor:
        """Half of the squared length of each row."""
        return torch.cat([self.ready[block].square().sum(1) / 2 for block in row_blocks(*self.ready.shape)])

    @property
    def moved(self) -> bool:
        """Whether leaving out rows changes the distances between the others."""
        return self.metric == "cosine" and self.center

    def subset(self, which: Tensor) -> _Points:
        points = _Points(self.rows[which], self.metric, self.center)
        if not self.moved:  # the old center serves as well
            vars(points)["ready"] = self.ready[which]
        return points

    def search(self, asked: Tensor, k: int, slack: int) -> _Found:
        """The k + slack nearest rows of each row in `asked`, the first k of them certain."""
        n = self.rows.shape[0]
        width = min(k + slack, n - 1)
        everyone = asked.shape[0] == n and bool((asked == torch.arange(n, device=asked.device)).all())
        if everyone and n > 2 * BLOCK and self.rows.device.type == "cpu":
            found = self._symmetric(width)
        else:
            found = self._candidates(asked, width, width)
        wanted, count = min(k, n - 1), width
        while count < n - 1:
            short = (found.certain < wanted).nonzero().squeeze(1)
            if not short.numel():
                break
            count = min(4 * count, n - 1)
            found.replace(short, self._candidates(asked[short], count, width))
        return found

    def _candidates(self, asked: Tensor, count: int, width: int) -> _Found:
        """Ranks `count` candidates of each asked row by distances from differences and keeps `width`."""
        Z, half, n = self.ready, self.half, self.rows.shape[0]
        size = max(16, min(1024, TILE_BYTES // (n * Z.element_size())))
        parts: list[_Found] = []
        for block in asked.split(size):
            scores = torch.addmm(-half, Z[block], Z.T)  # x·y − ‖y‖²/2 orders the rows y as their distance to x does
            scores.scatter_(1, block.unsqueeze(1), -torch.inf)
            top, ids = scores.topk(count, dim=1)
            parts.append(self._ranked(block, ids, 2 * (half[block].double() - top[:, -1].double()), width))
        return _joined(parts)

    def _symmetric(self, width: int) -> _Found:
        """The same for all rows at once, each pair of row blocks multiplied once."""
        ids, nearest = near_pairs(self.ready, self.half, width)
        blocks = torch.arange(len(ids)).split(BLOCK)
        return _joined([self._ranked(block, ids[block], 2 * nearest[block, -1].double(), width) for block in blocks])

    def _ranked(self, block: Tensor, ids: Tensor, beyond: Tensor, width: int) -> _Found:
        """Candidates [b, count] of a block's rows in exact order, of which `width` stay; other rows lie `beyond` (squared) or farther."""
        Z, half, count = self.ready, self.half, ids.shape[1]
        ids = ids.sort(dim=1).values
        lengths, nearer = self._lengths(block, ids).sort(dim=1, stable=True)  # ids ascend, so ties stay in order of row number
        ids = ids.gather(1, nearer)
        certain = torch.full_like(block, count)
        if count < Z.shape[0] - 1:
            # Rows outside the candidates score at most the lowest candidate, up to the GEMM's rounding among rows as near as that.
            own = 2 * half[block].double()
            rounding = torch.finfo(Z.dtype).eps * Z.shape[1] ** 0.5 * (own.sqrt() + beyond.clamp(min=0).sqrt()).square()
            certain = (lengths.square() < (beyond - rounding).unsqueeze(1)).sum(1)
        lengths = lengths[:, :width]
        distances = lengths.square() / 2 if self.metric == "cosine" else lengths.clone()
        return _Found(ids[:, :width].clone(), distances, certain.clamp(max=width))

    def _lengths(self, block: Tensor, ids: Tensor) -> Tensor:
        """Distances of the block's rows to their candidates, from differences."""
        Z = self.exact
        size = max(1, CLOSE_BYTES // (ids.shape[1] * Z.shape[1] * Z.element_size()))
        parts: list[Tensor] = []
        for rows, others in zip(block.split(size), ids.split(size), strict=True):
            near = Z.index_select(0, others.reshape(-1)).view(*others.shape, Z.shape[1])
            parts.append(torch.linalg.vector_norm(near.sub_(Z[rows].unsqueeze(1)), dim=2).double())
        return torch.cat(parts)
