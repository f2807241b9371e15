"""Sentences say what the numbers do, and no more than their intervals allow."""

from __future__ import annotations

import math
import re

import pytest
from scipy.stats import spearmanr

from inscape.reporting.words import Point, apart, brief, count, detail, listed, rank_correlation, shape_of, span, tell


def points(values, half=None):
    return [Point(f"s{i}", v, None if half is None else v - half, None if half is None else v + half) for i, v in enumerate(values)]


def plain(html):
    return re.sub(r"<[^>]+>", "", html)


@pytest.mark.parametrize(
    ("values", "half", "kind", "told"),
    [
        (
            [10, 4, 9],
            1,
            "dip",
            "falls from 10.0 [9.0, 11.0] at s0 to 4.0 [3.0, 5.0] at s1, its lowest, and rises again to 9.0 [8.0, 10.0] at s2",
        ),
        (
            [1, 9, 2],
            1,
            "peak",
            "rises from 1.0 [0.0, 2.0] at s0 to 9.0 [8.0, 10.0] at s1, its highest, and falls again to 2.0 [1.0, 3.0] at s2",
        ),
        ([1, 2, 9], 1, "rise", "rises from 1.0 [0.0, 2.0] at s0 to 9.0 [8.0, 10.0] at s2"),
        ([9, 2, 1], None, "fall", "falls from 9.00 at s0 to 1.00 at s2"),
        (
            [5, 5.5, 4.8],
            1,
            "flat",
            "stays between 4.8 [3.8, 5.8] at s2 and 5.5 [4.5, 6.5] at s1, without a change that its intervals would carry",
        ),
        ([5], 1, "single", "is 5.0 [4.0, 6.0] at s0"),
        ([10, 9.5, 4], 1, "fall", "falls from 10.0 [9.0, 11.0] at s0 to 4.0 [3.0, 5.0] at s2"),
    ],
)
def test_a_sequence_is_told_by_its_shape(values, half, kind, told):
    shape = shape_of(points(values, half))
    assert shape.kind == kind
    assert plain(tell(shape)) == told


def test_a_turn_inside_its_interval_is_no_turn():
    assert shape_of(points([10, 8, 9.9], 1.5)).kind == "flat"
    assert shape_of(points([10, 4, 9.9], 1.5)).kind == "dip"


def test_of_two_turns_the_larger_is_told():
    shape = shape_of(points([5, 9, 1, 5], 0.1))
    assert shape.kind in ("peak", "dip") and shape.points[1].value in (9, 1)
    assert shape_of(points([5, 6, 0, 5], 0.1)).kind == "dip"


def test_an_empty_sequence_is_refused():
    with pytest.raises(ValueError, match="an empty sequence has no shape"):
        shape_of([])


def test_apart_needs_intervals_that_do_not_meet_or_a_twentieth():
    assert apart(Point("a", 1, 0.9, 1.1), Point("b", 2, 1.5, 2.5))
    assert not apart(Point("a", 1, 0.5, 1.5), Point("b", 2, 1.4, 2.5))
    assert not apart(Point("a", 1.0), Point("b", 1.04))
    assert apart(Point("a", 1.0), Point("b", 1.1))


def test_excursion_is_relative():
    assert shape_of(points([10, 4, 9], 0.1)).excursion == pytest.approx(0.6)
    assert shape_of(points([5, 5], 1)).excursion == 0.0


def test_a_second_system_is_told_briefly():
    assert brief(shape_of(points([10, 4, 9], 1))) == "10.0 → 4.0 at s1 → 9.0"


def test_the_small_print_has_direction_interval_n_null_and_p():
    row = {"interval_method": "jackknife", "n": 400, "null_mean": 0.02, "p": 0.01, "p_corrected": None}
    assert detail([row], higher="more similar") == "higher: more similar · 95 % interval: jackknife · n = 400 · null 0.020 · p = 0.010"
    assert "jackknife over 32 groups" in detail([row | {"interval_method": "jackknife(32)"}])
    bare = dict.fromkeys(row)
    assert detail([bare]) == "no interval · n = unknown · no null tested"


def test_names_and_counts_read_as_a_person_writes_them():
    assert [listed(list("abcdef"[:k])) for k in (1, 2, 3, 6)] == ["a", "a and b", "a, b and c", "a, b, c and 3 more"]
    assert listed(["GPT, seed 0", "GPT, seed 1", "RNN"]) == "GPT, seed 0; GPT, seed 1 and RNN"
    assert listed(["<b>"]) == "&lt;b&gt;"
    assert [count(1, "site"), count(1089, "pair")] == ["1 site", "1,089 pairs"]
    assert [span([]), span([5, None]), span([1000, 5])] == ["unknown", "5", "5 to 1,000"]


def test_rank_correlation_is_spearmans():
    a, b = [1, 2, 2, 4, 5], [2, 1, 3, 3, 5]
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert math.isnan(rank_correlation([1, 2], [3, 3]))
