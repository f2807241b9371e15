"""Measures of pairs of sites: which pairs, which rows, which route, and the tidy rows that come out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inscape.errors import InscapeError, StoreMismatchError, TooFewStimuliError
from inscape.measures.base import Measure
from inscape.measures.best import LEFT_OUT
from inscape.measures.closed import add_closed, check_closed
from inscape.measures.inputs import check_sources, sources_of
from inscape.measures.one_system import Row, correct
from inscape.measures.pair_rows import run_folds, run_rows
from inscape.measures.pair_run import Pair, PairRun, Scored
from inscape.measures.pair_values import run_moments, run_row_sets, run_tiles, run_weighted
from inscape.measures.uncertainty import Uncertainty, status_of
from inscape.stats import (
    benjamini_hochberg,
    bootstrap_interval,
    bootstrap_weights,
    exchangeable,
    holm,
    jackknife_groups,
    jackknife_interval,
    permutations,
)
from inscape.store import View, pair_rows
from inscape.summaries.cross import CrossMoments
from inscape.summaries.cross_folds import CrossFolds
from inscape.summaries.plan import EIGENVECTORS, SINGULAR_VALUES, Plan, Step, choose_groups, machine_rate
from inscape.summaries.products import GramProducts
from inscape.summaries.rdm import RDM
from inscape.summaries.rows import SiteRows
from inscape.summaries.sample import sample_rows

Pairs = str | Sequence[tuple[str, str]]

# Where fewer of the rows than this can change places under the null, its p is markedly too high and the rows say so.
MOVABLE = 0.8


@dataclass(frozen=True)
class Matched:
    """Two lists of sites whose rows were paired, with the wanted pairs as numbers into them."""

    left: list[View]
    right: list[View]
    pairs: list[Pair]
    rows_left: np.ndarray | None
    rows_right: np.ndarray | None
    same: bool

    @property
    def n(self) -> int:
        """Paired rows."""
        return self.left[self.pairs[0][0]].n if self.rows_left is None else len(self.rows_left)


def wanted_pairs(left: Sequence[View], right: Sequence[View], pairs: Pairs, *, same: bool) -> list[Pair]:
    """Numbers of the pairs to compare.

    Args:
        left: sites of the first system.
        right: sites of the second.
        pairs: "all", "diagonal" (the same place in both lists), "kind" (names that differ in numbers alone), or pairs of site names.
        same: whether both are the same system.

    Raises:
        StoreMismatchError: "diagonal" with lists of different length, or "kind" where no two sites are of one kind.
        ValueError: another word.
    """
    if pairs == "all":
        return [(i, j) for i in range(len(left)) for j in range(len(right))]
    if pairs == "diagonal":
        if len(left) != len(right):
            raise StoreMismatchError(
                f"pairs='diagonal' needs as many sites on both sides; got {len(left)} and {len(right)}. Use pairs='all' or name the pairs"
            )
        return [(i, i) for i in range(len(left))]
    if pairs == "kind":
        kinds = [[re.sub(r"\d+", "*", view.site) for view in side] for side in (left, right)]
        alike = [(i, j) for i, first in enumerate(kinds[0]) for j, second in enumerate(kinds[1]) if first == second]
        if not alike:
            raise StoreMismatchError(
                f"pairs='kind' compares sites whose names differ in numbers alone, and none are here: {', '.join(dict.fromkeys(kinds[0]))} "
                f"and {', '.join(dict.fromkeys(kinds[1]))}. Name the pairs, or use pairs='all'"
            )
        return alike
    if isinstance(pairs, str):
        raise ValueError(f"pairs={pairs!r} is neither 'all', 'diagonal', 'kind' nor a list of (site, site)")
    names_left, names_right = [v.site for v in left], [v.site for v in right]
    chosen: list[Pair] = []
    for first, second in pairs:
        for name, names in ((first, names_left), (second, names_right)):
            if name not in names:
                raise _unknown_site(name, names)
        chosen.append((names_left.index(first), names_right.index(second)))
    return chosen


def match(
    left: Sequence[View],
    right: Sequence[View],
    pairs: Sequence[Pair],
    *,
    same: bool,
    repeats: str | None,
    on: str | None,
    sample: int | None,
    seed: int,
) -> tuple[list[Matched], list[tuple[Pair, InscapeError]]]:
    """Pairs rows by stimulus (and position), once for each combination of row sets.

    Returns:
        The combinations that pair, and the pairs of sites that do not, each with its error.
    """
    groups: dict[tuple[Any, Any], list[Pair]] = {}
    keys_left, keys_right = [_rows_key(view) for view in left], [_rows_key(view) for view in right]
    for i, j in pairs:
        groups.setdefault((keys_left[i], keys_right[j]), []).append((i, j))
    found: list[Matched] = []
    refused: list[tuple[Pair, InscapeError]] = []
    for (key_a, key_b), inside in groups.items():
        a, b = left[inside[0][0]], right[inside[0][1]]
        try:
            rows_a, rows_b = (None, None) if key_a == key_b and repeats is None else pair_rows(a, b, **_only(repeats=repeats, on=on))
        except StoreMismatchError as error:
            refused += [(pair, error) for pair in inside]
            continue
        total = a.n if rows_a is None else len(rows_a)
        if sample is not None and sample < total:
            base_a = np.arange(total) if rows_a is None else rows_a
            base_b = np.arange(total) if rows_b is None else rows_b
            chosen = sample_rows(a.ids[base_a], a.position[base_a], m=sample, seed=seed)
            rows_a, rows_b = base_a[chosen], base_b[chosen]
        found.append(Matched(list(left), list(right), inside, rows_a, rows_b, same and key_a == key_b))
    return found, refused


def _rows_key(view: View) -> tuple[int, str]:
    """What decides how a view's rows pair: its store, and the stimulus, repeat and position of each row."""
    digest = hashlib.sha256()
    for part in (view.stimulus, view.repeat, view.position):
        digest.update(np.ascontiguousarray(part).tobytes())
    return id(view.store), f"{view.kind} {digest.hexdigest()}"


