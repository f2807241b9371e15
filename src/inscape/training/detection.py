"""When a series of numbers has left its own recent past: a robust cumulative sum with a stated rate of false alarms."""

from __future__ import annotations

import math

import numpy as np

from inscape.errors import DegenerateInputError

WINDOW, FEWEST, GAP = 24, 8, 4  # probes in the baseline, the least there must be, and how far it stays behind
ALLOWED, CAPPED = 1.0, 4.0  # deviations from it that count for nothing, and that one probe counts at most
# Of independent series, normal or t with 3 degrees of freedom, a share of exp(HEIGHT - RATE h) at most crosses a threshold h > 9.4 within
# 1,000 probes on one side: a line above what 3,000 simulated series of each gave. Below 9.4 (a share of .1) it is not: .21 stands for .2.
_HEIGHT, _RATE = 2.87, 0.55
SIDES = ("fall", "rise", "both")


def alarm_threshold(false_alarms: float = 0.01, series: int = 1) -> float:
    """The sum at which a one-sided detector alarms.

    Args:
        false_alarms: the chance of any alarm in 1,000 probes of series that only scatter.
        series: how many are watched; a series that is watched on both sides counts twice.

    Raises:
        DegenerateInputError: a chance outside (0, 0.1], or no series.

    Example:
        >>> round(alarm_threshold(0.01), 1)
        13.6
    """
    if not 0 < false_alarms <= 0.1 or series < 1:
        raise DegenerateInputError(
            f"false_alarms={false_alarms} of {series} series; give a chance above 0 and up to 0.1, and 1 series or more"
        )
    return (_HEIGHT - math.log(false_alarms / series)) / _RATE


class ChangeDetector:
    """Follows one series and alarms when it leaves its own recent past, whatever its unit and scale.

    Each value is set beside a baseline, the median of the 24 values that end 4 before it (at least 8), in units of their scatter about a
    robust line, or of `least` times the median or times the way from there to `end`, whichever is most. What exceeds one such unit in the
    direction of harm is added up; the alarm comes when the sum passes the threshold. One probe counts for 4 at most, so that single
    outliers never alarm; NaN and infinity alarm at once. After an alarm the detector begins again.

    Args:
        side: "fall", "rise" or "both": which change is harm.
        threshold: the sum that alarms, from `alarm_threshold`.
        least: the smallest change that matters, as a share of the baseline.
        end: where harm ends at the latest, for a series with such a bound: a mean cosine near 0 can rise to 1, and a rise from .14 to .17
            is a fifth of the baseline, but a small part of that way.

    Raises:
        DegenerateInputError: an unknown side, a threshold that is not positive, or a negative share.

    Source:
        Page, "Continuous inspection schemes", Biometrika 1954, on residuals standardized by medians.

    Example:
        >>> detector = ChangeDetector("fall")
        >>> [step for step in range(60) if detector.see(10.0 if step < 40 else 5.0)]
        [44]
    """

    def __init__(self, side: str = "both", threshold: float = 13.6, least: float = 0.1, end: float | None = None) -> None:
        if side not in SIDES or not threshold > 0 or not least >= 0:
            raise DegenerateInputError(
                f"side={side!r}, threshold={threshold}, least={least}: give 'fall', 'rise' or 'both', a threshold above 0 and a share of "
                "0 or more"
            )
        self.side = side
        self.threshold = threshold
        self.least = least
        self.end = end
        self.baseline: float | None = None  # that the last value was set beside
        self.sums = {"fall": 0.0, "rise": 0.0}
        self._values: list[float] = []

    def see(self, value: float) -> str | None:
        """Takes the next value; returns "fall", "rise" or "nonfinite" when it alarms, else None."""
        if not math.isfinite(value):
            self._begin_again()
            return "nonfinite"
        past = np.array(self._values[: max(0, len(self._values) - GAP)][-WINDOW:])
        self._values = [*self._values[-WINDOW - GAP :], value]
        if len(past) < FEWEST:
            self.baseline = None
            return None
        self.baseline = float(np.median(past))
        way = 0.0 if self.end is None else abs(self.end - self.baseline)
        unit = max(scatter(past), self.least * max(abs(self.baseline), way), 1e-300)
        moved = min(CAPPED, max(-CAPPED, (value - self.baseline) / unit))
        for side, harm in (("fall", -moved), ("rise", moved)):
            self.sums[side] = max(0.0, self.sums[side] + harm - ALLOWED)
            if self.side in (side, "both") and self.sums[side] > self.threshold:
                self._begin_again()
                return side
        return None

    def _begin_again(self) -> None:
        self._values.clear()
        self.sums = {"fall": 0.0, "rise": 0.0}


def scatter(values: np.ndarray) -> float:
    """The robust standard deviation of values [n] about a line; the median absolute deviation, made larger for few values."""
    n = len(values)
    half = n // 2
    slope = np.median(values[half:] - values[: n - half]) / half  # pairs half the window apart: a robust slope in linear time
    left = values - slope * np.arange(n)
    return float(1.4826 * np.median(np.abs(left - np.median(left))) * (1 + 2.5 / n))
