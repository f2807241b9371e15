"""Units matched one by one, and what shuffled rows match, against assignments made in the test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import inscape as ix
from inscape.errors import ResultError, StoreMismatchError


def test_a_permuted_copy_by_hand() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 5))
    Y = np.concatenate([X[:, [3, 0, 4]] * [2, 1, 5] + 7, rng.standard_normal((50, 1))], axis=1)
    result = ix.measures.match_units(X, Y)
    partner, r = result.arrays["partner/0"], result.arrays["r/0"]
    assert partner[[3, 0, 4]].tolist() == [0, 1, 2] and r[[3, 0, 4]] == pytest.approx(1)
    assert sorted(partner.tolist()).count(-1) == 1 and np.isnan(r).sum() == 1


def test_means_equal_the_measure_and_chance_an_assignment_of_shuffled_rows() -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((60, 6))
    Y = X @ rng.standard_normal((6, 5)) + rng.standard_normal((60, 5))
    result = ix.measures.match_units(X, Y, draws=5, seed=3)
    row = result.where(measure="neuron_match").rows()[0]
    assert row["value"] == pytest.approx(ix.measures.neuron_match(X, Y), abs=1e-12)
    for order, chance in zip(ix.stats.permutations(np.arange(60), 5, seed=3), result.arrays["chance/0"], strict=True):
        table = np.corrcoef(X.T, Y[order].T)[:6, 6:]
        assert sorted(chance) == pytest.approx(sorted(table[linear_sum_assignment(table, maximize=True)]), abs=1e-10)
    assert row["null_mean"] == pytest.approx(result.arrays["chance/0"].mean())
    share = result.value(measure="units_beyond_chance")
    assert share == np.mean(result.arrays["r/0"][np.isfinite(result.arrays["r/0"])] > np.quantile(result.arrays["chance/0"], 0.95))


def test_units_that_never_change_have_no_partner_and_a_dead_site_has_a_row() -> None:
    rng = np.random.default_rng(2)
    X = rng.standard_normal((40, 4))
    X[:, 1] = 5.0
    result = ix.measures.match_units({"0": X, "1": np.ones((40, 3))}, {"0": X, "1": X})
    assert result.arrays["partner/0"].tolist() == [0, -1, 2, 3]
    rows = {row["site"]: row for row in result.where(measure="neuron_match").rows()}
    assert "2 units that never change" in rows["0"]["reason"] and rows["1"]["status"] == "degenerate"
    with pytest.raises(StoreMismatchError):
        ix.measures.match_units(X, X[:20])


def test_the_figure_has_a_histogram_and_a_curve_for_each_pair(tmp_path) -> None:
    rng = np.random.default_rng(3)
    X = {"a": rng.standard_normal((60, 30)), "b": rng.standard_normal((60, 20))}
    result = ix.Result.load(ix.measures.match_units(X, X, pairs="all", draws=3).save(tmp_path / "units"))
    figure = result.plot()
    drawn = [ax for ax in figure.axes if ax.lines]
    for ax, one in zip(drawn, result.settings["units"], strict=True):
        assert sum(patch.get_height() for patch in ax.patches) == min(X[one["site"]].shape[1], X[one["site_b"]].shape[1])
        assert ax.lines[0].get_ydata().sum() == pytest.approx(min(X[one["site"]].shape[1], X[one["site_b"]].shape[1]))
    with pytest.raises(ResultError, match="no matched units"):
        from inscape.plots import match_histograms

        match_histograms(ix.Result([]))
