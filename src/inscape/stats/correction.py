"""Corrections of p-values for many tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down p-values: controls the chance of any false rejection, under any dependence. Shape [t]; NaN stays NaN.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.

    Example:
        >>> [round(float(v), 3) for v in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    corrected = np.full(values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    count = len(order)
    steps = values[order] * (count - np.arange(count))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if count else steps
    return corrected


def benjamini_hochberg(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Benjamini–Hochberg p-values: controls the expected share of false rejections under independence or positive dependence.

    Source: Benjamini & Hochberg 1995. Shape [t]; NaN stays NaN.

    Example:
        >>> [round(float(v), 3) for v in benjamini_hochberg([0.01, 0.04, 0.03])]
        [0.03, 0.04, 0.04]
    """
    values = np.asarray(p, dtype=np.float64)
    corrected = np.full(values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    count = len(order)
    steps = values[order] * count / (np.arange(count) + 1)
    corrected[order] = np.minimum(1.0, np.minimum.accumulate(steps[::-1])[::-1]) if count else steps
    return corrected
