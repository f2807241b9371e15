"""The values of pair measures that need the rows of both sites at once: folds of a regression, batches, and whatever else asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.errors import InscapeError
from inscape.measures.base import Measure
from inscape.measures.pair_run import PairRun
from inscape.summaries.cross_folds import CrossFolds, FoldRows, deal
from inscape.summaries.folds import FoldMoments
from inscape.summaries.rows import in_span
from inscape.summaries.site import shared_needs


def run_rows(run: PairRun, measures: Sequence[Measure]) -> None:
    """Measures of a summary that is built from the rows of a pair: for all rows, without each group, and with the pairing broken."""
    for pair in run.pairs:
        X, Y = (run.sites[i].all() for i in pair)
        _each(run, measures, X, Y, lambda one, compute, pair=pair: run.point(pair, one, compute))
        for group in range(run.count):
            assert run.groups is not None
            kept = np.flatnonzero(run.groups != group)
            rows = torch.from_numpy(kept)
            _each(run, measures, X[rows], Y[rows], lambda one, compute, pair=pair: run.without(pair, one, compute), kept)
    for pair in run.null_pairs():
        first, second = (run.sites[i].all() for i in pair)
        for order in run.draws([pair], measures):
            _each(run, measures, first, second[torch.from_numpy(order)], lambda one, compute, pair=pair: run.shuffled(pair, one, compute))


def _each(run: PairRun, measures: Sequence[Measure], X: Any, Y: Any, enter: Any, kept: np.ndarray | None = None) -> None:
    """Evaluates every measure on these rows; measures that ask for the same summary share it."""
    needed, keys = shared_needs(need for one in measures for need in one.needs.values())
    built: dict[Any, Any] = {}
    served = iter(keys)

    def summary(key: Any) -> Any:
        if key not in built:
            options: dict[str, Any] = dict(needed[key])
            if getattr(key[0], "grouped", False):
                options["sources"] = run.sources if kept is None else run.sources[kept]
            try:
                built[key] = key[0].of(X, Y, **options)
            except InscapeError as error:
                built[key] = error
        if isinstance(built[key], InscapeError):
            raise built[key]
        return built[key]

    for one in measures:
        mine = {name: next(served) for name in one.needs}
        enter(one, lambda one=one, mine=mine: one.evaluate(**{name: summary(key) for name, key in mine.items()}))


def run_folds(run: PairRun, measures: Sequence[Measure]) -> None:
    """Measures of folds: each left site's moments by fold, and their eigenbases, serve all right sites."""
    by_deal: dict[tuple[int, int], list[Measure]] = {}
    for one in measures:
        options = next(iter(one.needs.values()))[1]
        by_deal.setdefault((options["folds"], options["seed"]), []).append(one)
    for (folds, seed), chosen in by_deal.items():
        try:
            fold = deal(run.sources, folds, seed=seed)
        except InscapeError as error:
            for pair in run.pairs:
                for one in chosen:
                    run.score(pair, one).error = type(error)(f"{one.label}: {error}")
            continue
        _run_deal(run, chosen, fold)


def _run_deal(run: PairRun, measures: Sequence[Measure], fold: np.ndarray) -> None:
    spans = {i: in_span(run.sites[i].all()) for i in sorted({i for pair in run.pairs for i in pair})}
    ready = {i: FoldRows(rows, fold) for i, rows in spans.items()}
    broken = run.null_pairs()
    for x in sorted({x for x, _ in run.pairs}):
        own = FoldMoments.of(spans[x], fold, shift=ready[x].shift, precise=ready[x].double)
        whole: dict[int, CrossFolds] = {}
        for y in (y for first, y in run.pairs if first == x):
            pair = CrossFolds.joined(own, ready[x], ready[y])
            for one in measures:
                run.point((x, y), one, lambda one=one, pair=pair: _value(one, pair))
            if run.count:
                whole[y] = pair
        for group in range(run.count):
            assert run.groups is not None
            inside = np.flatnonzero(run.groups == group)
            rows = torch.from_numpy(inside)
            part_x = FoldMoments.of(spans[x][rows], fold[inside], shift=own.shift, precise=ready[x].double)
            left_x = own.minus(part_x)
            inside_x = _some(spans[x], ready[x], rows, fold)
            for y, pair in whole.items():
                part = CrossFolds.joined(part_x, inside_x, _some(spans[y], ready[y], rows, fold))
                left = pair.minus(part, x=left_x)
                for one in measures:
                    run.without((x, y), one, lambda one=one, left=left: _value(one, left))
        shuffled = [pair for pair in broken if pair[0] == x]
        for order in run.draws(shuffled, measures):
            index = torch.from_numpy(order)
            for _, y in shuffled:
                again = FoldRows(spans[y][index], fold, shift=ready[y].shift, double=ready[y].double)
                moved = CrossFolds.joined(own, ready[x], again)
                for one in measures:
                    run.shuffled((x, y), one, lambda one=one, moved=moved: _value(one, moved))


def _some(span: Tensor, whole: FoldRows, rows: Tensor, fold: np.ndarray) -> FoldRows:
    """Some of the rows of a site, about the same shift and in the same precision as all of them."""
    return FoldRows(span[rows], fold[rows.numpy()], shift=whole.shift, double=whole.double)


def _value(one: Measure, pair: CrossFolds) -> Any:
    return one.evaluate(**dict.fromkeys(one.needs, pair))
