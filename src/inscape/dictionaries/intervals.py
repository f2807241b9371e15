"""Means and ratios with an interval from leaving groups out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from inscape.stats import jackknife_groups, jackknife_interval


def row_of(
    measure: str,
    of: Callable[[np.ndarray], float],
    sums: np.ndarray,
    *,
    sources: np.ndarray | None = None,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """A result row: the value from sums over all units, with the interval from leaving groups of units out.

    Args:
        measure: its name.
        of: the value from sums, one number for each column.
        sums: [units, columns], the parts of each independent unit (a stimulus, a feature).
        sources: units of one source leave together; default each by itself.
        bounds: range of the measure.
        seed: seed of the groups.
    """
    whole = sums.sum(0)
    found: dict[str, Any] = {"measure": measure, "value": float(of(whole))}
    names = np.arange(len(sums)) if sources is None else sources
    count = min(32, len(np.unique(names)))
    if not np.isfinite(found["value"]):
        return {"measure": measure, "status": "degenerate", "reason": "the number is a ratio to 0 on these stimuli"}
    if count < 2:
        return found
    group = jackknife_groups(names, count, seed=seed)
    left_out = [float(of(whole - sums[group == i].sum(0))) for i in range(count)]
    if not np.isfinite(left_out).all():
        return found | {"interval_method": "none: the number is a ratio to 0 without some group of them"}
    reach = jackknife_interval(found["value"], left_out, bounds=bounds)
    return found | {"low": reach.low, "high": reach.high, "interval_method": reach.method}


def mean_row(measure: str, values: Any, *, bounds: tuple[float, float] | None = None, seed: int = 0) -> dict[str, Any]:
    """A result row with the mean of independent values."""
    each = np.asarray(values, dtype=np.float64)
    return row_of(measure, lambda s: s[0] / s[1], np.stack([each, np.ones_like(each)], 1), bounds=bounds, seed=seed)
