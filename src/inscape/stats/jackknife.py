"""Delete-group jackknife intervals: exact for every summary that can leave a group of rows out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions

GROUPS = 32  # enough for a t interval with 31 degrees of freedom, few enough to keep one moment matrix a group


@dataclass(frozen=True)
class Interval:
    """A confidence interval with the standard error and the method that made it."""

    low: float
    high: float
    error: float
    method: str


def jackknife_groups(sources: np.ndarray, count: int = GROUPS, *, seed: int = 0) -> np.ndarray:
    """Assigns rows to groups that the jackknife leaves out: rows of one source stay together.

    Distinct sources (stimuli, or the user's groups) are shuffled by `seed` and dealt out in turn, so groups differ by at most one
    source and the assignment depends on nothing but the sources, the count and the seed.

    Args:
        sources: one integer or string per row; rows of one source are dependent. Shape [n].
        count: groups wanted; fewer when there are fewer sources.
        seed: seed of the shuffle.

    Returns:
        Group number of every row, shape [n].

    Example:
        >>> import numpy as np
        >>> groups = jackknife_groups(np.array([5, 5, 7, 9]), 3)
        >>> bool(groups[0] == groups[1]), len(set(groups.tolist()))
        (True, 3)
    """
    _, source = np.unique(np.asarray(sources), return_inverse=True)
    total = int(source.max()) + 1 if source.size else 0
    order = np.random.default_rng(seed).permutation(total)
    group_of_source = np.empty(total, dtype=np.int64)
    group_of_source[order] = np.arange(total) % max(1, min(count, total))
    return group_of_source[source]


def jackknife_interval(
    value: float, left_out: Sequence[float] | np.ndarray, *, level: float = 0.95, bounds: tuple[float, float] | None = None
) -> Interval:
    """The delete-group jackknife interval of an estimate: value ± t(G−1) · se, clipped to the measure's range.

    se² = (G−1)/G Σ_g (θ_(g) − mean θ_(·))², where θ_(g) is the estimate without group g. Centered on the estimate itself; no bias
    correction is applied.

    Args:
        value: the estimate from all rows.
        left_out: the estimate without each group, shape [G]; G ≥ 2.
        level: coverage wanted.
        bounds: range of the measure; the interval is clipped to it.

    Source: Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, ch. 2; Busing et al. 1999 for groups of equal size.

    Example:
        >>> interval = jackknife_interval(2.0, [1.5, 2.0, 2.5])  # leaving one of (1, 2, 3) out of their mean
        >>> round(interval.error, 4)  # sd / sqrt(n) = 1 / sqrt(3)
        0.5774
    """
    estimates = np.asarray(left_out, dtype=np.float64)
    count = len(estimates)
    if count < 2:
        raise ValueError(f"a jackknife needs at least 2 groups, got {count}")
    error = float(np.sqrt((count - 1) / count * np.sum((estimates - estimates.mean()) ** 2)))
    reach = float(distributions.t.ppf(0.5 + level / 2, count - 1)) * error
    low, high = value - reach, value + reach
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Interval(low, high, error, f"jackknife({count})")
