"""From draws to numbers: standard errors that generalize to stimuli, subjects or both, t intervals and paired tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions

from inscape.rsa.evaluation import Draws
from inscape.stats import benjamini_hochberg, holm

TARGETS = frozenset({"stimuli", "subjects"})


@dataclass(frozen=True)
class Target:
    """The populations that a result generalizes to, with their sizes here."""

    populations: frozenset[str]
    stimuli: int
    subjects: int

    @property
    def only(self) -> str | None:
        """The one population, or None where there are two."""
        return next(iter(self.populations)) if len(self.populations) == 1 else None

    @property
    def dof(self) -> int:
        """Degrees of freedom of the t distribution: one less than the smaller sample."""
        sizes = {"stimuli": self.stimuli, "subjects": self.subjects}
        return min(sizes[one] for one in self.populations) - 1


def variance(draws: Draws, contrast: np.ndarray, target: Target) -> float:
    """The sampling variance of a contrast of values [m + 2]; entries of weight 0 are not looked at.

    For one population the variance over its draws, times n/(n − 1). For both, the draws of each alone tell how much of the variance of the
    joint draws counts twice, and the estimate stays between the larger single one and the joint one.

    Source: Schütt et al. 2023, Statistical inference on representational geometries, dual bootstrap.
    """
    used = np.flatnonzero(contrast)
    both, subjects, stimuli = (_spread(one[:, used] @ contrast[used]) for one in draws)
    s, n = target.subjects, target.stimuli
    if target.only == "subjects":
        return s / (s - 1) * subjects
    if target.only == "stimuli":
        return n / (n - 1) * stimuli
    by_subject, by_stimulus = s / (s - 1) * subjects, n / (n - 1) * stimuli
    crossed = by_subject + by_stimulus - n * s / ((n - 1) * (s - 1)) * (both - subjects - stimuli)
    return float(min(max(crossed, by_subject, by_stimulus), both))


def _spread(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.var(ddof=1)) if len(known) > 1 else float("nan")


def split_variance(means: Draws, single: Draws, contrast: np.ndarray, target: Target) -> float:
    """The variance where each draw was split into folds at random: what a split adds is seen between splits and taken out."""
    splits = len(single.both)
    of_mean = variance(means, contrast, target)
    of_one = float(np.mean([variance(Draws(*(part[k] for part in single)), contrast, target) for k in range(splits)]))
    return max((splits * of_mean - of_one) / (splits - 1), 0.0)


def t_interval(value: float, error: float, dof: int, level: float) -> tuple[float, float]:
    """Value ± t · error."""
    reach = float(distributions.t.ppf((1 + level) / 2, dof)) * error
    return value - reach, value + reach


def t_p(value: float, error: float, dof: int, *, one_sided: bool) -> float:
    """The chance of a t as large as value / error: above 0 if one-sided, else on either side."""
    if error <= 0:
        return float("nan") if value == 0 else 0.0
    t = value / error
    return float(distributions.t.sf(t, dof)) if one_sided else float(2 * distributions.t.sf(abs(t), dof))


def corrected(p: list[float], statistics: np.ndarray, null: np.ndarray, correction: str | None, *, one_sided: bool) -> list[float | None]:
    """p-values corrected for their number.

    Args:
        p: one for each test.
        statistics: the t values.
        null: centered draws of the same contrasts [draws, tests], for "max".
        correction: "max" (share of draws whose largest t is at least as large), "holm", "bh" or None.
        one_sided: whether only large t values count.
    """
    if correction is None or not p:
        return [None] * len(p)
    if correction != "max":
        return [float(one) for one in (holm if correction == "holm" else benjamini_hochberg)(p)]
    known = null[np.isfinite(null).all(1)]
    spread = known.std(axis=0, ddof=1)
    t = (known - known.mean(0)) / np.where(spread > 0, spread, np.inf)
    largest = (t if one_sided else np.abs(t)).max(1)
    seen = statistics if one_sided else np.abs(statistics)
    shares = [(1 + (largest >= one - 1e-9).sum()) / (1 + len(largest)) for one in seen]
    # Few degrees of freedom can make the t distribution the more careful of the two.
    return [float(max(share, alone)) if np.isfinite(one) else None for share, alone, one in zip(shares, p, seen, strict=True)]
