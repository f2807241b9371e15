"""Corrections against SciPy and hand-derived values; the bootstrap as weights."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from inscape.stats import benjamini_hochberg, bootstrap_interval, bootstrap_weights, holm


def test_benjamini_hochberg_equals_scipy():
    p = np.random.default_rng(0).uniform(size=30) ** 2
    np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p, method="bh"), rtol=1e-12)


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])


@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
def test_undefined_tests_do_not_count(correct):
    corrected = correct([0.02, np.nan, 0.04])
    np.testing.assert_allclose(corrected[[0, 2]], correct([0.02, 0.04]))
    assert np.isnan(corrected[1])
    assert len(correct([])) == 0


def test_weights_count_draws_of_sources():
    weights = bootstrap_weights(np.array(["a", "a", "b", "c"]), 200, seed=0)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 1])
    np.testing.assert_array_equal(weights[:, 1:].sum(1), 3)  # three sources drawn each time
    assert weights[:, 1].mean() == pytest.approx(1, abs=0.15)


def test_weighted_means_have_the_standard_error_of_the_mean():
    sample = np.random.default_rng(1).standard_normal(60)
    weights = bootstrap_weights(np.arange(60), 4000, seed=2)
    interval = bootstrap_interval((weights @ sample) / 60)
    assert interval.error == pytest.approx(sample.std() / np.sqrt(60), rel=0.05)
    assert interval.method == "bootstrap(4000)"


def test_an_interval_needs_draws():
    with pytest.raises(ValueError, match="at least 2 finite draws, got 0"):
        bootstrap_interval([np.nan])
