"""Nulls of pair measures: the same scores with the rows of one side in another order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from inscape.measures.base import Measure
from inscape.measures.pair_run import Pair, PairRun, injected_pair
from inscape.summaries.cross import CrossMoments
from inscape.summaries.moments import Moments
from inscape.summaries.products import GramProducts
from inscape.summaries.rows import SiteRows
from inscape.summaries.shuffled import CenteredRows, ShuffledCross

# What one entry of a kernel costs in multiply-adds of a product: to be fetched in another order, and to be multiplied with another's.
FETCH, MULTIPLY = 60, 6


def shuffle_products(run: PairRun, measures: Sequence[Measure], observed: dict[Pair, GramProducts]) -> None:
    """The null of kernel-product measures: breaking the pairing changes ⟨K, L⟩ and Σ a_i b_i alone.

    A draw is one product of all left sites with all right sites in another row order, or, where that is cheaper, one fetch of every right
    kernel in that order and one small product of kernels.
    """
    if not observed:
        return
    lefts, rights = sorted({x for x, _ in observed}), sorted({y for _, y in observed})
    centered = {i: _centered(run.sites[i]) for i in {*lefts, *rights}}
    norms = {i: rows.square().sum(1) for i, rows in centered.items()}
    inner = _shuffled_kernels(centered, lefts, rights, run) or _shuffled_rows(centered, lefts, rights)
    for order in run.draws(list(observed), measures):
        index = torch.from_numpy(order)
        table = inner(index)
        moved = {y: norms[y][index] for y in rights}
        for (x, y), whole in observed.items():
            xy = float(table[lefts.index(x), rights.index(y)])
            broken = replace(whole, xy=xy, dot_xy=float(norms[x] @ moved[y]))
            for one in measures:
                run.shuffled((x, y), one, lambda one=one, broken=broken: one.evaluate(**injected_pair(one, broken)))


def _shuffled_rows(centered: dict[int, Tensor], lefts: list[int], rights: list[int]) -> Callable[[Tensor], Tensor]:
    """⟨K, L⟩ of all pairs for a row order, as ‖XᵀY‖² of all units of one side with all of the other; n Σp Σq."""
    X, Y = (torch.cat([centered[i] for i in side], 1) for side in (lefts, rights))
    cut_x, cut_y = ([centered[i].shape[1] for i in side] for side in (lefts, rights))

    def inner(order: Tensor) -> Tensor:
        squares = (X.T @ Y[order]).square_()
        rows = torch.stack([part.sum(0) for part in squares.split(cut_x, 0)])
        return torch.stack([part.sum(1) for part in rows.split(cut_y, 1)], 1)

    return inner


def _shuffled_kernels(centered: dict[int, Tensor], lefts: list[int], rights: list[int], run: PairRun) -> Callable[[Tensor], Tensor] | None:
    """The same by fetching entries of n × n kernels; None where these do not fit or would be slower."""
    n = run.sites[0].n
    units = sum(centered[i].shape[1] for i in lefts) * sum(centered[i].shape[1] for i in rights)
    fetched, multiplied = FETCH * len(rights), MULTIPLY * len(lefts) * len(rights)
    if 8 * n * n * (len(lefts) + 2 * len(rights)) > run.budget // 2 or n * n * (fetched + multiplied) > n * units:
        return None
    X = torch.stack([(centered[x] @ centered[x].T).flatten() for x in lefts])
    kernels = [(centered[y] @ centered[y].T).numpy() for y in rights]

    def inner(order: Tensor) -> Tensor:
        rows = order.numpy()
        moved = [np.take(np.take(kernel, rows, 0), rows, 1).ravel() for kernel in kernels]  # twice as fast as torch's indexing
        return X @ torch.from_numpy(np.stack(moved)).T

    return inner


def shuffle_cross(run: PairRun, pairs: Sequence[Pair], measures: Sequence[Measure], own: dict[int, Moments]) -> None:
    """The null of measures of cross moments: a draw is one product of a left site with a right one in another row order."""
    whole = any(cls is GramProducts for one in measures for cls, _ in one.needs.values())  # these need the mixed fourth moments too
    used = {i for pair in pairs for i in pair}
    sides = {i: CenteredRows(_centered(run.sites[i]), own[i]) for i in used}
    for order in run.draws(pairs, measures):
        index = torch.from_numpy(order)
        moved = {y: sides[y].shuffled(index) for y in {y for _, y in pairs}}
        for x, y in pairs:
            pair = (
                CrossMoments.of(run.sites[x].all(), run.sites[y].all()[index], x=own[x], y=own[y])
                if whole
                else ShuffledCross(sides[x], moved[y])
            )
            for one in measures:
                run.shuffled((x, y), one, lambda one=one, pair=pair, x=x, y=y, index=index: _broken(run, one, pair, x, y, index))


def _broken(run: PairRun, one: Measure, pair: CrossMoments, x: int, y: int, order: Tensor) -> float:
    """One score of a broken pair; the rows are only read by a measure that has to factor them."""
    summaries = injected_pair(one, pair)
    if one.rows is None or not one.rows.when(**summaries):
        return float(one.evaluate(**summaries))
    return float(one.settle(summaries, (run.sites[x].whole.all(), run.sites[y].whole.all()[order])))


def _centered(site: SiteRows) -> Tensor:
    rows = site.all().double()
    return rows - rows.mean(0)
