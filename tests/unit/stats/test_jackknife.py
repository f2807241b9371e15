"""The jackknife against the textbook, and its coverage."""

import numpy as np
import pytest
from scipy import stats as distributions

from inscape.stats import Interval, jackknife_groups, jackknife_interval


def test_of_a_mean_is_the_t_interval():
    sample = np.random.default_rng(0).standard_normal(20)
    left_out = [np.delete(sample, i).mean() for i in range(20)]
    interval = jackknife_interval(sample.mean(), left_out)
    expected = distributions.t.interval(0.95, 19, loc=sample.mean(), scale=distributions.sem(sample))
    assert isinstance(interval, Interval)
    np.testing.assert_allclose([interval.low, interval.high], expected, rtol=1e-12)
    assert interval.method == "jackknife(20)"


def test_is_clipped_to_the_range_of_the_measure():
    interval = jackknife_interval(0.95, [0.9, 0.99, 0.92], bounds=(0, 1))
    assert interval.high == 1


def test_needs_two_groups():
    with pytest.raises(ValueError, match="at least 2 groups, got 1"):
        jackknife_interval(1.0, [1.0])


def test_groups_keep_sources_together_and_balanced():
    sources = np.repeat(np.arange(10), 3)
    groups = jackknife_groups(sources, 4, seed=1)
    assert all(len(set(groups[sources == s])) == 1 for s in range(10))
    sizes = np.bincount(groups) // 3
    assert sizes.max() - sizes.min() <= 1 and len(sizes) == 4


def test_groups_depend_on_the_sources_alone_not_on_the_order_of_rows():
    sources = np.array(["b", "a", "c", "a"])
    groups = jackknife_groups(sources, 2, seed=3)
    again = jackknife_groups(sources[::-1], 2, seed=3)
    np.testing.assert_array_equal(groups[::-1], again)


def test_the_interval_covers():
    """95 % intervals of a variance, a skewed statistic: between 90 and 98 % of 400 samples."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        sample = rng.standard_normal(320)
        groups = np.arange(320) % 32
        left_out = [sample[groups != g].var(ddof=1) for g in range(32)]
        interval = jackknife_interval(sample.var(ddof=1), left_out)
        hits += interval.low <= 1.0 <= interval.high
    assert 0.90 <= hits / 400 <= 0.98
