"""The values of pair measures: kernel tiles, cross moments or row-set summaries, with each group left out and each pairing broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.arrays import row_blocks
from inscape.errors import InscapeError
from inscape.measures.base import Measure
from inscape.measures.pair_run import Pair, PairRun, injected_pair
from inscape.measures.pair_shuffles import shuffle_cross, shuffle_products
from inscape.summaries.blocks import gram, needs_double
from inscape.summaries.cross import CrossMoments
from inscape.summaries.moments import Moments
from inscape.summaries.pair_pass import PairPass
from inscape.summaries.plan import require_fit, site_blocks
from inscape.summaries.products import GramProducts
from inscape.summaries.rows import SiteRows
from inscape.summaries.site import SiteSummaries, needed_of, shared_needs
from inscape.summaries.tiles import KernelTiles


def run_tiles(run: PairRun, measures: Sequence[Measure]) -> None:
    """Measures of kernel products, by kernel tiles over all sites at once."""
    groups = run.groups if run.groups is not None else np.zeros(run.sites[0].n, dtype=np.int64)
    tiles = KernelTiles(run.sites, groups, budget=run.budget)

    def products(pair: Pair, group: int | None) -> GramProducts:
        return tiles.products(*pair, without=group)

    for pair in run.pairs:
        for one in measures:
            run.point(pair, one, lambda one=one, pair=pair: one.evaluate(**injected_pair(one, products(pair, None))))
            for group in range(run.count):
                run.without(pair, one, lambda one=one, pair=pair, group=group: one.evaluate(**injected_pair(one, products(pair, group))))
    shuffle_products(run, measures, {pair: products(pair, None) for pair in run.null_pairs()})


def run_scatters(run: PairRun, measures: Sequence[Measure]) -> None:
    """Kernel products of rows that are centered once: nothing but one scatter a pair, where no group has to be left out."""
    used = sorted({index for pair in run.pairs for index in pair})
    centered = {i: _around_mean(run.sites[i].all()) for i in used}
    norms = {i: rows.square().sum(1).double() for i, rows in centered.items()}
    own = {i: _square_of_product(centered[i], centered[i]) for i in used}
    observed: dict[Pair, GramProducts] = {}
    for x, y in run.pairs:
        a, b = norms[x], norms[y]
        xy = own[x] if x == y else _square_of_product(centered[x], centered[y])
        sums = (float(a @ b), float(a @ a), float(b @ b), float(a.sum()), float(b.sum()))
        observed[x, y] = GramProducts(run.sites[x].n, xy, own[x], own[y], *sums)
        for one in measures:
            run.point((x, y), one, lambda one=one, pair=(x, y): one.evaluate(**injected_pair(one, observed[pair])))
    shuffle_products(run, measures, {pair: observed[pair] for pair in run.null_pairs()})


def _square_of_product(X: Tensor, Y: Tensor) -> float:
    """‖XᵀY‖², blocks of rows multiplied in the rows' precision and added in fp64."""
    total: Tensor | None = None
    dtype = torch.promote_types(X.dtype, Y.dtype)
    for block in row_blocks(X.shape[0], max(X.shape[1], Y.shape[1]), dtype.itemsize):
        part = gram(X[block]) if X is Y else X[block].to(dtype).T @ Y[block].to(dtype)
        total = part if total is None else total.double() + part
    assert total is not None
    return float(total.square().sum(dtype=torch.float64))


def _around_mean(rows: Tensor) -> Tensor:
    """Centered rows in their own dtype; from the first row, so that equal rows come out as exact zeros."""
    moved = rows - rows[0]
    return moved.sub_(moved.mean(0))


def run_moments(run: PairRun, measures: Sequence[Measure]) -> None:
    """Measures of cross moments (and of kernel products), block of sites by block of sites."""
    kernels = all({cls for cls, _ in one.needs.values()} == {GramProducts} for one in measures)
    if kernels and not run.count and 2 * sum(site.nbytes for site in run.sites) <= run.budget:
        run_scatters(run, measures)
        return
    wide = any(site.d > site.n for site in run.sites)
    turned = [one for one in measures if wide and one.turns]
    for part, some in ((run.in_spans() if turned else run, turned), (run, [one for one in measures if one not in turned])):
        if some:
            for pairs in _pair_blocks(part, [8 * site.d**2 for site in part.sites], cross=True):
                _moment_block(part, pairs, some)


