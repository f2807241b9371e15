"""Measures of a pair of sites whose rows need no partner: systems that saw different stimuli can be compared by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from inscape.errors import InscapeError
from inscape.measures.base import Measure
from inscape.measures.inputs import check_sources, sources_of
from inscape.measures.one_system import Row
from inscape.measures.uncertainty import Uncertainty, noted, status_of
from inscape.stats import jackknife_groups, jackknife_interval
from inscape.store import View
from inscape.summaries.plan import GROUP_CHOICES
from inscape.summaries.rows import SiteRows


def compare_unpaired(
    left: Sequence[View],
    right: Sequence[View],
    pairs: Sequence[tuple[int, int]],
    measures: Sequence[Measure],
    uncertainty: Uncertainty,
    groups: Any = None,
) -> list[Row]:
    """One row per pair and measure, with an interval that leaves out a group of each side at a time.

    Raises:
        ValueError: a null was asked for, where there is no pairing to break.
    """
    if uncertainty.null is not None:
        names = ", ".join(one.label for one in measures)
        raise ValueError(f"null={uncertainty.null!r} breaks the pairing of rows, and {names} pairs none; use null=None for it")
    rows: list[Row] = []
    for i, j in pairs:
        sides = [SiteRows(view) for view in (left[i], right[j])]
        sources = [sources_of(view, groups) for view in (left[i], right[j])]
        for one in measures:
            rows.append(_row(one, sides, sources, uncertainty))
    return rows


def _row(one: Measure, sides: Sequence[SiteRows], sources: Sequence[np.ndarray], uncertainty: Uncertainty) -> Row:
    x, y = (side.view for side in sides)
    base: Row = {"system": x.system, "site": x.site, "system_b": y.system, "site_b": y.site, "measure": one.label}
    base |= {"kind": x.kind, "n": min(x.n, y.n), "d": x.d, "d_b": y.d}
    try:
        X, Y = (side.all() for side in sides)
        with noted() as notes:
            value = float(one(X, Y))
    except InscapeError as error:
        status, reason = status_of(error)
        return base | {"status": status, "reason": reason}
    base |= {"value": value} | ({"reason": notes[0]} if notes else {})
    count = _groups(sources, x.site, uncertainty)
    if count < 2:
        return base if uncertainty.interval is None else base | {"interval_method": "none: one source on a side"}
    assigned = [jackknife_groups(one_side, count, seed=uncertainty.seed) for one_side in sources]
    left_out: list[float] = []
    try:
        for group in range(count):
            kept = [side.take(np.flatnonzero(labels != group)) for side, labels in zip(sides, assigned, strict=True)]
            with noted():
                left_out.append(float(one(*kept)))
    except InscapeError as error:
        return base | {"interval_method": f"none: without one group, {error}"}
    bounds = one.facts.limits(base["n"], min(x.d, y.d))
    interval = jackknife_interval(value, left_out, level=uncertainty.level, bounds=bounds)
    return base | {"low": interval.low, "high": interval.high, "interval_method": interval.method}


def _groups(sources: Sequence[np.ndarray], site: str, uncertainty: Uncertainty) -> int:
    if uncertainty.interval is None or uncertainty.interval == "bootstrap":
        return 0
    available = min(check_sources(labels, site, uncertainty.interval) for labels in sources)
    wanted = uncertainty.interval if isinstance(uncertainty.interval, int) else GROUP_CHOICES[0]
    return min(wanted, available)
