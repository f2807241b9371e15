"""Measures of one system, run over its sites: shared summaries, intervals, label nulls, one row per number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from inscape.errors import InscapeError
from inscape.measures.base import Measure
from inscape.measures.cautions import dominant_position
from inscape.measures.definition import unit_positions
from inscape.measures.inputs import check_sources, column_of, label_names, sources_of
from inscape.measures.next_tokens import NEXT_TOKEN, with_next_tokens
from inscape.measures.places import name_places
from inscape.measures.uncertainty import Uncertainty, noted, status_of
from inscape.results import Curve
from inscape.stats import (
    benjamini_hochberg,
    holm,
    jackknife_groups,
    jackknife_interval,
    maximum_p,
    permutation_test,
)
from inscape.store import View
from inscape.summaries.plan import EIGENVALUES, Plan, Step, choose_groups, machine_rate
from inscape.summaries.rows import SiteRows
from inscape.summaries.site import Held, Key, Needed, SiteSummaries, needed_of, shared_needs
from inscape.summaries.weights import for_site

Row = dict[str, Any]


def plan_sites(views: Sequence[View], measures: Sequence[Measure], uncertainty: Uncertainty, budget: int, groups: Any = None) -> Plan:
    """Routes and costs of measuring `views`, one site after the other."""
    steps: list[Step] = []
    point = each = 0.0
    classes = {cls for one in measures for cls, _ in one.needs.values()}
    for view in views:
        n, d = view.n, view.d
        side = min(n, d)
        held = 2 * n * d * (8 if view.dtype.itemsize == 8 else 4) <= budget
        for cls in sorted(classes, key=lambda c: c.__name__):
            graph = not getattr(cls, "additive", False)
            solve = 0.0 if graph else 2 * EIGENVALUES * side**3
            flops = float(n * n * d if graph else n * d * side) + solve
            point, each = point + flops, each + (float(n * 64) if graph else solve + d * d)
            size = n * 64 * 12 if graph else 8 * d * d
            route = "graph" if graph else "resident" if held else "streamed"
            steps.append(Step(f"{cls.__name__} of {view.site}", route, size + (2 * n * d * 4 if held else 0), flops, 1))
    count = choose_groups(point, each, max((_source_count(view, groups) for view in views), default=0), uncertainty.interval)
    if count:
        steps.append(Step(f"the same without each of {count} groups", "resident", 0, count * each, 0))
    return Plan(tuple(steps), budget, count, (point + count * each) / machine_rate())


def _source_count(view: View, groups: Any) -> int:
    try:
        return len(np.unique(sources_of(view, groups)))
    except InscapeError:  # the run itself reports it, in the site's rows
        return 0


def measure_sites(
    views: Sequence[View],
    measures: Sequence[Measure],
    plan: Plan,
    *,
    labels: Any,
    groups: Any,
    uncertainty: Uncertainty,
    weights: Any = None,
) -> tuple[list[Row], list[str]]:
    """One row per site and measure (and per place of a curve), and cautions about the rows.

    A site that fails gives rows with status and reason.
    """
    rows: list[Row] = []
    cautions: list[str] = []
    nulls: dict[str, list[tuple[Row, np.ndarray]]] = {}
    for view in views:
        try:
            rows += _site(view, measures, plan, labels, groups, uncertainty, nulls, cautions, for_site(weights, view.site))
        except InscapeError as error:
            rows += [_failed(view, one, error) for one in measures]
    for label, found in nulls.items():
        one = next(m for m in measures if m.label == label)
        correct([row for row, _ in found], [null for _, null in found], one.facts.higher != "more different", uncertainty.correction)
    return rows, cautions


def _site(
    view: View,
    measures: Sequence[Measure],
    plan: Plan,
    labels: Any,
    groups: Any,
    uncertainty: Uncertainty,
    nulls: dict[str, list[tuple[Row, np.ndarray]]],
    cautions: list[str],
    weights: Any,
) -> list[Row]:
    if isinstance(labels, str) and labels == NEXT_TOKEN and labels not in view.columns:
        view, ahead = with_next_tokens(view)
    else:
        ahead = labels
    site = SiteRows(view)
    if 2 * site.nbytes <= plan.memory:
        site.load()
        caution = dominant_position(view, site.all())
        cautions += [caution] if caution else []
    try:
        labeled = any(one.labeled for one in measures)
        row_labels, wrong = None, None
        if labeled and labels is not None:
            try:
                row_labels = column_of(view, ahead, "labels")
            except InscapeError as error:  # only the measures of classes need them
                wrong = error
        sources = sources_of(view, groups)
        count = min(plan.groups, check_sources(sources, view.site, uncertainty.interval))
        assigned = jackknife_groups(sources, count, seed=uncertainty.seed) if count > 1 else None
        usable = [one for one in measures if not one.labeled or row_labels is not None]
        needed, bound = bind(usable)
        given: dict[str, Any] = {"labels": row_labels, "weights": weights, "groups": assigned, "budget": plan.memory // 2}
        if any(one.beside == "positions" for one in usable):
            given["positions"] = unit_positions(view)
        summaries = SiteSummaries(site, needed, **given)
        base: Row = {"system": view.system, "site": view.site, "kind": view.kind, "n": site.n, "d": site.d}
        rows, headline = evaluate_site(summaries, measures, bound, base, labels, (site.all(),) if site.held else None)
        if summaries.lost_digits:
            summaries = SiteSummaries(site, needed, **given, precise=True)
            rows, headline = evaluate_site(summaries, measures, bound, base, labels, (site.all(),) if site.held else None)
        name_places(rows, view)
        for row in rows:
            if wrong is not None and row["measure"] not in bound:
                row["status"], row["reason"] = status_of(wrong)
        groups_left_out = 0 if assigned is None else int(assigned.max()) + 1
        fill_intervals(summaries, usable, bound, headline, uncertainty, groups_left_out, places=rows)
        if uncertainty.null is not None and row_labels is not None:
            for one in usable:
                if one.labeled and one.label in headline:
                    null = _label_null(summaries, one, bound[one.label], row_labels, sources, uncertainty)
                    nulls.setdefault(one.label, []).append((headline[one.label], null))
        return rows
    finally:
        site.release()


@runtime_checkable
class Summarized(Protocol):
    """The summaries of one site for all rows, and for all rows but one group."""

    full: dict[Key, Held]

    def without(self, group: int) -> Mapping[Key, Held]: ...


def bind(measures: Sequence[Measure]) -> tuple[Needed, dict[str, dict[str, Key]]]:
    """The summaries that some measures share, and by measure and parameter which of them is meant."""
    needed, keys = shared_needs(need for one in measures for need in one.needs.values())
    served = iter(keys)
    return needed, {one.label: {name: next(served) for name in one.needs} for one in measures}


def evaluate_site(
    summaries: Summarized,
    measures: Sequence[Measure],
    bound: dict[str, dict[str, Key]],
    base: Row,
    labels: Any,
    rows: tuple[Tensor, ...] | None,
) -> tuple[list[Row], dict[str, Row]]:
    """The rows of one site without intervals, and by measure the row that carries its headline number.

    Args:
        summaries: the site's summaries.
        measures: what to evaluate; one that `bound` lacks wants labels that were not given.
        bound: from `bind`.
        base: columns that all rows share.
        labels: what the caller gave; a column name is recorded.
        rows: the site's rows, if they are in memory.
    """
    found: list[Row] = []
    headline: dict[str, Row] = {}
    for one in measures:
        row: Row = {**base, "measure": one.label}
        found.append(row)
        if one.label not in bound:
            row |= {"status": "failed", "reason": f"{one.label} needs labels: pass labels=, a column name or one per row"}
            continue
        try:
            with noted() as notes:
                value = one.settle(needed_of(summaries.full, bound[one.label], one.needs), rows)
        except InscapeError as error:
            row["status"], row["reason"] = status_of(error)
            continue
        row |= {"value": float(value), "reason": notes[0] if notes else None}
        headline[one.label] = row
        if one.labeled and (told := label_names(labels)) is not None:
            row["label"] = told
        if isinstance(value, Curve):
            row["axis"] = value.axis
            places = zip(value.at, value.values, strict=True)
            found += [{**base, "measure": one.label, "axis": value.axis, "at": at, "value": v} for at, v in places]
    return found, headline


def fill_intervals(
    summaries: Summarized,
    measures: Sequence[Measure],
    bound: dict[str, dict[str, Key]],
    headline: dict[str, Row],
    uncertainty: Uncertainty,
    count: int,
    *,
    places: Sequence[Row] = (),
) -> None:
    """Fills low, high and method; a measure that is undefined without some group says so and has no interval.

    Args:
        summaries: the site's summaries.
        measures: what was evaluated.
        bound: from `bind`.
        headline: by measure the row of its number, filled in place.
        uncertainty: what was asked for.
        count: groups.
        places: all rows; those on a curve get an interval each, from the same values.
    """
    if uncertainty.interval is None:
        return
    for one in measures:
        if one.of_weights and one.label in headline:
            headline[one.label]["interval_method"] = "none: parameters are no sample"
    measures = [one for one in measures if not one.of_weights]
    headline = {one.label: headline[one.label] for one in measures if one.label in headline}
    if count < 2:
        why = (
            "a bootstrap's copies of rows bias measures of one system; use 'jackknife'"
            if uncertainty.interval == "bootstrap"
            else "one source"
        )
        for row in headline.values():
            row["interval_method"] = f"none: {why}"
        return
    estimates: dict[str, list[float]] = {label: [] for label in headline}
    curves: dict[str, list[Curve | None]] = {label: [] for label in headline}
    reasons = {one.label: "none: a value takes too long to compute it again and again" for one in measures if not one.facts.repeatable}
    for group in range(count) if set(headline) - set(reasons) else ():
        reduced = summaries.without(group)
        for one in measures:
            if one.label not in headline or one.label in reasons:
                continue
            try:
                with noted():
                    value = one.settle(needed_of(reduced, bound[one.label], one.needs))
                estimates[one.label].append(float(value))
                curves[one.label].append(value if isinstance(value, Curve) else None)
            except InscapeError as error:
                reasons[one.label] = f"none: without one group, {error}"
    for one in measures:
        if one.label not in headline:
            continue
        row = headline[one.label]
        if one.label in reasons:
            row["interval_method"] = reasons[one.label]
            continue
        bounds = one.facts.limits(row["n"], row["d"])
        interval = jackknife_interval(row["value"], estimates[one.label], level=uncertainty.level, bounds=bounds)
        row |= {"low": interval.low, "high": interval.high, "interval_method": interval.method}
        along = [place for place in places if place["measure"] == one.label and place.get("at") is not None]
        for index, place in enumerate(along):
            without = [value for curve in curves[one.label] if (value := _at(curve, index, place)) is not None]
            if len(without) == count:
                interval = jackknife_interval(place["value"], without, level=uncertainty.level, bounds=bounds)
                place |= {"low": interval.low, "high": interval.high, "interval_method": interval.method}


def _at(curve: Curve | None, index: int, place: Row) -> float | None:
    """The curve's value at the same place; numbers of rows shrink with every group that leaves, so there the same step counts."""
    if curve is None or index >= len(curve.values) or (curve.axis != "rows" and curve.at[index] != place["at"]):
        return None
    return curve.values[index]