def plan_pairs(
    matched: Matched, measures: Sequence[Measure], uncertainty: Uncertainty, budget: int, groups: Any = None
) -> tuple[Plan, str]:
    """Routes and costs, and whether kernel products go by "tiles" or "moments"."""
    n = matched.n
    lefts, rights = sorted({i for i, _ in matched.pairs}), sorted({j for _, j in matched.pairs})
    widths = [matched.left[i].d for i in lefts] + ([] if matched.same else [matched.right[j].d for j in rights])
    total, size, count = sum(widths), len(widths), len(matched.pairs)
    cross = float(n * sum(matched.left[i].d * matched.right[j].d for i, j in matched.pairs)) * (0.5 if matched.same else 1.0)
    moments = cross + n * sum(d * d for d in widths) / 2
    tiles = n * n * (total + size**2 / 2) / 2
    rows_bytes = n * total * 4
    held = min(2 * rows_bytes, budget // 2)
    steps: list[Step] = []
    point = each = 0.0
    products = any(GramProducts in _classes(one) for one in measures)
    across = any(CrossMoments in _classes(one) for one in measures)
    needed = 8 * (sum(d * d for d in widths) + sum(matched.left[i].d * matched.right[j].d for i, j in matched.pairs))
    # Cross moments that something else needs anyway carry the products for free.
    route = "moments" if across or (products and moments < tiles and needed <= budget // 2) else "tiles"
    if products and route == "tiles":
        sums = 8 * (size * n * 33 + 32 * size * size * 2)
        steps.append(Step(f"kernel products of {count} pairs", "tiles", held + sums, tiles, 2 if rows_bytes <= budget // 2 else 3))
        point, each = point + tiles, each + size * size * n
    if across or (products and route == "moments"):
        solve = 0.0
        if across:
            solve = sum(SINGULAR_VALUES * min(matched.left[i].d, matched.right[j].d) ** 3 for i, j in matched.pairs)
            solve += sum(EIGENVECTORS * d**3 for d in widths)
        steps.append(Step(f"cross moments of {count} pairs", "moments", min(needed, budget) + held, moments + solve, 1))
        point, each = point + moments + solve, each + solve + sum(d * d for d in widths) + needed / 8
    for cls in sorted({c for one in measures for c in _classes(one)} - {GramProducts, CrossMoments}, key=lambda c: c.__name__):
        if cls.arity == 2:
            one_pass = cross
            if cls is CrossFolds:
                one_pass += sum(5 * (3 * matched.left[i].d ** 2 * matched.right[j].d) for i, j in matched.pairs)
                one_pass += sum(5 * EIGENVECTORS * matched.left[i].d ** 3 for i in lefts)
            steps.append(Step(f"{cls.__name__} of {count} pairs", "resident", held, one_pass, 1))
            point, each = point + one_pass, each + one_pass
            continue
        flops = float(n * n * total)
        extra = float(n * n * size * 20) if cls is RDM else float(n * 64 * size)
        steps.append(Step(f"{cls.__name__} of {size} sites", "graph", row_set_bytes(cls, n) * size + held, flops + extra, 1))
        point, each = point + flops + extra, each + extra
    sources = len(np.unique(_given_sources(matched, groups)))
    groups = choose_groups(point, each, sources, uncertainty.interval)
    if groups:
        steps.append(Step(f"the same without each of {groups} groups", "resident", 0, groups * each, 0))
    seconds = (point + groups * each) / machine_rate()
    if uncertainty.null == "closed":
        flops = float(sum(n * d * d + n * n * d / 2 for d in widths))
        steps.append(Step(f"closed-form null of {count} pairs", "tiles", 24 * n * min(n, 2048), flops, 1))
        seconds += flops / machine_rate()
    elif uncertainty.null is not None:
        draw = min(cross, n * n * size * 4.0) if products and not across else cross + each if across else each
        steps.append(Step(f"{uncertainty.draws} permutations", "resident", 0, uncertainty.draws * draw, 0))
        seconds += uncertainty.draws * draw / machine_rate()
    return Plan(tuple(steps), budget, groups, seconds), route


def compare_matched(
    matched: Matched, measures: Sequence[Measure], plan: Plan, route: str, *, groups: Any, uncertainty: Uncertainty
) -> list[tuple[Row, np.ndarray | None]]:
    """One row per pair and measure, each with its null scores if it has any."""
    lefts, rights = sorted({i for i, _ in matched.pairs}), sorted({j for _, j in matched.pairs})
    sites = {("a", i): SiteRows(matched.left[i], matched.rows_left) for i in lefts}
    for j in rights:
        shared = ("a", j) if matched.same else ("b", j)
        sites.setdefault(shared, SiteRows(matched.right[j], matched.rows_right))
    order = list(sites)
    failed = _load(sites, plan.memory // 2)
    number = {key: k for k, key in enumerate(key for key in order if key not in failed)}
    at = [(("a", i), ("a", j) if matched.same else ("b", j)) for i, j in matched.pairs]
    good = {pair: (number[x], number[y]) for pair, (x, y) in zip(matched.pairs, at, strict=True) if x in number and y in number}
    labels = _given_sources(matched, groups)
    site = matched.left[lefts[0]].site
    count = min(plan.groups, check_sources(labels, site, uncertainty.interval))
    assigned = jackknife_groups(labels, count, seed=uncertainty.seed) if count > 1 else None
    shuffled = uncertainty.null in ("permute", "sequential")
    if uncertainty.null == "closed":
        check_closed(measures, labels)
    share = exchangeable(labels) if shuffled else 1.0
    orders = list(permutations(labels, uncertainty.draws, seed=uncertainty.seed)) if shuffled and share > 0 else []
    scores: dict[tuple[Pair, str], Scored] = {}
    for family, chosen in _families(measures, route).items():
        wanted = _unmirrored(good.values(), chosen, matched.same)
        if not wanted:
            continue
        run = PairRun([sites[key] for key in number], wanted, assigned, orders, plan.memory, sources=labels, enough=uncertainty.enough)
        if family == "tiles":
            run_tiles(run, chosen)
        elif family == "folds":
            run_folds(run, chosen)
        elif family == "rows":
            run_rows(run, chosen)
        elif family == "moments":
            run_moments(run, chosen)
        else:
            classes = {cls for one in chosen for cls in _classes(one)}
            run_row_sets(run, chosen, lambda rows, classes=classes: sum(row_set_bytes(cls, rows.n) for cls in classes))
        if uncertainty.interval == "bootstrap":
            run_weighted(run, chosen, bootstrap_weights(labels, uncertainty.draws, seed=uncertainty.seed), labels)
        scores |= run.scores
    rows: list[tuple[Row, np.ndarray | None]] = []
    for one in measures:
        for pair, (x, y) in zip(matched.pairs, at, strict=True):
            base = _base(matched, pair, one, uncertainty)
            broken = next((failed[key] for key in (x, y) if key in failed), None)
            if broken is not None:
                rows.append((_failed(base, broken), None))
                continue
            entry = scores.get((good[pair], one.label)) or scores[(good[pair][1], good[pair][0]), one.label]
            if share < MOVABLE:
                entry.notes.append(
                    f"{1 - share:.0%} of the rows come from sources whose number of rows no other source has: they stay paired in "
                    "the null, so p is too high rather than too low; pool to one row a stimulus for a sharper test"
                )
            rows.append(_row(base, entry, one, uncertainty, matched, good[pair]))
    if uncertainty.null == "closed":
        sides = [(sites[x], sites[y]) for _ in measures for x, y in at]
        add_closed([(row, both) for (row, _), both in zip(rows, sides, strict=True)], {one.label: one for one in measures}, plan.memory)
    for held in sites.values():
        held.release()
    return rows


def finish(rows: Sequence[tuple[Row, np.ndarray | None]], measures: Sequence[Measure], uncertainty: Uncertainty) -> list[Row]:
    """Fills p-values and their correction, measure by measure over all pairs, and returns the rows."""
    for one in measures:
        tested = [(row, null) for row, null in rows if row["measure"] == one.label and null is not None]
        if tested:
            higher = one.facts.higher != "more different"
            best = float(one.range[1] if higher else one.range[0])
            correct(
                [row for row, _ in tested],
                [null for _, null in tested],
                higher,
                uncertainty.correction,
                best=[best] * len(tested),
                enough=uncertainty.enough,
            )
        elif uncertainty.null == "closed" and uncertainty.correction is not None:
            # There is no joint null of the maximum without draws; Holm's holds under any dependence.
            known = [row for row, _ in rows if row["measure"] == one.label and row.get("p") is not None]
            adjust = benjamini_hochberg if uncertainty.correction == "bh" else holm
            for row, value in zip(known, adjust([row["p"] for row in known]), strict=True):
                row["p_corrected"] = float(value)
    return [row for row, _ in rows]


def failed_row(left: View, right: View, one: Measure, error: InscapeError) -> Row:
    """The row of a pair of sites that could not be paired."""
    base: Row = {"system": left.system, "site": left.site, "system_b": right.system, "site_b": right.site, "measure": one.label}
    return _failed(base | {"kind": left.kind, "d": left.d, "d_b": right.d}, error)


def row_set_bytes(cls: type, n: int) -> int:
    """Bytes that a row-set summary of n rows holds: a triangle with ranks, or a list of neighbors."""
    return 8 * n * n if cls is RDM or cls.__name__ == "Gram" else 16 * 40 * n


def _families(measures: Sequence[Measure], route: str) -> dict[str, list[Measure]]:
    families: dict[str, list[Measure]] = {}
    for one in measures:
        classes = _classes(one)
        if classes == {GramProducts}:
            families.setdefault(route, []).append(one)
        elif classes <= {GramProducts, CrossMoments}:
            families.setdefault("moments", []).append(one)
        elif classes == {CrossFolds}:
            families.setdefault("folds", []).append(one)
        elif any(cls.arity == 2 for cls in classes):
            families.setdefault("rows", []).append(one)
        else:
            families.setdefault("row sets", []).append(one)
    return families


def _unmirrored(pairs: Any, measures: Sequence[Measure], same: bool) -> list[Pair]:
    """Each unordered pair once, where the sides are one system and every measure is symmetric."""
    if not (same and all(one.symmetric for one in measures)):
        return list(pairs)
    return list(dict.fromkeys((min(pair), max(pair)) for pair in pairs))


def _load(sites: dict[Any, SiteRows], budget: int) -> dict[Any, InscapeError]:
    """Reads the sites into memory while they fit, and finds those that hold NaN or infinity."""
    failed: dict[Any, InscapeError] = {}
    fits = 2 * sum(site.nbytes for site in sites.values()) <= budget
    for key, site in sites.items():
        try:
            if fits:
                site.load()
            else:
                step = max(1, 2**26 // (site.d * site.dtype.itemsize))
                for start in range(0, site.n, step):
                    site.take(slice(start, min(site.n, start + step)))
        except InscapeError as error:
            failed[key] = error
    return failed


def _row(
    base: Row, entry: Scored, one: Measure, uncertainty: Uncertainty, matched: Matched, numbers: Pair
) -> tuple[Row, np.ndarray | None]:
    if entry.error is not None or entry.value is None:
        return _failed(base, entry.error or TooFewStimuliError(f"{one.label} was not computed")), None
    row = base | {"value": entry.value} | ({"reason": entry.notes[0]} if entry.notes else {})
    if entry.left_out_error is not None:
        without = "" if uncertainty.interval == "bootstrap" else "without one group, "
        row["interval_method"] = f"none: {without}{entry.left_out_error}"
    elif entry.draws:
        finite = int(np.isfinite(entry.draws).sum())
        if finite < 0.9 * len(entry.draws):
            row["interval_method"] = f"none: {one.label} is undefined in {len(entry.draws) - finite} of {len(entry.draws)} bootstrap draws"
        else:
            interval = bootstrap_interval(entry.draws, level=uncertainty.level)
            row |= {"low": interval.low, "high": interval.high, "interval_method": interval.method}
    elif len(entry.left_out) > 1:
        bounds = one.facts.limits(matched.n, min(base["d"], base["d_b"]))
        interval = jackknife_interval(entry.value, entry.left_out, level=uncertainty.level, bounds=bounds)
        row |= {"low": interval.low, "high": interval.high, "interval_method": interval.method, LEFT_OUT: list(entry.left_out)}
    elif uncertainty.interval is not None:
        row["interval_method"] = "none: one source"
    itself = matched.same and numbers[0] == numbers[1]
    null = None if not entry.null or itself or entry.null_error is not None else np.array(entry.null)
    return row, null


def _base(matched: Matched, pair: Pair, one: Measure, uncertainty: Uncertainty) -> Row:
    a, b = matched.left[pair[0]], matched.right[pair[1]]
    return {
        "system": a.system,
        "site": a.site,
        "system_b": b.system,
        "site_b": b.site,
        "measure": one.label,
        "kind": a.kind,
        "n": matched.n,
        "d": a.d,
        "d_b": b.d,
    }


def _failed(base: Row, error: InscapeError) -> Row:
    status, reason = status_of(error)
    return base | {"status": status, "reason": reason}


def _classes(one: Measure) -> set[type]:
    return {cls for cls, _ in one.needs.values()}


def _given_sources(matched: Matched, groups: Any) -> np.ndarray:
    sources = sources_of(matched.left[matched.pairs[0][0]], groups)
    return sources if matched.rows_left is None else sources[matched.rows_left]


def _only(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _unknown_site(name: str, names: Sequence[str]) -> InscapeError:
    from inscape.errors import SiteNotFoundError, nearest

    return SiteNotFoundError(f"no site {name!r}; nearest: {nearest(name, names)}")
