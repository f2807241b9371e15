"""Change detection, against the sums written out, and the stated rate of false alarms against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from inscape.errors import DegenerateInputError
from inscape.training import ChangeDetector, alarm_threshold
from inscape.training.detection import scatter


def first(values: list[float] | np.ndarray, **options) -> tuple[int, str] | None:
    detector = ChangeDetector(**options)
    return next(((i, side) for i, value in enumerate(values) if (side := detector.see(float(value)))), None)


def test_a_fall_alarms_by_the_sum_written_out():
    # A level of 10 without scatter: the unit is a tenth of it. A fall to 7.5 is 2.5 units, of which 1.5 count: 15.0 after ten probes.
    values = [10.0] * 20 + [7.5] * 30
    detector = ChangeDetector("fall", threshold=8.9)
    told = [detector.see(value) for value in values[:26]]
    assert told == [None] * 25 + ["fall"]  # 6 × 1.5 = 9.0
    assert detector.baseline == 10.0
    assert first(values, side="rise") is None and first(values, side="both", threshold=8.9) == (25, "fall")


def test_one_outlier_never_alarms_and_no_number_alarms_at_once():
    values = [1.0] * 20 + [1e9] + [1.0] * 20
    assert first(values, side="both") is None
    assert first([1.0, math.nan], side="fall") == (1, "nonfinite")
    assert first([1.0] * 30 + [math.inf], side="fall") == (30, "nonfinite")


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_the_unit_of_a_series_does_not_matter(factor: float):
    rng = np.random.default_rng(0)
    values = np.concatenate([10 + rng.standard_normal(60), 4 + rng.standard_normal(20)])
    assert first(factor * values, side="fall") == first(values, side="fall")
    assert first(-factor * values, side="rise") == (first(values, side="fall")[0], "rise")


def test_the_way_to_the_end_of_the_range_is_a_measure_of_what_matters():
    # From .14 to .17 is a fifth of the level, but a thirtieth of the way to 1.
    values = [0.14] * 20 + [0.17] * 60
    assert first(values, side="rise") is not None and first(values, side="rise", end=1.0) is None
    # A tenth of the way is .086: .4 is 3.02 units above, of which 2.02 count, 14.2 after seven probes.
    assert first([0.14] * 20 + [0.4] * 30, side="rise", end=1.0) == (26, "rise")
    # Where the level is the longer way, it alone counts.
    fall = [10.0] * 20 + [7.5] * 30
    assert first(fall, side="fall", threshold=8.9, end=1.0) == first(fall, side="fall", threshold=8.9)


def test_small_changes_and_slow_healthy_ones_are_silent():
    assert first([10.0] * 30 + [9.2] * 200, side="fall") is None  # below a tenth of the level
    assert first(10 * 0.998 ** np.arange(500), side="fall") is None  # two percent in ten probes
    assert first(10 * 0.97 ** np.arange(500), side="rise") is None  # the loss falls


def test_scatter_is_about_a_line_and_for_normal_noise_the_standard_deviation():
    rng = np.random.default_rng(0)
    assert scatter(3.0 * np.arange(24) + 5) == pytest.approx(0, abs=1e-9)
    found = [scatter(2 * rng.standard_normal(24) + 3 * np.arange(24)) for _ in range(400)]
    assert np.mean(found) == pytest.approx(2.0, abs=0.2)


def test_the_threshold_follows_from_the_stated_rate():
    # A share of exp(2.87 - 0.55 h) of series alarms.
    assert math.exp(2.87 - 0.55 * alarm_threshold(0.02)) == pytest.approx(0.02)
    assert alarm_threshold(0.01, series=10) == pytest.approx(alarm_threshold(0.001))
    for wrong in ({"false_alarms": 0}, {"false_alarms": 0.2}, {"series": 0}):
        with pytest.raises(DegenerateInputError, match="chance"):
            alarm_threshold(**wrong)
    with pytest.raises(DegenerateInputError, match="side='down'"):
        ChangeDetector("down")


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["normal", "t3"])
def test_false_alarms_of_pure_noise_are_no_more_frequent_than_stated(noise: str):
    # 150 series of 1,000 probes at a stated rate of .1: 15 are expected at most, and 999 of 1,000 such counts are within the bound.
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((150, 1000)) if noise == "normal" else rng.standard_t(3, (150, 1000))
    alarms = sum(first(row, side="fall", least=0.0, threshold=alarm_threshold(0.1)) is not None for row in draws)
    assert alarms <= binom.ppf(0.999, 150, 0.1)
