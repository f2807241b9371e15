"""Kernel tiles: inner products of the linear kernels of many sites, without a d × d matrix or an n × n matrix in memory.

For S sites and n rows the Frobenius products <K_s, K_t> of all pairs cost n²(Σd + S²/2) multiply-adds here, against n(Σd)² through
cross moments: the better route when n < Σd. Tiles are cut along jackknife groups, so the products without any one group follow from
a few sums and no second pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inscape.summaries.products import GramProducts
from inscape.summaries.rows import SiteRows

ROWS = 512  # rows of a tile: large enough for BLAS, S tiles of it small enough to stay out of the way


class KernelTiles:
    """Products of the centered linear kernels of S sites over one row set, for all rows and without each group.

    With K_s = (X_s − m_s)(X_s − m_s)ᵀ for a fixed shift m_s (the mean), the tiles give P = Σ_ij K_s,ij K_t,ij by pair of groups, the
    row sums of K_s by group, and its diagonal. Centering over any union of groups is then exact:
    ⟨HKH, HLH⟩ = P − (2/n) Σ_i r_i^K r_i^L + (Σ r^K)(Σ r^L)/n².

    Args:
        sites: rows of every site; all with the same n.
        groups: group of every row, shape [n], numbered from 0.
        budget: bytes that rows and tiles may take.

    Cost: n²(Σd + S²/2) multiply-adds using symmetry; memory S·(n·G + G·S) numbers beside the rows in flight.
    """

    def __init__(self, sites: Sequence[SiteRows], groups: np.ndarray, *, budget: int) -> None:
        self.n = sites[0].n
        self.groups = groups
        self.count = int(groups.max()) + 1
        size = len(sites)
        self._order = np.argsort(groups, kind="stable")
        sorted_groups = groups[self._order]
        self._bounds = np.searchsorted(sorted_groups, np.arange(self.count + 1))
        self._diagonal = torch.zeros(size, self.n, dtype=torch.float64)
        self._row_sums = torch.zeros(size, self.n, self.count, dtype=torch.float64)
        self._products = torch.zeros(self.count, size, size, dtype=torch.float64)  # Σ_h P[g, h]
        self._within = torch.zeros(self.count, size, size, dtype=torch.float64)  # P[g, g]
        self._accumulate(sites, sorted_groups, budget)
        self._left_out: dict[int | None, tuple[int, Tensor, Tensor, Tensor]] = {}

    def products(self, x: int, y: int, *, without: int | None = None) -> GramProducts:
        """The products of sites number `x` and `y`, over all rows or without one group."""
        n, inner, dots, traces = self._summed(without)
        return GramProducts(
            n=n,
            xy=float(inner[x, y]),
            xx=float(inner[x, x]),
            yy=float(inner[y, y]),
            dot_xy=float(dots[x, y]),
            dot_xx=float(dots[x, x]),
            dot_yy=float(dots[y, y]),
            trace_x=float(traces[x]),
            trace_y=float(traces[y]),
        )

    def _summed(self, without: int | None) -> tuple[int, Tensor, Tensor, Tensor]:
        if without not in self._left_out:
            keep = torch.ones(self.n, dtype=torch.bool)
            inner = self._products.sum(0)
            rows = self._row_sums.sum(2)
            if without is not None:
                start, stop = self._bounds[without], self._bounds[without + 1]
                keep[start:stop] = False
                inner = inner - 2 * self._products[without] + self._within[without]
                rows = rows - self._row_sums[:, :, without]
            n = int(keep.sum())
            rows, diagonal = rows[:, keep], self._diagonal[:, keep]
            totals = rows.sum(1)
            inner = inner - (2 / n) * (rows @ rows.T) + torch.outer(totals, totals) / n**2
            norms = diagonal - (2 / n) * rows + (totals / n**2)[:, None]
            self._left_out[without] = (n, inner, norms @ norms.T, norms.sum(1))
        return self._left_out[without]

    def _accumulate(self, sites: Sequence[SiteRows], sorted_groups: np.ndarray, budget: int) -> None:
        shifts = [_mean(site) for site in sites]
        blocks = self._blocks()
        row_bytes = sum(site.d * site.dtype.itemsize for site in sites)
        # Two super-blocks of rows are in flight; the rest is for tiles, sums, and the pages of the store that stay mapped.
        per_super = max(1, int(budget * 0.2 / row_bytes) // ROWS)
        supers = [blocks[i : i + per_super] for i in range(0, len(blocks), per_super)]
        for first in range(len(supers)):
            left = self._load(sites, shifts, supers[first])
            for second in range(first, len(supers)):
                right = left if second == first else self._load(sites, shifts, supers[second])
                for i, rows in enumerate(supers[first]):
                    for j, columns in enumerate(supers[second]):
                        if second == first and j < i:
                            continue
                        self._tile(left[i], right[j], rows, columns, sorted_groups)

    def _blocks(self) -> list[tuple[int, int]]:
        """Ranges of sorted rows, whole groups where these are small, each at most `ROWS` long."""
        cuts, start = [], 0
        for group in range(self.count):
            low, high = int(self._bounds[group]), int(self._bounds[group + 1])
            if high - start > ROWS and low > start:
                cuts.append((start, low))
                start = low
            while high - start > ROWS:
                cuts.append((start, start + ROWS))
                start += ROWS
        if start < self.n:
            cuts.append((start, self.n))
        return cuts

    def _load(self, sites: Sequence[SiteRows], shifts: list[Tensor], blocks: list[tuple[int, int]]) -> list[list[Tensor]]:
        start, stop = blocks[0][0], blocks[-1][1]
        rows = self._order[start:stop]
        loaded = [site.take(rows) - shift for site, shift in zip(sites, shifts, strict=True)]
        return [[tensor[low - start : high - start] for tensor in loaded] for low, high in blocks]

    def _tile(
        self, left: list[Tensor], right: list[Tensor], rows: tuple[int, int], columns: tuple[int, int], sorted_groups: np.ndarray
    ) -> None:
        mirrored = rows != columns
        dtype = torch.float64 if any(t.dtype == torch.float64 for t in left) else torch.float32
        kernel = torch.empty(len(left), rows[1] - rows[0], columns[1] - columns[0], dtype=dtype)
        for s, (x, y) in enumerate(zip(left, right, strict=True)):
            torch.mm(x, y.T, out=kernel[s]) if x.dtype == dtype else kernel[s].copy_(x @ y.T)
        if not mirrored:
            self._diagonal[:, rows[0] : rows[1]] = kernel.diagonal(dim1=1, dim2=2).double()
        for g, low, high in _runs(sorted_groups, rows):
            for h, first, last in _runs(sorted_groups, columns):
                part = kernel[:, low - rows[0] : high - rows[0], first - columns[0] : last - columns[0]]
                flat = part.reshape(len(left), -1)
                product = (flat @ flat.T).double()
                self._products[g] += product
                self._row_sums[:, low:high, h] += part.sum(2, dtype=torch.float64)
                if g == h:
                    self._within[g] += product
                if mirrored:
                    self._products[h] += product
                    self._row_sums[:, first:last, g] += part.sum(1, dtype=torch.float64)
                    if g == h:
                        self._within[g] += product


def _runs(sorted_groups: np.ndarray, span: tuple[int, int]) -> list[tuple[int, int, int]]:
    """(group, start, stop) of each run of equal groups within a range of sorted rows."""
    inside = sorted_groups[span[0] : span[1]]
    cuts = np.flatnonzero(np.diff(inside)) + 1
    starts = np.concatenate([[0], cuts]) + span[0]
    stops = np.concatenate([cuts, [len(inside)]]) + span[0]
    return [(int(sorted_groups[a]), int(a), int(b)) for a, b in zip(starts, stops, strict=True)]


def _mean(site: SiteRows) -> Tensor:
    """The mean row, accumulated in fp64 in blocks, in the site's own compute dtype."""
    total = torch.zeros(site.d, dtype=torch.float64)
    step = max(1, 2**24 // (site.d * site.dtype.itemsize))
    for start in range(0, site.n, step):
        total += site.take(slice(start, min(site.n, start + step))).sum(0, dtype=torch.float64)
    return (total / site.n).to(site.dtype)