def _label_null(
    summaries: SiteSummaries, one: Measure, bound: dict[str, Any], labels: np.ndarray, sources: np.ndarray, uncertainty: Uncertainty
) -> np.ndarray:
    """Values with the labels shuffled over sources."""
    return np.array(
        [
            float(one.settle(needed_of(summaries.permuted(shuffled), bound, one.needs)))
            for shuffled in _shuffled_labels(labels, sources, uncertainty)
        ]
    )


def _shuffled_labels(labels: np.ndarray, sources: np.ndarray, uncertainty: Uncertainty) -> Iterator[np.ndarray]:
    """Labels in another order: from source to source where a source has one label, else within each source."""
    _, first, source = np.unique(sources, return_index=True, return_inverse=True)
    own = labels[first]
    constant = bool((own[source] == labels).all())
    blocks = [np.flatnonzero(source == number) for number in range(len(first))]
    for draw in range(uncertainty.draws):
        rng = np.random.default_rng((uncertainty.seed, draw))
        if constant:
            yield own[rng.permutation(len(own))][source]
            continue
        shuffled = labels.copy()
        for rows in blocks:
            shuffled[rows] = labels[rng.permutation(rows)]
        yield shuffled


def correct(
    rows: Sequence[Row],
    nulls: Sequence[np.ndarray],
    higher: bool,
    correction: str | None,
    *,
    best: Sequence[float] | None = None,
    enough: int | None = None,
) -> None:
    """Fills p, null mean, calibrated score and corrected p of rows that one measure gave at many sites.

    Args:
        rows: rows with a value, in place.
        nulls: their null scores, each of shape [K], draw k from the same permutation at every site.
        higher: whether higher means a stronger effect.
        correction: "max", "holm", "bh" or None.
        best: the optimum of each score, for calibration; without it there is no calibrated score.
        enough: of a sequential null; its draws may differ in number, so that corrected p are then Holm's where "max" is asked for.
    """
    for index, (row, null) in enumerate(zip(rows, nulls, strict=True)):
        test = permutation_test(row["value"], null, best=best[index] if best is not None else np.inf, higher=higher, enough=enough)
        row |= {"p": test.p, "null_mean": test.mean}
        if best is not None:
            row["calibrated"] = test.calibrated
    if correction is None or not rows:
        return
    p = np.array([row["p"] for row in rows])
    if correction == "max" and enough is None:
        corrected = maximum_p(np.array([row["value"] for row in rows]), np.stack(list(nulls), axis=1), higher=higher)
    else:
        corrected = benjamini_hochberg(p) if correction == "bh" else holm(p)
    for row, value in zip(rows, corrected, strict=True):
        row["p_corrected"] = float(value)


def _failed(view: View, one: Measure, error: InscapeError) -> Row:
    status, reason = status_of(error)
    return {
        "system": view.system,
        "site": view.site,
        "kind": view.kind,
        "measure": one.label,
        "n": view.n,
        "d": view.d,
        "status": status,
        "reason": reason,
    }