def _moment_block(run: PairRun, pairs: Sequence[Pair], measures: Sequence[Measure]) -> None:
    used = sorted({index for pair in pairs for index in pair})
    # Products of kernels weigh every direction by its variance: small ones, which fp32 products lose, do not count in them.
    spectral = any(cls is CrossMoments for one in measures for cls, _ in one.needs.values())
    precise = spectral and any(needs_double(run.sites[i].take(slice(0, min(1024, run.sites[i].n)))) for i in used)
    whole: dict[Pair, CrossMoments] = {}
    observed: dict[Pair, GramProducts] = {}
    passed = PairPass({i: run.sites[i] for i in used}, precise=precise)
    for pair, cross in passed.pairs(pairs):
        rows = _rows(run, pair)
        for one in measures:
            run.point(pair, one, lambda one=one, cross=cross, rows=rows: one.settle(injected_pair(one, cross), rows))
        if run.count:
            whole[pair] = cross
        if run.orders:
            observed[pair] = cross.products()
    own = passed.own
    for group in range(run.count):
        assert run.groups is not None
        inside = np.flatnonzero(run.groups == group)
        kept = np.flatnonzero(run.groups != group)
        parts = {i: _moments(run.sites[i].take(inside), precise, own[i].shift) for i in used}
        rest = {i: own[i].minus(parts[i]) for i in used}
        for pair in pairs:
            x, y = pair
            X, Y = run.sites[x].take(inside), run.sites[y].take(inside)
            part = CrossMoments.of(X, Y, x=parts[x], y=parts[y], precise=precise)
            left = whole[pair].minus(part, x=rest[x], y=rest[y])
            for one in measures:
                rows = _rows(run, pair, kept) if one.rows is not None else None
                run.without(pair, one, lambda one=one, left=left, rows=rows: one.settle(injected_pair(one, left), rows))
    wanted = [pair for pair in run.null_pairs() if pair in set(pairs)]
    kernels = [one for one in measures if {cls for cls, _ in one.needs.values()} == {GramProducts}]
    shuffle_products(run, kernels, {pair: observed[pair] for pair in wanted} if kernels else {})
    others = [one for one in measures if one not in kernels]
    if wanted and others:
        shuffle_cross(run, wanted, others, own)


def _rows(run: PairRun, pair: Pair, kept: np.ndarray | None = None) -> tuple[Tensor, Tensor] | None:
    """The rows of both sites, for measures that may want to factor them; None where reading them would break the budget."""
    X, Y = (run.sites[i].whole for i in pair)
    if not (X.held and Y.held) and 2 * (X.nbytes + Y.nbytes) > run.budget:
        return None
    return (X.all(), Y.all()) if kept is None else (X.take(kept), Y.take(kept))


def run_weighted(run: PairRun, measures: Sequence[Measure], weights: np.ndarray, sources: np.ndarray) -> None:
    """Bootstrap values of the measures that have a weighted form; the others say why they have none."""
    source = torch.from_numpy(np.unique(sources, return_inverse=True)[1])
    draws = torch.from_numpy(weights)
    require_fit(8 * 8 * run.sites[0].n ** 2, run.budget, "the bootstrap of one pair", "use interval='jackknife', or a sample: sample=2000")
    for pair in run.pairs:
        for one in measures:
            entry = run.score(pair, one)
            if entry.error is not None:
                continue
            if one.weighted is None:
                entry.left_out_error = (
                    f"{one.label} is biased under a bootstrap, whose copies of a row pair with themselves; use interval='jackknife'"
                )
                continue
            entry.draws = one.weighted(run.sites[pair[0]].all(), run.sites[pair[1]].all(), draws, source).tolist()


