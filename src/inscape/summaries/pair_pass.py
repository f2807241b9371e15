"""Cross moments of many pairs of sites over one row set, in one pass: what concerns one site is done once a site, not once a pair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from inscape.arrays import BLOCK_BYTES, row_blocks
from inscape.summaries.blocks import pilot_shift, shifted
from inscape.summaries.cross import CrossMoments, CrossSums, cross_sums, square_lengths
from inscape.summaries.moments import Moments
from inscape.summaries.rows import SiteRows

Pair = tuple[int, int]


class PairPass:
    """Moments of sites and, for any of their pairs, `CrossMoments`.

    Rows in memory are kept shifted, and every pair is one product of them. Rows that are not are read in blocks, each block once for
    all pairs: nothing is held but the sums.

    Args:
        sites: rows by number; all with the same n.
        precise: form products in fp64 whatever the rows are.

    Cost: n d² a site and n p q a pair; memory the rows again, or one block of every site.
    """

    def __init__(self, sites: Mapping[int, SiteRows], *, precise: bool) -> None:
        self.sites = sites
        self.precise = precise
        self.held = all(site.held for site in sites.values())
        self.own: dict[int, Moments] = {}
        self._ready: dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]] = {}
        if self.held:
            self.own = {i: Moments.of(site.all(), precise=precise).spanning(site.whole.d) for i, site in sites.items()}

    def pairs(self, wanted: Iterable[Pair]) -> Iterator[tuple[Pair, CrossMoments]]:
        """The cross moments of these pairs, in their order."""
        if self.held:
            for pair in wanted:
                yield pair, self._of(pair)
        else:
            yield from self._streamed(list(wanted)).items()

    def _dtype(self, *numbers: int) -> torch.dtype:
        return torch.float64 if self.precise or any(self.sites[i].dtype == torch.float64 for i in numbers) else torch.float32

    def _shifted(self, i: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if (i, dtype) not in self._ready:
            Z = shifted(self.sites[i].all(), self.own[i].shift, dtype)
            self._ready[i, dtype] = Z, square_lengths(Z)
        return self._ready[i, dtype]

    def _of(self, pair: Pair) -> CrossMoments:
        x, y = pair
        dtype = self._dtype(x, y)
        (Z, z2), (T, t2) = self._shifted(x, dtype), self._shifted(y, dtype)
        total: CrossSums | None = None
        for block in row_blocks(len(Z), max(Z.shape[1], T.shape[1]), dtype.itemsize):
            part = cross_sums(Z[block], T[block], squares=(z2[block], t2[block]))
            total = part if total is None else total.plus(part)
        assert total is not None
        return CrossMoments.of_sums(self.own[x], self.own[y], total, precise=self.precise)

    def _streamed(self, wanted: list[Pair]) -> dict[Pair, CrossMoments]:
        totals: dict[Pair, CrossSums] = {}
        n = next(iter(self.sites.values())).n
        size = max(256, BLOCK_BYTES // max(site.d * 8 for site in self.sites.values()))
        for start in range(0, n, size):
            block = slice(start, min(n, start + size))
            rows = {i: site.take(block) for i, site in self.sites.items()}
            for i, X in rows.items():
                if i not in self.own:
                    self.own[i] = Moments(shift=pilot_shift(X), precise=self.precise)
                self.own[i].update(X)
            ready: dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]] = {}
            for x, y in wanted:
                dtype = self._dtype(x, y)
                for i in (x, y):
                    if (i, dtype) not in ready:
                        moved = shifted(rows[i], self.own[i].shift, dtype)
                        ready[i, dtype] = moved, square_lengths(moved)
                (Z, z2), (T, t2) = ready[x, dtype], ready[y, dtype]
                part = cross_sums(Z, T, squares=(z2, t2))
                totals[x, y] = totals[x, y].accumulate(part) if (x, y) in totals else part
        return {(x, y): CrossMoments.of_sums(self.own[x], self.own[y], totals[x, y], precise=self.precise) for x, y in wanted}
