"""Names of sites, ticks, nulls and facts."""

from __future__ import annotations

import itertools

import pytest

from inscape.plots.reading import Facts, facts_of, fitting, inside_null, site_labels, spread, thinned


@pytest.mark.parametrize(
    ("sites", "labels", "title"),
    [
        (["embed", "blocks.0.resid_post", "blocks.11.resid_post"], ["embed", "0", "11"], "blocks.*.resid_post"),
        (["blocks.0.mlp_out", "blocks.0.attn_out", "blocks.1.mlp_out"], ["0 mlp_out", "0 attn_out", "1 mlp_out"], "site"),
        (["conv1", "conv2", "fc"], ["1", "2", "fc"], "conv*"),
        (["lstm"], ["lstm"], "site"),
        (["a.1", "b.1", "a.1"], ["a.1", "b.1", "a.1"], "site"),
    ],
)
def test_sites_get_short_names_and_the_title_keeps_the_rest(sites, labels, title):
    assert site_labels(sites) == (labels, title)


def test_ticks_are_thinned_but_keep_both_ends():
    assert thinned(5, 12) == [0, 1, 2, 3, 4]
    assert thinned(33, 9) == [0, 4, 8, 12, 16, 20, 24, 28, 32]
    ticks = thinned(50, 12)
    assert ticks[0] == 0 and ticks[-1] == 49 and len(ticks) <= 12


def test_labels_fit_or_are_left_for_turning():
    assert fitting([str(i) for i in range(6)], 3.0) == [0, 1, 2, 3, 4, 5]
    assert fitting(["embed", *map(str, range(6)), "final_norm"], 2.6) == [0, 1, 2, 3, 4, 5, 7]  # the last number yields to the name
    assert fitting(["a very long name"] * 6, 2.6) == []


def test_labels_are_spread_in_order_and_stay_inside():
    assert spread([0.0, 1.0], 0.5) == [0.0, 1.0]
    moved = spread([0.50, 0.51, 0.52], 0.1)
    assert moved == sorted(moved)
    assert min(b - a for a, b in itertools.pairwise(moved)) == pytest.approx(0.1, abs=1e-3)
    assert max(spread([0.98, 0.99, 1.0], 0.1, 0.0, 1.0)) <= 1.0 + 1e-9
    assert spread([], 1.0) == []


@pytest.mark.parametrize(
    ("row", "inside"),
    [
        ({"p": 0.2}, True),
        ({"p": 0.01}, False),
        ({"p": 0.01, "p_corrected": 0.2}, True),
        ({"null_mean": 0.5, "low": 0.4, "high": 0.6}, True),
        ({"null_mean": 0.5, "low": 0.55, "high": 0.6}, False),
        ({"null_mean": 0.5}, None),
        ({}, None),
    ],
)
def test_the_corrected_p_decides_then_p_then_the_interval(row, inside):
    empty = dict.fromkeys(("p", "p_corrected", "null_mean", "low", "high"))
    assert inside_null(empty | row) is inside


def test_facts_come_from_the_registry_and_survive_an_unknown_measure():
    facts = facts_of("mutual_knn(k=20)")
    assert (facts.name, facts.low, facts.high, facts.higher, facts.known) == ("mutual_knn", 0.0, 1.0, "more similar", True)
    assert facts_of("procrustes").distance
    assert facts_of("somebody_elses") == Facts("somebody_elses")
