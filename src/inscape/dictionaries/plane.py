"""Whether a plane of points is one feature of two dimensions, or two of one: separability and mixture."""

from __future__ import annotations

from typing import Any

import numpy as np

from inscape.arrays import as_numpy, as_rows
from inscape.errors import DegenerateInputError

_BINS = 10
_ROTATIONS = 100
_ANGLES, _OFFSETS = 180, 160


def separability_index(points: Any) -> float:
    """The mutual information of two coordinates, in the rotation in which it is smallest; 0 where the plane falls into independent axes.

    Args:
        points: [n, 2].

    Returns:
        Bits: the minimum over 100 rotations of a quarter turn of the mutual information of a 10 × 10 histogram, each axis from its smallest
        to its largest value.

    Raises:
        DegenerateInputError: the points are no plane, or do not vary in two directions.

    Source: Engels et al. 2025 (arXiv 2405.14860), section 3.
    Bias: upward with few points: independent coordinates give about 81 / (2 n ln 2) bits less what the minimum takes off.

    Example:
        >>> angle = np.linspace(0, 2 * np.pi, 1000)
        >>> separability_index(np.stack([np.cos(angle), np.sin(angle)], 1)) > 1
        True
    """
    X = _plane(points)
    turns = np.arange(_ROTATIONS) * (np.pi / 2 / _ROTATIONS)
    rotations = np.stack([np.cos(turns), np.sin(turns)], 1), np.stack([-np.sin(turns), np.cos(turns)], 1)
    cells = [_cells(X @ axis.T) for axis in rotations]
    place = cells[0] * _BINS + cells[1] + np.arange(_ROTATIONS) * _BINS**2
    share = np.bincount(place.ravel(), minlength=_ROTATIONS * _BINS**2).reshape(_ROTATIONS, _BINS, _BINS) / len(X)
    alone = share.sum(2, keepdims=True) * share.sum(1, keepdims=True)
    ratio = np.divide(share, alone, out=np.ones_like(share), where=share > 0)
    return float(max(0.0, (share * np.log2(ratio)).sum((1, 2)).min()))


def mixture_index(points: Any, *, width: float = 0.1) -> float:
    """The largest share of points on a thin line: near 1 where most points do not use one of the directions at all.

    Args:
        points: [n, 2].
        width: half the width of the line in units of the root mean square distance from it.

    Returns:
        The largest share of points x with |v·x + c| < width · rms(v·x + c), over 180 directions v and 160 offsets c in each.

    Raises:
        DegenerateInputError: the points are no plane, or do not vary in two directions.

    Source: Engels et al. 2025 (arXiv 2405.14860), section 3.

    Example:
        >>> axes = np.concatenate([np.eye(2)[[0]] * np.linspace(-1, 1, 50)[:, None], np.eye(2)[[1]] * np.linspace(-1, 1, 50)[:, None]])
        >>> mixture_index(axes) >= 0.5
        True
    """
    X = _plane(points)
    if not 0 < width < 1:
        raise DegenerateInputError(f"width={width}: expected a number between 0 and 1")
    best = 0.0
    for turn in np.arange(_ANGLES) * (np.pi / _ANGLES):
        along = np.sort(X @ np.array([np.cos(turn), np.sin(turn)]))
        # Where points lie densely, and evenly in between.
        offsets = np.concatenate([np.quantile(along, np.linspace(0, 1, _OFFSETS // 2)), np.linspace(along[0], along[-1], _OFFSETS // 2)])
        reach = width * np.sqrt(along.var() + (along.mean() - offsets) ** 2)
        inside = np.searchsorted(along, offsets + reach, "left") - np.searchsorted(along, offsets - reach, "right")
        best = max(best, float(inside.max()) / len(X))
    return best


def _plane(points: Any) -> np.ndarray:
    rows = as_numpy(as_rows(points, "points", minimum=3)).astype(np.float64)
    if rows.shape[1] != 2:
        raise DegenerateInputError(f"points have shape {rows.shape}; expected [n, 2]: project onto two directions first")
    rows = rows - rows.mean(0)
    spread = np.linalg.svd(rows, compute_uv=False)
    if spread[1] <= 1e-9 * spread[0]:
        raise DegenerateInputError(f"the {len(rows)} points lie on one line; separability and mixture are about two directions")
    return rows


def _cells(values: np.ndarray) -> np.ndarray:
    """Bin numbers of each column over its range."""
    low, high = values.min(0), values.max(0)
    return np.minimum(((values - low) / (high - low) * _BINS).astype(np.int64), _BINS - 1)
