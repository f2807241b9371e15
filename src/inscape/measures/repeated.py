"""Measures of a pair of sites from repeated presentations of the same stimuli."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inscape.errors import InscapeError, StoreMismatchError
from inscape.measures.base import Measure
from inscape.measures.definition import presentations
from inscape.measures.one_system import Row
from inscape.measures.uncertainty import Uncertainty, noted, status_of
from inscape.stats import jackknife_groups, jackknife_interval, permutations
from inscape.store import View
from inscape.summaries.plan import GROUP_CHOICES


def compare_repeated(
    left: Sequence[View], right: Sequence[View], pairs: Sequence[tuple[int, int]], measures: Sequence[Measure], uncertainty: Uncertainty
) -> list[tuple[Row, np.ndarray | None]]:
    """One row per pair and measure, with its null scores if it has any; stimuli are what is left out and what changes places.

    Raises:
        ValueError: a null or interval that these measures do not have.
    """
    if uncertainty.null not in (None, "permute"):
        raise ValueError(f"null={uncertainty.null!r} is not there for {measures[0].label}; use null='permute'")
    found: list[tuple[Row, np.ndarray | None]] = []
    for i, j in pairs:
        for one in measures:
            found.append(_row(one, left[i], right[j], uncertainty))
    return found


def _row(one: Measure, x: View, y: View, uncertainty: Uncertainty) -> tuple[Row, np.ndarray | None]:
    base: Row = {"system": x.system, "site": x.site, "system_b": y.system, "site_b": y.site, "measure": one.label}
    base |= {"kind": x.kind, "d": x.d, "d_b": y.d}
    try:
        _check_stimuli(x, y)
        X, Y = presentations(x), presentations(y)
        base |= {"n": len(X)}
        with noted():
            base |= {"value": float(one(X, Y))}
    except InscapeError as error:
        status, reason = status_of(error)
        return base | {"status": status, "reason": reason}, None
    base |= _interval(one, X, Y, base["value"], uncertainty)
    if uncertainty.null is None or (x.system, x.site) == (y.system, y.site):
        return base, None
    null = [
        float(one(X, Y[torch.from_numpy(order)])) for order in permutations(np.arange(len(X)), uncertainty.draws, seed=uncertainty.seed)
    ]
    return base, np.array(null)


def _check_stimuli(x: View, y: View) -> None:
    first, second = set(x.ids.astype(str)), set(y.ids.astype(str))
    if first != second:
        only = sorted(first ^ second)[:3]
        raise StoreMismatchError(
            f"{x.system} and {y.system} saw different stimuli: {len(first - second)} and {len(second - first)} are on one side only, such "
            f"as {', '.join(map(repr, only))}; select the stimuli that both have"
        )


def _interval(one: Measure, X: Tensor, Y: Tensor, value: float, uncertainty: Uncertainty) -> Row:
    if uncertainty.interval is None:
        return {}
    if uncertainty.interval == "bootstrap":
        return {"interval_method": f"none: {one.label} has no bootstrap; use interval='jackknife'"}
    count = min(uncertainty.interval if isinstance(uncertainty.interval, int) else GROUP_CHOICES[-1], len(X))
    groups = jackknife_groups(np.arange(len(X)), count, seed=uncertainty.seed)
    try:
        left_out = [float(one(X[kept], Y[kept])) for kept in (torch.from_numpy(np.flatnonzero(groups != g)) for g in range(count))]
    except InscapeError as error:
        return {"interval_method": f"none: without one group, {error}"}
    interval = jackknife_interval(value, left_out, level=uncertainty.level, bounds=one.range)
    return {"low": interval.low, "high": interval.high, "interval_method": interval.method}
