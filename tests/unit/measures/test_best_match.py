"""Which site matches which, and which could be it as well: against tests of differences by hand, and simulations with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import inscape as ix
from inscape.errors import ResultError
from inscape.measures.best import left_out


def layers(rng: np.random.Generator, n: int = 160, noise: float = 0.5) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Three sites a side; the i-th of one is the i-th of the other with noise."""
    hidden = [rng.standard_normal((n, 4)) for _ in range(3)]

    def side() -> dict[str, np.ndarray]:
        return {f"layers.{i}": Z @ rng.standard_normal((4, 6)) + noise * rng.standard_normal((n, 6)) for i, Z in enumerate(hidden)}

    return side(), side()


def test_candidates_are_those_whose_difference_a_t_test_cannot_tell() -> None:
    a, b = layers(np.random.default_rng(0), noise=3.0)
    result = ix.compare(a, b, "linear_cka_debiased", interval=16)
    found = ix.measures.best_match(result)
    site = "layers.1"
    rows = {row["site_b"]: row for row in result.where(site=site).rows()}
    groups = ix.stats.jackknife_groups(np.arange(160), 16, seed=0)
    without = {other: [ix.measures.linear_cka_debiased(a[site][groups != g], b[other][groups != g]) for g in range(16)] for other in b}
    best = max(rows, key=lambda other: rows[other]["value"])
    head = found.where(site=site, at=None).rows()[0]
    assert head["site_b"] == best and head["value"] == rows[best]["value"] and head["low"] == rows[best]["low"]
    for other in set(b) - {best}:
        row = found.where(site=site, at=other).rows()[0]
        difference = np.array(without[other]) - np.array(without[best])
        error = np.sqrt(15 / 16 * np.sum((difference - difference.mean()) ** 2))
        behind = rows[other]["value"] - rows[best]["value"]
        assert row["value"] == pytest.approx(behind, abs=1e-12)
        assert row["high"] - row["low"] == pytest.approx(2 * stats.t.ppf(0.975, 15) * error, rel=1e-6)
        assert row["p_corrected"] <= min(1.0, 2 * stats.t.sf(-behind / error, 15)) + 1e-9


def test_a_distance_is_best_where_it_is_least() -> None:
    a, b = layers(np.random.default_rng(1))
    found = ix.measures.best_match(ix.compare(a, b, ["procrustes", "linear_cka_debiased"], interval=8))
    for measure, sign in (("procrustes", 1), ("linear_cka_debiased", -1)):
        heads = found.where(measure=measure, at=None).rows()
        assert [row["site_b"] for row in heads] == ["layers.0", "layers.1", "layers.2"]
        assert all(row["reason"] == "no other site is as good" for row in heads)
        assert all(sign * row["value"] > 0 for row in found.where(measure=measure, axis="site").rows())


@pytest.mark.slow
def test_the_candidates_hold_the_best_site_as_often_as_they_claim() -> None:
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shared = rng.standard_normal((120, 3))
        a = {"0": shared + 0.5 * rng.standard_normal((120, 3))}
        # The first partner is the best one by a little; a sample often says otherwise.
        b = {str(i): shared + level * rng.standard_normal((120, 3)) for i, level in enumerate((0.9, 1.0, 1.0))}
        found = ix.measures.best_match(ix.compare(a, b, "linear_cka_debiased", interval=12), level=0.9)
        names = {row["at"] for row in found.rows() if row["at"] is not None and row["p_corrected"] > 0.1}
        held += "0" in names | set(found.where(at=None).column("site_b"))
    assert held >= 48  # 54 expected at least; below 48 has a chance under 1 %


def test_results_without_a_jackknife_say_that_nothing_is_known() -> None:
    a, b = layers(np.random.default_rng(2))
    result = ix.compare(a, b, "linear_cka", interval=None)
    found = ix.measures.best_match(result)
    assert all("unknown" in row["reason"] for row in found.where(at=None).rows())
    assert {row["p_corrected"] for row in found.where(axis="site").rows()} == {None}
    with pytest.raises(ResultError, match="no site has two partners"):
        ix.measures.best_match(ix.compare(a, b, "linear_cka", pairs="diagonal"))
    with pytest.raises(ResultError, match="measure='cka': the result has 'linear_cka'"):
        ix.measures.best_match(result, "cka")


def test_left_out_values_survive_saving_selecting_and_merging(tmp_path) -> None:
    a, b = layers(np.random.default_rng(3))
    first, second = (ix.compare(a, b, name, interval=8) for name in ("linear_cka", "procrustes"))
    loaded = ix.Result.load(first.save(tmp_path / "one"))
    merged = ix.Result.merge([first, second])
    for result in (loaded, first.where(site="layers.1"), merged):
        values = left_out(result, "linear_cka", "X", "Y")["layers.1", "layers.2"]
        np.testing.assert_array_equal(values, left_out(first, "linear_cka", "X", "Y")["layers.1", "layers.2"])
    assert set(ix.measures.best_match(merged).column("measure")) == {"linear_cka", "procrustes"}


def test_the_figure_marks_the_best_and_the_candidates() -> None:
    a, b = layers(np.random.default_rng(4))
    found = ix.measures.best_match(ix.compare(a, b, "linear_cka_debiased", interval=8))
    (ax,) = found.plot().axes
    drawn = {(float(x), float(y)) for line in ax.lines if line.get_marker() == "o" for x, y in line.get_xydata()}
    assert drawn == {(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1", "2"]