def run_row_sets(run: PairRun, measures: Sequence[Measure], sizes: Callable[[SiteRows], int]) -> None:
    """Measures of two summaries, one per site: neighbor graphs, dissimilarities, or one-sided moments."""
    needed, keys = shared_needs(need for one in measures for need in one.needs.values())
    served = iter(keys)
    bound = {one.label: {name: next(served) for name in one.needs} for one in measures}

    def injected(one: Measure, x: Mapping[Any, Any], y: Mapping[Any, Any]) -> dict[str, Any]:
        keys, needs = bound[one.label], one.needs
        first = needed_of(x, {name: key for name, key in keys.items() if name != "y"}, needs)
        return first | needed_of(y, {name: key for name, key in keys.items() if name == "y"}, needs)

    for pairs in _pair_blocks(run, [sizes(site) for site in run.sites], cross=False):
        used = sorted({index for pair in pairs for index in pair})
        built: dict[int, SiteSummaries] = {}
        failed: dict[int, InscapeError] = {}
        for index in used:
            try:
                built[index] = SiteSummaries(run.sites[index], needed, groups=run.groups, budget=run.budget // (4 * len(used)))
            except InscapeError as error:
                failed[index] = error
        good: list[Pair] = []
        for pair in pairs:
            errors = [failed[i] for i in pair if i in failed]
            if errors:
                for one in measures:
                    run.score(pair, one).error = type(errors[0])(f"{one.label}: {errors[0]}")
                continue
            good.append(pair)
            for one in measures:
                full = (built[pair[0]].full, built[pair[1]].full)
                run.point(pair, one, lambda one=one, full=full: one.evaluate(**injected(one, *full)))
        for group in range(run.count):
            reduced = {i: built[i].without(group) for i in built}
            for pair in good:
                for one in measures:
                    left = (reduced[pair[0]], reduced[pair[1]])
                    run.without(pair, one, lambda one=one, left=left: one.evaluate(**injected(one, *left)))
        wanted = [pair for pair in run.null_pairs() if pair in set(good)]
        for order in run.draws(wanted, measures) if wanted else ():
            moved = {y: {key: _reordered(s, order) for key, s in built[y].full.items()} for y in sorted({p[1] for p in wanted})}
            for pair in wanted:
                for one in measures:
                    broken = (built[pair[0]].full, moved[pair[1]])
                    run.shuffled(pair, one, lambda one=one, broken=broken: one.evaluate(**injected(one, *broken)))


def _reordered(summary: Any, order: np.ndarray) -> Any:
    """The summary with its rows in another order; sums over rows do not notice."""
    return summary if isinstance(summary, InscapeError) or summary.additive else summary.take(order)


def _moments(X: Tensor, precise: bool, shift: Tensor | None = None) -> Moments:
    # `update`, not `of`: a group smaller than the width must not fall back to its own n × n side.
    return Moments(shift=shift, precise=precise).update(X)


def _pair_blocks(run: PairRun, sizes: Sequence[int], *, cross: bool) -> list[list[Pair]]:
    """Cuts the pairs into blocks whose summaries fit into half of the budget; every block is exact, later blocks read rows again."""
    budget = run.budget // 2
    for index, size in enumerate(sizes):
        require_fit(
            2 * size, run.budget, f"one pair with site {run.sites[index].name}", "allow more memory, or compare a sample: sample=2000"
        )
    total = sum(sizes[i] for i in {index for pair in run.pairs for index in pair})
    total += sum(8 * run.sites[x].d * run.sites[y].d for x, y in run.pairs) if cross else 0
    if total <= budget:
        return [run.pairs]
    if cross:
        # b sites against b others hold b² cross scatters beside 2b of their own.
        largest = max(sizes)
        length = max(1, int((budget / largest + 1) ** 0.5) - 1)
        left = [list(range(start, min(start + length, len(sizes)))) for start in range(0, len(sizes), length)]
    else:
        left = site_blocks(sizes, budget // 2)
    blocks: list[list[Pair]] = []
    for first in left:
        for second in left:
            inside = [pair for pair in run.pairs if pair[0] in set(first) and pair[1] in set(second)]
            if inside:
                blocks.append(inside)
    return blocks
