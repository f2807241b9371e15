"""Permutations, p-values and calibration against exact and hand-derived values."""

import numpy as np
import pytest
from scipy import stats as distributions

from inscape.stats import NullTest, exchangeable, maximum_p, permutation_test, permutations


def test_p_counts_the_observed_score_as_one_draw():
    test = permutation_test(2.0, np.array([0.0, 1.0, 2.0, 3.0]), best=5.0)
    assert isinstance(test, NullTest)
    assert test.p == pytest.approx((1 + 2) / 5)  # 2 and 3 are at least as large
    assert test.mean == 1.5


def test_ties_up_to_rounding_count():
    assert permutation_test(1.0, np.array([1.0 - 1e-12]), best=2.0).p == 1.0


def test_a_distance_is_mirrored():
    low = permutation_test(0.1, np.linspace(1, 2, 99), best=0.0, higher=False)
    assert low.p == pytest.approx(0.01)
    assert 0 < low.calibrated <= 1
    assert permutation_test(1.9, np.linspace(1, 2, 99), best=0.0, higher=False).calibrated == 0


def test_calibration_by_hand():
    # 19 nulls 0.00 … 0.18 and the score 0.6: the ⌈.95 · 20⌉ = 19th smallest of the 20 is 0.18.
    test = permutation_test(0.6, np.arange(19) / 100, best=1.0)
    assert test.threshold == pytest.approx(0.18)
    assert test.calibrated == pytest.approx((0.6 - 0.18) / (1 - 0.18))


def test_p_is_uniform_under_the_null():
    rng = np.random.default_rng(0)
    p = []
    for _ in range(500):
        x, y = rng.standard_normal((2, 12))
        null = np.array([np.corrcoef(x, y[order])[0, 1] for order in permutations(np.arange(12), 39, seed=int(rng.integers(1 << 30)))])
        p.append(permutation_test(float(np.corrcoef(x, y)[0, 1]), null, best=1.0).p)
    assert distributions.kstest(np.array(p) - rng.uniform(0, 1 / 40, 500), "uniform").pvalue > 0.01


def test_draws_are_permutations_and_depend_on_seed_and_number_alone():
    first = list(permutations(np.arange(7), 5, seed=2))
    longer = list(permutations(np.arange(7), 9, seed=2))
    for a, b in zip(first, longer, strict=False):
        np.testing.assert_array_equal(a, b)
    assert all(sorted(order) == list(range(7)) for order in longer)
    assert len({tuple(order) for order in longer}) > 5


def test_rows_of_one_source_stay_together_in_order():
    sources = np.array([0, 0, 1, 1, 2, 2])
    for order in permutations(sources, 20, seed=0):
        assert sorted(order) == list(range(6))
        blocks = order.reshape(3, 2)
        assert all(b == a + 1 and a % 2 == 0 for a, b in blocks)


def test_interleaved_sources_move_as_blocks_too():
    sources = np.array([0, 1, 0, 1])
    seen = {tuple(order) for order in permutations(sources, 30, seed=0)}
    assert seen == {(0, 1, 2, 3), (1, 0, 3, 2)}


def test_maximum_p_by_hand():
    null = np.array([[0.1, 0.5], [0.3, 0.2], [0.0, 0.9]])  # maxima 0.5, 0.3, 0.9
    np.testing.assert_allclose(maximum_p(np.array([0.4, 0.95]), null), [3 / 4, 1 / 4])


def test_maximum_p_leaves_undefined_sites_undefined():
    p = maximum_p(np.array([np.nan, 1.0]), np.zeros((3, 2)))
    assert np.isnan(p[0]) and p[1] == 0.25
    assert np.isnan(maximum_p(np.array([np.nan]), np.zeros((3, 1)))).all()


def test_maximum_p_holds_the_family_wise_error():
    rng = np.random.default_rng(1)
    rejected = 0
    for _ in range(300):
        scores, null = rng.standard_normal(8), rng.standard_normal((99, 8))
        rejected += bool((maximum_p(scores, null) <= 0.1).any())
    assert rejected / 300 < 0.15


def test_the_share_of_rows_that_can_move():
    assert exchangeable(np.arange(4)) == 1
    assert exchangeable(np.array([0, 0, 1, 1, 2, 2, 2])) == 4 / 7
    assert exchangeable(np.array([0, 1, 1])) == 0


def test_sources_change_places_with_their_equals_alone():
    sources = np.array([0, 0, 1, 2, 2, 3, 4, 4, 4])
    seen = {tuple(order) for order in permutations(sources, 60, seed=0)}
    stay, first = [6, 7, 8], ([0, 1], [3, 4])
    expected = {(*a, x, *b, y, *stay) for a, b in (first, first[::-1]) for x, y in ((2, 5), (5, 2))}
    assert seen == expected
