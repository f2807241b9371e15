"""Resampling and correction: jackknife, weights, permutation, Holm and Benjamini-Hochberg."""

from inscape.stats.bootstrap import bootstrap_interval, bootstrap_weights
from inscape.stats.correction import benjamini_hochberg, holm
from inscape.stats.jackknife import Interval, jackknife_groups, jackknife_interval
from inscape.stats.permutation import NullTest, exchangeable, maximum_p, permutation_test, permutations

__all__ = [
    "Interval",
    "NullTest",
    "benjamini_hochberg",
    "bootstrap_interval",
    "bootstrap_weights",
    "exchangeable",
    "holm",
    "jackknife_groups",
    "jackknife_interval",
    "maximum_p",
    "permutation_test",
    "permutations",
]
