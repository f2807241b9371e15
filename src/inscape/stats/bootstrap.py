"""The bootstrap as weights over distinct sources, for the statistics that stay valid under it.

Resampled copies of a row would be their own nearest neighbors and would add pairs of a stimulus with itself, which biases ranks,
dimensions and every U-statistic. So a draw is never a copied data set: it is a vector of counts, and a statistic over pairs sums
w_i w_j over *distinct* sources only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inscape.stats.jackknife import Interval


def bootstrap_weights(sources: np.ndarray, draws: int, *, seed: int = 0) -> np.ndarray:
    """Row weights of `draws` bootstrap samples of the sources: how often each row's source was drawn. Shape [draws, n].

    Args:
        sources: one label per row, shape [n]; rows of one source get one weight.
        draws: how many samples.
        seed: seed of the draws.

    Example:
        >>> import numpy as np
        >>> bootstrap_weights(np.array([1, 1, 2, 3]), 2, seed=0).shape
        (2, 4)
    """
    _, source = np.unique(np.asarray(sources), return_inverse=True)
    count = int(source.max()) + 1 if source.size else 0
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    return weights[:, source].astype(np.float64)


def bootstrap_interval(values: Sequence[float] | np.ndarray, *, level: float = 0.95) -> Interval:
    """The percentile interval of bootstrap values, shape [draws]; draws that were undefined (NaN) are left out.

    Source: Efron & Tibshirani 1993, ch. 13.

    Example:
        >>> interval = bootstrap_interval(range(101), level=0.9)
        >>> round(interval.low, 6), round(interval.high, 6)
        (5.0, 95.0)
    """
    estimates = np.asarray(values, dtype=np.float64)
    estimates = estimates[np.isfinite(estimates)]
    if len(estimates) < 2:
        raise ValueError(f"a bootstrap interval needs at least 2 finite draws, got {len(estimates)}")
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), float(estimates.std(ddof=1)), f"bootstrap({len(estimates)})")
